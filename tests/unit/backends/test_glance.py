"""Ready soon after the bytes are there: seed peers are asked themselves, where a scheduler's address is known."""

import asyncio
from collections import Counter
from dataclasses import replace
from datetime import timedelta

import httpx
import pytest
from hypothesis import given, settings

from modelswarm.backends.dragonfly.reasons import DragonflyReason
from modelswarm.backends.dragonfly.settings import DragonflySettings
from modelswarm.backends.engine import EngineState
from modelswarm.content.credentials import Credentials
from tests.unit.backends.fake_manager import URL
from tests.unit.backends.scene import Scene, image_scene, model_manifest, url_of
from tests.unit.backends.test_crashes import SETTINGS as CRASHING
from tests.unit.backends.test_crashes import live_through, requests, steps

SETTINGS = replace(DragonflySettings(URL), schedulers={1: "scheduler:8002"})


async def seconds_to_ready(scene: Scene) -> float:
    started = scene.now
    assert (await scene.run()).state is EngineState.READY
    # What happens after the last pass is the wait for the next check.
    return (scene.now - started).total_seconds()


@pytest.mark.parametrize(
    ("job", "within"),
    [
        pytest.param(1, 3.1, id="a second: the first look"),
        pytest.param(20, 22.1, id="twenty seconds"),
        pytest.param(60, 63.5, id="a minute"),
        pytest.param(1000, 1010.5, id="a quarter of an hour"),
    ],
)
@pytest.mark.looptime
async def test_ready_follows_the_bytes_not_the_manager(job: float, within: float) -> None:
    scene = Scene(settings=SETTINGS)
    scene.manager.seconds = job
    assert job <= await seconds_to_ready(scene) <= within
    assert [shown.state for shown in scene.status.jobs] == ["CONFIRMED"]
    [record] = scene.manager.jobs.values()
    assert record.state == "PENDING", "the manager has not looked yet; the job ends by itself and stays in its list"


@pytest.mark.looptime
async def test_without_a_scheduler_it_is_the_manager_s_pace() -> None:
    assert await seconds_to_ready(Scene()) > 30


@pytest.mark.looptime
async def test_a_silent_scheduler_leaves_it_at_the_manager_s_pace_and_costs_little() -> None:
    scene = Scene(settings=SETTINGS)
    scene.wire.silent = True
    assert 30 < await seconds_to_ready(scene) < 40
    assert scene.wire.lists <= 5


@pytest.mark.looptime
async def test_one_answer_that_does_not_come_costs_seconds_not_the_manager_s_pace() -> None:
    scene = Scene(settings=SETTINGS)
    scene.manager.seconds = 8
    scene.wire.silent = True
    while not scene.wire.lists:
        await scene.step()
        scene.later(1)
    scene.wire.silent = False
    assert await seconds_to_ready(scene) < 12


@pytest.mark.looptime
async def test_a_manager_that_is_gone_does_not_hide_what_seed_peers_have() -> None:
    scene = Scene(settings=SETTINGS)
    await scene.step()
    scene.manager.answer = lambda request: httpx.Response(503)
    scene.later(5)
    observation = await scene.step()
    assert (observation.state, observation.done_bytes) == (EngineState.READY, 600)
    assert not scene.status.complete, "its list of jobs is looked through when it is back"
    scene.manager.answer = lambda request: None
    assert (await scene.run()).state is EngineState.READY
    assert scene.status.complete


@pytest.mark.looptime
async def test_files_are_seen_one_by_one_whatever_the_order_in_which_they_arrive() -> None:
    scene = Scene(manifest=model_manifest(*[10] * 6), settings=SETTINGS)
    scene.manager.slow = {url_of(number): 10.0 * (6 - number) for number in range(6)}
    done = []
    for _ in range(45):
        done.append((await scene.step()).done_bytes)
        if scene.status.complete:
            break
        scene.later(2)
    assert done == sorted(done)
    assert set(done) >= {0, 10, 20, 30, 40, 50, 60}


@pytest.mark.looptime
async def test_a_hundred_files_that_are_there_are_one_round() -> None:
    scene = Scene(manifest=model_manifest(*[10] * 40), settings=SETTINGS)
    await seconds_to_ready(scene)
    assert scene.wire.questions <= 45


@pytest.mark.looptime
async def test_while_seed_peers_answer_the_manager_is_not_asked_about_files() -> None:
    scene = Scene(manifest=model_manifest(*[10] * 5), settings=SETTINGS)
    scene.manager.slow = {url_of(4): 900.0}
    assert (await scene.run()).state is EngineState.READY
    assert {record.body["type"] for record in scene.manager.jobs.values()} == {"preheat"}
    assert not [request for request in scene.manager.requests if b"get_task" in request.content]


@pytest.mark.looptime
async def test_a_job_that_carries_a_token_is_deleted_at_once() -> None:
    settings = replace(SETTINGS, allow_gated=True)
    scene = Scene(settings=settings, credentials=Credentials(hub_token="hf_planted"))
    assert await seconds_to_ready(scene) < 10
    assert scene.manager.jobs == {}
    assert scene.task.metadata.finalizers == ()


@pytest.mark.looptime
async def test_an_image_s_layers_are_found_by_their_digests() -> None:
    scene = image_scene(settings=SETTINGS)
    scene.manager.knows_digest_ids = True
    assert await seconds_to_ready(scene) < 10


@pytest.mark.looptime
async def test_a_cluster_without_an_address_keeps_the_manager_s_pace() -> None:
    scene = Scene(settings=replace(SETTINGS, clusters=(1, 2)))
    assert 30 < await seconds_to_ready(scene) < 40
    assert sorted(job.state for job in scene.status.jobs) == ["CONFIRMED", "SUCCESS"]


@pytest.mark.looptime
async def test_the_next_job_does_not_wait_for_the_manager_to_see_the_end_of_the_one_before() -> None:
    settings = replace(SETTINGS, job_files=1, jobs_in_flight=1)
    assert await seconds_to_ready(Scene(settings=settings)) < 15


@pytest.mark.looptime
async def test_a_file_that_fails_is_still_the_manager_s_to_tell() -> None:
    scene = Scene(settings=SETTINGS)
    scene.manager.errors = {url_of(1): "404 Not Found"}
    last = await scene.run(seconds=100)
    assert last.reason == DragonflyReason.SOURCE_NOT_FOUND
    assert last.done_bytes == 400


@pytest.mark.looptime
async def test_a_new_process_goes_on_looking() -> None:
    scene = Scene(settings=SETTINGS)
    scene.manager.seconds = 20
    started = scene.now
    while not scene.status.complete:
        observation = await scene.step()
        scene.process()
        scene.later(min(5.0, observation.poll_after or 5.0))
    assert scene.now - started < timedelta(seconds=32)


@settings(max_examples=60, deadline=None)
@given(crashes=requests, lost_writes=steps)
def test_whenever_the_operator_dies_no_job_is_made_twice(crashes: dict[int, str], lost_writes: set[int]) -> None:
    schedulers = {1: "scheduler:8002", 2: "scheduler:8002"}
    scene = Scene(manifest=model_manifest(*[10] * 5), settings=replace(CRASHING, schedulers=schedulers))
    asyncio.run(live_through(scene, crashes, lost_writes, {}))
    made = Counter(
        (record.body["scheduler_cluster_ids"][0], url) for record in scene.manager.made for url in record.urls
    )
    assert set(made.values()) == {1}
    assert len(scene.manager.made) == 6
