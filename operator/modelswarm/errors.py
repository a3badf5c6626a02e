"""Every error that modelswarm raises on purpose, as one tree.

::

    ModelswarmError
    ├── ContentError                  what a source or an image reference led to; carries a typed reason
    │   ├── InvalidReference          the text cannot name anything                        (a person must act)
    │   ├── SourceNotFound            the repository, bucket, image or file does not exist  (a person must act)
    │   ├── RevisionNotFound          the repository exists, the revision or tag does not   (a person must act)
    │   ├── AccessDenied              401, 403, or a gated repository                       (a person must act)
    │   ├── NothingMatches            the patterns leave no file                            (a person must act)
    │   ├── PlatformNotFound          the image has no manifest for a wanted platform       (a person must act)
    │   ├── RateLimited               429; ``retry_after`` says when to come back           (retried)
    │   └── SourceUnavailable         the origin does not answer, or answers 5xx            (retried)
    ├── TaskBlocked                   a P2PTask cannot go on until a person acts; carries a typed reason
    ├── RenderError                   a Playground cannot be turned into a workload; carries a typed reason
    ├── KubeError                     what the API server answered
    │   ├── NotFound
    │   ├── Conflict
    │   ├── Forbidden
    │   ├── Invalid
    │   └── Unavailable               no answer, 429 or 5xx                                 (retried)
    ├── EngineError                   an engine could not be asked or did not understand; carries a typed reason
    ├── LoadError                     the model-loader could not put a file in place; carries a typed reason
    ├── AgentError                    a node's agent cannot begin with a content; carries a typed reason
    ├── StoreError                    what a node's store of contents could not do; carries a typed reason
    │   ├── StoreBusy                 another process holds the store                      (retried)
    │   ├── InsufficientCapacity      it does not fit, with what may go gone; both numbers  (a person must act)
    │   │   └── DiskFull              the disk has become full in the middle of it           (retried)
    │   ├── DigestMismatch            complete, and not what the manifest says              (fetched again)
    │   ├── PathOutsideRoot           a directory that the store may not fill               (a person must act)
    │   └── StorageFailed             the disk cannot be read or written                    (retried)
    ├── SourceChanged                 the origin has other bytes than those that were pinned
    ├── SwarmError                    the node's BitTorrent swarm cannot do what it was asked
    │   ├── BadMetainfo               from a peer: damaged, hostile, or of other content
    │   └── CannotListen              the port is taken, or the address is not this machine's
    ├── PeerError                     another node's agent could not be asked, or its answer makes no sense
    │   ├── PeerUnavailable           no answer in time                                     (retried)
    │   ├── PeerRefused               it does not know our Secret, or we do not know its    (a person must act)
    │   ├── PeerMisbehaved            an answer that cannot be: too long, too slow, damaged, not signed
    │   └── NotCoordinator            it does not coordinate the content; says who does, if it knows
    ├── CommandError                  kubectl-swarm cannot do what it was asked; carries the exit code
    └── SettingsError                 the process was started with a configuration that cannot work

Whether an error is worth a retry is decided here, where it is made, never from the text of a message.
Messages never carry credentials, and nothing that differs from one attempt to the next (they land in conditions).
"""

from enum import StrEnum


class ModelswarmError(Exception):
    """The root: ``except ModelswarmError`` catches everything that is ours."""


class ContentReason(StrEnum):
    """Why content could not be resolved; used verbatim as a condition reason."""

    INVALID_REFERENCE = "InvalidReference"
    SOURCE_NOT_FOUND = "SourceNotFound"
    REVISION_NOT_FOUND = "RevisionNotFound"
    ACCESS_DENIED = "AccessDenied"
    NOTHING_MATCHES = "NothingMatches"
    PLATFORM_NOT_FOUND = "PlatformNotFound"
    RATE_LIMITED = "RateLimited"
    SOURCE_UNAVAILABLE = "SourceUnavailable"


class ContentError(ModelswarmError):
    """A source or an image reference that could not be resolved.

    ``retryable`` is False where only a person can help (the controllers then wait for a change instead of asking again
    and again). ``retry_after`` is in seconds, from the origin's own ``Retry-After`` where it sent one.
    """

    reason: ContentReason
    retryable: bool = False

    def __init__(self, message: str, *, retry_after: float | None = None) -> None:
        super().__init__(message)
        self.message = message
        self.retry_after = retry_after


class InvalidReference(ContentError):
    reason = ContentReason.INVALID_REFERENCE


class SourceNotFound(ContentError):
    reason = ContentReason.SOURCE_NOT_FOUND


class RevisionNotFound(ContentError):
    reason = ContentReason.REVISION_NOT_FOUND


class AccessDenied(ContentError):
    reason = ContentReason.ACCESS_DENIED


class NothingMatches(ContentError):
    reason = ContentReason.NOTHING_MATCHES


class PlatformNotFound(ContentError):
    reason = ContentReason.PLATFORM_NOT_FOUND


class RateLimited(ContentError):
    reason = ContentReason.RATE_LIMITED
    retryable = True


class SourceUnavailable(ContentError):
    reason = ContentReason.SOURCE_UNAVAILABLE
    retryable = True


class TaskBlocked(ModelswarmError):
    """A P2PTask that waits for a person, for a reason that is not its source's: a Secret, a name clash."""

    def __init__(self, reason: str, message: str) -> None:
        super().__init__(message)
        self.reason = reason
        self.message = message


class RenderReason(StrEnum):
    """Why a Playground has no workload; used verbatim as an Event reason, and in the message of a condition."""

    NO_MODELS = "NoModels"
    INVALID_MODELS = "InvalidModels"
    """The roles make no sense, or two models would lie in the same place."""
    UNKNOWN_CONFIG = "UnknownConfig"
    BAD_TEMPLATE_VARIABLE = "BadTemplateVariable"
    UNKNOWN_FLAVOR = "UnknownFlavor"
    INVALID_QUANTITY = "InvalidQuantity"
    UNSUPPORTED_SOURCE = "UnsupportedSource"
    INVALID_OBJECT = "InvalidObject"


class RenderError(ModelswarmError):
    """A Playground that cannot be rendered; ``message`` says what is wrong and what to change."""

    def __init__(self, reason: RenderReason, message: str) -> None:
        super().__init__(message)
        self.reason = reason
        self.message = message


class KubeError(ModelswarmError):
    """The API server refused a request. ``status`` is the HTTP status (0: no answer), ``message`` the server's own."""

    def __init__(self, message: str, *, status: int = 0, retry_after: float | None = None) -> None:
        super().__init__(message)
        self.message = message
        self.status = status
        self.retry_after = retry_after


class NotFound(KubeError):
    """404: the object, or its namespace, or its kind does not exist."""


class Conflict(KubeError):
    """409: the object exists already, changed meanwhile, or a field belongs to another manager."""


class Forbidden(KubeError):
    """401 or 403: RBAC, quota or an admission policy said no."""


class Invalid(KubeError):
    """400 or 422: the object breaks its schema or a rule; trying again will not help."""


class Unavailable(KubeError):
    """No answer, a time-out, 429 or 5xx; trying again later may help."""


class EngineError(ModelswarmError):
    """An engine could not be asked. ``reason`` is the engine's own typed reason."""

    def __init__(self, reason: str, message: str) -> None:
        super().__init__(message)
        self.reason = reason
        self.message = message


class LoadError(ModelswarmError):
    """The model-loader gave up. ``reason`` is printed, put into the termination message, and decides the exit code."""

    def __init__(self, reason: str, message: str) -> None:
        super().__init__(message)
        self.reason = reason
        self.message = message


class AgentError(ModelswarmError):
    """A node's agent cannot go on with a content. ``reason`` and ``message`` stand in its NodeCache."""

    def __init__(self, reason: str, message: str) -> None:
        super().__init__(message)
        self.reason = reason
        self.message = message


class StoreReason(StrEnum):
    """Why a node does not hold a content; reported as it is."""

    STORE_BUSY = "StoreBusy"
    INSUFFICIENT_CAPACITY = "InsufficientCapacity"
    DIGEST_MISMATCH = "DigestMismatch"
    PATH_OUTSIDE_ROOT = "PathOutsideRoot"
    STORAGE_FAILED = "StorageFailed"


class StoreError(ModelswarmError):
    """A node's store could not do something; ``retryable`` is False where only a person can help."""

    reason: StoreReason
    retryable: bool = True

    def __init__(self, message: str) -> None:
        super().__init__(message)
        self.message = message


class StoreBusy(StoreError):
    """Two agents on one directory would destroy each other's work; the message names directory and holder."""

    reason = StoreReason.STORE_BUSY


class InsufficientCapacity(StoreError):
    """``need`` and ``free`` are bytes: what must still be written, and what may be."""

    reason = StoreReason.INSUFFICIENT_CAPACITY
    retryable = False

    def __init__(self, message: str, *, need: int, free: int) -> None:
        super().__init__(message)
        self.need = need
        self.free = free


class DiskFull(InsufficientCapacity):
    """The disk has become full in the middle of it; the next attempt may find something to evict.

    Whoever notices it knows no numbers: they are told (``tell``) where they are known.
    """

    retryable = True

    def __init__(self, message: str = "the disk is full") -> None:
        super().__init__(message, need=0, free=0)

    def tell(self, need: int, free: int, text: str) -> None:
        """``need`` and ``free`` in bytes, and in words."""
        if not self.need:
            self.need, self.free, self.message = need, free, f"{self.message}: {text}"
            self.args = (self.message,)


class DigestMismatch(StoreError):
    """A whole file is wrong. ``damaged`` are the ranges (start, end) of which this node's own disk is to blame.

    The store has forgotten those; where there are none, whoever delivered the bytes has to answer for them.
    """

    reason = StoreReason.DIGEST_MISMATCH

    def __init__(self, path: str, *, expected: str, actual: str, damaged: tuple[tuple[int, int], ...] = ()) -> None:
        super().__init__(f"{path} is not what it should be: expected {expected}, found {actual}")
        self.path = path
        self.expected = expected
        self.actual = actual
        self.damaged = damaged


class PathOutsideRoot(StoreError):
    """A directory outside the store's root, or one that a symbolic link leads out of it."""

    reason = StoreReason.PATH_OUTSIDE_ROOT
    retryable = False


class StorageFailed(StoreError):
    """The file system said no; the message has its words and the path."""

    reason = StoreReason.STORAGE_FAILED


class SourceChanged(ModelswarmError):
    """The origin has other bytes under a name than those that were pinned; asking again brings the same."""

    def __init__(self, message: str) -> None:
        super().__init__(message)
        self.message = message
        self.reason = "SourceChanged"


class SettingsError(ModelswarmError):
    """A process was started with settings that cannot work; the message names the variable and what it should be."""


class CommandError(ModelswarmError):
    """A command of kubectl-swarm ends here. ``message`` is one line for the terminal, ``code`` the exit code."""

    def __init__(self, message: str, code: int) -> None:
        super().__init__(message)
        self.message = message
        self.code = code


class SwarmError(ModelswarmError):
    """The swarm cannot do what it was asked. What peers do shows as events instead."""

    def __init__(self, message: str) -> None:
        super().__init__(message)
        self.message = message


class BadMetainfo(SwarmError):
    """Metadata from a peer that is damaged, hostile, or not of the content that is wanted."""


class CannotListen(SwarmError):
    """The port is taken, or the address is not this machine's."""


class PeerError(ModelswarmError):
    """Another node's agent could not be asked. ``url`` is its metainfo server."""

    def __init__(self, message: str, *, url: str = "") -> None:
        super().__init__(message)
        self.message = message
        self.url = url


class PeerUnavailable(PeerError):
    """No answer, or one that asks for another attempt."""


class PeerRefused(PeerError):
    """The two do not have the same Secret, or their clocks differ too much."""


class PeerMisbehaved(PeerError):
    """The answer breaks the protocol, or its bounds."""


class NotCoordinator(PeerError):
    """The peer does not coordinate the content. ``holder`` is the URL of who does, as far as the peer knows."""

    def __init__(self, message: str, *, url: str = "", holder: str | None = None) -> None:
        super().__init__(message, url=url)
        self.holder = holder
