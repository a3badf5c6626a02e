"""``kubectl swarm why``: one sentence for the cause and one for the remedy, of the deepest thing that is known.

A Playground waits for a task, the task for nodes, a node for space: the last of them is the cause, and the sentence
leads there from what was asked about.
"""

import re
from collections.abc import Sequence
from dataclasses import dataclass, replace

from modelswarm.api.conditions import PlaygroundReason
from modelswarm.api.nodecache import CachedModel, ModelState, NodeCache
from modelswarm.api.openmodel import OpenModel
from modelswarm.api.p2ptask import P2PTask
from modelswarm.api.playground import Playground
from modelswarm.api.remedies import NOTHING, Grade, Remedy, Subject, find_remedy
from modelswarm.plugin.snapshot import Snapshot
from modelswarm.plugin.units import duration, percent, size
from modelswarm.plugin.views.pods import trouble_of
from modelswarm.plugin.views.standing import (
    NOT_SEEN,
    Standing,
    content_name,
    is_ready,
    of_model,
    of_playground,
    of_task,
    subject_of,
)

NAMED_NODES = 3
"""Nodes that a sentence names."""


@dataclass(frozen=True, slots=True)
class Step:
    """One object on the way from what was asked about to the cause."""

    object: str
    state: str
    reason: str
    message: str


@dataclass(frozen=True, slots=True)
class Answer:
    """``cause`` and ``remedy`` are sentences; ``steps`` lead from the object to the cause."""

    object: str
    grade: Grade
    cause: str
    remedy: str
    steps: tuple[Step, ...]


def why_playground(playground: Playground, snapshot: Snapshot) -> Answer:
    standing, what = of_playground(playground), _title(playground)
    first = Step(what, standing.state, standing.reason, standing.message)
    if standing.reason in _WAITING:
        below = _worst([_below(task, snapshot) for task in _awaited(playground, snapshot)])
        if below is not None:
            answer, content = below
            return _chained(first, f"waits for {content}", answer)
    if standing.reason in (PlaygroundReason.PENDING, PlaygroundReason.NOT_READY):
        troubles = [found for pod in snapshot.pods_of(playground) if (found := trouble_of(pod)) is not None]
        if troubles:
            worst = min(troubles, key=lambda each: _WORST_FIRST.index(each.remedy.grade))
            step = Step(f"Pod {playground.metadata.namespace}/{worst.pod}", "NotReady", worst.reason, worst.message)
            sentence = f"{what} waits for pod {worst.pod}, which says {_quoted(worst.reason, worst.message)}"
            return _answer(first.object, worst.remedy, sentence, (first, step))
    return _plain(standing, Subject.PLAYGROUND, first, playground.metadata.namespace, playground.metadata.name)


def why_model(model: OpenModel, snapshot: Snapshot) -> Answer:
    ready = next((each for each in model.status.conditions if each.type == "Ready"), None)
    reason, message = (ready.reason, ready.message) if ready is not None else (NOT_SEEN, "")
    remedy = find_remedy(Subject.OPENMODEL, reason)
    state = "Ready" if ready is not None and ready.status == "True" else "NotReady"
    standing = Standing(state, reason, message, remedy.grade if remedy is not None else Grade.WAIT)
    first = Step(_title(model), standing.state, reason, message)
    tasks = snapshot.tasks_of_model(model)
    if standing.grade is not Grade.FINE and tasks:
        return _chained(first, "waits for its distribution", why_task(tasks[0], snapshot))
    return _plain(standing, Subject.OPENMODEL, first, "", model.metadata.name)


def why_task(task: P2PTask, snapshot: Snapshot) -> Answer:
    standing, what = of_task(task), _title(task)
    first = Step(what, standing.state, standing.reason, standing.message)
    namespace, name = task.metadata.namespace, task.metadata.name
    if standing.grade is not Grade.FINE and standing.reason != "Suspended":
        nodes = _troubled(task, snapshot)
        if nodes:
            return _by_nodes(task, first, nodes)
    if standing.reason == "NoAgent":
        silent = [cache.metadata.name for cache in snapshot.caches if not snapshot.is_live(cache.metadata.name)]
        if silent:
            standing = replace(standing, message=f"{standing.message} (there were agents on {_listed(silent)})")
    if standing.reason == "Running":
        standing = replace(standing, message=_progress(task))
    return _plain(standing, subject_of(task), first, namespace, name)


def why_node(cache: NodeCache, snapshot: Snapshot) -> Answer:
    node, status = cache.metadata.name, cache.status
    what = f"Node {node}"
    if not snapshot.is_live(node):
        step = Step(what, "Away", "NoAgent", "")
        sentence = f"{what} is not counted, because its agent has no ready endpoint"
        look = f"See the agent's pod: `kubectl get pods -A -o wide --field-selector spec.nodeName={node}`."
        return Answer(what, Grade.ACT, f"{sentence}.", look, (step,))
    standings = [(model, of_model(model)) for model in status.models]
    first = Step(what, "Ready", "", f"{size(status.free_bytes)} of {size(status.capacity_bytes)} free")
    troubled = [(model, each) for model, each in standings if each.grade is Grade.ACT]
    moving = [(model, each) for model, each in standings if each.grade is Grade.WAIT]
    if not troubled and not moving:
        complete = sum(model.state is ModelState.READY for model in status.models)
        cause = f"{what} is as it should be: {complete} models are complete, and nothing is missing."
        return Answer(what, Grade.FINE, cause, NOTHING, (first,))
    model, standing = (troubled or moving)[0]
    more = len(troubled or moving) - 1
    steps = (first, *(Step(each.name, said.state, said.reason, said.message) for each, said in troubled or moving))
    others = f" (and {more} more of its models have trouble)" if more and troubled else ""
    if not troubled:
        cause = f"{what} is bringing {model.name}: {standing.state}, {percent(model.done_bytes, model.bytes)}"
        return Answer(what, Grade.WAIT, f"{cause}.", "Wait.", steps)
    wanting = snapshot.wanting(model.content)
    at = (wanting[0].metadata.namespace, wanting[0].metadata.name) if wanting else ("NAMESPACE", "NAME")
    remedy = _filled(_remedy(Subject.NODECACHE, standing), *at)
    sentence = f"{what} does not have {model.name}, for {_quoted(standing.reason, standing.message)}{others}"
    return _answer(what, remedy, sentence, steps)


_WAITING = (
    PlaygroundReason.WAITING_FOR_MODEL,
    PlaygroundReason.PREHEATING_IMAGE,
    PlaygroundReason.UPDATE_WAITING,
    PlaygroundReason.GATE_TIMEOUT,
)
_WORST_FIRST = (Grade.ACT, Grade.WAIT, Grade.FINE)


def _awaited(playground: Playground, snapshot: Snapshot) -> list[P2PTask]:
    """The tasks that are not Ready: one for each model (the last one made for it), and those of images."""
    found: list[P2PTask] = []
    for ref in playground.model_refs:
        tasks = snapshot.model_tasks(playground, ref.name)
        if tasks and not any(is_ready(task) for task in tasks):
            found.append(tasks[-1])
    return found + [task for task in snapshot.image_tasks(playground) if not is_ready(task)]


def _below(task: P2PTask, snapshot: Snapshot) -> tuple[Answer, str]:
    kind = "image" if task.spec.image is not None else "model"
    return why_task(task, snapshot), f"{kind} {content_name(task)}"


def _worst(answers: Sequence[tuple[Answer, str]]) -> tuple[Answer, str] | None:
    return min(answers, key=lambda each: _WORST_FIRST.index(each[0].grade), default=None)


def _chained(first: Step, waits: str, answer: Answer) -> Answer:
    """The answer about what is waited for, told from the beginning."""
    return replace(
        answer,
        object=first.object,
        cause=f"{first.object} {waits}: {answer.cause}",
        steps=(first, *answer.steps),
    )


def _troubled(task: P2PTask, snapshot: Snapshot) -> list[tuple[str, CachedModel | None, str, str]]:
    """Nodes that do not get on, with reason and message: what the task says, else what the nodes say."""
    said = {each.node: each.model for each in snapshot.holdings(task) if each.live}
    told = [(each.node, said.get(each.node), each.reason, each.message) for each in task.status.failures]
    if told or is_ready(task):
        return told
    found: list[tuple[str, CachedModel | None, str, str]] = []
    for node, model in said.items():
        standing = of_model(model)
        chosen = not task.status.nodes or node in task.status.nodes
        if chosen and standing.grade is Grade.ACT and standing.reason:
            found.append((node, model, standing.reason, standing.message))
    return found


def _by_nodes(task: P2PTask, first: Step, nodes: Sequence[tuple[str, CachedModel | None, str, str]]) -> Answer:
    """The nodes with the reason that most of them have."""
    reasons = [reason for _, _, reason, _ in nodes]
    reason = max(dict.fromkeys(reasons), key=reasons.count)
    same = [each for each in nodes if each[2] == reason]
    quoted = "; ".join(f"{node}: {message}" if message else node for node, _, _, message in same[:NAMED_NODES])
    more = f"; and {len(same) - NAMED_NODES} more" if len(same) > NAMED_NODES else ""
    total = max(task.status.desired, len(nodes))
    sentence = f"{first.object} does not get on because {len(same)} of {total} nodes report {reason} ({quoted}{more})"
    model = same[0][1]
    state = str(model.state) if model is not None else "Failed"
    standing = Standing(state, reason, same[0][3], Grade.ACT)
    remedy = _filled(_remedy(Subject.NODECACHE, standing), task.metadata.namespace, task.metadata.name)
    steps = tuple(Step(f"Node {node}", state, why, message) for node, _, why, message in nodes)
    return _answer(first.object, remedy, sentence, (first, *steps))


def _plain(standing: Standing, subject: Subject, first: Step, namespace: str, name: str) -> Answer:
    """The object's own reason is the deepest that is known."""
    if standing.reason == NOT_SEEN:
        cause = f"{first.object} has not been looked at by the operator yet."
        look = "Wait a moment; else see whether the operator runs: `kubectl swarm doctor`."
        return Answer(first.object, Grade.WAIT, cause, look, (first,))
    remedy = _filled(_remedy(subject, standing), namespace, name)
    if remedy.grade is Grade.FINE:
        cause = f"{first.object} is as it should be: {_lowered(remedy.cause)}"
        return Answer(first.object, Grade.FINE, cause, NOTHING, (first,))
    return _answer(first.object, remedy, f"{first.object} says {_quoted(standing.reason, standing.message)}", (first,))


def _remedy(subject: Subject, standing: Standing) -> Remedy:
    known = find_remedy(subject, standing.reason)
    if known is None:
        return Remedy(standing.grade, "This version does not know the reason.", "See the message.")
    return replace(known, grade=standing.grade)


def _filled(remedy: Remedy, namespace: str, name: str) -> Remedy:
    """With the names of the object in its commands."""
    words = re.sub(r"\bNAMESPACE\b", namespace or "NAMESPACE", remedy.remedy)
    return replace(remedy, remedy=re.sub(r"\bNAME\b", name or "NAME", words))


def _answer(object_: str, remedy: Remedy, sentence: str, steps: tuple[Step, ...]) -> Answer:
    return Answer(object_, remedy.grade, f"{sentence}: {_lowered(remedy.cause)}", remedy.remedy, steps)


def _quoted(reason: str, message: str) -> str:
    words = message.strip().rstrip(".")
    return f"{reason} ({words})" if words and words != reason else reason


def _lowered(sentence: str) -> str:
    """As the second half of a sentence; names keep their spelling."""
    word = sentence.split(" ", 1)[0]
    return sentence if any(char.isupper() for char in word[1:]) else sentence[:1].lower() + sentence[1:]


def _progress(task: P2PTask) -> str:
    progress, status = task.status.progress, task.status
    parts = [f"{status.ready} of {status.desired} nodes are complete", f"{progress.percent}%"]
    if progress.eta_seconds is not None:
        parts.append(f"about {duration(progress.eta_seconds)} to go")
    return ", ".join(parts)


def _listed(names: Sequence[str]) -> str:
    more = f" and {len(names) - NAMED_NODES} more" if len(names) > NAMED_NODES else ""
    return ", ".join(names[:NAMED_NODES]) + more


def _title(resource: Playground | OpenModel | P2PTask) -> str:
    meta = resource.metadata
    return f"{resource.KIND} {meta.namespace}/{meta.name}" if resource.NAMESPACED else f"{resource.KIND} {meta.name}"
