from dataclasses import replace
from datetime import datetime
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from modelswarm.api.conditions import TaskCondition, TaskReason, find, is_true
from modelswarm.api.p2ptask import Engine, Fallback, NodeFailure, P2PTask, Phase
from modelswarm.backends.engine import EngineState, Observation
from modelswarm.controllers.task_progress import format_bytes, format_seconds
from modelswarm.controllers.task_status import BLOCKED_RETRY_SECONDS, Decision, Facts, advance, backoff
from modelswarm.errors import (
    AccessDenied,
    ContentError,
    InvalidReference,
    NothingMatches,
    PlatformNotFound,
    RateLimited,
    RevisionNotFound,
    SourceNotFound,
    SourceUnavailable,
    TaskBlocked,
)
from tests.unit.controllers.objects import (
    DIGEST,
    IMAGE,
    IMAGE_PIN,
    NOW,
    OTHER_DIGEST,
    PIN,
    POLICY,
    after,
    direct,
    facts,
    failed,
    later,
    message,
    ready,
    running,
    summary,
    task,
    unreachable,
    with_spec,
)

DOWN = SourceUnavailable("the hub answers 503")


def run(start: P2PTask, *steps: tuple[float, Facts]) -> tuple[P2PTask, Decision]:
    """Advance through the steps, each at so many seconds after the beginning; every status is written."""
    assert steps
    current, decision = start, None
    for seconds, known in steps:
        decision = advance(current, known, POLICY, later(seconds))
        current = after(current, decision)
    assert decision is not None
    return current, decision


def pinned(**spec: Any) -> P2PTask:
    """A task that was pinned at the beginning and whose engine has just begun."""
    return run(task(**spec), (0, facts(pin=PIN, observation=running())))[0]


def done(**spec: Any) -> P2PTask:
    return run(pinned(**spec), (10, facts(observation=ready())))[0]


def fallen_back(**spec: Any) -> P2PTask:
    return run(pinned(**spec), (400, facts(observation=running())))[0]


# --- the way of a task ----------------------------------------------------------------------------------------------


def test_nothing_is_written_while_pinning_has_only_just_begun() -> None:
    decision = advance(task(), facts(), POLICY, NOW)
    assert decision.hold
    assert decision.look_again == 1.0
    assert decision.status == task().status


def test_a_task_goes_from_pending_over_resolving_and_running_to_succeeded() -> None:
    current, decision = task(), None
    phases = [current.status.phase]
    for seconds, known in [
        (0, facts()),
        (2, facts(resolving=True)),
        (5, facts(pin=PIN, observation=running())),
        (20, facts(observation=running(500))),
        (30, facts(observation=ready())),
    ]:
        decision = advance(current, known, POLICY, later(seconds))
        current = current if decision.hold else after(current, decision)
        phases.append(current.status.phase)
    assert phases == [Phase.PENDING, Phase.PENDING, Phase.RESOLVING, Phase.RUNNING, Phase.RUNNING, Phase.SUCCEEDED]
    assert summary(current.status) == {
        "Accepted": ("True", "Accepted"),
        "Resolved": ("True", "Resolved"),
        "Ready": ("True", "Distributed"),
    }
    assert current.status.start_time == later(2)
    assert current.status.completion_time == later(30)
    assert current.status.engine is Engine.BITTORRENT
    assert current.status.observed_generation == 1


def test_the_pin_is_in_the_status_and_in_the_condition() -> None:
    status = pinned().status
    assert (status.resolved, status.manifest) == (PIN.resolved, PIN.manifest)
    assert message(status, "Resolved") == f"Pinned to {PIN.resolved.revision}"


def test_direct_is_ready_as_soon_as_it_is_resolved() -> None:
    current, decision = run(task(), (0, facts(engine=Engine.DIRECT, pin=PIN, observation=direct())))
    assert current.status.phase is Phase.SUCCEEDED
    assert summary(current.status)["Ready"] == ("True", "NothingToDistribute")
    assert decision.look_again is None
    shown = current.status.display
    assert (shown.ready, shown.progress, shown.eta, shown.origin, shown.peer) == ("-",) * 5


@pytest.mark.parametrize(
    ("copies", "phase"),
    [
        pytest.param(2, Phase.SUCCEEDED, id="every wanted copy is there: Succeeded"),
        pytest.param(3, Phase.SUCCEEDED, id="more copies than wanted: Succeeded"),
        pytest.param(1, Phase.RUNNING, id="minReady copies are there, not all: Running and Ready"),
    ],
)
def test_ready(copies: int, phase: Phase) -> None:
    current, _ = run(pinned(), (10, facts(observation=ready(copies))))
    assert current.status.phase is phase
    assert is_true(current.status.conditions, TaskCondition.READY)
    assert current.status.completion_time == later(10)


def test_succeeded_goes_back_to_running_when_copies_are_lost_and_keeps_its_completion_time() -> None:
    lost, decision = run(done(), (5000, facts(observation=running(1000, ready=0, poll_after=5))))
    assert lost.status.phase is Phase.RUNNING
    assert summary(lost.status)["Ready"] == ("False", "Running")
    assert lost.status.completion_time == later(10)
    assert decision.look_again == 5
    restored, _ = run(lost, (5100, facts(observation=ready())))
    assert restored.status.phase is Phase.SUCCEEDED
    assert restored.status.completion_time == later(10)


def test_deadline_and_back_off_count_until_the_first_ready_only() -> None:
    before = done(activeDeadlineSeconds=60, backoffLimit=0)
    late = [(1e6 + n, facts(observation=state)) for n, state in enumerate([failed(), running(), failed(), running()])]
    current, _ = run(before, *late)
    assert current.status.phase is Phase.RUNNING
    assert current.status.attempts == 0
    assert "Degraded" not in summary(current.status)


# --- pinning that fails ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "error",
    [
        pytest.param(AccessDenied("401"), id="access denied"),
        pytest.param(SourceNotFound("no such repository"), id="source not found"),
        pytest.param(RevisionNotFound("no such branch"), id="revision not found"),
        pytest.param(NothingMatches("no file matches"), id="nothing matches"),
        pytest.param(PlatformNotFound("no linux/s390x"), id="platform not found"),
        pytest.param(InvalidReference("not a model id"), id="invalid reference"),
        pytest.param(TaskBlocked(TaskReason.CREDENTIAL_NOT_FOUND, "no Secret"), id="a missing Secret"),
        pytest.param(TaskBlocked(TaskReason.NAME_CLASH, "ConfigMap exists"), id="a name clash"),
    ],
)
@pytest.mark.parametrize("fallback", list(Fallback))
def test_what_only_a_person_can_help_is_failed_at_once_and_never_opens_the_gate(
    error: ContentError | TaskBlocked, fallback: Fallback
) -> None:
    current, decision = run(task(fallback=fallback, activeDeadlineSeconds=60), (0, facts(failure=error)))
    assert current.status.phase is Phase.FAILED
    assert summary(current.status)["Resolved"] == ("False", error.reason)
    assert summary(current.status)["Ready"] == ("False", error.reason)
    assert message(current.status, "Ready") == error.message
    assert current.status.display.message == error.message
    assert current.status.attempts == 0
    assert decision.retry_in == (BLOCKED_RETRY_SECONDS if isinstance(error, TaskBlocked) else POLICY.retry)
    again, decision = run(current, (100_000, facts(retry_in=7.0)))
    assert again.status == current.status, "time alone changes nothing, not even past the deadline"
    assert decision.look_again == 7.0


def test_a_person_helped_and_the_stall_clock_starts_with_the_engine() -> None:
    days = 3 * 86400.0
    current, _ = run(
        task(), (0, facts(failure=AccessDenied("401"))), (days, facts(pin=PIN, observation=running(poll_after=5)))
    )
    assert current.status.phase is Phase.RUNNING
    assert summary(current.status)["Ready"] == ("False", "Running")
    on_time, _ = run(current, (days + POLICY.stall - 1, facts(observation=running())))
    assert on_time.status.phase is Phase.RUNNING
    stalled, _ = run(current, (days + POLICY.stall, facts(observation=running())))
    assert stalled.status.phase is Phase.FELL_BACK


def test_a_transient_failure_counts_and_backs_off_exponentially() -> None:
    current, delays, seconds = task(), [], 0.0
    for _ in range(6):
        decision = advance(current, facts(failure=DOWN), replace(POLICY, fallback_after=1e9), later(seconds))
        current = after(current, decision)
        assert current.status.phase is Phase.RESOLVING
        assert summary(current.status)["Ready"] == ("False", "SourceUnavailable")
        assert decision.retry_in is not None
        assert decision.look_again == decision.retry_in
        delays.append(decision.retry_in)
        seconds += decision.retry_in
    assert delays == [2, 4, 8, 16, 32, 60]
    assert current.status.to_json()["attempts"] == 6


def test_back_off_is_bounded_for_any_number_of_attempts() -> None:
    assert backoff(1_000_000) == 60


@pytest.mark.parametrize(
    ("fallback", "phase", "conditions"),
    [
        pytest.param(
            Fallback.DIRECT,
            Phase.FELL_BACK,
            {"Ready": ("True", "FellBackToOrigin"), "Degraded": ("True", "SourceUnavailable")},
            id="fallback Direct: consumers go to the origin",
        ),
        pytest.param(
            Fallback.FAIL,
            Phase.FAILED,
            {"Ready": ("False", "SourceUnavailable")},
            id="fallback Fail: the gate stays closed",
        ),
    ],
)
def test_attempts_beyond_the_limit(fallback: Fallback, phase: Phase, conditions: dict[str, tuple[str, str]]) -> None:
    start = task(backoffLimit=2, fallback=fallback)
    twice, _ = run(start, (0, facts(failure=DOWN)), (2, facts(failure=DOWN)))
    assert (twice.status.phase, twice.status.attempts) == (Phase.RESOLVING, 2)
    third, decision = run(twice, (6, facts(failure=DOWN)))
    assert (third.status.phase, third.status.attempts) == (phase, 3)
    assert conditions.items() <= summary(third.status).items()
    assert decision.retry_in == POLICY.retry
    fourth, decision = run(third, (300, facts(failure=DOWN)))
    assert (fourth.status.phase, fourth.status.attempts) == (phase, 3), "nobody counts any further"
    assert decision.retry_in == POLICY.retry
    recovered, _ = run(fourth, (600, facts(pin=PIN, observation=ready())))
    assert recovered.status.phase is Phase.SUCCEEDED


def test_an_origin_that_is_away_for_too_long_is_given_up_before_the_attempts_run_out() -> None:
    current, _ = run(task(backoffLimit=1000), (0, facts(failure=DOWN)), (POLICY.fallback_after, facts(failure=DOWN)))
    assert current.status.phase is Phase.FELL_BACK
    assert current.status.attempts == 2


@pytest.mark.parametrize(
    ("retry_after", "delay"),
    [
        pytest.param(17.0, 17.0, id="Retry-After is honoured"),
        pytest.param(None, 60.0, id="without Retry-After it is a minute, not a second"),
    ],
)
def test_rate_limits_do_not_count(retry_after: float | None, delay: float) -> None:
    limited = RateLimited("429", retry_after=retry_after)
    current, decision = run(task(backoffLimit=0), *((n, facts(failure=limited)) for n in range(10)))
    assert current.status.attempts == 0
    assert current.status.phase is Phase.RESOLVING
    assert (decision.retry_in, decision.look_again) == (delay, delay)


@pytest.mark.parametrize(("fallback", "phase"), [(Fallback.DIRECT, Phase.FELL_BACK), (Fallback.FAIL, Phase.FAILED)])
@pytest.mark.parametrize("type_", [RateLimited, SourceUnavailable])
def test_no_retry_after_of_the_origin_puts_the_fallback_off(
    type_: type[RateLimited | SourceUnavailable], fallback: Fallback, phase: Phase
) -> None:
    start = task(fallback=fallback)
    first, decision = run(start, (0, facts(failure=type_("come back in an hour", retry_after=3600.0))))
    assert first.status.phase is Phase.RESOLVING
    assert (decision.retry_in, decision.look_again) == (POLICY.fallback_after, POLICY.fallback_after)
    second, decision = run(first, (170, facts(failure=type_("come back in an hour", retry_after=3430.0))))
    assert second.status.phase is Phase.RESOLVING
    assert decision.retry_in == 10
    late, decision = run(second, (180, facts(failure=type_("come back in an hour", retry_after=3420.0))))
    assert late.status.phase is phase
    assert decision.retry_in == 3420, "nobody waits any more: the origin is left alone for as long as it asked"


def test_no_back_off_puts_the_fallback_off() -> None:
    _, decision = run(task(), (0, facts(failure=DOWN)), (179.5, facts(failure=DOWN)))
    assert decision.retry_in == 1


def test_while_pinning_waits_nobody_looks_every_second() -> None:
    _, decision = run(task(), (0, facts(failure=AccessDenied("401"))), (1, facts(retry_in=249.0)))
    assert decision.look_again == 249.0
    _, decision = run(task(), (0, facts(failure=DOWN)), (2, facts(resolving=True)))
    assert decision.look_again is None, "the job itself wakes us"


def test_an_earlier_failure_stays_visible_while_pinning_runs_again() -> None:
    current, _ = run(task(), (0, facts(failure=AccessDenied("gated"))))
    again, _ = run(current, (260, facts(resolving=True)))
    assert again.status == current.status


@pytest.mark.parametrize(
    "error",
    [
        pytest.param(DOWN, id="the origin is away"),
        pytest.param(AccessDenied("401"), id="the origin says no now"),
        pytest.param(TaskBlocked(TaskReason.CREDENTIAL_NOT_FOUND, "no Secret"), id="the Secret is gone"),
    ],
)
def test_a_lost_manifest_that_cannot_be_restored_degrades_a_ready_task_and_no_more(
    error: ContentError | TaskBlocked,
) -> None:
    lost, decision = run(done(), (100, facts(failure=error)))
    assert lost.status.phase is Phase.SUCCEEDED
    assert summary(lost.status)["Ready"] == ("True", "Distributed")
    assert summary(lost.status)["Degraded"] == ("True", error.reason)
    assert lost.status.resolved == PIN.resolved
    assert decision.retry_in == (BLOCKED_RETRY_SECONDS if isinstance(error, TaskBlocked) else POLICY.retry)
    between, _ = run(lost, (101, facts(observation=ready())))
    assert summary(between.status)["Degraded"] == ("True", error.reason), "it does not flap between two attempts"
    restored, _ = run(between, (400, facts(pin=PIN, observation=ready())))
    assert summary(restored.status)["Degraded"] == ("False", "Healthy")
    assert summary(restored.status)["Resolved"] == ("True", "Resolved")


def test_a_spec_that_cannot_be_worked_on_is_refused() -> None:
    current, decision = run(task(), (0, facts(refused=InvalidReference("not a model id"))))
    assert current.status.phase is Phase.FAILED
    assert summary(current.status) == {
        "Accepted": ("False", "InvalidReference"),
        "Ready": ("False", "InvalidReference"),
    }
    assert decision == advance(current, facts(refused=InvalidReference("not a model id")), POLICY, NOW)


# --- an engine in trouble -------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("seconds", "phase"),
    [pytest.param(299, Phase.RUNNING, id="just in time"), pytest.param(300, Phase.FELL_BACK, id="stalled")],
)
def test_stall_counts_from_the_beginning_of_the_engine_s_work(seconds: float, phase: Phase) -> None:
    start, _ = run(task(), (0, facts(resolving=True)), (100, facts(pin=PIN, observation=running())))
    current, _ = run(start, (100 + seconds, facts(observation=running())))
    assert current.status.phase is phase


def test_stall_counts_from_the_last_newly_verified_byte() -> None:
    current = pinned()
    for minute in range(1, 100):
        current, _ = run(current, (250.0 * minute, facts(observation=running(minute))))
        assert current.status.phase is Phase.RUNNING
    last = 250.0 * 99
    slow, decision = run(current, (last + 299, facts(observation=running(99))))
    assert slow.status.phase is Phase.RUNNING
    assert decision.look_again == pytest.approx(1.1)
    stalled, _ = run(current, (last + 300, facts(observation=running(99))))
    assert stalled.status.phase is Phase.FELL_BACK
    assert summary(stalled.status)["Degraded"] == ("True", "Stalled")
    assert message(stalled.status, "Degraded") == "no newly verified byte for 300 s: Two nodes are at it"
    assert stalled.status.completion_time == later(last + 300)


def test_a_byte_that_is_not_shown_yet_is_a_sign_of_life() -> None:
    impatient = replace(POLICY, stall=3)
    current = pinned()
    for second in range(1, 9):
        current = after(current, advance(current, facts(observation=running(second)), impatient, later(second)))
        assert current.status.phase is Phase.RUNNING
        assert current.status.progress.done_bytes == 0


@pytest.mark.parametrize(
    ("seconds", "phase"),
    [pytest.param(179, Phase.RUNNING, id="not yet"), pytest.param(180, Phase.FELL_BACK, id="fall back")],
)
def test_an_engine_out_of_reach(seconds: float, phase: Phase) -> None:
    current, decision = run(pinned(), (seconds, facts(observation=unreachable())))
    assert current.status.phase is phase
    if phase is Phase.RUNNING:
        assert summary(current.status)["Ready"] == ("False", "EngineUnavailable")
        assert decision.look_again == pytest.approx(1.1)
    else:
        assert summary(current.status)["Degraded"] == ("True", "EngineUnavailable")


def test_an_engine_out_of_reach_is_asked_again_soon() -> None:
    _, decision = run(pinned(), (1, facts(observation=unreachable())))
    assert decision.look_again == 10.0


def test_an_engine_out_of_reach_says_nothing_about_the_bytes() -> None:
    before, _ = run(pinned(), (20, facts(observation=running(500, ready=1, failed=1, origin_bytes=600))))
    away, _ = run(before, (30, facts(observation=unreachable())))
    for name in ("desired", "ready", "failed", "progress", "last_progress_time"):
        assert getattr(away.status, name) == getattr(before.status, name), name
    assert away.status.display.progress == before.status.display.progress
    back, _ = run(away, (40, facts(observation=running(500))))
    assert back.status.last_progress_time == later(20), "coming back is no progress"


def test_what_is_ready_stays_ready_while_the_engine_is_out_of_reach() -> None:
    away, decision = run(done(), (1000, facts(observation=unreachable())))
    assert away.status.phase is Phase.SUCCEEDED
    assert summary(away.status)["Ready"] == ("True", "Distributed")
    assert summary(away.status)["Degraded"] == ("True", "EngineUnavailable")
    assert decision.look_again == 10.0
    back, _ = run(away, (1010, facts(observation=ready())))
    assert summary(back.status)["Degraded"] == ("False", "Healthy")


def test_failed_attempts_of_the_engine_count_up_to_the_limit() -> None:
    current = pinned(backoffLimit=2)
    current, _ = run(current, (1, facts(observation=failed(attempts=1))), (2, facts(observation=failed(attempts=2))))
    again, _ = run(current, (2, facts(observation=failed(attempts=2))))
    assert again.status == current.status, "seeing the same failure twice is no second attempt"
    assert (current.status.phase, current.status.attempts) == (Phase.RUNNING, 2)
    assert summary(current.status)["Ready"] == ("False", "JobFailed")
    current, decision = run(current, (3, facts(observation=failed(attempts=3))))
    assert (current.status.phase, current.status.attempts) == (Phase.FELL_BACK, 3)
    assert decision.look_again == POLICY.retry
    current, _ = run(current, (4, facts(observation=failed(attempts=9))))
    assert (current.status.phase, current.status.attempts) == (Phase.FELL_BACK, 3)


def test_fellback_stays_ready_until_the_engine_has_done_it() -> None:
    current = fallen_back()
    assert summary(current.status)["Ready"] == ("True", "FellBackToOrigin")
    said = current.status.display.message
    moving, _ = run(current, (500, facts(observation=running(900))))
    assert moving.status.phase is Phase.FELL_BACK
    assert summary(moving.status)["Ready"] == ("True", "FellBackToOrigin")
    assert (moving.status.display.progress, moving.status.display.message) == ("90%", said)
    back, _ = run(moving, (600, facts(observation=ready())))
    assert back.status.phase is Phase.SUCCEEDED
    assert summary(back.status)["Ready"] == ("True", "Distributed")
    assert summary(back.status)["Degraded"] == ("False", "Healthy")
    assert back.status.completion_time == current.status.completion_time


def test_fallback_fail_keeps_the_gate_closed_until_bytes_move_again() -> None:
    current = fallen_back(fallback="Fail")
    assert current.status.phase is Phase.FAILED
    assert summary(current.status)["Ready"] == ("False", "Stalled")
    assert "fallback: Fail" in message(current.status, "Ready")
    assert "Degraded" not in summary(current.status)
    still, decision = run(current, (500, facts(observation=running())))
    assert still.status.phase is Phase.FAILED
    assert decision.look_again == POLICY.retry
    moving, _ = run(still, (600, facts(observation=running(100))))
    assert moving.status.phase is Phase.RUNNING
    assert summary(moving.status)["Ready"] == ("False", "Running")
    restored, _ = run(moving, (700, facts(observation=ready())))
    assert restored.status.phase is Phase.SUCCEEDED


# --- deadline -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("fallback", "phase"),
    [
        pytest.param("Direct", Phase.FELL_BACK, id="fallback Direct"),
        pytest.param("Fail", Phase.FAILED, id="fallback Fail"),
    ],
)
def test_the_deadline_counts_whatever_the_progress(fallback: str, phase: Phase) -> None:
    start = pinned(activeDeadlineSeconds=60, fallback=fallback)
    early, decision = run(start, (59, facts(observation=running(500))))
    assert early.status.phase is Phase.RUNNING
    assert decision.look_again == 1
    late, _ = run(early, (60, facts(observation=running(900))))
    assert late.status.phase is phase
    ready_condition = find(late.status.conditions, TaskCondition.READY)
    assert ready_condition is not None
    assert "not ready within activeDeadlineSeconds (60 s)" in ready_condition.message


def test_who_is_ready_at_the_deadline_has_made_it() -> None:
    current, _ = run(pinned(activeDeadlineSeconds=60), (61, facts(observation=ready())))
    assert current.status.phase is Phase.SUCCEEDED


def test_a_failure_past_the_deadline_still_waits_before_the_next_attempt() -> None:
    start = task(activeDeadlineSeconds=5, fallback="Fail")
    current, decision = run(start, (0, facts(failure=DOWN)), (6, facts(failure=DOWN)))
    assert current.status.phase is Phase.FAILED
    assert decision.retry_in == 4
    again, decision = run(current, (300, facts(failure=DOWN)))
    assert again.status.phase is Phase.FAILED
    assert decision.retry_in == POLICY.retry


@pytest.mark.parametrize(
    ("fallback", "phase"),
    [
        pytest.param("Direct", Phase.FELL_BACK, id="the gate stays open"),
        pytest.param("Fail", Phase.FAILED, id="the gate stays closed for the reason that was given"),
    ],
)
def test_a_transient_failure_after_the_decision_changes_nothing(fallback: str, phase: Phase) -> None:
    start = task(activeDeadlineSeconds=5, fallback=fallback)
    decided, _ = run(start, (0, facts(failure=DOWN)), (6, facts(failure=DOWN)))
    again, _ = run(decided, (10, facts(failure=DOWN)), (20, facts(failure=RateLimited("429"))))
    assert again.status.phase is phase
    assert summary(again.status)["Ready"] == summary(decided.status)["Ready"]
    assert again.status.attempts == decided.status.attempts


# --- suspend --------------------------------------------------------------------------------------------------------


def test_suspend_keeps_ready_true_where_it_was() -> None:
    current, _ = run(with_spec(done(), suspend=True), (20, facts()))
    assert current.status.phase is Phase.SUSPENDED
    assert summary(current.status)["Ready"] == ("True", "Distributed")
    assert current.status.observed_generation == 2
    resumed, _ = run(with_spec(current, suspend=False), (30, facts(observation=ready())))
    assert resumed.status.phase is Phase.SUCCEEDED


def test_suspend_before_ready_says_so_and_stops_the_clocks() -> None:
    current, decision = run(with_spec(pinned(activeDeadlineSeconds=60), suspend=True), (20, facts()))
    assert current.status.phase is Phase.SUSPENDED
    assert summary(current.status)["Ready"] == ("False", "Suspended")
    assert decision.look_again is None
    hours = 7200.0
    resumed, _ = run(with_spec(current, suspend=False), (hours, facts(observation=running())))
    assert resumed.status.phase is Phase.RUNNING, "neither stalled nor past its deadline"
    stalled, _ = run(resumed, (hours + 60, facts(observation=running())))
    assert stalled.status.phase is Phase.FELL_BACK


def test_suspend_before_anything_was_resolved() -> None:
    current, _ = run(task(suspend=True), (0, facts()))
    assert summary(current.status) == {"Ready": ("False", "Suspended")}
    resumed, _ = run(with_spec(current, suspend=False), (60, facts()))
    assert resumed.status.phase is Phase.RESOLVING
    assert summary(resumed.status)["Ready"] == ("False", "Resolving")


@pytest.mark.parametrize(
    "fallen",
    [
        pytest.param(fallen_back(), id="the engine stalled"),
        pytest.param(run(task(backoffLimit=0), (0, facts(failure=DOWN)))[0], id="pinning did not work"),
    ],
)
def test_a_task_that_fell_back_is_open_before_during_and_after_a_suspension(fallen: P2PTask) -> None:
    asleep, _ = run(with_spec(fallen, suspend=True), (500, facts()))
    assert asleep.status.phase is Phase.SUSPENDED
    known = facts(observation=running()) if fallen.status.resolved else facts()
    awake, _ = run(with_spec(asleep, suspend=False), (600, known))
    for current in (fallen, asleep, awake):
        assert summary(current.status)["Ready"] == ("True", "FellBackToOrigin")
    assert awake.status.phase is Phase.FELL_BACK


# --- a tag that moves -----------------------------------------------------------------------------------------------


def test_a_tag_that_moves_and_moves_back() -> None:
    pulled = direct()
    start, _ = run(task(**IMAGE), (0, facts(pin=IMAGE_PIN, observation=pulled)))
    same, _ = run(start, (600, facts(observation=pulled, image_digest=DIGEST)))
    assert "Degraded" not in summary(same.status)
    moved, _ = run(same, (1200, facts(observation=pulled, image_digest=OTHER_DIGEST)))
    assert summary(moved.status)["Degraded"] == ("True", "ImageMoved")
    assert summary(moved.status)["Ready"] == ("True", "NothingToDistribute")
    for part in ("docker.io/vllm/vllm-openai:v0.7.3", DIGEST, OTHER_DIGEST):
        assert part in message(moved.status, "Degraded")
    unknown, _ = run(moved, (1300, facts(observation=pulled)))
    assert unknown.status == moved.status, "between two looks nothing is known, and nothing changes"
    back, _ = run(unknown, (1800, facts(observation=pulled, image_digest=DIGEST)))
    assert summary(back.status)["Degraded"] == ("False", "Healthy")


def test_what_the_engine_says_of_itself_comes_first() -> None:
    told = direct()
    told = replace(told, degraded=("OneReader", "only one node may read the origin"))
    current, _ = run(task(**IMAGE), (0, facts(pin=IMAGE_PIN, observation=told, image_digest=OTHER_DIGEST)))
    assert summary(current.status)["Degraded"] == ("True", "OneReader")


# --- progress -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("seconds", "done_bytes", "shown"),
    [
        pytest.param(3, 149, 100, id="less than 5 % and less than 10 s: nothing moves"),
        pytest.param(3, 150, 150, id="5 %: a step"),
        pytest.param(10, 101, 101, id="10 s: a step, however small"),
        pytest.param(3, 50, 100, id="never backwards"),
        pytest.param(60, 50, 100, id="never backwards, also later"),
    ],
)
def test_progress_moves_in_steps(seconds: float, done_bytes: int, shown: int) -> None:
    start, _ = run(pinned(), (20, facts(observation=running(100))))
    current, _ = run(start, (20 + seconds, facts(observation=running(done_bytes))))
    assert current.status.progress.done_bytes == shown


def test_a_small_step_writes_nothing_at_all() -> None:
    start, _ = run(pinned(), (20, facts(observation=running(100, origin_bytes=100, peer_bytes=7))))
    current, _ = run(start, (23, facts(observation=running(120, origin_bytes=120, peer_bytes=9))))
    assert current.status == start.status


def test_the_last_byte_is_shown_at_once() -> None:
    start, _ = run(pinned(), (20, facts(observation=running(990))))
    current, _ = run(start, (21, facts(observation=running(1000))))
    assert (current.status.progress.percent, current.status.progress.eta_seconds) == (100, None)
    assert current.status.progress.bytes_per_second == 0


def test_more_wanted_copies_are_another_total() -> None:
    start, _ = run(pinned(), (20, facts(observation=running(800, 1000))))
    current, _ = run(start, (21, facts(observation=running(800, 2000))))
    assert (current.status.progress.percent, current.status.progress.total_bytes) == (40, 2000)
    assert current.status.last_progress_time == later(20)


def test_speed_and_eta() -> None:
    start, _ = run(pinned(), (20, facts(observation=running(200))))
    current, _ = run(start, (40, facts(observation=running(400, ready=1, origin_bytes=2**20, peer_bytes=100))))
    progress, shown = current.status.progress, current.status.display
    assert (progress.bytes_per_second, progress.eta_seconds) == (10, 60)
    assert (shown.ready, shown.progress, shown.eta, shown.origin, shown.peer) == ("1/2", "40%", "1m00s", "1.0Mi", "100")
    assert shown.message == "Two nodes are at it"
    stopped, _ = run(current, (100, facts(observation=running(400))))
    assert (stopped.status.progress.bytes_per_second, stopped.status.progress.eta_seconds) == (0, None)
    assert stopped.status.display.eta == "-"


@pytest.mark.parametrize(
    ("steps", "rate", "eta"),
    [
        pytest.param([(60, 4)], 0, None, id="the first bytes: the minute before them is no measure"),
        pytest.param([(60, 4), (61, 104)], 0, None, id="a second later: too short to tell"),
        pytest.param([(60, 4), (64, 104)], 25, 35, id="a few seconds later"),
        pytest.param(
            [(60, 4), (64, 104), (65, 204)], 25, 31, id="the speed that is known stands for a short time, too"
        ),
    ],
)
def test_there_is_no_eta_before_a_few_seconds_of_progress(
    steps: list[tuple[float, int]], rate: int, eta: int | None
) -> None:
    current, _ = run(pinned(), *((seconds, facts(observation=running(done))) for seconds, done in steps))
    assert (current.status.progress.bytes_per_second, current.status.progress.eta_seconds) == (rate, eta)
    assert (current.status.display.eta == "-") == (eta is None)


def test_at_most_twenty_failures_are_listed_and_all_are_counted() -> None:
    failures = tuple(NodeFailure(node=f"gpu-{n}", reason="InsufficientCapacity", message="full") for n in range(50))
    current, _ = run(pinned(), (1, facts(observation=running(failed=50, failures=failures))))
    assert current.status.failed == 50
    assert current.status.failures == failures[:20]


def test_zeros_are_written_so_that_kubectl_wait_works() -> None:
    written = pinned().status.to_json()
    assert [written[name] for name in ("desired", "ready", "failed", "attempts")] == [2, 0, 0, 0]
    progress = written["progress"]
    assert isinstance(progress, dict)
    assert (
        progress.items()
        >= {"percent": 0, "doneBytes": 0, "originBytes": 0, "peerBytes": 0, "bytesPerSecond": 0}.items()
    )
    assert "etaSeconds" not in progress


@pytest.mark.parametrize(
    ("seconds", "text"),
    [(0, "0s"), (59, "59s"), (60, "1m00s"), (74, "1m14s"), (3599, "59m59s"), (3600, "1h00m"), (90061, "25h01m")],
)
def test_format_seconds(seconds: int, text: str) -> None:
    assert format_seconds(seconds) == text


@pytest.mark.parametrize(
    ("count", "text"),
    [
        (0, "0"),
        (1023, "1023"),
        (1024, "1.0Ki"),
        (999_398_605, "953.1Mi"),
        (140 * 2**30, "140.0Gi"),
        (3 * 2**40, "3.0Ti"),
        (5000 * 2**40, "5000.0Ti"),
    ],
)
def test_format_bytes(count: int, text: str) -> None:
    assert format_bytes(count) == text


# --- what must hold for any facts -----------------------------------------------------------------------------------

_states = st.sampled_from(list(EngineState))
_observations = st.builds(
    Observation,
    state=_states,
    reason=st.sampled_from(["Running", "Distributed", "JobFailed"]),
    message=st.sampled_from(["one", "two"]),
    desired=st.integers(0, 3),
    ready=st.integers(0, 3),
    done_bytes=st.integers(0, 1000),
    total_bytes=st.sampled_from([0, 1000, 1000, 1000, 2000]),
    origin_bytes=st.integers(0, 1000),
    measured=st.booleans(),
    degraded=st.sampled_from([None, None, ("OneReader", "slow")]),
    poll_after=st.sampled_from([None, 5.0]),
)
_failures = st.sampled_from(
    [DOWN, AccessDenied("401"), RateLimited("429", retry_after=9.0), RateLimited("429"), TaskBlocked("NameClash", "x")]
)
_facts = st.one_of(
    st.builds(Facts, engine=st.just(Engine.BITTORRENT), resolving=st.booleans()),
    st.builds(Facts, engine=st.just(Engine.BITTORRENT), failure=_failures),
    st.builds(
        Facts,
        engine=st.just(Engine.BITTORRENT),
        pin=st.sampled_from([None, PIN]),
        observation=st.one_of(st.none(), _observations),
    ),
)
_steps = st.lists(
    st.tuples(st.sampled_from([0.0, 1.0, 9.5, 60.0, 181.0, 400.0]), st.booleans(), _facts), min_size=1, max_size=12
)
_specs = st.fixed_dictionaries(
    {
        "backoffLimit": st.integers(0, 2),
        "fallback": st.sampled_from(["Direct", "Fail"]),
        "activeDeadlineSeconds": st.sampled_from([None, 30, 500]),
    }
)


def _is_event(known: Facts) -> bool:
    """Each failure counts; everything else is a state."""
    observation = known.observation
    return known.failure is not None or (observation is not None and observation.state is EngineState.FAILED)


@settings(max_examples=400, deadline=None)
@given(spec=_specs, steps=_steps)
def test_whatever_happens(spec: dict[str, Any], steps: list[tuple[float, bool, Facts]]) -> None:
    current = task(**spec)
    now: datetime = NOW
    for seconds, suspend, known in steps:
        now = later((now - NOW).total_seconds() + seconds)
        current = with_spec(current, suspend=suspend)
        decision = advance(current, known, POLICY, now)
        following = after(current, decision)
        assert following.status == decision.status, "what is written is what is read"
        _check(current, following, decision, known)
        if not _is_event(known):
            again = advance(following, known, POLICY, now)
            assert again.status == decision.status, "the same facts again change nothing"
        current = following


def _check(before: P2PTask, following: P2PTask, decision: Decision, known: Facts) -> None:
    status = following.status
    is_ready = is_true(status.conditions, TaskCondition.READY)
    reason = summary(status).get("Ready", ("", ""))[1]
    match status.phase:
        case Phase.SUCCEEDED:
            assert is_ready
            assert reason != TaskReason.FELL_BACK
        case Phase.FELL_BACK:
            assert is_ready
            assert reason == TaskReason.FELL_BACK
            assert is_true(status.conditions, TaskCondition.DEGRADED)
        case Phase.FAILED | Phase.PENDING | Phase.RESOLVING:
            assert not is_ready
        case Phase.RUNNING:
            assert reason != TaskReason.FELL_BACK
    if is_ready:
        assert status.completion_time is not None
    if before.spec.suspend:
        assert status.phase is Phase.SUSPENDED
        assert is_ready == is_true(before.status.conditions, TaskCondition.READY)
    else:
        assert status.phase is not Phase.SUSPENDED
        assert (decision.retry_in is not None) == (known.failure is not None)
    assert decision.look_again is None or decision.look_again > 0, "never a busy loop"
    assert decision.retry_in is None or decision.retry_in > 0
    assert status.attempts <= before.spec.backoff_limit + 1
    lost = is_true(before.status.conditions, TaskCondition.READY) and not is_ready
    same = status.progress.total_bytes == before.status.progress.total_bytes
    if same and status.display.progress != "-" and not lost:
        assert status.progress.done_bytes >= before.status.progress.done_bytes
        assert status.progress.percent >= before.status.progress.percent
    assert 0 <= status.progress.percent <= 100
    if before.status.resolved is not None:
        assert status.resolved == before.status.resolved
