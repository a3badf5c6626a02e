"""Which tasks have a problem, and which one."""

import pytest

from modelswarm.api.meta import JsonObject
from modelswarm.controllers.problems import MOST, index_by_problem, problem_of, task_problems
from modelswarm.kube.kinds import P2PTASK
from modelswarm.kube.store import Store
from modelswarm.metrics import TaskProblem


def task(name: str = "a", version: int = 1, **status: object) -> JsonObject:
    meta = {"namespace": "ns", "name": name, "uid": name, "resourceVersion": str(version)}
    return {"apiVersion": "llmaz.io/v1alpha1", "kind": "P2PTask", "metadata": meta, "status": dict(status)}


def condition(type_: str, status: str, reason: str) -> JsonObject:
    return {"type": type_, "status": status, "reason": reason, "message": ""}


RUNNING = condition("Ready", "False", "Running")
FELL_BACK = condition("Ready", "True", "FellBackToOrigin")


@pytest.mark.parametrize(
    ("status", "reason"),
    [
        pytest.param({}, None, id="nobody has looked at it yet"),
        pytest.param(
            {"phase": "Resolving", "conditions": [condition("Resolved", "False", "Resolving")]}, None, id="new"
        ),
        pytest.param({"phase": "Running", "conditions": [RUNNING]}, None, id="on its way"),
        pytest.param(
            {"phase": "Succeeded", "conditions": [condition("Ready", "True", "Distributed")]}, None, id="done"
        ),
        pytest.param(
            {"phase": "Suspended", "conditions": [condition("Degraded", "True", "Stalled")]}, None, id="suspended"
        ),
        pytest.param(
            {"phase": "FellBack", "conditions": [FELL_BACK, condition("Degraded", "True", "Stalled")]},
            "Stalled",
            id="after a fallback Degraded has the cause",
        ),
        pytest.param(
            {"phase": "Failed", "conditions": [condition("Ready", "False", "AccessDenied")]},
            "AccessDenied",
            id="failed",
        ),
        pytest.param(
            {
                "phase": "Resolving",
                "conditions": [
                    condition("Resolved", "False", "SourceUnavailable"),
                    condition("Ready", "False", "Resolving"),
                ],
            },
            "SourceUnavailable",
            id="the origin does not answer, and is asked again",
        ),
        pytest.param(
            {"phase": "Running", "conditions": [condition("Ready", "False", "NoAgent")]}, "NoAgent", id="engine"
        ),
        pytest.param(
            {"phase": "Running", "conditions": [condition("Degraded", "False", "Healthy"), RUNNING]}, None, id="healed"
        ),
        pytest.param(
            {
                "phase": "Running",
                "conditions": [RUNNING],
                "failures": [{"node": "n1", "reason": "InsufficientCapacity", "message": ""}],
            },
            "InsufficientCapacity",
            id="it goes on, but not on all nodes",
        ),
    ],
)
def test_the_problem_of_a_task(status: dict[str, object], reason: str | None) -> None:
    found = problem_of(task(engine="BitTorrent", **status))
    expected = TaskProblem("ns", "a", "BitTorrent", str(status.get("phase")), reason) if reason else None
    assert found == expected


@pytest.mark.parametrize("status", [None, [], "x", {"conditions": None}, {"conditions": ["x"]}, {"failures": [None]}])
def test_a_status_that_makes_no_sense_is_no_problem_of_ours(status: object) -> None:
    assert problem_of({"metadata": {"name": "a"}, "status": status}) is None


def test_the_store_keeps_them_at_hand() -> None:
    store = Store()
    index_by_problem(store)
    store.put(P2PTASK, task("b", 1, phase="Failed", conditions=[condition("Ready", "False", "AccessDenied")]))
    store.put(P2PTASK, task("a", 2, phase="FellBack", conditions=[condition("Degraded", "True", "Stalled")]))
    store.put(P2PTASK, task("c", 3, phase="Running", engine="Direct", conditions=[RUNNING]))
    assert task_problems(store) == [
        TaskProblem("ns", "a", "", "FellBack", "Stalled"),
        TaskProblem("ns", "b", "", "Failed", "AccessDenied"),
    ]
    store.put(P2PTASK, task("a", 4, phase="Succeeded", conditions=[condition("Ready", "True", "Distributed")]))
    store.remove(P2PTASK, task("b", 5))
    assert task_problems(store) == []


def test_there_are_never_too_many() -> None:
    store = Store()
    index_by_problem(store)
    for number in range(MOST + 10):
        broken = condition("Ready", "False", "SourceUnavailable")
        store.put(P2PTASK, task(f"t-{number:04}", number + 1, phase="Resolving", conditions=[broken]))
    found = task_problems(store)
    assert len(found) == MOST
    assert found[0].task == "t-0000"
