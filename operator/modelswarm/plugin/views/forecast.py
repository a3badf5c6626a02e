"""``kubectl swarm plan``: what would come from the origin, what is on nodes already, what does not fit. Pure."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import timedelta
from statistics import median

from modelswarm.api.nodecache import ModelState, NodeCache
from modelswarm.api.p2ptask import Engine, P2PTask
from modelswarm.content.manifest import Manifest
from modelswarm.placement import Place, eligible, holders, matches
from modelswarm.plugin.snapshot import Snapshot, entry
from modelswarm.plugin.views.asks import Ask
from modelswarm.plugin.views.cache import evictable


@dataclass(frozen=True, slots=True)
class Engines:
    """Which engines this installation has."""

    dragonfly: bool = False
    bittorrent: bool = False
    preferred: Engine = Engine.AUTO


@dataclass(frozen=True, slots=True)
class NodePlan:
    """``have_bytes`` are there already; ``fits``: with what is free, with what may be evicted, or not at all."""

    node: str
    have_bytes: int
    need_bytes: int
    free_bytes: int
    evictable_bytes: int
    fits: bool
    evicts: bool = False


@dataclass(frozen=True, slots=True)
class FilePlan:
    path: str
    bytes: int


@dataclass(frozen=True, slots=True)
class PlanRow:
    """``reason`` and ``message`` say what is wrong; ``seconds`` None where nothing is known to tell it from."""

    object: str
    kind: str
    content: str
    engine: str | None = None
    revision: str | None = None
    digest: str | None = None
    bytes: int = 0
    present_bytes: int = 0
    origin_bytes: int = 0
    peer_bytes: int = 0
    seconds: int | None = None
    files: tuple[FilePlan, ...] = ()
    nodes: tuple[NodePlan, ...] = ()
    note: str = ""
    reason: str = ""
    message: str = ""


@dataclass(frozen=True, slots=True)
class Known:
    """What the plan is made from. ``held``: by node, digests of files of complete contents. Rate in bytes/second."""

    snapshot: Snapshot
    engines: Engines = Engines()
    held: Mapping[str, frozenset[str]] = field(default_factory=dict)
    rate: float | None = None


def engine_for(ask: Ask, engines: Engines) -> Engine:
    """What the operator would choose: what is asked for, else the first that is there and can serve it."""
    if ask.engine is not Engine.AUTO:
        return ask.engine
    from_store = ask.source is not None and ask.source.model_hub is None
    can = {
        Engine.DRAGONFLY: engines.dragonfly and not from_store,
        Engine.BITTORRENT: engines.bittorrent and ask.kind == "model",
        Engine.DIRECT: True,
    }
    order = sorted(can, key=lambda each: each is not engines.preferred)
    return next(each for each in order if can[each])


def rate_of(tasks: Iterable[P2PTask]) -> float | None:
    """Bytes per second at which tasks of this cluster became ready, those that read the origin: the median."""
    found = [rate for task in tasks if (rate := _rate(task)) is not None]
    return median(found) if found else None


def forecast(resolved: Sequence[tuple[Ask, Manifest]], known: Known) -> tuple[PlanRow, ...]:
    """In order: what an earlier row brings to a node is there for the later ones, and takes its space."""
    free = {cache.metadata.name: cache.status.free_bytes for cache in known.snapshot.caches}
    brought: dict[str, frozenset[str]] = {}
    rows: list[PlanRow] = []
    for ask, manifest in resolved:
        engine = engine_for(ask, known.engines)
        row = PlanRow(
            object=ask.object,
            kind=ask.kind,
            content=ask.content,
            engine=str(engine),
            revision=manifest.revision,
            digest=_digest(ask, manifest),
            bytes=manifest.bytes,
            files=tuple(FilePlan(file.path, file.size) for file in manifest.files),
        )
        match engine:
            case Engine.BITTORRENT:
                rows.append(_spread(row, ask, manifest, known, free, brought))
            case Engine.DRAGONFLY:
                rows.append(_seeded(row, ask, known))
            case _:
                rows.append(_direct(row, ask))
    return tuple(rows)


def _spread(
    row: PlanRow,
    ask: Ask,
    manifest: Manifest,
    known: Known,
    free: dict[str, int],
    brought: dict[str, frozenset[str]],
) -> PlanRow:
    live = {each.metadata.name: each for each in known.snapshot.caches if known.snapshot.is_live(each.metadata.name)}
    if not live:
        return replace(row, reason="NoAgent", message="no node has a ready agent")
    places = {name: Place(cache.status.labels, cache.status.closed_by) for name, cache in live.items()}
    matching = eligible(places, ask.selector, ask.copies)
    if not matching and any(matches(ask.selector, place.labels) for place in places.values()):
        return replace(row, reason="NoMatchingNode", message="no node that matches takes pods: cordoned, or tainted")
    if not matching:
        labels = ", ".join(f"{key}={value}" for key, value in sorted(ask.selector.items()))
        return replace(row, reason="NoMatchingNode", message=f"no node with a ready agent has the labels {labels}")
    digest = manifest.digest
    chosen = holders(digest, matching, ask.copies)
    have = {name: _have(live[name], manifest, digest, known.held, brought) for name in live}
    nodes: list[NodePlan] = []
    for name in chosen:
        need = max(0, manifest.bytes - have[name])
        unwanted = evictable(live[name], known.snapshot)
        nodes.append(
            NodePlan(name, have[name], need, free[name], unwanted, need <= free[name] + unwanted, need > free[name])
        )
        free[name] -= need
    origin = manifest.bytes - max(have.values(), default=0)
    if any(each.need_bytes for each in nodes):
        for name in chosen:
            brought[name] = brought.get(name, frozenset()) | _digests(manifest)
    else:
        origin = 0
    needed = sum(each.need_bytes for each in nodes)
    bad = [each.node for each in nodes if not each.fits]
    few = "" if ask.copies == "All" or len(chosen) >= ask.copies else f"{len(chosen)} nodes for {ask.copies} copies"
    return replace(
        row,
        nodes=tuple(nodes),
        present_bytes=sum(each.have_bytes for each in nodes),
        origin_bytes=min(origin, needed),
        peer_bytes=max(0, needed - origin),
        seconds=_seconds(min(origin, needed) or max((each.need_bytes for each in nodes), default=0), known.rate),
        note=few,
        reason="InsufficientCapacity" if bad else "",
        message=f"does not fit on {', '.join(bad)}" if bad else "",
    )


def _seeded(row: PlanRow, ask: Ask, known: Known) -> PlanRow:
    """Dragonfly's seed peers hold it once; a task that is complete says so."""
    same = [task for task in known.snapshot.tasks if task.status.resolved and task.status.resolved.digest == row.digest]
    there = any(task.status.dragonfly is not None and task.status.dragonfly.complete for task in same)
    origin = 0 if there else row.bytes
    pods = f"; {_pods(ask)} then load it from there" if ask.consumers else ""
    return replace(
        row,
        present_bytes=row.bytes - origin,
        origin_bytes=origin,
        peer_bytes=row.bytes * ask.consumers,
        seconds=_seconds(origin, known.rate),
        note=f"seed peers fetch it once{pods}",
    )


def _direct(row: PlanRow, ask: Ask) -> PlanRow:
    who = "kubelet" if ask.kind == "image" else "loader"
    return replace(
        row,
        origin_bytes=row.bytes * ask.consumers,
        note=f"{_pods(ask)}, whose {who} reads the origin" if ask.consumers else "no pod reads it yet",
    )


def _pods(ask: Ask) -> str:
    return f"{ask.consumers} pod{'' if ask.consumers == 1 else 's'}"


def _have(
    cache: NodeCache,
    manifest: Manifest,
    digest: str,
    held: Mapping[str, frozenset[str]],
    brought: Mapping[str, frozenset[str]],
) -> int:
    """Bytes of it on the node: of the content itself, or in files that other complete contents have, too."""
    node, model = cache.metadata.name, entry(cache, digest)
    if model is not None and model.state is ModelState.READY:
        return manifest.bytes
    there = held.get(node, frozenset()) | brought.get(node, frozenset())
    shared = sum(file.size for file in manifest.files if file.digest is not None and file.digest in there)
    return max(shared, min(model.done_bytes, manifest.bytes) if model is not None else 0)


def _digests(manifest: Manifest) -> frozenset[str]:
    return frozenset(file.digest for file in manifest.files if file.digest is not None)


def _digest(ask: Ask, manifest: Manifest) -> str:
    """As a task's ``status.resolved.digest``: of an image, that of its index."""
    return str(manifest.revision) if ask.kind == "image" else manifest.digest


def _seconds(count: int, rate: float | None) -> int | None:
    if count == 0:
        return 0
    return max(1, round(count / rate)) if rate else None


def _rate(task: P2PTask) -> float | None:
    status = task.status
    if status.resolved is None or status.start_time is None or status.completion_time is None:
        return None
    took = status.completion_time - status.start_time
    fetched = status.engine is Engine.BITTORRENT and status.progress.origin_bytes >= status.resolved.bytes * 0.9
    if not fetched or not status.resolved.bytes or took < timedelta(seconds=1):
        return None
    return status.resolved.bytes / took.total_seconds()
