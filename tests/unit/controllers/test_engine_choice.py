"""Which engine ``Auto`` takes, and when: some engines cannot say before they know what the content is."""

import asyncio
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import httpx
import pytest

from modelswarm.api.conditions import find, is_true
from modelswarm.api.meta import JsonObject
from modelswarm.api.p2ptask import Engine, P2PTask
from modelswarm.backends.direct import Direct
from modelswarm.backends.engine import EngineState, ManifestReader, Observation
from modelswarm.content.credentials import Credentials
from modelswarm.content.endpoints import Endpoints
from modelswarm.content.resolve import Resolver
from modelswarm.controllers.p2ptask import TaskController
from modelswarm.controllers.pinning import Pin, PinJobs, Pinner
from modelswarm.controllers.queue import Key
from modelswarm.engines import engines
from modelswarm.errors import SourceUnavailable
from modelswarm.kube.kinds import P2PTASK
from modelswarm.kube.objects import metadata
from tests.unit.controllers.fake_kube import FakeKube, watch, world
from tests.unit.controllers.objects import IMAGE, PIN, task

KEY = Key("llmaz-system", "task")


class Statuses(FakeKube):
    """Keeps the status that is applied."""

    async def apply_status(self, obj: JsonObject) -> JsonObject:
        key = (P2PTASK, Key(KEY.namespace, str(metadata(obj)["name"])))
        return self.put({**self.objects[key], "status": obj["status"]})


@dataclass
class Fussy:
    """An engine that is asked what it serves, and remembers what it got to do it with."""

    serves_it: Callable[[P2PTask], bool | None]
    name: Engine = Engine.DRAGONFLY
    credentials: list[Credentials | None] = field(default_factory=list)

    def serves(self, task: P2PTask) -> bool | None:
        return self.serves_it(task)

    async def ensure(self, task: P2PTask, manifest: ManifestReader, credentials: Credentials | None) -> Observation:
        self.credentials.append(credentials)
        return Observation(EngineState.RUNNING, "Running", "at it", desired=1, total_bytes=1)

    async def release(self, task: P2PTask) -> None: ...


def pin(public: bool | None) -> Pin:
    return Pin(PIN.resolved.model_copy(update={"public": public}), None)


class Scene:
    """``outcome`` is what pinning ends with; None: it does not end."""

    def __init__(self, fussy: Fussy, known: P2PTask, outcome: Pin | Exception | None) -> None:
        self.kube = Statuses()
        self.kube.put({**known.to_json(), "apiVersion": "llmaz.io/v1alpha1", "kind": "P2PTask"})
        self.world = world(self.kube)
        watch(self.world, P2PTASK)
        self.outcome = outcome

        async def work(known: P2PTask) -> Pin:
            if self.outcome is None:
                await asyncio.Event().wait()
            if isinstance(self.outcome, Exception):
                raise self.outcome
            assert self.outcome is not None
            return self.outcome

        self.ended = asyncio.Event()
        self.jobs = PinJobs(work, lambda key: self.ended.set())
        pinner = Pinner(self.world, Resolver(httpx.AsyncClient(), Endpoints()))
        self.controller = TaskController(self.world, [fussy, Direct()], pinner, self.jobs)

    async def reconcile(self) -> P2PTask:
        await self.controller.reconcile(KEY)
        known = self.world.task(KEY.namespace, KEY.name)
        assert known is not None
        return known

    async def until_pinning_ended(self) -> P2PTask:
        await self.reconcile()
        await self.ended.wait()
        return await self.reconcile()


def once_pinned(known: P2PTask) -> bool | None:
    return None if known.status.resolved is None else known.status.resolved.public


async def test_the_choice_waits_for_what_pinning_finds_out() -> None:
    scene = Scene(Fussy(once_pinned), task(), SourceUnavailable("503"))
    waiting = await scene.until_pinning_ended()
    assert waiting.status.engine is None
    accepted = find(waiting.status.conditions, "Accepted")
    assert accepted is not None
    assert (accepted.status, accepted.message) == ("True", "The engine is chosen when it is resolved")


@pytest.mark.parametrize(
    ("public", "engine"),
    [
        pytest.param(True, Engine.DRAGONFLY, id="public"),
        pytest.param(False, Engine.DIRECT, id="gated"),
    ],
)
async def test_it_is_made_in_the_pass_that_learns_of_the_pin_and_stays(public: bool, engine: Engine) -> None:
    fussy = Fussy(once_pinned)
    scene = Scene(fussy, task(), pin(public))
    assert (await scene.until_pinning_ended()).status.engine is engine
    fussy.serves_it = lambda known: not public
    assert (await scene.reconcile()).status.engine is engine, "chosen once"


async def test_an_engine_that_knows_at_once_is_named_at_once() -> None:
    scene = Scene(Fussy(lambda known: True), task(), SourceUnavailable("503"))
    assert (await scene.until_pinning_ended()).status.engine is Engine.DRAGONFLY


@pytest.mark.parametrize(
    ("public", "state"),
    [
        pytest.param(True, "Running", id="public content needs no Secret, not even one that is there"),
        pytest.param(False, "CredentialNotFound", id="gated content needs it"),
    ],
)
async def test_the_secret_is_read_only_for_what_needs_it(public: bool, state: str) -> None:
    fussy = Fussy(lambda known: True)
    scene = Scene(fussy, task(credentialsSecretRef={"name": "missing"}), pin(public))
    known = await scene.until_pinning_ended()
    ready = find(known.status.conditions, "Ready")
    assert ready is not None
    assert ready.reason == state
    assert fussy.credentials == ([None] if public else [])


@pytest.mark.parametrize(
    ("spec", "public", "gated", "served"),
    [
        pytest.param({}, None, False, True, id="no token: served without asking"),
        pytest.param({"credentialsSecretRef": {"name": "s"}}, "unpinned", False, None, id="with one: after pinning"),
        pytest.param({"credentialsSecretRef": {"name": "s"}}, True, False, True, id="public, although with a token"),
        pytest.param({"credentialsSecretRef": {"name": "s"}}, False, False, False, id="gated"),
        pytest.param({"credentialsSecretRef": {"name": "s"}}, None, False, False, id="nobody knows: as if gated"),
        pytest.param({"credentialsSecretRef": {"name": "s"}}, "unpinned", True, True, id="all may go through it"),
        pytest.param({**IMAGE}, None, False, True, id="an image"),
    ],
)
async def test_what_dragonfly_serves(spec: dict[str, Any], public: Any, gated: bool, served: bool | None) -> None:
    known = task(**spec)
    if public != "unpinned":
        known = known.model_copy(update={"status": known.status.model_copy(update={"resolved": pin(public).resolved})})
    scene = world(FakeKube(), dragonfly_manager_url="http://manager:8080", dragonfly_allow_gated=gated)
    async with httpx.AsyncClient() as http:
        dragonfly = engines(scene, http, Endpoints(), Resolver(http, Endpoints()))[0]
    assert dragonfly.name is Engine.DRAGONFLY
    assert dragonfly.serves(known) is served


@pytest.mark.looptime
async def test_an_image_that_no_engine_brings_is_not_waited_for_when_its_registry_does_not_answer() -> None:
    scene = Scene(Fussy(lambda known: False), task(**IMAGE), None)
    began = asyncio.get_running_loop().time()
    while not is_true((known := await scene.reconcile()).status.conditions, "Ready"):
        again = (await scene.controller.reconcile(KEY)).requeue_after
        assert again is not None, "nothing else would wake it"
        await asyncio.sleep(again)
    patience = scene.world.settings.image_patience_seconds
    assert patience <= asyncio.get_running_loop().time() - began <= patience + 1
    assert known.status.engine is Engine.DIRECT
    await scene.jobs.stop()
