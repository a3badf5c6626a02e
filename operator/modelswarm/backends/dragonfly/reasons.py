"""Why Dragonfly does not do what it was asked: typed, and used verbatim as condition reasons."""

from enum import StrEnum

from modelswarm.errors import EngineError


class DragonflyReason(StrEnum):
    """Reasons on a P2PTask that come from this engine."""

    MANAGER_UNREACHABLE = "ManagerUnreachable"
    """No connection, no answer in time, 5xx, or something that is not a manager (a redirect, a page of HTML)."""
    UNAUTHORIZED = "Unauthorized"
    """The manager refuses the personal access token, or the Secret with it cannot be read."""
    NO_SCHEDULER = "NoScheduler"
    """The scheduler cluster has no active scheduler, or does not exist."""
    NO_SEED_PEER = "NoSeedPeer"
    """The scheduler has no seed peer to preheat on (also for half a minute after the first one has joined)."""
    RATE_LIMITED = "RateLimited"
    """The manager or the origin limits how often it may be asked."""
    SOURCE_DENIED = "SourceDenied"
    """The origin answers the seed peer, or the manager, with 401 or 403."""
    SOURCE_NOT_FOUND = "SourceNotFound"
    PLATFORM_MISMATCH = "PlatformMismatch"
    """The image has no manifest for the platform."""
    TIMEOUT = "Timeout"
    """The job took longer than it may, or the manager stopped looking at it."""
    JOB_LOST = "JobLost"
    """The manager no longer knows the job, or forgot about it (a restart leaves jobs pending for ever)."""
    INCOMPLETE = "Incomplete"
    """The job ended, but not every file is confirmed on a seed peer."""
    REFUSED = "Refused"
    """The manager does not accept the request, for a reason that is in the message."""
    IMAGE_PREHEAT_INEFFECTIVE = "ImagePreheatIneffective"
    """The layers lie on the seed peers under ids that the nodes will not ask for."""
    CONTENT_UNREADABLE = "ContentUnreadable"
    """What is to be distributed could not be listed (the manifest, or the registry)."""


WANTS_A_PERSON = frozenset(
    {
        DragonflyReason.SOURCE_DENIED,
        DragonflyReason.SOURCE_NOT_FOUND,
        DragonflyReason.PLATFORM_MISMATCH,
        DragonflyReason.REFUSED,
    }
)
"""Reasons that trying again will hardly change; retried slowly all the same."""


class DragonflyError(EngineError):
    """The manager could not be asked, or said no."""

    reason: DragonflyReason

    def __init__(self, reason: DragonflyReason, message: str) -> None:
        super().__init__(reason, message)


class JobRefused(DragonflyError):
    """The manager answered that it will not do this very job; it has made none."""


class OutcomeUnknown(DragonflyError):
    """A job may or may not have been made: the answer was lost. Its marker tells, in the manager's list.

    ``late``: the manager was still at it when it was given up on, so the job may appear there a while later.
    """

    late = False
