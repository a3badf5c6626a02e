"""A manager that is slower than a reconcile may be: it reads an image's manifest within the POST."""

import inspect
from dataclasses import replace

import httpx
import pytest

from modelswarm.backends.dragonfly.client import TIMEOUT
from modelswarm.backends.dragonfly.reasons import DragonflyReason
from modelswarm.backends.engine import EngineState
from modelswarm.controllers.runner import Controller
from tests.unit.backends.scene import Scene, image_scene

pytestmark = pytest.mark.looptime


class SlowPosts:
    """The manager works on a POST for so long, whether or not anybody waits for its end."""

    def __init__(self, scene: Scene, seconds: float, *, times: int = 1) -> None:
        self.posts = 0
        self._scene = scene
        self._seconds = seconds
        self._times = times
        self._late: list[tuple[float, httpx.Request]] = []

    def __call__(self, request: httpx.Request) -> httpx.Response | None:
        now = self._scene.now.timestamp()
        for due, late in list(self._late):
            if due <= now:
                self._late.remove((due, late))
                self._scene.manager._respond(late)
        if request.method != "POST" or self.posts >= self._times:
            self.posts += request.method == "POST"
            return None
        self.posts += 1
        assert TIMEOUT.read is not None
        self._late.append((now + self._seconds, request))
        self._scene.later(TIMEOUT.read)
        raise httpx.ReadTimeout("planted", request=request)


@pytest.mark.parametrize("seconds", [50, 70, 100])
async def test_a_job_that_appears_after_it_was_given_up_on_is_adopted_and_none_is_made_beside_it(
    seconds: float,
) -> None:
    scene = image_scene()
    scene.manager.knows_digest_ids = True
    scene.manager.answer = slow = SlowPosts(scene, seconds)
    first = await scene.step()
    assert (first.state, first.reason) == (EngineState.UNREACHABLE, DragonflyReason.MANAGER_UNREACHABLE)
    assert "does not answer in time" in first.message
    scene.later(10)
    assert (await scene.run()).state is EngineState.READY
    assert (slow.posts, len(scene.manager.made), len(scene.manager.jobs)) == (1, 1, 1)


async def test_one_that_never_appears_is_made_again_after_a_while() -> None:
    scene = image_scene()
    scene.manager.knows_digest_ids = True
    scene.manager.answer = slow = SlowPosts(scene, 1e9)
    started = scene.now
    await scene.step()
    assert (await scene.run()).state is EngineState.READY
    assert slow.posts == 2
    assert (scene.now - started).total_seconds() < 200


async def test_it_appears_after_even_that_and_the_later_of_the_two_goes() -> None:
    scene = image_scene()
    scene.manager.knows_digest_ids = True
    scene.manager.answer = SlowPosts(scene, 130)
    scene.manager.seconds = 60
    assert (await scene.run()).state is EngineState.READY
    assert len(scene.manager.made) == 2
    assert len(scene.manager.jobs) == 1


async def test_a_new_process_may_make_a_second_one_and_takes_it_away_again() -> None:
    """That it waits is in memory only: nobody writes a status for a job that may not exist."""
    scene = image_scene()
    scene.manager.knows_digest_ids = True
    scene.manager.answer = SlowPosts(scene, 70)
    await scene.step()
    scene.process()
    assert (await scene.run()).state is EngineState.READY
    assert len(scene.manager.jobs) == 1


async def test_other_lost_answers_are_made_up_for_at_once() -> None:
    scene = Scene(settings=replace(Scene().settings, jobs_in_flight=1))
    broken = iter([httpx.RemoteProtocolError("planted")])

    def answer(request: httpx.Request) -> httpx.Response | None:
        if request.method == "POST" and (error := next(broken, None)) is not None:
            raise error
        return None

    scene.manager.answer = answer
    assert (await scene.step()).state is EngineState.UNREACHABLE
    assert (await scene.step()).state is EngineState.RUNNING


def test_a_post_ends_before_its_reconcile_does() -> None:
    assert TIMEOUT.read is not None
    assert TIMEOUT.connect is not None
    limit = inspect.signature(Controller).parameters["timeout"].default
    assert TIMEOUT.read + TIMEOUT.connect + 5 < limit
