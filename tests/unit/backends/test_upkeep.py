"""What happens after Ready: eviction is noticed, and an upgraded manager too."""

from collections.abc import Callable
from dataclasses import replace

import httpx
import pytest

from modelswarm.backends.dragonfly.reasons import DragonflyReason
from modelswarm.backends.dragonfly.settings import DragonflySettings
from modelswarm.backends.engine import EngineState, Observation
from tests.unit.backends.fake_manager import URL
from tests.unit.backends.scene import Scene, image_scene

pytestmark = pytest.mark.looptime
PERIOD = 1800.0
DIRECTLY = replace(DragonflySettings(URL), schedulers={1: "scheduler:8002"}, check_seconds=PERIOD)
BY_MANAGER = replace(DragonflySettings(URL), check_seconds=PERIOD)
both = pytest.mark.parametrize("settings", [DIRECTLY, BY_MANAGER], ids=["by seed peers", "by the manager"])


async def complete(settings: DragonflySettings) -> Scene:
    scene = Scene(settings=settings)
    await scene.run()
    assert scene.status.complete
    return scene


def evict(scene: Scene) -> None:
    """All of it, and the jobs that would say it is still there."""
    scene.manager.cached.clear()
    scene.manager.jobs.clear()


async def until(scene: Scene, seconds: float, *, complete: bool) -> Observation:
    end = scene.now.timestamp() + seconds
    while True:
        observation = await scene.step()
        if scene.status.complete is complete:
            return observation
        scene.later(observation.poll_after or 10.0)
        assert scene.now.timestamp() < end


@both
async def test_what_was_evicted_is_noticed_within_the_period_and_brought_again(settings: DragonflySettings) -> None:
    scene = await complete(settings)
    first = len(scene.manager.made)
    evict(scene)
    observation = await until(scene, 1.1 * PERIOD + 300, complete=False)
    assert (observation.state, observation.ready, observation.desired) == (EngineState.RUNNING, 0, 1)
    last = await until(scene, 120, complete=True)
    assert (last.state, last.ready, last.attempts) == (EngineState.READY, 1, 0)
    assert (scene.status.renewals, scene.status.failed_attempts) == (1, 0)
    assert len(scene.manager.made) == first + 1
    serials = [record.body["bio"].split("/")[4] for record in scene.manager.made]
    assert serials == ["n1", "n2"]


@both
async def test_what_is_there_is_looked_at_once_in_a_period_and_nothing_is_written(settings: DragonflySettings) -> None:
    scene = await complete(settings)
    status, before, questions = scene.status, len(scene.manager.requests), scene.wire.questions
    end = scene.now.timestamp() + 10 * PERIOD
    while scene.now.timestamp() < end:
        observation = await scene.step()
        assert observation.poll_after is not None
        scene.later(observation.poll_after)
    assert scene.status == status
    looks = (scene.wire.questions - questions) or (len(scene.manager.requests) - before) / 3
    assert 9 <= looks <= 13
    assert not [record for record in scene.manager.jobs.values() if record.body["type"] == "get_task"]


@both
async def test_a_file_that_is_missing_once_was_not_lost(settings: DragonflySettings) -> None:
    scene = await complete(settings)
    had = set(scene.manager.cached)
    evict(scene)
    made = len(scene.manager.made)
    asked = scene.wire.questions, len(scene.manager.requests)
    while (scene.wire.questions, len(scene.manager.requests)) == asked or scene.manager.jobs:
        observation = await scene.step()
        scene.later(observation.poll_after or 10)
    scene.manager.cached = had
    for _ in range(6):
        assert (await scene.step()).state is EngineState.READY
        scene.later(60)
    assert scene.status.complete
    assert len(scene.manager.made) == made


@pytest.mark.parametrize("silence", ["manager", "seeds"])
async def test_who_cannot_be_asked_has_lost_nothing(silence: str) -> None:
    scene = await complete(DIRECTLY)
    scene.manager.answer = lambda request: httpx.Response(503)
    scene.wire.silent = True
    evict(scene)
    for _ in range(10):
        assert (await scene.step()).state is EngineState.READY
        scene.later(PERIOD)
    assert scene.status.complete


@pytest.mark.parametrize("make", [Scene, image_scene], ids=["files", "an image that was preheated in vain"])
async def test_the_pass_that_ends_it_says_when_to_come_back(make: Callable[..., Scene]) -> None:
    scene = make(settings=DIRECTLY)
    last = await scene.run()
    assert scene.passes <= 3
    assert last.poll_after is not None
    assert 0 < last.poll_after <= 1.1 * PERIOD


async def test_zero_means_never() -> None:
    scene = await complete(replace(BY_MANAGER, check_seconds=0))
    evict(scene)
    before = len(scene.manager.requests)
    for _ in range(10):
        assert (await scene.step()).poll_after is None
        scene.later(PERIOD)
    assert len(scene.manager.requests) == before


async def test_only_the_cluster_that_lost_it_is_begun_anew() -> None:
    settings = replace(DIRECTLY, clusters=(1, 2))
    scene = await complete(settings)
    made = len(scene.manager.made)
    # The wire knows cluster 1 only; the manager says of cluster 2 that all is there.
    scene.wire.manager = Scene().manager
    observation = await until(scene, 1.1 * PERIOD + 300, complete=False)
    assert (observation.ready, observation.desired) == (1, 2)
    assert [record.body["scheduler_cluster_ids"] for record in scene.manager.made[made:]] == [[1]]


@pytest.mark.parametrize(
    ("trouble", "reason"),
    [
        pytest.param("manager", DragonflyReason.MANAGER_UNREACHABLE, id="the manager is gone"),
        pytest.param("seeds", DragonflyReason.NO_SEED_PEER, id="there is no seed peer any more"),
    ],
)
async def test_trouble_with_bringing_it_again_does_not_close_the_gate(trouble: str, reason: DragonflyReason) -> None:
    scene = await complete(DIRECTLY)
    evict(scene)
    assert (await until(scene, 1.1 * PERIOD + 300, complete=False)).state is EngineState.RUNNING
    if trouble == "manager":
        scene.manager.answer = lambda request: httpx.Response(503)
    else:
        scene.manager.seeds = False
    evict(scene)
    for _ in range(6):
        scene.later(35)
        observation = await scene.step()
    assert (observation.state, observation.ready, observation.desired) == (EngineState.READY, 0, 1)
    assert observation.degraded is not None
    assert observation.degraded[0] == reason
    scene.manager.answer, scene.manager.seeds = lambda request: None, True
    last = await until(scene, 900, complete=True)
    assert (last.state, last.degraded) == (EngineState.READY, None)


class TestIneffectiveImages:
    SETTINGS = replace(DragonflySettings(URL), check_seconds=PERIOD)

    async def test_an_upgraded_manager_is_noticed_without_a_restart_and_the_image_preheated(self) -> None:
        scene = image_scene(settings=self.SETTINGS)
        assert (await scene.step()).degraded is not None
        scene.manager.knows_digest_ids = True
        await until(scene, 1.2 * PERIOD, complete=False)
        last = await until(scene, 120, complete=True)
        assert (last.state, last.degraded, last.done_bytes) == (EngineState.READY, None, 30)

    async def test_an_old_manager_is_asked_once_in_a_period_and_nothing_is_downloaded(self) -> None:
        scene = image_scene(settings=self.SETTINGS)
        await scene.step()
        made, before = len(scene.manager.made), len(scene.manager.requests)
        for _ in range(100):
            observation = await scene.step()
            assert observation.degraded is not None
            scene.later(PERIOD / 10)
        assert len(scene.manager.made) == made
        assert 16 <= len(scene.manager.requests) - before <= 26, "a POST and a DELETE each time"
        assert not [record for record in scene.manager.jobs.values() if record.args.get("ips")]

    async def test_a_manager_that_only_seems_able_is_left_alone_for_a_period(self) -> None:
        scene = image_scene(settings=self.SETTINGS)
        await scene.step()
        repeat = scene.manager._show

        def show(record):  # type: ignore[no-untyped-def]
            shown = repeat(record)
            if record.args.get("ips"):
                shown["args"] = {**record.args, "enable_task_id_based_blob_digest": True}
            return shown

        scene.manager._show = show  # type: ignore[method-assign]
        made = len(scene.manager.made)
        for _ in range(100):
            await scene.step()
            scene.later(PERIOD / 10)
        assert len(scene.manager.made) - made <= 12
