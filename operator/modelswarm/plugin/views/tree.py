"""``kubectl swarm tree``: a Playground, its models and images, their tasks, and the nodes."""

from dataclasses import dataclass

from modelswarm.api.nodecache import CachedModel, ModelState
from modelswarm.api.p2ptask import P2PTask
from modelswarm.api.playground import Playground
from modelswarm.api.remedies import Grade, Subject
from modelswarm.plugin.snapshot import Snapshot
from modelswarm.plugin.views.standing import (
    content_name,
    grade_of,
    is_ready,
    of_model,
    of_playground,
    of_task,
    source_name,
)


@dataclass(frozen=True, slots=True)
class Branch:
    """One object. ``detail`` is what it is about or how far it is."""

    kind: str
    name: str
    state: str
    grade: Grade
    detail: str = ""
    reason: str = ""
    message: str = ""
    children: tuple["Branch", ...] = ()


def tree_of(playground: Playground, snapshot: Snapshot) -> Branch:
    standing = of_playground(playground)
    models = tuple(_model(playground, ref.name, snapshot) for ref in playground.model_refs)
    images = tuple(_image(task, snapshot) for task in snapshot.image_tasks(playground))
    return Branch(
        kind="Playground",
        name=f"{playground.metadata.namespace}/{playground.metadata.name}",
        state=standing.state,
        grade=standing.grade,
        detail=f"{playground.status.replicas} of {playground.spec.replicas} pods exist",
        reason=standing.reason,
        message=standing.message,
        children=(*models, *images),
    )


def task_branch(task: P2PTask, snapshot: Snapshot) -> Branch:
    standing, status = of_task(task), task.status
    engine = str(status.engine or task.spec.engine)
    detail = [engine]
    if status.desired:
        detail.append(f"{status.ready} of {status.desired} nodes")
    if status.display.progress != "-" and status.ready < status.desired:
        detail.append(status.display.progress)
    return Branch(
        kind="P2PTask",
        name=f"{task.metadata.namespace}/{task.metadata.name}",
        state=standing.state,
        grade=standing.grade,
        detail=", ".join(detail),
        reason=standing.reason,
        message=standing.message,
        children=tuple(_node(each.node, each.model, each.live) for each in snapshot.holdings(task)),
    )


def _model(playground: Playground, name: str, snapshot: Snapshot) -> Branch:
    model = snapshot.model(name)
    if model is None:
        unread = snapshot.unread.get("openmodels", "")
        state, message = ("Unknown", unread) if unread else ("Missing", "the OpenModel does not exist")
        grade = Grade.WAIT if unread else Grade.ACT
        return Branch("OpenModel", name, state, grade, reason="" if unread else "ModelNotFound", message=message)
    tasks = snapshot.model_tasks(playground, name)
    ready = next((each for each in model.status.conditions if each.type == "Ready"), None)
    served = any(is_ready(task) for task in tasks) or (ready is not None and ready.status == "True")
    reason = ready.reason if ready is not None else ""
    return Branch(
        kind="OpenModel",
        name=name,
        state="Ready" if served else "NotReady",
        grade=grade_of(Subject.OPENMODEL, reason) if reason and not served else Grade.FINE if served else Grade.WAIT,
        detail=source_name(model.spec.source),
        reason=reason,
        # The task below says it in more detail.
        message=ready.message if ready is not None and not tasks else "",
        children=tuple(task_branch(task, snapshot) for task in tasks),
    )


def _image(task: P2PTask, snapshot: Snapshot) -> Branch:
    branch = task_branch(task, snapshot)
    state = "Ready" if is_ready(task) else "NotReady"
    return Branch("Image", content_name(task), state, branch.grade, children=(branch,))


def _node(name: str, model: CachedModel | None, live: bool) -> Branch:
    standing = of_model(model, live)
    return Branch("Node", name, standing.state, standing.grade, _progress(model), standing.reason, standing.message)


def _progress(model: CachedModel | None) -> str:
    if model is None or model.state is ModelState.READY or not model.bytes:
        return ""
    return f"{min(100, model.done_bytes * 100 // model.bytes)}%"
