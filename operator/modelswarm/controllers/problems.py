"""Which P2PTasks have a problem, and which one: what a dashboard shows and an alert names. Pure, but for the index."""

from collections.abc import Iterable, Mapping

from modelswarm.api.conditions import TaskCondition, TaskReason
from modelswarm.api.meta import JsonObject
from modelswarm.api.p2ptask import Phase
from modelswarm.kube.kinds import P2PTASK
from modelswarm.kube.objects import key_of
from modelswarm.kube.store import Store
from modelswarm.metrics import TaskProblem

INDEX = "problem"
MOST = 500
"""A cluster whose origin is away has a problem with each of its tasks; Prometheus need not keep thousands of series."""

_USUAL = frozenset({TaskReason.ACCEPTED, TaskReason.RESOLVING, TaskReason.RUNNING, TaskReason.SUSPENDED})
"""Reasons for False that belong to the normal course of things."""


def problem_of(obj: JsonObject) -> TaskProblem | None:
    """The problem of a P2PTask, if it has one. Degraded comes first: after a fallback it has the true cause."""
    status = _mapping(obj.get("status"))
    phase = str(status.get("phase") or Phase.PENDING)
    if phase == Phase.SUSPENDED:
        return None
    reason = _degraded(status) or _blocked(status) or _failed_node(status)
    if reason is None:
        return None
    key = key_of(obj)
    return TaskProblem(key.namespace, key.name, str(status.get("engine") or ""), phase, reason)


def index_by_problem(store: Store) -> None:
    """Let the store keep the problems at hand, so that a scrape looks at no object."""

    def values(obj: JsonObject) -> Iterable[str]:
        problem = problem_of(obj)
        return [] if problem is None else ["/".join(problem)]

    store.index(P2PTASK, INDEX, values)


def task_problems(store: Store) -> list[TaskProblem]:
    """At most ``MOST``, by namespace and name. Also safe to call from another thread."""
    found = sorted(store.tally(P2PTASK, INDEX))[:MOST]
    return [TaskProblem(*value.split("/", 4)) for value in found]


def _degraded(status: Mapping[str, object]) -> str | None:
    return _reason(status, TaskCondition.DEGRADED, "True")


def _blocked(status: Mapping[str, object]) -> str | None:
    """Why it does not go on: of the conditions, the first one in the order of the work."""
    found = (_reason(status, each, "False") for each in (TaskCondition.RESOLVED, TaskCondition.READY))
    return next((reason for reason in found if reason is not None and reason not in _USUAL), None)


def _failed_node(status: Mapping[str, object]) -> str | None:
    """The task goes on, and some nodes do not."""
    failures = status.get("failures")
    first = _mapping(failures[0]) if isinstance(failures, list) and failures else {}
    return str(first["reason"]) if first.get("reason") else None


def _reason(status: Mapping[str, object], type_: str, value: str) -> str | None:
    conditions = status.get("conditions")
    for condition in conditions if isinstance(conditions, list) else []:
        each = _mapping(condition)
        if each.get("type") == type_ and each.get("status") == value:
            return str(each.get("reason") or "Unknown")
    return None


def _mapping(value: object) -> Mapping[str, object]:
    return value if isinstance(value, dict) else {}
