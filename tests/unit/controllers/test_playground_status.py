from typing import Any

import pytest

from modelswarm.api.conditions import PlaygroundReason, find
from modelswarm.api.playground import PlaygroundStatus
from modelswarm.controllers.gate import Gate
from modelswarm.controllers.playground_status import Aborted, Serving, Situation, serving, status_of
from tests.unit.controllers.objects import later, message, playground, summary

OPEN = Gate(open=True)
CLOSED = Gate(open=False, reason=PlaygroundReason.WAITING_FOR_MODEL, message="model llama3-8b: 71% ETA 1m14s")
IMAGE = Gate(open=False, reason=PlaygroundReason.PREHEATING_IMAGE, message="image vllm: Running")
UP = Serving(wanted=1, pods=1, available=True)
DOWN = Serving(wanted=1, pods=1, available=False)
MISSING = Aborted("ModelNotFound", "Waiting for model creation: OpenModel llama3-8b does not exist")
PENDING = "Waiting for inference Deployment ready"

Sequence = list[tuple[Situation, dict[str, tuple[str, str]]]]


def follow(*situations: Situation) -> list[PlaygroundStatus]:
    """The statuses one after the other, a minute apart."""
    found: list[PlaygroundStatus] = []
    for minute, situation in enumerate(situations):
        current = playground(found[-1] if found else None)
        found.append(status_of(current, situation, later(60 * minute)))
        again = status_of(playground(found[-1]), situation, later(60 * minute + 1))
        assert again == found[-1], "the same situation again is the same status"
    return found


def situation(serving: Serving | None, gate: Gate = OPEN, **fields: Any) -> Situation:
    return Situation(gate=gate, serving=serving, **fields)


LLMAZ: Sequence = [
    (situation(DOWN), {"Progressing": ("True", "Pending"), "Available": ("False", "Pending")}),
    (situation(UP), {"Progressing": ("True", "Pending"), "Available": ("True", "PlaygroundReady")}),
    (
        situation(DOWN),
        {"Progressing": ("True", "PlaygroundInProgress"), "Available": ("False", "PlaygroundNotReady")},
    ),
    (situation(UP), {"Progressing": ("True", "PlaygroundInProgress"), "Available": ("True", "PlaygroundReady")}),
]
GATED: Sequence = [
    (
        situation(None, CLOSED),
        {"Progressing": ("True", "WaitingForModel"), "Available": ("False", "WaitingForModel")},
    ),
    (
        situation(None, IMAGE),
        {"Progressing": ("True", "PreheatingImage"), "Available": ("False", "PreheatingImage")},
    ),
    *LLMAZ,
]
ABORTED: Sequence = [
    (
        Situation(aborted=MISSING),
        {"Progressing": ("False", "AbortProcessing"), "Available": ("False", "ModelNotFound")},
    ),
    *LLMAZ,
]
ABORTED_AND_GATED: Sequence = [ABORTED[0], *GATED]
ABORTED_LATER: Sequence = [
    *LLMAZ,
    (
        Situation(aborted=MISSING, serving=UP),
        {"Progressing": ("False", "AbortProcessing"), "Available": ("True", "PlaygroundReady")},
    ),
    (
        Situation(aborted=MISSING, serving=DOWN),
        {"Progressing": ("False", "AbortProcessing"), "Available": ("False", "PlaygroundNotReady")},
    ),
    (situation(UP), {"Progressing": ("True", "Pending"), "Available": ("True", "PlaygroundReady")}),
]
HELD: Sequence = [
    *LLMAZ,
    (
        situation(UP, CLOSED, held=True),
        {"Progressing": ("True", "UpdateWaiting"), "Available": ("True", "PlaygroundReady")},
    ),
    (
        situation(DOWN, CLOSED, held=True),
        {"Progressing": ("True", "UpdateWaiting"), "Available": ("False", "PlaygroundNotReady")},
    ),
    (
        situation(UP, CLOSED, held=True),
        {"Progressing": ("True", "UpdateWaiting"), "Available": ("True", "PlaygroundReady")},
    ),
    (
        situation(DOWN),
        {"Progressing": ("True", "PlaygroundInProgress"), "Available": ("False", "PlaygroundNotReady")},
    ),
    (situation(UP), {"Progressing": ("True", "PlaygroundInProgress"), "Available": ("True", "PlaygroundReady")}),
]


@pytest.mark.parametrize(
    "sequence",
    [
        pytest.param(LLMAZ, id="llmaz's own sequence: pending, ready, in progress, ready again"),
        pytest.param(GATED, id="waits for model and image first, then as in llmaz"),
        pytest.param(ABORTED, id="aborts, recovers when the cause is gone"),
        pytest.param(ABORTED_AND_GATED, id="aborts, recovers into the gate"),
        pytest.param(ABORTED_LATER, id="aborts while it serves and goes on serving"),
        pytest.param(HELD, id="an update is held until it is warm"),
    ],
)
def test_sequence(sequence: Sequence) -> None:
    statuses = follow(*(each for each, _ in sequence))
    assert [summary(status) for status in statuses] == [expected for _, expected in sequence]


def test_the_status_column_says_what_is_waited_for() -> None:
    (status,) = follow(situation(None, CLOSED))
    for type_ in ("Progressing", "Available"):
        assert message(status, type_) == "model llama3-8b: 71% ETA 1m14s"


def test_the_status_column_says_why_there_is_no_workload() -> None:
    (status,) = follow(Situation(aborted=MISSING))
    for type_ in ("Progressing", "Available"):
        assert message(status, type_) == MISSING.message


def test_a_held_update_says_what_it_waits_for() -> None:
    *_, status = follow(situation(UP), situation(UP, CLOSED, held=True))
    assert message(status, "Progressing") == (
        "The new version waits, the present one serves on: model llama3-8b: 71% ETA 1m14s"
    )


def test_without_a_deployment_and_without_a_reason_it_is_pending() -> None:
    (status,) = follow(situation(None))
    assert summary(status) == {"Progressing": ("True", "Pending"), "Available": ("False", "Pending")}


def test_a_transition_time_moves_only_with_the_status() -> None:
    statuses = follow(situation(None, CLOSED), situation(DOWN), situation(UP), situation(DOWN))
    times = [find(status.conditions, "Available") for status in statuses]
    assert [each.last_transition_time for each in times if each] == [later(0), later(0), later(120), later(180)]


@pytest.mark.parametrize(
    "each",
    [
        pytest.param(Situation(aborted=MISSING), id="aborted"),
        pytest.param(situation(None, CLOSED), id="waiting"),
        pytest.param(situation(UP), id="serving"),
    ],
)
def test_selector_and_replicas_are_always_there(each: Situation) -> None:
    (status,) = follow(each)
    written = status.to_json()
    assert written["selector"] == "llmaz.io/playground=llama"
    assert written["replicas"] == (1 if each.serving else 0)


def test_degraded_appears_and_recovers() -> None:
    why = (PlaygroundReason.GATE_TIMEOUT, "Started without waiting any longer")
    statuses = follow(situation(UP), situation(UP, degraded=why), situation(UP))
    assert [summary(status).get("Degraded") for status in statuses] == [
        None,
        ("True", "GateTimeout"),
        ("False", "Healthy"),
    ]


def test_an_abort_does_not_claim_that_all_is_well() -> None:
    why = (PlaygroundReason.GATE_TIMEOUT, "Started without waiting any longer")
    *_, status = follow(situation(UP, degraded=why), Situation(aborted=MISSING, serving=UP))
    assert summary(status)["Degraded"] == ("True", "GateTimeout")


@pytest.mark.parametrize("before", [[], [situation(UP)]], ids=["before the first time", "after it has served"])
def test_trouble_of_the_deployment_is_in_the_message(before: list[Situation]) -> None:
    trouble = Serving(wanted=1, pods=0, available=False, trouble="FailedCreate: exceeded quota")
    *_, status = follow(*before, situation(trouble))
    assert message(status, "Available") == f"{PENDING}: FailedCreate: exceeded quota"


def deployment(
    *, generation: int = 1, observed: int = 1, replicas: int | None = 2, conditions: Any = None, **counts: int
) -> dict[str, Any]:
    status: dict[str, Any] = {"observedGeneration": observed, **counts}
    if conditions is not None:
        status["conditions"] = conditions
    spec = {} if replicas is None else {"replicas": replicas}
    return {"metadata": {"generation": generation}, "spec": spec, "status": status}


@pytest.mark.parametrize(
    ("live", "expected"),
    [
        pytest.param(None, None, id="no Deployment"),
        pytest.param(
            {"metadata": {"generation": 1}, "spec": {"replicas": 1}}, Serving(1, 0, False), id="just created: no status"
        ),
        pytest.param(
            deployment(replicas=2, updatedReplicas=2, availableReplicas=2), Serving(2, 2, True), id="all pods are up"
        ),
        pytest.param(
            deployment(replicas=2, updatedReplicas=2, availableReplicas=1), Serving(2, 2, False), id="one is not up"
        ),
        pytest.param(
            deployment(replicas=2, updatedReplicas=1, availableReplicas=2),
            Serving(2, 2, False),
            id="one is of the old template",
        ),
        pytest.param(
            deployment(generation=2, observed=1, replicas=2, updatedReplicas=2, availableReplicas=2),
            Serving(2, 2, False),
            id="the status is of an older generation",
        ),
        pytest.param(
            deployment(replicas=None, updatedReplicas=1, availableReplicas=1),
            Serving(1, 2, True),
            id="replicas defaults to one",
        ),
        pytest.param(deployment(replicas=0), Serving(0, 2, True), id="scaled to zero: nothing is missing"),
        pytest.param(
            deployment(
                conditions=[
                    {"type": "Available", "status": "False", "reason": "MinimumReplicasUnavailable", "message": "no"},
                    {"type": "Progressing", "status": "True", "reason": "ReplicaSetUpdated", "message": "fine"},
                ]
            ),
            Serving(2, 2, False),
            id="a rollout under way is no trouble",
        ),
        pytest.param(
            deployment(
                conditions=[
                    {
                        "type": "Progressing",
                        "status": "False",
                        "reason": "ProgressDeadlineExceeded",
                        "message": "stuck",
                    },
                    {"type": "ReplicaFailure", "status": "True", "reason": "FailedCreate", "message": "quota"},
                ]
            ),
            Serving(2, 2, False, "ProgressDeadlineExceeded: stuck; FailedCreate: quota"),
            id="a stuck rollout and refused pods are trouble",
        ),
    ],
)
def test_serving(live: dict[str, Any] | None, expected: Serving | None) -> None:
    if live is not None and "status" in live:
        live["status"].setdefault("replicas", 2)
    assert serving(live) == expected
