"""The operator dies between any two steps, and what it found out is lost: still no job is doubled, and none is lost."""

import asyncio
from collections import Counter
from dataclasses import replace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from modelswarm.backends.dragonfly.marker import MAX_LENGTH, Marker
from modelswarm.backends.dragonfly.settings import DragonflySettings
from modelswarm.backends.engine import EngineState
from modelswarm.content.credentials import Credentials
from tests.unit.backends.fake_manager import URL, Crash, FakeManager
from tests.unit.backends.scene import Scene, model_manifest, url_of

SETTINGS = replace(DragonflySettings(URL), clusters=(1, 2), job_files=2, jobs_in_flight=8, check_seconds=0)
STEPS = 60


def live_files(manager: FakeManager) -> Counter[tuple[int, str]]:
    return Counter((record.body["scheduler_cluster_ids"][0], url) for record in manager.live() for url in record.urls)


async def live_through(scene: Scene, crashes: dict[int, str], lost_writes: set[int], restarts: dict[int, int]) -> None:
    """Reconcile until it is done; die at these requests, lose what these steps found, with these settings after it."""
    for step in range(STEPS):
        pending = {number: side for number, side in crashes.items() if number > len(scene.manager.requests)}
        number = min(pending, default=None)
        scene.manager.crash_at = None if number is None else (number, pending[number])
        try:
            observation = await scene.ensure()
        except Crash:
            scene.process()
            scene.later(1)
            continue
        assert max(live_files(scene.manager).values(), default=0) <= 1
        if step in lost_writes:
            scene.process()
            scene.later(1)
            continue
        if step in restarts:
            scene.with_settings(job_files=restarts[step])
        scene.write(observation)
        if observation.state is EngineState.READY and scene.status.complete and not observation.holds:
            return
        scene.later(observation.poll_after or 10)
    pytest.fail("never ready")


requests = st.dictionaries(st.integers(1, 40), st.sampled_from(["before", "after"]), max_size=6)
steps = st.sets(st.integers(0, 12), max_size=5)


@settings(max_examples=150, deadline=None)
@given(crashes=requests, lost_writes=steps)
def test_each_file_is_in_exactly_one_job_of_each_cluster_whatever_happens(
    crashes: dict[int, str], lost_writes: set[int]
) -> None:
    scene = Scene(manifest=model_manifest(*[10] * 5), settings=SETTINGS)
    asyncio.run(live_through(scene, crashes, lost_writes, {}))
    made = Counter(
        (record.body["scheduler_cluster_ids"][0], url) for record in scene.manager.made for url in record.urls
    )
    assert set(made.values()) == {1}
    assert len(scene.manager.made) == len(scene.manager.jobs) == 6


@settings(max_examples=100, deadline=None)
@given(crashes=requests, lost_writes=steps)
def test_a_job_that_is_deleted_for_its_token_is_not_made_again(crashes: dict[int, str], lost_writes: set[int]) -> None:
    scene = Scene(
        manifest=model_manifest(*[10] * 3),
        settings=replace(SETTINGS, allow_gated=True),
        credentials=Credentials(hub_token="hf_planted"),
    )
    asyncio.run(live_through(scene, crashes, lost_writes, {}))
    made = Counter(
        (record.body["scheduler_cluster_ids"][0], url) for record in scene.manager.made for url in record.urls
    )
    assert set(made.values()) == {1}
    assert scene.manager.jobs == {}


@settings(max_examples=60, deadline=None)
@given(crashes=requests, lost_writes=steps, restarts=st.dictionaries(st.integers(0, 8), st.integers(1, 5), max_size=3))
def test_so_it_is_if_the_bounds_of_a_job_change_with_a_restart(
    crashes: dict[int, str], lost_writes: set[int], restarts: dict[int, int]
) -> None:
    scene = Scene(manifest=model_manifest(*[10] * 7), settings=replace(SETTINGS, jobs_in_flight=2))
    asyncio.run(live_through(scene, crashes, lost_writes, restarts))
    made = Counter(
        (record.body["scheduler_cluster_ids"][0], url) for record in scene.manager.made for url in record.urls
    )
    assert set(made.values()) == {1}


@settings(max_examples=100, deadline=None)
@given(crashes=requests, lost_writes=steps, fails=st.sets(st.integers(0, 4), max_size=3))
def test_failures_are_tried_again_without_doubling_and_no_token_stays(
    crashes: dict[int, str], lost_writes: set[int], fails: set[int]
) -> None:
    scene = Scene(
        manifest=model_manifest(*[10] * 5),
        settings=replace(SETTINGS, allow_gated=True),
        credentials=Credentials(hub_token="hf_planted"),
    )
    scene.manager.errors = {url_of(number): "boom" for number in fails}

    async def run() -> None:
        for _ in range(8):
            try:
                observation = await scene.ensure()
            except Crash:
                scene.process()
                continue
            scene.write(observation)
            scene.later(observation.poll_after or 10)
        scene.manager.errors = {}
        await live_through(scene, crashes, lost_writes, {})

    asyncio.run(run())
    assert scene.manager.jobs == {}


@settings(max_examples=60, deadline=None)
@given(crashes=requests, lost_writes=steps, when=st.integers(1, 12))
def test_a_manager_that_restarts_in_between_loses_nothing(
    crashes: dict[int, str], lost_writes: set[int], when: int
) -> None:
    scene = Scene(manifest=model_manifest(*[10] * 5), settings=SETTINGS)
    counted = 0

    def restart(request: object) -> None:
        nonlocal counted
        counted += 1
        if counted == when:
            scene.manager.restart()

    scene.manager.answer = restart
    asyncio.run(live_through(scene, crashes, lost_writes, {}))
    assert scene.manager.live() == []


@given(
    uid=st.uuids().map(str),
    cluster=st.integers(1, 10**6),
    serial=st.integers(1, 10**6),
    attempt=st.integers(1, 99),
    items=st.sets(st.integers(0, 99_999), min_size=1, max_size=100),
)
def test_a_marker_fits_and_is_read_as_it_was_written(
    uid: str, cluster: int, serial: int, attempt: int, items: set[int]
) -> None:
    marker = Marker.of(uid, "0123456789abcdef", cluster, serial, attempt, frozenset(items))
    assert len(str(marker)) <= MAX_LENGTH
    assert Marker.parse(str(marker)) == marker
    assert marker.numbers(below=100_000) == items


@pytest.mark.parametrize("bio", ["", "nightly preheat", "modelswarm/x", "modelswarm/u/p/c1/n1/a1/0", "p2ptask/a/b"])
def test_jobs_of_others_are_not_ours(bio: str) -> None:
    assert Marker.parse(bio) is None


async def test_a_job_that_is_there_twice_is_taken_out_once() -> None:
    """A slow manager made a job after it was given up on, and its successor made it again."""
    scene = Scene()
    observation = await scene.ensure()
    scene.process()
    scene.write(observation)
    [record] = scene.manager.made
    twin = replace(record, id=99)
    scene.manager.jobs[99] = twin
    scene.later(35)
    assert (await scene.step()).state is EngineState.READY
    await scene.step()  # what the first pass found is written down before anything is deleted
    assert list(scene.manager.jobs) == [record.id]
