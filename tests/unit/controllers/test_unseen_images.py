"""Images that no engine brings and that the operator cannot look at: nobody waits for what is only good to know."""

from typing import Any

import pytest

from modelswarm.api.p2ptask import Engine, P2PTask, Phase
from modelswarm.controllers.task_status import BLOCKED_RETRY_SECONDS, Decision, Facts, advance, backoff
from modelswarm.errors import (
    AccessDenied,
    ContentError,
    InvalidReference,
    PlatformNotFound,
    RateLimited,
    RevisionNotFound,
    SourceNotFound,
    SourceUnavailable,
    TaskBlocked,
)
from tests.unit.controllers.objects import (
    IMAGE,
    IMAGE_PIN,
    POLICY,
    after,
    direct,
    facts,
    later,
    message,
    summary,
    task,
    with_spec,
)

DENIED = AccessDenied("the registry asks for a password")
DOWN = SourceUnavailable("the registry does not answer in time")


def seen(**known: Any) -> Facts:
    return facts(**{"engine": Engine.DIRECT, **known})


def run(start: P2PTask, *steps: tuple[float, Facts]) -> tuple[P2PTask, Decision]:
    current, decision = start, None
    for seconds, known in steps:
        decision = advance(current, known, POLICY, later(seconds))
        current = current if decision.hold else after(current, decision)
    assert decision is not None
    return current, decision


@pytest.mark.parametrize(
    ("failure", "retry"),
    [
        pytest.param(DENIED, POLICY.retry, id="the registry wants a password that nobody gave us"),
        pytest.param(DOWN, backoff(1), id="the registry cannot be reached from here"),
        pytest.param(SourceUnavailable("503", retry_after=7.0), 7.0, id="the registry says when to come back"),
        pytest.param(RateLimited("429", retry_after=40.0), 40.0, id="the registry has had enough of us"),
        pytest.param(RateLimited("429"), POLICY.retry, id="the registry has had enough, and does not say until when"),
        pytest.param(
            TaskBlocked("CredentialNotReadable", "show the operator Secret regcred"),
            BLOCKED_RETRY_SECONDS,
            id="we may not read the pull secret that the kubelet uses",
        ),
    ],
)
def test_a_task_whose_image_cannot_be_looked_at_is_ready_at_once_and_says_why(
    failure: ContentError | TaskBlocked, retry: float
) -> None:
    current, decision = run(task(**IMAGE), (0, seen()), (1, seen(failure=failure)))
    assert current.status.phase is Phase.SUCCEEDED
    assert summary(current.status) == {
        "Accepted": ("True", "Accepted"),
        "Resolved": ("False", failure.reason),
        "Ready": ("True", "NothingToDistribute"),
        "Degraded": ("True", failure.reason),
    }
    assert failure.message in message(current.status, "Degraded")
    assert failure.message in current.status.display.message
    assert (decision.retry_in, decision.look_again) == (retry, retry), "it is looked at again"
    assert current.status.completion_time == later(1)


@pytest.mark.parametrize(
    "failure",
    [
        pytest.param(RevisionNotFound("no such tag"), id="there is no such tag"),
        pytest.param(SourceNotFound("no such repository"), id="there is no such repository"),
        pytest.param(PlatformNotFound("not for s390x"), id="there is none for this platform"),
        pytest.param(InvalidReference("no image"), id="it is not an image"),
    ],
)
def test_an_image_that_surely_is_not_there_keeps_the_task_failed(failure: ContentError) -> None:
    current, _ = run(task(**IMAGE), (1, seen(failure=failure)))
    assert current.status.phase is Phase.FAILED
    assert summary(current.status)["Ready"] == ("False", failure.reason)
    slow, _ = run(current, (300, seen(resolving=True)), (306, seen(resolving=True, overdue=True)))
    assert slow.status == current.status, "that the next answer takes long makes it no more likely"


@pytest.mark.parametrize(
    ("spec", "engine"),
    [
        pytest.param({**IMAGE, "fallback": "Fail"}, Engine.DIRECT, id="who wants to wait waits"),
        pytest.param(IMAGE, Engine.DRAGONFLY, id="an engine has to know what it brings"),
        pytest.param({}, Engine.DIRECT, id="a model's consumers cannot do without its list of files"),
    ],
)
def test_elsewhere_resolving_is_waited_for(spec: dict[str, Any], engine: Engine) -> None:
    denied, _ = run(task(**spec), (1, facts(engine=engine, failure=DENIED)))
    assert (denied.status.phase, summary(denied.status)["Ready"]) == (Phase.FAILED, ("False", "AccessDenied"))
    slow, _ = run(task(**spec), (20, facts(engine=engine, resolving=True, overdue=True)))
    assert (slow.status.phase, summary(slow.status)["Ready"]) == (Phase.RESOLVING, ("False", "Resolving"))


def test_a_registry_that_does_not_answer_at_all_is_waited_for_a_few_seconds_only() -> None:
    slow, decision = run(task(**IMAGE), (0, seen()), (2, seen(resolving=True)))
    assert (slow.status.phase, decision.look_again) == (Phase.RESOLVING, 1.0), "nothing wakes us meanwhile"
    ready, decision = run(slow, (5, seen(resolving=True, overdue=True)))
    assert (ready.status.phase, decision.look_again) == (Phase.SUCCEEDED, None)
    assert summary(ready.status)["Ready"] == ("True", "NothingToDistribute")
    assert summary(ready.status)["Degraded"] == ("True", "Resolving")
    told, _ = run(ready, (30, seen(failure=DOWN)))
    assert summary(told.status)["Degraded"] == ("True", "SourceUnavailable")
    waiting, decision = run(told, (31, seen(retry_in=1.0)))
    assert waiting.status == told.status
    assert decision.look_again == 1.0


def test_once_the_registry_answers_all_is_well() -> None:
    unseen, _ = run(task(**IMAGE), (1, seen(failure=DENIED)))
    current, _ = run(unseen, (60, seen(pin=IMAGE_PIN, observation=direct())))
    assert current.status.phase is Phase.SUCCEEDED
    assert current.status.resolved == IMAGE_PIN.resolved
    assert summary(current.status)["Resolved"] == ("True", "Resolved")
    assert summary(current.status)["Degraded"] == ("False", "Healthy")
    assert current.status.completion_time == later(1)


def test_what_was_ready_unseen_is_ready_after_a_suspension() -> None:
    unseen, _ = run(task(**IMAGE), (1, seen(failure=DENIED)))
    asleep, _ = run(with_spec(unseen, suspend=True), (10, seen()))
    awake, _ = run(with_spec(asleep, suspend=False), (20, seen(resolving=True)))
    assert (asleep.status.phase, awake.status.phase) == (Phase.SUSPENDED, Phase.SUCCEEDED)
    for current in (asleep, awake):
        assert summary(current.status)["Ready"] == ("True", "NothingToDistribute")


def test_a_registry_that_stays_away_is_asked_ever_more_seldom() -> None:
    current, waits = task(backoffLimit=3, **IMAGE), []
    for attempt in range(6):
        current, decision = run(current, (attempt * 100, seen(failure=DOWN)))
        waits.append(decision.retry_in)
    assert waits == [2.0, 4.0, 8.0, POLICY.retry, POLICY.retry, POLICY.retry]
