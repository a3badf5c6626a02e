"""A task that goes: its engine gives back what it holds, and does not hold it up for ever."""

import asyncio
from collections.abc import Sequence
from datetime import UTC, datetime

import httpx
import pytest

from modelswarm.api.labels import FINALIZER
from modelswarm.api.meta import JsonObject
from modelswarm.api.p2ptask import Engine, P2PTask
from modelswarm.backends.engine import EngineState, ManifestReader, Observation
from modelswarm.content.credentials import Credentials
from modelswarm.content.endpoints import Endpoints
from modelswarm.content.resolve import Resolver
from modelswarm.controllers.p2ptask import GIVE_UP_RELEASE, TaskController
from modelswarm.controllers.pinning import PinJobs, Pinner
from modelswarm.controllers.queue import Key
from modelswarm.controllers.runner import Controller
from modelswarm.errors import EngineError
from modelswarm.kube.kinds import P2PTASK, Kind
from modelswarm.kube.objects import metadata
from tests.unit.controllers.fake_kube import FakeKube, watch, world
from tests.unit.controllers.objects import NOW, task

KEY = Key("llmaz-system", "task")


class Patched(FakeKube):
    """Carries out the one patch of this controller: the finalizers."""

    def __init__(self) -> None:
        super().__init__()
        self.patched = asyncio.Event()

    async def json_patch(
        self,
        kind: Kind,
        name: str,
        namespace: str | None,
        operations: Sequence[JsonObject],
        *,
        subresource: str | None = None,
    ) -> JsonObject:
        self.patched.set()
        found = self.objects[kind, Key(namespace or "", name)]
        return self.put({**found, "metadata": {**metadata(found), "finalizers": operations[1]["value"]}})


class Engines:
    """An engine that gives back what it holds after so many seconds, or fails then."""

    name = Engine.DRAGONFLY

    def __init__(self, seconds: float, error: Exception | None = None) -> None:
        self.seconds = seconds
        self.error = error
        self.released = 0

    def serves(self, task: P2PTask) -> bool | None:
        return True

    async def ensure(self, task: P2PTask, manifest: ManifestReader, credentials: Credentials | None) -> Observation:
        return Observation(EngineState.RUNNING, "Running", "at it")

    async def release(self, task: P2PTask) -> None:
        await asyncio.sleep(self.seconds)
        if self.error is not None:
            raise self.error
        self.released += 1


async def seconds_until_it_may_go(engine: Engines) -> float:
    """Run the controller as the operator does until the finalizer is gone."""
    loop = asyncio.get_running_loop()
    began = loop.time()
    kube = Patched()
    known = task(engine="Dragonfly").to_json()
    known["metadata"] |= {  # type: ignore[operator]
        "finalizers": [FINALIZER],
        "deletionTimestamp": NOW.isoformat(),
    }
    kube.put({**known, "apiVersion": "llmaz.io/v1alpha1", "kind": "P2PTask"})
    of = world(kube)
    of.clock = lambda: datetime.fromtimestamp(NOW.timestamp() + loop.time() - began, UTC)
    watch(of, P2PTASK)

    async def never(known: P2PTask) -> None:
        raise AssertionError("what goes is not pinned")

    jobs = PinJobs(never, lambda key: None)  # type: ignore[arg-type]
    pinner = Pinner(of, Resolver(httpx.AsyncClient(), Endpoints()))
    controller = Controller("p2ptask", TaskController(of, [engine], pinner, jobs).reconcile, workers=1)
    running = asyncio.create_task(controller.run())
    controller.queue.add(KEY)
    async with asyncio.timeout(600):
        await kube.patched.wait()
    controller.stop()
    await running
    assert metadata(kube.objects[P2PTASK, KEY])["finalizers"] == []
    return loop.time() - began


@pytest.mark.looptime
async def test_what_an_engine_gives_back_in_time_is_given_back() -> None:
    engine = Engines(20)
    assert await seconds_until_it_may_go(engine) < 22
    assert engine.released == 1


@pytest.mark.looptime
@pytest.mark.parametrize(
    "engine",
    [
        pytest.param(
            Engines(0, EngineError("EngineUnavailable", "the manager does not answer")),
            id="an engine that cannot be asked",
        ),
        pytest.param(Engines(90), id="an engine that answers too slowly"),
        pytest.param(
            Engines(45, EngineError("EngineUnavailable", "the manager does not answer")),
            id="an engine that is slow to fail",
        ),
    ],
)
async def test_a_task_goes_even_if_its_engine_gives_nothing_back(engine: Engines) -> None:
    assert GIVE_UP_RELEASE <= await seconds_until_it_may_go(engine) < GIVE_UP_RELEASE + 40
    assert engine.released == 0
