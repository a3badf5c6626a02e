"""What the engine asks of the real Dragonfly beside jobs, and what it makes of the answers."""

import asyncio
import json
import time
from collections.abc import Awaitable, Callable
from datetime import UTC, datetime
from random import Random
from typing import TypeVar

import httpx
import pytest
from dragonfly_api.dfdaemon_pb2 import DeleteTaskRequest

from dev.dragonfly.stack import DragonflyStack
from dev.hub import Hub
from dev.installation import NAMESPACE
from modelswarm.backends.dragonfly.client import ManagerClient
from modelswarm.backends.dragonfly.marker import PROBE
from modelswarm.backends.dragonfly.reasons import DragonflyError, DragonflyReason
from modelswarm.backends.dragonfly.requests import SECOND, GetTask, Preheat, PreheatArgs
from modelswarm.backends.dragonfly.seeds import Seeds
from modelswarm.backends.dragonfly.taskid import url_task_id
from modelswarm.backends.dragonfly.upkeep import Upkeep
from modelswarm.backends.dragonfly.wire import GrpcWire, Unanswered
from tests.dragonfly.conftest import MODEL
from tests.dragonfly.support import Bench
from tests.dragonfly.support.jobs import is_seedless
from tests.integration.support.objects import p2p_task
from tests.integration.support.waiting import eventually

T = TypeVar("T")
HUB_TOKEN = "hf_planted-in-the-secret"
HUB_SECRET = "modelhub-secret"


def asked_of_manager(
    dragonfly: DragonflyStack, ask: Callable[[ManagerClient], Awaitable[T]], *, token: str | None = None
) -> T:
    """What ``ask`` gets, with a client as the operator has it."""

    async def read_token() -> str:
        return token or dragonfly.token

    async def run() -> T:
        async with httpx.AsyncClient(trust_env=False) as http:
            return await ask(ManagerClient(http, dragonfly.manager_url, read_token))

    return asyncio.run(run())


def asked_of_seeds(dragonfly: DragonflyStack, ask: Callable[[GrpcWire], Awaitable[T]]) -> T:
    """Raises LookupError where nobody answered in time, so that ``eventually`` asks again."""

    async def run() -> T:
        wire = GrpcWire()
        try:
            return await ask(wire)
        except Unanswered as error:
            raise LookupError(str(error)) from error
        finally:
            await wire.close()

    return asyncio.run(run())


def holds(dragonfly: DragonflyStack, task_id: str) -> bool | None:
    schedulers = {1: dragonfly.scheduler_address}
    return asked_of_seeds(dragonfly, lambda wire: Seeds(schedulers, wire).holds(1, task_id))


def told(dragonfly: DragonflyStack, task_id: str) -> bool:
    """The first answer; a seed that is too busy gives none."""
    return eventually(lambda: [held for held in [holds(dragonfly, task_id)] if held is not None])[0]


def evict(dragonfly: DragonflyStack, task_id: str) -> None:
    """What the seed's own garbage collection does when the disk is full."""
    request = DeleteTaskRequest(task_id=task_id).SerializeToString()

    async def delete(wire: GrpcWire) -> bool:
        [seed] = await wire.seeds(dragonfly.scheduler_address)
        await wire._ask(seed, "/dfdaemon.v2.DfdaemonUpload/DeleteTask", request)
        return True

    eventually(lambda: asked_of_seeds(dragonfly, delete), 30)


# Seed peers, asked themselves


def test_the_scheduler_names_the_seeds_and_not_the_nodes(dragonfly: DragonflyStack) -> None:
    seeds = eventually(lambda: asked_of_seeds(dragonfly, lambda wire: wire.seeds(dragonfly.scheduler_address)), 30)
    assert [seed.rpartition(":")[0] for seed in seeds] == [seed.address for seed in dragonfly.seeds]


@pytest.mark.parametrize("names", [{}, {"tag": "v1", "application": "quick"}], ids=["plain", "tag and application"])
def test_a_seed_has_a_file_long_before_the_manager_says_so(
    dragonfly: DragonflyStack, origin: Hub, names: dict[str, str]
) -> None:
    path = next(path for path, blob in origin.repositories[MODEL].get("main").files.items() if blob.size > 4 << 20)
    url = f"{origin.url}/{MODEL}/resolve/main/{path}?quick={len(names)}"
    task_id = url_task_id(url, **names)
    dragonfly.wait_preheatable()
    assert told(dragonfly, task_id) is False
    began = time.monotonic()
    job = dragonfly.api.preheat([url], **names)

    def is_held() -> bool:
        nonlocal job, began
        if is_seedless(dragonfly.api.job(job["id"])):
            began, job = time.monotonic(), dragonfly.api.preheat([url], **names)
        return holds(dragonfly, task_id) is True

    eventually(is_held, 25, every=0.5)
    # Its first look comes a moment after the job is made, and the second half a minute later.
    state = dragonfly.api.job(job["id"])["state"]
    assert state == "PENDING" or time.monotonic() - began > 10
    assert told(dragonfly, url_task_id(url, tag="another")) is False
    evict(dragonfly, task_id)
    eventually(lambda: holds(dragonfly, task_id) is False, 10)


def test_a_file_that_only_a_node_has_is_on_no_seed(
    dragonfly: DragonflyStack, origin: Hub, tmp_path_factory: pytest.TempPathFactory
) -> None:
    """The origin's own files of at most 4 MiB go to nodes without a seed peer."""
    path = next(path for path, blob in origin.repositories[MODEL].get("main").files.items() if blob.size < 4 << 20)
    url = f"{origin.url}/{MODEL}/resolve/main/{path}?node=1"
    assert dragonfly.dfget(0, url, tmp_path_factory.mktemp("node") / "out").succeeded
    assert told(dragonfly, url_task_id(url)) is False


def test_a_scheduler_that_is_gone_answers_nothing(dragonfly: DragonflyStack) -> None:
    nobody = {1: dragonfly.scheduler_address.rpartition(":")[0] + ":1"}
    assert asked_of_seeds(dragonfly, lambda wire: Seeds(nobody, wire).holds(1, "0" * 64)) is None


# The manager


def request_for(*clusters: int, **args: object) -> Preheat:
    body = {"type": "file", "urls": ("http://127.0.0.1:1/nothing",), "timeout": 60 * SECOND, **args}
    return Preheat(bio="answers", scheduler_cluster_ids=clusters, args=PreheatArgs.model_validate(body))


@pytest.mark.parametrize(
    ("request_", "token", "reason"),
    [
        pytest.param(request_for(1), "wrong", DragonflyReason.UNAUTHORIZED, id="a token that nobody knows"),
        pytest.param(request_for(99), None, DragonflyReason.RATE_LIMITED, id="a cluster that does not exist"),
        pytest.param(
            request_for(1, type="image", urls=None, url="http://127.0.0.1:1/v2/a/b/manifests/latest"),
            None,
            DragonflyReason.REFUSED,
            id="a registry on loopback",
        ),
    ],
)
def test_what_the_manager_refuses_has_a_typed_reason(
    dragonfly: DragonflyStack, request_: Preheat, token: str | None, reason: DragonflyReason
) -> None:
    with pytest.raises(DragonflyError) as raised:
        asked_of_manager(dragonfly, lambda client: client.submit(request_), token=token)
    assert raised.value.reason == reason


def test_a_job_that_nobody_made_is_none(dragonfly: DragonflyStack) -> None:
    assert asked_of_manager(dragonfly, lambda client: client.job(999_999)) is None


def test_without_a_scheduler_the_manager_says_so(dragonfly: DragonflyStack) -> None:
    dragonfly.kill_scheduler()
    try:
        with pytest.raises(DragonflyError) as raised:
            asked_of_manager(dragonfly, lambda client: client.submit(request_for(1)))
        assert raised.value.reason == DragonflyReason.NO_SCHEDULER
        assert holds(dragonfly, "0" * 64) is None
    finally:
        dragonfly.start_scheduler()


def test_whether_a_manager_knows_digests_is_found_out_without_a_download(dragonfly: DragonflyStack) -> None:
    """This one (v2.5.1) does not. The job that asks can be done by nobody, and is removed at once."""
    before = dragonfly.seeds[0].tasks()

    async def ask(client: ManagerClient) -> tuple[bool, float | None]:
        upkeep = Upkeep(client, Seeds({}, GrpcWire()), 60.0, Random(1))
        return await upkeep.knows_digests(1, datetime.now(UTC))

    able, wait = asked_of_manager(dragonfly, ask)
    assert not able
    assert wait is not None
    assert not [job for job in dragonfly.api.jobs() if job["bio"].startswith(PROBE)]
    assert dragonfly.seeds[0].tasks() == before


def test_a_get_task_finds_who_has_it_and_who_has_not(dragonfly: DragonflyStack) -> None:
    question = GetTask(bio=f"{PROBE}/test", scheduler_cluster_ids=(1,), task_id="0" * 64)
    job = asked_of_manager(dragonfly, lambda client: client.submit(question))
    assert (job.state, job.clusters) == ("PENDING", [])
    asked_of_manager(dragonfly, lambda client: client.delete(job.id))
    assert asked_of_manager(dragonfly, lambda client: client.job(job.id)) is None


# The operator


def auto(bench: Bench, name: str, model: str) -> None:
    """A task that leaves the engine to the operator and names the Secret, as the model controller makes them."""
    task = p2p_task(name, model, engine="Auto", credentialsSecretRef={"name": HUB_SECRET})
    task["metadata"]["namespace"] = NAMESPACE
    bench.api.apply(task)


def quickly(bench: Bench) -> dict[str, str]:
    return {
        "ENGINE": "Auto",
        "DRAGONFLY_SCHEDULERS": f"1={bench.dragonfly.scheduler_address}",
        "DRAGONFLY_CHECK_SECONDS": "2",
    }


def test_public_models_go_through_dragonfly_although_there_is_a_token_and_gated_ones_do_not(bench: Bench) -> None:
    public, gated = bench.model("public", size=6 << 20), bench.model("gated", size=6 << 20, gated=True)
    bench.hub.allow(HUB_TOKEN, gated)
    bench.secret(HUB_SECRET, {"HF_TOKEN": HUB_TOKEN})
    bench.dragonfly.wait_preheatable()
    with bench.operator(**quickly(bench)) as operator:
        operator.wait_leading()
        auto(bench, "public", public)
        auto(bench, "gated", gated)
        bench.wait("gated", "True", "NothingToDistribute")
        bench.wait_distributed("public")
        status = bench.status("public")
        assert (status["engine"], status["resolved"]["public"]) == ("Dragonfly", True)
        # Quicker than the manager, unless this machine is so busy that the seed did not answer in three seconds.
        too_busy = "seed peers cannot be asked" in operator.child.log.read_text()
        assert [job["state"] for job in status["dragonfly"]["jobs"]] == ["CONFIRMED"] or too_busy
        status = bench.status("gated")
        assert (status["engine"], status["resolved"]["public"]) == ("Direct", False)
        assert HUB_TOKEN not in json.dumps(bench.dragonfly.api.jobs())
    assert HUB_TOKEN not in operator.child.log.read_text()


def test_what_a_seed_evicts_is_noticed_and_brought_again(bench: Bench) -> None:
    model = bench.model("evicted", size=6 << 20)
    bench.dragonfly.wait_preheatable()
    with bench.operator(**quickly(bench)) as operator:
        operator.wait_leading()
        bench.task("evicted", model)
        bench.wait_distributed("evicted")
        read = bench.hub.counters.total().content
        [example] = [each for each in bench.status("evicted")["dragonfly"]["examples"] if "safetensors" in each["name"]]
        evict(bench.dragonfly, example["id"])
        # Two looks at it; each is a job of the manager if the seed was too busy to answer at once.
        eventually(lambda: bench.status("evicted")["dragonfly"].get("renewals"), 240, every=0.2)
        bench.wait_distributed("evicted")
        assert told(bench.dragonfly, example["id"])
        assert bench.hub.counters.total().content - read >= 6 << 20
        status = bench.status("evicted")
        assert (status["attempts"], status["phase"]) == (0, "Succeeded")
