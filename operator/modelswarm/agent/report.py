"""What is told of a node: its NodeCache, its labels, its Events, and when. Pure."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime

from modelswarm.agent import omestatus
from modelswarm.agent.standing import Capacity, Standing
from modelswarm.api.labels import content_label
from modelswarm.api.nodecache import (
    LONGEST_MESSAGE,
    MOST_MODELS,
    AgentStatus,
    CacheDisplay,
    CachedModel,
    ModelState,
    NodeCacheStatus,
)

LABEL_DOMAINS = ("content.modelswarm.io/", f"{omestatus.DOMAIN}/")
"""Labels of the Node that agents write."""
LONGEST_NAME = 256
LONGEST_REVISION = 128
LONGEST_REASON = 64


def status_of(
    standings: Sequence[Standing],
    capacity: Capacity,
    agent: AgentStatus,
    labels: Mapping[str, str],
    closed_by: str | None = None,
) -> NodeCacheStatus:
    """The status of the NodeCache. Of too many models those that somebody wants, then the latest, are named."""
    named = sorted(standings, key=lambda each: (not each.claims, -_time(each), each.key))[:MOST_MODELS]
    ready = sum(standing.state is ModelState.READY for standing in standings)
    return NodeCacheStatus(
        agent=agent,
        labels={name: value for name, value in sorted(labels.items()) if not name.startswith(LABEL_DOMAINS)},
        closed_by=closed_by,
        models=tuple(_entry(standing) for standing in sorted(named, key=lambda each: each.key)),
        capacity_bytes=capacity.total,
        used_bytes=capacity.used,
        free_bytes=capacity.free,
        display=CacheDisplay(
            models=f"{ready}/{len(standings)}", size=format_bytes(capacity.used), free=format_bytes(capacity.free)
        ),
    )


def _entry(standing: Standing) -> CachedModel:
    """Cut to what the API server takes: a message that is too long must not cost the whole report."""
    return CachedModel(
        content=standing.key,
        name=standing.name[:LONGEST_NAME],
        revision=standing.revision[:LONGEST_REVISION] if standing.revision else None,
        state=standing.state,
        fetching_from=standing.fetching_from if standing.state is ModelState.FETCHING else None,
        bytes=standing.bytes,
        done_bytes=standing.done_bytes,
        origin_bytes=standing.origin_bytes,
        peer_bytes=standing.peer_bytes,
        bytes_per_second=standing.bytes_per_second,
        reason=standing.reason[:LONGEST_REASON] if standing.reason else None,
        message=standing.message[:LONGEST_MESSAGE] or None,
        ready_time=standing.ready_time,
    )


def _time(standing: Standing) -> float:
    return standing.ready_time.timestamp() if standing.ready_time is not None else 0.0


def labels_of(standings: Sequence[Standing], limit: int) -> dict[str, str]:
    """The labels of the Node: OME's for its models, and ours for at most ``limit`` complete contents, latest first."""
    complete = [each for each in standings if each.state is ModelState.READY and each.key.startswith("sha256:")]
    latest = sorted(complete, key=lambda each: (not each.claims, -_time(each), each.key))[:limit]
    return {**{content_label(each.key): "Ready" for each in latest}, **omestatus.labels(standings)}


def ours(labels: Mapping[str, str]) -> dict[str, str]:
    """Those of a Node's labels that agents write."""
    return {name: value for name, value in labels.items() if name.startswith(LABEL_DOMAINS)}


def is_urgent(before: NodeCacheStatus | None, after: NodeCacheStatus) -> bool:
    """Whether more than numbers has changed, so that somebody may wait for it."""
    return before is None or _skeleton(before) != _skeleton(after)


def _skeleton(status: NodeCacheStatus) -> object:
    models = tuple((each.content, each.state, each.reason, each.revision, each.name) for each in status.models)
    return models, status.agent, status.labels, status.closed_by, status.capacity_bytes


@dataclass(frozen=True, slots=True)
class News:
    """An Event about the NodeCache. ``type`` is Normal or Warning."""

    type: str
    reason: str
    message: str


def news(before: Mapping[str, ModelState], after: Sequence[Standing]) -> list[News]:
    """What is worth an Event: models that began, became complete, failed or were evicted."""
    found: list[News] = []
    for standing in after:
        if before.get(standing.key) is standing.state:
            continue
        what = f"{standing.name}@{standing.revision}" if standing.revision else standing.name
        match standing.state:
            case ModelState.READY:
                sources = f"{format_bytes(standing.origin_bytes)} from the origin"
                text = f"{what} is complete: {sources}, {format_bytes(standing.peer_bytes)} from other nodes"
                found.append(News("Normal", "ModelReady", text))
            case ModelState.FETCHING if before.get(standing.key) is not ModelState.VERIFYING:
                found.append(News("Normal", "ModelFetching", f"fetching {what} ({format_bytes(standing.bytes)})"))
            case ModelState.FAILED:
                found.append(News("Warning", standing.reason or "ModelFailed", f"{what}: {standing.message}"))
            case ModelState.EVICTED:
                found.append(News("Normal", "ModelEvicted", f"{what} made room for another model"))
    return found


def format_bytes(count: int) -> str:
    """``953.1Mi``: what people write for bytes in Kubernetes."""
    value = float(count)
    for unit in ("", "Ki", "Mi", "Gi"):
        if value < 1024:
            return f"{value:.1f}{unit}" if unit else f"{count}"
        value /= 1024
    return f"{value:.1f}Ti"


def utc_now() -> datetime:
    """To the second, as the API server keeps it: an unchanged state is an unchanged object."""
    return datetime.now(UTC).replace(microsecond=0)
