"""Our own lists never overtake one another, and who hears of a Deployment."""

import asyncio
import logging

import pytest

from modelswarm.api.labels import MODEL_NAME, TASKS
from modelswarm.api.meta import JsonObject
from modelswarm.controllers import watching
from modelswarm.controllers.queue import Key, WorkQueue
from modelswarm.controllers.watching import Lists, wake
from modelswarm.errors import Unavailable
from modelswarm.kube.kinds import DEPLOYMENT, OPENMODEL, P2PTASK, Kind
from modelswarm.kube.port import Listing
from modelswarm.kube.store import Store
from tests.unit.controllers.fake_kube import FakeKube


def obj(kind: Kind, name: str, version: int = 1, **metadata: object) -> JsonObject:
    return {
        "apiVersion": f"{kind.group}/{kind.version}",
        "kind": kind.kind,
        "metadata": {"name": name, "uid": f"uid-{name}", "resourceVersion": str(version), **metadata},
    }


class SlowKube(FakeKube):
    """Lists what was there when it was asked; ``hold`` keeps the answer of the next list back."""

    def __init__(self) -> None:
        super().__init__()
        self.asked = 0
        self.hold: asyncio.Event | None = None
        self.failing = 0

    async def list(
        self,
        kind: Kind,
        namespace: str | None = None,
        *,
        label_selector: str | None = None,
        field_selector: str | None = None,
        metadata_only: bool = False,
    ) -> Listing:
        self.asked += 1
        hold, self.hold = self.hold, None
        listing = await super().list(kind)
        if hold is not None:
            await hold.wait()
        if self.failing:
            self.failing -= 1
            raise Unavailable("no answer")
        return listing


def names(store: Store) -> list[str]:
    return [key.name for key in store.keys(OPENMODEL)]


class Scene:
    def __init__(self) -> None:
        self.kube, self.store = SlowKube(), Store()
        watching.add_indexes(self.store)
        self.lists = Lists(self.kube, self.store)
        self.kube.put(obj(OPENMODEL, "a"))

    async def stalled(self) -> tuple[asyncio.Event, "asyncio.Task[None]"]:
        """A refresh whose list is on its way, until the event is set."""
        hold = self.kube.hold = asyncio.Event()
        first = asyncio.create_task(self.lists.refresh(OPENMODEL))
        await asyncio.sleep(1)
        return hold, first


@pytest.mark.looptime
async def test_a_list_that_stalls_does_not_roll_back_what_a_later_one_has_told(
    caplog: pytest.LogCaptureFixture,
) -> None:
    scene = Scene()
    hold, first = await scene.stalled()
    scene.kube.put(obj(OPENMODEL, "b"))
    second = asyncio.create_task(scene.lists.refresh(OPENMODEL))
    await asyncio.sleep(5)
    hold.set()
    with caplog.at_level(logging.WARNING):
        await asyncio.gather(first, second)
    assert names(scene.store) == ["a", "b"]
    assert "history went back" not in caplog.text


@pytest.mark.looptime
async def test_refreshes_that_have_waited_for_one_list_share_the_next() -> None:
    scene = Scene()
    hold, first = await scene.stalled()
    waiting = [asyncio.create_task(scene.lists.refresh(OPENMODEL)) for _ in range(20)]
    await asyncio.sleep(1)
    hold.set()
    await asyncio.gather(first, *waiting)
    assert scene.kube.asked == 2
    await scene.lists.refresh(OPENMODEL)
    assert scene.kube.asked == 3, "who asks later gets a list of his own"


@pytest.mark.looptime
async def test_a_list_that_failed_does_for_nobody() -> None:
    scene = Scene()
    hold, first = await scene.stalled()
    waiting = [asyncio.create_task(scene.lists.refresh(OPENMODEL)) for _ in range(3)]
    await asyncio.sleep(1)
    scene.kube.failing = 2
    hold.set()
    results = await asyncio.gather(first, *waiting, return_exceptions=True)
    assert [type(result) for result in results] == [Unavailable, Unavailable, type(None), type(None)]
    assert scene.kube.asked == 3
    assert names(scene.store) == ["a"]


@pytest.mark.looptime
async def test_kinds_do_not_wait_for_one_another() -> None:
    scene = Scene()
    hold, first = await scene.stalled()
    async with asyncio.timeout(5):
        await scene.lists.refresh(P2PTASK)
    hold.set()
    await first


@pytest.mark.looptime
async def test_a_refresh_that_is_cut_off_lets_the_next_one_in() -> None:
    scene = Scene()
    _, first = await scene.stalled()
    first.cancel()
    await asyncio.gather(first, return_exceptions=True)
    async with asyncio.timeout(5):
        await scene.lists.refresh(OPENMODEL)
    assert names(scene.store) == ["a"]


def owned(name: str, kind: Kind, owner: str) -> JsonObject:
    reference = {
        "apiVersion": f"{kind.group}/{kind.version}",
        "kind": kind.kind,
        "name": owner,
        "uid": f"uid-{owner}",
        "controller": True,
    }
    return obj(P2PTASK, name, namespace="llmaz-system", ownerReferences=[reference])


@pytest.mark.parametrize(
    ("tasks", "woken"),
    [
        pytest.param("main-1,draft-2", ["draft", "main"], id="of the main and the draft model"),
        pytest.param("main-1,gone-7", ["main"], id="a task that is not there any more"),
        pytest.param("by-hand", ["main"], id="a task of no model"),
        pytest.param("", ["main"], id="nothing is distributed"),
    ],
)
async def test_every_model_of_a_deployment_hears_of_it(tasks: str, woken: list[str]) -> None:
    store, model = Store(), WorkQueue()
    watching.add_indexes(store)
    for task in (owned("main-1", OPENMODEL, "main"), owned("draft-2", OPENMODEL, "draft"), obj(P2PTASK, "by-hand")):
        store.put(P2PTASK, task)
    routes = watching.watches(store, model, WorkQueue(), WorkQueue())
    deployment = obj(
        DEPLOYMENT, "p", namespace="default", labels={MODEL_NAME: "main"}, annotations={TASKS: tasks} if tasks else {}
    )
    wake(routes, DEPLOYMENT, deployment)
    heard: list[Key] = []
    while len(model):
        key = await model.get()
        assert key is not None
        heard.append(key)
    assert sorted(key.name for key in heard) == woken
