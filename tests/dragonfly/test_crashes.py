"""The operator dies between any two steps of a job's life: at the end one job was made, and no credentials are left."""

import asyncio
import json
from collections import Counter
from collections.abc import Iterator
from typing import Any

import pytest

from dev.dragonfly.fault_proxy import Fault, FaultProxy, Route
from dev.dragonfly.stack import DragonflyStack
from dev.installation import NAMESPACE, SERVICE_ACCOUNT, OperatorProcess
from modelswarm.api.labels import FINALIZER
from modelswarm.api.p2ptask import P2PTask
from modelswarm.content.endpoints import Endpoints
from modelswarm.controllers.queue import Key
from modelswarm.kube.auth import load_configuration, open_client
from modelswarm.kube.client import KubeClient
from modelswarm.settings import OperatorSettings
from tests.dragonfly.support import Bench, attempts_by_file
from tests.dragonfly.support.mortal import Fate, Habitat
from tests.integration.support.waiting import eventually

TOKEN = "hf_of_the_crash_tests"
SECRET = "modelhub-secret"
WITH_TOKEN: dict[str, Any] = {"credentialsSecretRef": {"name": SECRET}}
STEPS = {"public": 12, "gated": 20}
"""More than a life has; the last ones are never reached, which the test makes sure of."""
START_EVERY = 0.25
"""Seconds from one task to the next: the manager takes ten jobs a second."""


def _prepare(bench: Bench) -> None:
    bench.hub.allow(TOKEN, "org/*")
    bench.secret(SECRET, {"HF_TOKEN": TOKEN})
    bench.dragonfly.wait_preheatable()


async def test_dead_before_any_step_of_a_job_s_life(bench: Bench) -> None:
    """Dying after a step is dying before the next one: what the process knew by then is lost in both cases."""
    _prepare(bench)
    client = open_client(await load_configuration(bench.cluster.service_account_kubeconfig(NAMESPACE, SERVICE_ACCOUNT)))
    settings = OperatorSettings(dragonfly_manager_url=bench.dragonfly.manager_url, dragonfly_allow_gated=True)
    habitat = Habitat(KubeClient(client), settings, Endpoints(huggingface=bench.hub.url))
    plans = [(kind, at) for kind, count in STEPS.items() for at in range(count)]
    uids: dict[tuple[str, int], str] = {}
    for kind, at in plans:
        name = f"crash-{kind}-{at}"
        model = bench.model(name, gated=kind == "gated")
        uids[kind, at] = bench.task(name, model, **(WITH_TOKEN if kind == "gated" else {}))

    async def live(kind: str, at: int) -> Fate:
        await asyncio.sleep(plans.index((kind, at)) * START_EVERY)
        key, fate = Key(NAMESPACE, f"crash-{kind}-{at}"), Fate(at)
        await habitat.live(key, fate, _is_done)
        if fate.dead:
            await habitat.live(key, Fate(), _is_done)
        return fate

    try:
        async with asyncio.timeout(900):
            fates = dict(zip(plans, await asyncio.gather(*(live(*plan) for plan in plans)), strict=True))
    finally:
        await client.close()

    made = Counter((marker.uid, marker.cluster, marker.items) for marker in habitat.made)
    listed = bench.dragonfly.api.jobs(type="preheat")
    for (kind, at), uid in uids.items():
        if bench.lost_seed(f"crash-{kind}-{at}"):
            continue
        what = f"{kind}, dead before step {at} of {fates[kind, at].steps}"
        assert [count for (its, _, _), count in made.items() if its == uid] == [1], what
        left = [job for job in listed if uid in job["bio"]]
        assert len(left) == (0 if kind == "gated" else 1), what
    for kind, count in STEPS.items():
        if bench.lost_seed(f"crash-{kind}-{count - 1}"):
            continue
        assert not fates[kind, count - 1].dead, f"{kind}: a life has more steps: {fates[kind, count - 1].steps}"
        assert {"POST jobs", "GET job", "GET jobs"} <= set(fates[kind, count - 1].steps)
        assert kind == "public" or "DELETE job" in fates[kind, count - 1].steps
    assert TOKEN not in json.dumps(listed)


def _is_done(task: P2PTask) -> bool:
    books = task.status.dragonfly
    return books is not None and books.complete and FINALIZER not in task.metadata.finalizers


@pytest.fixture
def proxy(dragonfly: DragonflyStack) -> Iterator[FaultProxy]:
    with FaultProxy(dragonfly.manager_url) as running:
        yield running


def test_the_operator_process_killed_around_the_requests_that_change_something(bench: Bench, proxy: FaultProxy) -> None:
    """SIGKILL when the request is on its way, and when its answer is. Another task is at work beside it."""
    _prepare(bench)
    current: list[OperatorProcess] = []
    deaths: list[str] = []

    def death(route: Route, moment: str) -> Fault:
        def die() -> None:
            deaths.append(f"{moment} {route}")
            current[-1].kill()

        if moment == "before":
            return Fault(forward=False, cut=True, before=die)
        return Fault(cut=True, after=die)

    expected: list[str] = []
    for route in (Route.SUBMIT, Route.DELETE):
        for moment in ("before", "after"):
            proxy.fail(route, death(route, moment), mentions="org/killed/", times=1)
            expected.append(f"{moment} {route}")
    model, beside = bench.model("killed", gated=True), bench.model("beside")
    bench.task("killed", model, **WITH_TOKEN)
    bench.task("beside", beside)

    def alive() -> OperatorProcess:
        if not current or not current[-1].child.running:
            current.append(bench.operator(manager_url=proxy.url, asks_seeds=True, DRAGONFLY_ALLOW_GATED="true"))
            current[-1].start()
        return current[-1]

    def is_over() -> bool:
        alive()
        tasks = [P2PTask.model_validate(bench.get(name)) for name in ("killed", "beside")]
        return all(_is_done(task) for task in tasks)

    try:
        eventually(is_over, 180, every=0.2)
    finally:
        for operator in current:
            operator.kill()
    assert deaths == expected
    for name, id_ in (("killed", model), ("beside", beside)):
        assert len(proxy.made(mentions=id_)) == 1 or bench.lost_seed(name)
    assert bench.jobs("killed") == [], "what held a token is gone"
    assert set(attempts_by_file(bench.jobs("beside")).values()) == {1}
