"""How a load can end: reasons, and the exit code that each of them means."""

from enum import IntEnum, StrEnum

from modelswarm.errors import ContentError, ContentReason, LoadError


class Exit(IntEnum):
    """Exit codes; the kubelet restarts the container after each but the first, ``.part`` files are continued."""

    OK = 0
    RETRYABLE = 1
    NEEDS_PERSON = 2
    STORAGE = 3
    INTERRUPTED = 143
    """128 + SIGTERM: asked to stop; what was downloaded stays for the next start."""


class Reason(StrEnum):
    """Reasons of the loader's own; those of ``ContentReason`` come up as well."""

    SOURCE_CHANGED = "SourceChanged"
    """The origin has other bytes under this name than those that were pinned."""
    DIGEST_MISMATCH = "DigestMismatch"
    """Complete, and wrong, however often it was fetched."""
    INCOMPLETE = "Incomplete"
    """``--check`` found files missing or wrong."""
    INVALID_SETTINGS = "InvalidSettings"
    """The environment or the options cannot work."""
    MANIFEST_MISMATCH = "ManifestMismatch"
    """The mounted manifest is that of another source."""
    UNSAFE_PATH = "UnsafePath"
    """A file would be written outside the model's directory."""
    INSUFFICIENT_CAPACITY = "InsufficientCapacity"
    """The model does not fit on the volume."""
    STORAGE_ERROR = "StorageError"
    """The volume cannot be read or written."""
    NODE_UNAVAILABLE = "NodeUnavailable"
    """The node's agent does not have the model, and does not bring it."""
    INTERRUPTED = "Interrupted"
    INTERNAL_ERROR = "InternalError"
    """A defect of the loader."""


_EXITS: dict[str, Exit] = {
    Reason.INVALID_SETTINGS: Exit.NEEDS_PERSON,
    Reason.MANIFEST_MISMATCH: Exit.NEEDS_PERSON,
    Reason.UNSAFE_PATH: Exit.NEEDS_PERSON,
    ContentReason.INVALID_REFERENCE: Exit.NEEDS_PERSON,
    ContentReason.SOURCE_NOT_FOUND: Exit.NEEDS_PERSON,
    ContentReason.REVISION_NOT_FOUND: Exit.NEEDS_PERSON,
    ContentReason.ACCESS_DENIED: Exit.NEEDS_PERSON,
    ContentReason.NOTHING_MATCHES: Exit.NEEDS_PERSON,
    Reason.INSUFFICIENT_CAPACITY: Exit.STORAGE,
    Reason.STORAGE_ERROR: Exit.STORAGE,
    Reason.INTERRUPTED: Exit.INTERRUPTED,
}


def exit_code(reason: str) -> Exit:
    """What to exit with; whatever is not known to need a person or another disk is worth another start."""
    return _EXITS.get(reason, Exit.RETRYABLE)


class Transient(LoadError):
    """A source failed in a way that may pass; asking it again, from where it stopped, is right.

    ``retry_after`` is the source's own word in seconds. ``counts`` is False where the source only asked for patience:
    that does not use up an attempt.
    """

    def __init__(self, reason: str, message: str, *, retry_after: float | None = None, counts: bool = True) -> None:
        super().__init__(reason, message)
        self.retry_after = retry_after
        self.counts = counts


class Unserved(LoadError):
    """A leg cannot give this file; the next leg is asked. From the last leg it ends the load."""


def as_load_error(error: ContentError) -> LoadError:
    """What the resolver said, as the loader's own error."""
    if error.retryable:
        return Transient(error.reason, error.message, retry_after=error.retry_after)
    return LoadError(error.reason, error.message)
