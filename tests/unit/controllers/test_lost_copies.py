"""A task that was Ready and has lost its copies: what is fetched again is progress, from the loss on."""

from typing import Any

import pytest

from modelswarm.api.p2ptask import P2PTask, Phase
from modelswarm.backends.engine import Observation
from modelswarm.controllers.gate import Wait, WaitKind, decide
from modelswarm.controllers.task_status import advance
from tests.unit.controllers.objects import (
    NOW,
    PIN,
    POLICY,
    after,
    facts,
    failed,
    later,
    ready,
    running,
    summary,
    task,
    unreachable,
    with_spec,
)

DAYS = 5 * 86400.0
TIMEOUT = 1800.0


def run(start: P2PTask, *steps: tuple[float, Observation]) -> P2PTask:
    current = start
    for seconds, observation in steps:
        current = after(current, advance(current, facts(observation=observation), POLICY, later(seconds)))
    return current


def done(**spec: Any) -> P2PTask:
    begun = task(**spec)
    begun = after(begun, advance(begun, facts(pin=PIN, observation=running()), POLICY, NOW))
    return run(begun, (10, ready()))


@pytest.mark.parametrize(
    "observation", [pytest.param(running(0), id="fetched again"), pytest.param(failed(), id="refused")]
)
def test_its_time_without_progress_and_its_progress_begin_with_the_loss(observation: Observation) -> None:
    lost = run(done(), (DAYS, observation))
    assert summary(lost.status)["Ready"][0] == "False"
    assert lost.status.last_progress_time == later(DAYS)
    assert (lost.status.progress.percent, lost.status.progress.bytes_per_second) == (0, 0)
    assert (lost.status.display.progress, lost.status.display.ready) == ("0%", "0/2")


def test_what_is_still_there_counts() -> None:
    lost = run(done(), (DAYS, running(400)))
    assert lost.status.progress.done_bytes == 400


def test_bytes_that_come_again_are_progress() -> None:
    moving = run(done(), (DAYS, running(0)), (DAYS + 20, running(300)))
    assert moving.status.last_progress_time == later(DAYS + 20)
    assert moving.status.display.progress == "30%"
    worse = run(moving, (DAYS + 40, running(100)))
    assert worse.status.display.progress == "30%", "never backwards, once it is being fetched again"
    assert worse.status.last_progress_time == later(DAYS + 20)


def test_the_gate_gives_the_second_fetch_its_whole_time() -> None:
    lost = run(done(), (DAYS, running(0)))

    def is_open(seconds: float, of: P2PTask) -> bool:
        return decide([Wait(WaitKind.MODEL, "m", of)], since=NOW, timeout=TIMEOUT, now=later(seconds)).open

    assert not is_open(DAYS, lost)
    assert not is_open(DAYS + TIMEOUT - 1, lost)
    assert is_open(DAYS + TIMEOUT, lost)
    moving = run(lost, (DAYS + 1000, running(100)))
    assert not is_open(DAYS + 1000 + TIMEOUT - 1, moving)


def test_what_is_lost_during_a_suspension_begins_when_it_goes_on() -> None:
    asleep = with_spec(done(), suspend=True)
    asleep = after(asleep, advance(asleep, facts(), POLICY, later(20)))
    awake = run(with_spec(asleep, suspend=False), (DAYS, running(0)))
    assert awake.status.phase is Phase.RUNNING
    assert awake.status.last_progress_time == later(DAYS)


@pytest.mark.parametrize(
    "observation",
    [
        pytest.param(unreachable(), id="the engine cannot be asked"),
        pytest.param(ready(1), id="enough copies are left"),
    ],
)
def test_who_stays_ready_has_lost_nothing(observation: Observation) -> None:
    kept = run(done(), (DAYS, observation))
    assert summary(kept.status)["Ready"][0] == "True"
    assert kept.status.last_progress_time == later(10)
    assert kept.status.progress.percent == 100


def test_who_fell_back_goes_on_where_it_was() -> None:
    begun = task()
    begun = after(begun, advance(begun, facts(pin=PIN, observation=running()), POLICY, NOW))
    fallen = run(begun, (10, running(500)), (400, running(500)))
    assert fallen.status.phase is Phase.FELL_BACK
    later_on = run(fallen, (DAYS, running(200)))
    assert later_on.status.last_progress_time == later(10)
    assert later_on.status.progress.done_bytes == 500
