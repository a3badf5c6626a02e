"""``kubectl swarm cache``: what nodes have, and who wants it."""

from dataclasses import dataclass
from datetime import datetime

from modelswarm.api.nodecache import CachedModel, NodeCache
from modelswarm.api.remedies import Grade
from modelswarm.plugin.snapshot import Snapshot
from modelswarm.plugin.views.standing import of_model


@dataclass(frozen=True, slots=True)
class ModelRow:
    """``wanted_by`` are P2PTasks (NAMESPACE/NAME); ``pinned``: one of them keeps it whatever else needs the space."""

    name: str
    revision: str | None
    content: str
    state: str
    grade: Grade
    bytes: int
    done_bytes: int
    origin_bytes: int
    peer_bytes: int
    bytes_per_second: int
    wanted_by: tuple[str, ...]
    pinned: bool
    ready_time: datetime | None
    reason: str
    message: str


@dataclass(frozen=True, slots=True)
class NodeContents:
    """One node. ``evictable_bytes``: complete models that no task wants, an upper bound of what eviction may free."""

    node: str
    ready: bool
    version: str | None
    capacity_bytes: int
    used_bytes: int
    free_bytes: int
    evictable_bytes: int
    models: tuple[ModelRow, ...]


def contents_of(cache: NodeCache, snapshot: Snapshot) -> NodeContents:
    status, node = cache.status, cache.metadata.name
    rows = tuple(_row(model, snapshot) for model in sorted(status.models, key=lambda each: (each.name, each.content)))
    return NodeContents(
        node=node,
        ready=snapshot.is_live(node),
        version=status.agent.version if status.agent is not None else None,
        capacity_bytes=status.capacity_bytes,
        used_bytes=status.used_bytes,
        free_bytes=status.free_bytes,
        evictable_bytes=evictable(cache, snapshot),
        models=rows,
    )


def evictable(cache: NodeCache, snapshot: Snapshot) -> int:
    """Bytes of what the node holds and no task wants. Files that models share count for each; pods may use some."""
    return sum(model.done_bytes or model.bytes for model in cache.status.models if not snapshot.wanting(model.content))


def _row(model: CachedModel, snapshot: Snapshot) -> ModelRow:
    tasks, standing = snapshot.wanting(model.content), of_model(model)
    return ModelRow(
        name=model.name,
        revision=model.revision,
        content=model.content,
        state=standing.state,
        grade=standing.grade,
        bytes=model.bytes,
        done_bytes=model.done_bytes,
        origin_bytes=model.origin_bytes,
        peer_bytes=model.peer_bytes,
        bytes_per_second=model.bytes_per_second,
        wanted_by=tuple(f"{task.metadata.namespace}/{task.metadata.name}" for task in tasks),
        pinned=any(task.spec.pin for task in tasks),
        ready_time=model.ready_time,
        reason=standing.reason,
        message=standing.message,
    )
