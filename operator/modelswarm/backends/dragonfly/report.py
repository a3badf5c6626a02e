"""The books of a task, as the p2ptask controller wants to see them. Pure."""

from dataclasses import replace

from modelswarm.api.conditions import TaskReason
from modelswarm.api.p2ptask import DragonflyJob, DragonflyStatus, NodeFailure
from modelswarm.backends.dragonfly.items import parse_items
from modelswarm.backends.dragonfly.ledger import Ledger
from modelswarm.backends.dragonfly.reasons import DragonflyReason
from modelswarm.backends.engine import EngineState, Observation

INEFFECTIVE = (
    "this Dragonfly manager brings layers under the ids of their URLs, but the nodes ask for their digests: the image "
    "was not preheated. Upgrade the manager to a version after v2.5.1, or set enableTaskIDBasedBlobDigest to false on "
    "client and seedClient and MODELSWARM_DRAGONFLY_IMAGE_IDS=url here (docs/how-to/dragonfly.md)"
)
_NOT_ABLE = frozenset({DragonflyReason.NO_SEED_PEER, DragonflyReason.NO_SCHEDULER, DragonflyReason.RATE_LIMITED})
"""Failures of Dragonfly as a whole, which say nothing about the files."""
_IN_TROUBLE = frozenset({EngineState.FAILED, EngineState.UNREACHABLE})


def ready(status: DragonflyStatus) -> Observation:
    """Everything is where it should be (or cannot be of use, see ``ineffective``)."""
    clusters = 0 if status.ineffective else len(status.clusters)
    total = status.bytes * clusters
    return Observation(
        state=EngineState.READY,
        reason=DragonflyReason.IMAGE_PREHEAT_INEFFECTIVE if status.ineffective else TaskReason.DISTRIBUTED,
        message=(
            "Nodes pull the image from the registry"
            if status.ineffective
            else f"A seed peer holds each of the {status.files} files{_in_clusters(clusters)}"
        ),
        desired=clusters,
        ready=clusters,
        done_bytes=total,
        total_bytes=total,
        measured=not status.ineffective,
        degraded=(DragonflyReason.IMAGE_PREHEAT_INEFFECTIVE, INEFFECTIVE) if status.ineffective else None,
        dragonfly=status,
    )


def working(ledger: Ledger, *, changed: bool, holds: bool, poll_after: float) -> Observation:
    """Not everything is there yet. A failure is told once (it is counted), then it is only named.

    That Dragonfly as a whole is unable is not said before the books are written (``changed``): a status is not written
    together with Unreachable.
    """
    status = ledger.build()
    failing = ledger.troubled
    if ledger.failure is not None:
        failing = [ledger.failure, *(job for job in failing if job.id != ledger.failure.id)]
    unable = bool(failing) and not changed and not ledger.live and all(job.reason in _NOT_ABLE for job in failing)
    state = EngineState.UNREACHABLE if unable else EngineState.RUNNING
    progress = _progress(status)
    return Observation(
        state=EngineState.FAILED if ledger.failure is not None else state,
        reason=(failing[0].reason or DragonflyReason.INCOMPLETE) if failing else TaskReason.RUNNING,
        message=f"{progress}; {_describe(ledger, failing[0])}" if failing else progress,
        desired=len(status.clusters),
        ready=sum(ledger.confirmed(cluster.cluster) >= ledger.plan.everything for cluster in status.clusters),
        failed=len({job.cluster for job in failing}),
        done_bytes=ledger.done_bytes,
        total_bytes=status.bytes * len(status.clusters),
        attempts=status.failed_attempts,
        failures=tuple(
            NodeFailure(
                node=f"scheduler-cluster-{job.cluster}",
                reason=job.reason or DragonflyReason.INCOMPLETE,
                message=_describe(ledger, job),
            )
            for job in failing[:20]
        ),
        dragonfly=status,
        holds=holds,
        poll_after=poll_after,
    )


def spared(observation: Observation) -> Observation:
    """Of a task that was complete once and lost something since: trouble with bringing it again keeps nobody waiting.

    Nodes get what is missing from the origin, which is what a fallback before the first Ready would amount to.
    """
    if observation.state is EngineState.READY or not (observation.failures or observation.state in _IN_TROUBLE):
        return observation
    return replace(
        observation,
        state=EngineState.READY,
        reason=TaskReason.DISTRIBUTED,
        message="Seed peers held all of it once; what they lost since comes from the origin until it is brought again",
        desired=max(1, observation.desired),
        degraded=(observation.reason, observation.message),
    )


def _progress(status: DragonflyStatus) -> str:
    counts = [
        f"{len(parse_items(cluster.confirmed, below=status.files))} of {status.files} files are on seed peers"
        + (f" of cluster {cluster.cluster}" if len(status.clusters) > 1 else "")
        for cluster in status.clusters
    ]
    return ", ".join(counts[:4]) + (", …" if len(counts) > 4 else "")


def _describe(ledger: Ledger, job: DragonflyJob) -> str:
    """``model.bin and 2 more: SourceNotFound: 404 Not Found``."""
    items = sorted(ledger.items_of(job))
    suspects = parse_items(job.suspects, below=len(ledger.plan.entries))
    named = sorted(suspects) or items
    names = ledger.plan.entries[named[0]].name if named else "a job"
    more = f" and {len(items) - 1} more" if len(items) > 1 else ""
    message = job.message or ""
    # What the manager says often begins with the reason itself.
    return f"{names}{more}: {job.reason}: {message}"


def _in_clusters(count: int) -> str:
    return f", in each of {count} scheduler clusters" if count > 1 else ""
