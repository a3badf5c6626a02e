"""``kubectl swarm status``: what moves, from where, how fast, and what stands."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from modelswarm.api.nodecache import CachedModel, ModelState, NodeCache
from modelswarm.api.p2ptask import Engine, P2PTask
from modelswarm.api.remedies import Grade
from modelswarm.plugin.snapshot import Holding, Snapshot
from modelswarm.plugin.views.standing import content_name, of_model, of_task


@dataclass(frozen=True, slots=True)
class TaskRow:
    """Bytes and bytes per second; ``percent`` and ``total_bytes`` None where the engine moves nothing (Direct)."""

    namespace: str
    name: str
    kind: str
    content: str
    engine: str | None
    phase: str
    ready: int
    desired: int
    percent: int | None
    done_bytes: int
    total_bytes: int
    origin_bytes: int
    peer_bytes: int
    bytes_per_second: int
    eta_seconds: int | None
    reason: str
    message: str
    grade: Grade


@dataclass(frozen=True, slots=True)
class NodeRow:
    """``ready``: the node's agent is. ``waiting``: models that are on their way; ``failed``: those that are not."""

    node: str
    ready: bool
    models: int
    complete: int
    waiting: int
    failed: int
    capacity_bytes: int
    used_bytes: int
    free_bytes: int
    bytes_per_second: int


@dataclass(frozen=True, slots=True)
class Totals:
    """Over the tasks that are shown. ``peer_bytes`` are what the origin did not have to send."""

    tasks: int
    moving: int
    problems: int
    bytes_per_second: int
    origin_bytes: int
    peer_bytes: int


@dataclass(frozen=True, slots=True)
class Status:
    tasks: tuple[TaskRow, ...]
    nodes: tuple[NodeRow, ...]
    totals: Totals


def status_of(snapshot: Snapshot, namespace: str | None = None) -> Status:
    """``namespace`` None: all of them."""
    tasks = [task for task in snapshot.tasks if namespace is None or task.metadata.namespace == namespace]
    rows = tuple(_task_row(task, snapshot) for task in tasks)
    nodes = tuple(_node_row(cache, snapshot) for cache in snapshot.caches)
    return Status(rows, nodes, _totals(rows))


def _task_row(task: P2PTask, snapshot: Snapshot) -> TaskRow:
    status, standing = task.status, of_task(task)
    measured = status.engine in (Engine.BITTORRENT, Engine.DRAGONFLY) and status.resolved is not None
    done, speed = status.progress.done_bytes, status.progress.bytes_per_second
    total = status.progress.total_bytes
    if status.engine is Engine.BITTORRENT and status.resolved is not None:
        # Nodes tell every few seconds what the task's status shows in steps.
        holdings = _counted(task, snapshot.holdings(task))
        done = min(total, max(done, sum(_done(each.model, status.resolved.bytes) for each in holdings)))
        speed = _speed(each.model for each in snapshot.holdings(task))
    if status.ready >= status.desired or task.spec.suspend:
        speed = 0
    left = total - done
    return TaskRow(
        namespace=task.metadata.namespace,
        name=task.metadata.name,
        kind="image" if task.spec.image is not None else "model",
        content=content_name(task),
        engine=str(status.engine) if status.engine is not None else None,
        phase=standing.state,
        ready=status.ready,
        desired=status.desired,
        percent=min(100, done * 100 // total) if measured and total else None,
        done_bytes=done,
        total_bytes=total if measured else status.resolved.bytes if status.resolved is not None else 0,
        origin_bytes=status.progress.origin_bytes,
        peer_bytes=status.progress.peer_bytes,
        bytes_per_second=speed,
        eta_seconds=left // speed if speed > 0 and left > 0 else None,
        reason=standing.reason,
        message=standing.message,
        grade=standing.grade,
    )


def _counted(task: P2PTask, holdings: Sequence[Holding]) -> Sequence[Holding]:
    """The nodes whose bytes the task's own numbers count: those that were chosen, or all."""
    return [each for each in holdings if not task.status.nodes or each.node in task.status.nodes]


def _done(model: CachedModel | None, size: int) -> int:
    if model is None:
        return 0
    return size if model.state is ModelState.READY else min(model.done_bytes, size)


def _speed(models: Iterable[CachedModel | None]) -> int:
    moving = (ModelState.FETCHING, ModelState.VERIFYING)
    return sum(model.bytes_per_second for model in models if model is not None and model.state in moving)


def _node_row(cache: NodeCache, snapshot: Snapshot) -> NodeRow:
    status, live = cache.status, snapshot.is_live(cache.metadata.name)
    standings = [of_model(model) for model in status.models]
    complete = sum(model.state is ModelState.READY for model in status.models)
    failed = sum(each.grade is Grade.ACT for each in standings)
    return NodeRow(
        node=cache.metadata.name,
        ready=live,
        models=len(status.models),
        complete=complete,
        waiting=len(status.models) - complete - failed,
        failed=failed,
        capacity_bytes=status.capacity_bytes,
        used_bytes=status.used_bytes,
        free_bytes=status.free_bytes,
        bytes_per_second=_speed(status.models) if live else 0,
    )


def _totals(rows: Sequence[TaskRow]) -> Totals:
    return Totals(
        tasks=len(rows),
        moving=sum(row.bytes_per_second > 0 for row in rows),
        problems=sum(row.grade is Grade.ACT for row in rows),
        bytes_per_second=sum(row.bytes_per_second for row in rows),
        origin_bytes=sum(row.origin_bytes for row in rows),
        peer_bytes=sum(row.peer_bytes for row in rows),
    )
