"""What a Playground's status should say. Pure.

llmaz's conditions and words are kept: Progressing goes to ``Pending`` first and is never reset to
False except by an abort; Available appears with ``PlaygroundReady`` and goes to ``PlaygroundNotReady``. What we add:
Available is also written, as False, while the Playground waits or cannot go on, because the STATUS column of
``kubectl get playgrounds`` shows its reason.
"""

from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime

from modelswarm.api.conditions import (
    Condition,
    PlaygroundCondition,
    PlaygroundReason,
    find,
    set_condition,
)
from modelswarm.api.conditions import Status as ConditionStatus
from modelswarm.api.labels import PLAYGROUND
from modelswarm.api.meta import JsonObject
from modelswarm.api.playground import Playground, PlaygroundStatus
from modelswarm.controllers.gate import Gate

_Put = Callable[[PlaygroundCondition, ConditionStatus, str, str], None]


@dataclass(frozen=True, slots=True)
class Aborted:
    """Why there can be no workload: ``reason`` is typed; ``message`` says what is wrong and what to do."""

    reason: str
    message: str


@dataclass(frozen=True, slots=True)
class Serving:
    """The Deployment as far as the status needs it."""

    wanted: int
    pods: int
    available: bool
    trouble: str = ""
    """What the Deployment itself complains about: quota, a refused pod, a rollout that does not get on."""


@dataclass(frozen=True, slots=True)
class Situation:
    """Everything that a Playground's status follows from."""

    aborted: Aborted | None = None
    gate: Gate | None = None
    serving: Serving | None = None
    """None while there is no Deployment."""
    held: bool = False
    """The Deployment runs an older template, because the gate of the new one is closed."""
    degraded: tuple[str, str] | None = None


def serving(deployment: JsonObject | None) -> Serving | None:
    """The Deployment's state. Available means that every wanted pod of the present template is (llmaz's rule)."""
    if deployment is None:
        return None
    metadata, spec, status = (_mapping(deployment.get(key)) for key in ("metadata", "spec", "status"))
    wanted = _count(spec.get("replicas"), 1)
    observed = _count(status.get("observedGeneration")) >= _count(metadata.get("generation"), 1)
    counts = [_count(status.get(key)) for key in ("updatedReplicas", "availableReplicas")]
    complaints = status.get("conditions")
    trouble = [
        f"{condition.get('reason')}: {condition.get('message')}"
        for condition in (complaints if isinstance(complaints, list) else [])
        if isinstance(condition, dict)
        and (condition.get("type"), condition.get("status")) in (("ReplicaFailure", "True"), ("Progressing", "False"))
    ]
    return Serving(
        wanted=wanted,
        pods=_count(status.get("replicas")),
        available=observed and all(count >= wanted for count in counts),
        trouble="; ".join(trouble),
    )


def status_of(playground: Playground, situation: Situation, now: datetime) -> PlaygroundStatus:
    """The status to write; the same situation twice gives the same status."""
    conditions = playground.status.conditions

    def put(type_: PlaygroundCondition, status: ConditionStatus, reason: str, message: str) -> None:
        nonlocal conditions
        generation = playground.metadata.generation
        conditions = set_condition(conditions, type_, status, reason, message, generation=generation, now=now)

    if situation.aborted is not None:
        put(PlaygroundCondition.PROGRESSING, "False", PlaygroundReason.ABORT, situation.aborted.message)
    if situation.serving is None:
        _say_why_nothing_runs(situation, put)
    else:
        _say_how_it_serves(situation, situation.serving, conditions, put)
    if situation.degraded is not None:
        put(PlaygroundCondition.DEGRADED, "True", *situation.degraded)
    elif situation.aborted is None and find(conditions, PlaygroundCondition.DEGRADED) is not None:
        put(PlaygroundCondition.DEGRADED, "False", PlaygroundReason.HEALTHY, "Works as asked")
    return PlaygroundStatus(
        conditions=conditions,
        replicas=situation.serving.pods if situation.serving is not None else 0,
        selector=f"{PLAYGROUND}={playground.metadata.name}",
    )


def _say_why_nothing_runs(situation: Situation, put: _Put) -> None:
    if situation.aborted is not None:
        put(PlaygroundCondition.AVAILABLE, "False", situation.aborted.reason, situation.aborted.message)
        return
    gate = situation.gate
    reason = (gate.reason if gate is not None else None) or PlaygroundReason.PENDING
    message = (gate.message if gate is not None else "") or _PENDING
    put(PlaygroundCondition.PROGRESSING, "True", reason, message)
    put(PlaygroundCondition.AVAILABLE, "False", reason, message)


def _say_how_it_serves(situation: Situation, serving: Serving, before: tuple[Condition, ...], put: _Put) -> None:
    progressing = find(before, PlaygroundCondition.PROGRESSING)
    available = find(before, PlaygroundCondition.AVAILABLE)
    if situation.held and situation.gate is not None:
        message = f"The new version waits, the present one serves on: {situation.gate.message}"
        put(PlaygroundCondition.PROGRESSING, "True", PlaygroundReason.UPDATE_WAITING, message)
    elif situation.aborted is None and (
        progressing is None or progressing.status == "False" or progressing.reason in _BEFORE_DEPLOYMENT
    ):
        put(PlaygroundCondition.PROGRESSING, "True", PlaygroundReason.PENDING, _PENDING)
    has_served = available is not None and (
        available.status == "True" or available.reason == PlaygroundReason.NOT_READY
    )
    if serving.available:
        put(PlaygroundCondition.AVAILABLE, "True", PlaygroundReason.READY, "Playground is ready")
    elif has_served:
        if situation.aborted is None and not situation.held:
            message = "Waiting for inference Deployment progressing"
            put(PlaygroundCondition.PROGRESSING, "True", PlaygroundReason.IN_PROGRESS, message)
        put(PlaygroundCondition.AVAILABLE, "False", PlaygroundReason.NOT_READY, _with(_PENDING, serving.trouble))
    else:
        put(PlaygroundCondition.AVAILABLE, "False", PlaygroundReason.PENDING, _with(_PENDING, serving.trouble))


_PENDING = "Waiting for inference Deployment ready"
_BEFORE_DEPLOYMENT = frozenset(
    {PlaygroundReason.WAITING_FOR_MODEL, PlaygroundReason.PREHEATING_IMAGE, PlaygroundReason.UPDATE_WAITING}
)


def _with(message: str, trouble: str) -> str:
    return f"{message}: {trouble}" if trouble else message


def _mapping(value: object) -> dict[str, object]:
    return value if isinstance(value, dict) else {}


def _count(value: object, default: int = 0) -> int:
    return value if isinstance(value, int) else default
