from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from modelswarm.api.conditions import PlaygroundReason
from modelswarm.api.p2ptask import P2PTask
from modelswarm.controllers.gate import Gate, Wait, WaitKind, decide, parse_duration
from modelswarm.controllers.task_status import Facts, advance
from modelswarm.errors import AccessDenied
from tests.unit.controllers.objects import (
    NOW,
    PIN,
    POLICY,
    after,
    direct,
    facts,
    later,
    running,
    task,
    unreachable,
)

TIMEOUT = 1800.0


def at(seconds: float, *known: Facts, **spec: Any) -> P2PTask:
    """A task that learned of these facts, all at that time."""
    current = task(created=later(seconds), **spec)
    for each in known:
        current = after(current, advance(current, each, POLICY, later(seconds)))
    return current


DONE = at(0, facts(pin=PIN, observation=direct()))
FELL_BACK = after(
    DONE, advance(at(0, facts(pin=PIN, observation=running())), facts(observation=unreachable()), POLICY, later(500))
)
BUSY = at(0, facts(pin=PIN, observation=running()))
DENIED = at(0, facts(failure=AccessDenied("the repository is gated")))


def model(of: P2PTask | None, name: str = "llama3-8b") -> Wait:
    return Wait(WaitKind.MODEL, name, of)


def image(of: P2PTask | None, name: str = "vllm/vllm-openai:v0.7.3") -> Wait:
    return Wait(WaitKind.IMAGE, name, of)


def gate(*waits: Wait, seconds: float = 0, timeout: float = TIMEOUT, since: float = 0) -> Gate:
    return decide(waits, since=later(since), timeout=timeout, now=later(seconds))


@pytest.mark.parametrize(
    ("waits", "open_"),
    [
        pytest.param([], True, id="nothing to wait for: open"),
        pytest.param([model(DONE), image(DONE)], True, id="everything Ready: open"),
        pytest.param([model(FELL_BACK)], True, id="fallen back is Ready: open"),
        pytest.param([model(DONE), image(BUSY)], False, id="the image is still on its way: closed"),
        pytest.param([model(BUSY), image(DONE)], False, id="the model is still on its way: closed"),
        pytest.param([model(None)], False, id="no task yet: closed"),
        pytest.param([model(task())], False, id="a task without a status: closed"),
        pytest.param([model(DENIED)], False, id="a task that needs a person: closed"),
    ],
)
def test_decide(waits: list[Wait], open_: bool) -> None:
    found = gate(*waits)
    assert found.open is open_
    assert not found.timed_out
    assert (found.reason is None) is open_


@pytest.mark.parametrize(
    ("waits", "reason"),
    [
        pytest.param([model(BUSY), image(BUSY)], PlaygroundReason.WAITING_FOR_MODEL, id="the first that is pending"),
        pytest.param([model(DONE), image(BUSY)], PlaygroundReason.PREHEATING_IMAGE, id="only the image is pending"),
        pytest.param([model(BUSY), image(DENIED)], PlaygroundReason.PREHEATING_IMAGE, id="the stuck one comes first"),
    ],
)
def test_the_reason_names_what_matters_most(waits: list[Wait], reason: PlaygroundReason) -> None:
    assert gate(*waits).reason is reason


@pytest.mark.parametrize(
    ("wait", "message"),
    [
        pytest.param(model(None), "model llama3-8b: no task yet", id="no task"),
        pytest.param(model(task()), "model llama3-8b: Pending", id="nothing known"),
        pytest.param(
            model(at(0, facts(resolving=True))),
            "model llama3-8b: Resolving: Asking the origin what there is",
            id="resolving",
        ),
        pytest.param(
            model(DENIED), "model llama3-8b: AccessDenied: the repository is gated", id="the reason of a failure"
        ),
        pytest.param(
            model(at(0, facts(), suspend=True)), "model llama3-8b: Suspended: spec.suspend is true", id="suspended"
        ),
        pytest.param(image(BUSY, "vllm:v1"), "image vllm:v1: 0% 0/2", id="running without an ETA"),
    ],
)
def test_the_message_says_what_is_waited_for(wait: Wait, message: str) -> None:
    assert gate(wait).message == message


def test_the_message_has_percent_copies_and_eta() -> None:
    begun = after(BUSY, advance(BUSY, facts(observation=running(200)), POLICY, later(10)))
    moving = after(begun, advance(begun, facts(observation=running(400, ready=1)), POLICY, later(20)))
    assert gate(model(moving), image(None, "vllm:v1"), seconds=20).message == (
        "model llama3-8b: 40% 1/2 ETA 30s; image vllm:v1: no task yet"
    )


def test_a_gate_opens_after_so_long_without_progress_and_says_so() -> None:
    early = gate(model(BUSY), seconds=TIMEOUT - 1)
    assert not early.open
    assert early.look_again == pytest.approx(1.1)
    late = gate(model(BUSY), seconds=TIMEOUT)
    assert late.open
    assert late.timed_out
    assert late.reason is PlaygroundReason.GATE_TIMEOUT
    assert late.message == (
        "Started without waiting any longer, after 1800 s without progress: model llama3-8b: 0% 0/2"
    )


def test_progress_puts_the_timeout_off() -> None:
    moving = after(BUSY, advance(BUSY, facts(observation=running(100)), POLICY, later(1000)))
    assert not gate(model(moving), seconds=2799).open
    assert gate(model(moving), seconds=2800).timed_out


def test_progress_of_any_pending_task_counts() -> None:
    moving = after(BUSY, advance(BUSY, facts(observation=running(100)), POLICY, later(1000)))
    assert not gate(image(BUSY), model(moving), seconds=2799).open


def test_a_playground_that_came_later_waits_its_own_time() -> None:
    assert not gate(model(BUSY), since=5000, seconds=5000 + TIMEOUT - 1).open
    assert gate(model(BUSY), since=5000, seconds=5000 + TIMEOUT).timed_out


def test_a_new_task_of_an_old_playground_has_its_own_time() -> None:
    days = 300_000.0
    new = task(created=later(days))
    assert not gate(model(new), seconds=days + 1).open


def test_a_task_that_does_not_exist_does_not_let_the_time_run_out() -> None:
    found = gate(model(None), seconds=1e7)
    assert not found.open
    assert found.look_again == pytest.approx(TIMEOUT + 0.1)


@pytest.mark.parametrize("waits", [[model(DENIED)], [model(BUSY), image(DENIED)]], ids=["alone", "among others"])
def test_what_needs_a_person_never_opens_the_gate(waits: list[Wait]) -> None:
    found = gate(*waits, seconds=1e7)
    assert not found.open
    assert found.look_again is None


def test_timeout_zero_is_never() -> None:
    found = gate(model(BUSY), seconds=1e7, timeout=0)
    assert not found.open
    assert found.look_again is None


def test_a_timeout_beyond_any_calendar_is_as_good_as_never() -> None:
    assert not gate(model(BUSY), seconds=1e6, timeout=1e300).open


@pytest.mark.parametrize(
    ("text", "seconds"),
    [
        ("30m", 1800),
        ("90s", 90),
        ("2h", 7200),
        ("1h30m", 5400),
        ("1h0m30s", 3630),
        ("90", 90),
        ("0", 0),
        ("0s", 0),
        (" 5m ", 300),
        ("", None),
        ("  ", None),
        ("soon", None),
        ("-5m", None),
        ("1.5h", None),
        ("30m1h", None),
        ("5 m", None),
        ("5M", None),
        ("²", None),
        ("٣m", None),
        ("9999999h", None),
        ("9" * 400, None),
    ],
)
def test_parse_duration(text: str, seconds: float | None) -> None:
    assert parse_duration(text) == seconds


@given(st.text())
def test_any_annotation_is_a_duration_that_a_clock_can_take_or_none(text: str) -> None:
    seconds = parse_duration(text)
    assert seconds is None or later(seconds) >= NOW
