"""How a task, a model on a node, or a Playground stands: a word, a reason, a message, and whether to act."""

from dataclasses import dataclass

from modelswarm.api.conditions import PlaygroundCondition, PlaygroundReason, TaskCondition, find, is_true
from modelswarm.api.nodecache import CachedModel, ModelState
from modelswarm.api.openmodel import ModelSource
from modelswarm.api.p2ptask import Engine, P2PTask, Phase
from modelswarm.api.playground import Playground
from modelswarm.api.remedies import Grade, Subject, find_remedy

NOT_SEEN = "NotSeenYet"
"""In place of a reason: the operator has not looked at the object."""


@dataclass(frozen=True, slots=True)
class Standing:
    """``reason`` is the typed one; ``message`` is the cluster's own."""

    state: str
    reason: str
    message: str
    grade: Grade


def of_task(task: P2PTask) -> Standing:
    """What decides, in this order: not accepted, not ready, degraded, copies that are missing; only then Ready."""
    conditions = task.status.conditions
    accepted = find(conditions, TaskCondition.ACCEPTED)
    ready = find(conditions, TaskCondition.READY)
    degraded = find(conditions, TaskCondition.DEGRADED)
    said = ready
    if accepted is not None and accepted.status == "False":
        said = accepted
    elif ready is not None and ready.status == "True" and degraded is not None and degraded.status == "True":
        said = degraded
    if said is None:
        said = accepted
    phase = str(task.status.phase)
    if task.spec.suspend and task.status.phase is not Phase.SUSPENDED:
        return Standing(phase, "Suspended", "the operator has not noticed the suspension yet", Grade.WAIT)
    if said is None or (said is accepted and said.status == "True"):
        return Standing(phase, NOT_SEEN, "", Grade.WAIT)
    if task.status.phase is Phase.SUSPENDED:
        return Standing(phase, "Suspended", "", Grade.ACT)
    grade = grade_of(subject_of(task), said.reason, task.status.phase)
    if grade is Grade.FINE and task.status.failures:
        first = task.status.failures[0]
        return Standing(phase, first.reason, f"{first.node}: {first.message}", Grade.ACT)
    if grade is Grade.FINE and task.status.ready < task.status.desired:
        return Standing(phase, "Running", said.message, Grade.WAIT)
    return Standing(phase, said.reason, said.message, grade)


def subject_of(task: P2PTask) -> Subject:
    return Subject.DRAGONFLY if task.status.engine is Engine.DRAGONFLY else Subject.P2PTASK


def grade_of(subject: Subject, reason: str, phase: Phase | None = None) -> Grade:
    """What is known of the reason; a word of a newer version counts as a fault only where the task has failed."""
    if phase is Phase.FAILED:
        return Grade.ACT
    remedy = find_remedy(subject, reason)
    return remedy.grade if remedy is not None else Grade.WAIT


def is_ready(task: P2PTask) -> bool:
    return is_true(task.status.conditions, TaskCondition.READY)


_STATE_GRADES = {
    ModelState.READY: Grade.FINE,
    ModelState.EVICTED: Grade.ACT,
    ModelState.FAILED: Grade.ACT,
}


def of_model(model: CachedModel | None, live: bool = True) -> Standing:
    """What a node says of a model; None where it says nothing."""
    if not live:
        return Standing("Away", "NoAgent", "the node's agent is not ready", Grade.ACT)
    if model is None:
        return Standing("Unknown", "", "the node has not said anything about it yet", Grade.WAIT)
    state = str(model.state)
    if model.state is ModelState.FETCHING and model.fetching_from is not None:
        state = f"{state} from {model.fetching_from.lower()}"
    grade = _STATE_GRADES.get(model.state, Grade.WAIT)
    if model.reason is not None and model.state is not ModelState.READY:
        remedy = find_remedy(Subject.NODECACHE, model.reason)
        grade = remedy.grade if remedy is not None else grade
    if model.state is ModelState.FAILED:
        grade = Grade.ACT
    return Standing(state, model.reason or "", model.message or "", grade)


def of_playground(playground: Playground) -> Standing:
    """As the STATUS column of ``kubectl get playgrounds``; degraded is told where it serves."""
    available = find(playground.status.conditions, PlaygroundCondition.AVAILABLE)
    degraded = find(playground.status.conditions, PlaygroundCondition.DEGRADED)
    if available is None:
        return Standing("Pending", NOT_SEEN, "", Grade.WAIT)
    state = "Available" if available.status == "True" else "NotAvailable"
    said = available
    if available.status == "True" and degraded is not None and degraded.status == "True":
        said = degraded
    progressing = find(playground.status.conditions, PlaygroundCondition.PROGRESSING)
    if said is available and progressing is not None and progressing.reason == PlaygroundReason.UPDATE_WAITING:
        said = progressing
    return Standing(state, said.reason, said.message, grade_of(Subject.PLAYGROUND, said.reason))


def content_name(task: P2PTask) -> str:
    """What users know the content by: a model id with its revision, a URI, an image."""
    if task.spec.image is not None:
        return task.spec.image.reference
    return source_name(task.spec.model.source) if task.spec.model is not None else "-"


def source_name(source: ModelSource) -> str:
    hub = source.model_hub
    if hub is None:
        return source.uri or "-"
    what = f"{hub.model_id}/{hub.filename}" if hub.filename else str(hub.model_id)
    return what if hub.revision == "main" else f"{what}@{hub.revision}"
