"""Why a content is not there yet, in the words of the NodeCache: a typed reason and a message. Pure.

Messages say what to do where a person can help, and hold nothing that differs from one attempt to the next.
"""

from collections.abc import Sequence
from dataclasses import dataclass

from modelswarm.agent.messages import Failure
from modelswarm.agent.wanted import Claim, Wanted
from modelswarm.api.nodecache import ModelState
from modelswarm.errors import (
    AccessDenied,
    AgentError,
    ContentError,
    ContentReason,
    Forbidden,
    KubeError,
    ModelswarmError,
    PeerError,
    PeerRefused,
    RateLimited,
    SourceChanged,
    StoreError,
    StoreReason,
    SwarmError,
)

LONGEST_MESSAGE = 512
"""Of what one node tells another."""
API_SERVER_UNAVAILABLE = "ApiServerUnavailable"
API_SERVER_FORBIDDEN = "ApiServerForbidden"
PEER_UNAVAILABLE = "PeerUnavailable"
PEER_REFUSED = "PeerRefused"
SWARM_FAILED = "SwarmFailed"
PEER_SHUNNED = "PeerShunned"
"""A node published bytes that are not the origin's; what is here now is right."""
INTERNAL_ERROR = "InternalError"
PREPARING = "Preparing"
"""Waiting: the list of files, the disk."""
NO_COORDINATOR = "NoCoordinator"
DAMAGED = "Damaged"
SPACE_NEEDED = "SpaceNeeded"
SUSPENDED = "Suspended"


@dataclass(frozen=True, slots=True)
class Trouble:
    """``passing``: it may be over by itself soon; otherwise somebody has to act, and asking often does not help."""

    state: ModelState
    reason: str
    message: str
    passing: bool


def of_error(error: Exception, wanted: Wanted) -> Trouble:
    """What ended an attempt."""
    match error:
        case KubeError():
            reason, passing = _of_api_server(error)
            return Trouble(ModelState.WAITING, reason, f"the API server: {error.message}", passing)
        case PeerError():
            reason = PEER_REFUSED if isinstance(error, PeerRefused) else PEER_UNAVAILABLE
            return Trouble(ModelState.WAITING, reason, f"{error.url or 'a peer'}: {error.message}", True)
        case SwarmError():
            return Trouble(ModelState.WAITING, SWARM_FAILED, error.message, True)
        case RateLimited():
            return Trouble(ModelState.WAITING, error.reason, _patience(error.message), True)
        case AccessDenied():
            return Trouble(ModelState.FAILED, error.reason, explain_denial(error.message, wanted), False)
        case AgentError(reason=ContentReason.ACCESS_DENIED):
            return Trouble(ModelState.FAILED, error.reason, explain_denial(error.message, wanted), False)
        case ContentError():
            return Trouble(ModelState.FAILED, error.reason, error.message, error.retryable)
        case StoreError():
            return Trouble(ModelState.FAILED, error.reason, error.message, error.retryable)
        case AgentError() | SourceChanged():
            return Trouble(ModelState.FAILED, error.reason, error.message, False)
    return Trouble(ModelState.FAILED, INTERNAL_ERROR, "see the agent's log", True)


def failure_of(error: ModelswarmError) -> Failure:
    """What kept a segment from being read, for the coordinator: others may have better luck."""
    wait = error.retry_after if isinstance(error, RateLimited) else None
    match error:
        case ContentError():
            reason, text, retryable = str(error.reason), error.message, error.retryable
        case AgentError() | SourceChanged():
            reason, text, retryable = error.reason, error.message, False
        case KubeError():
            reason, text, retryable = _of_api_server(error)[0], error.message, True
        case StoreError():
            reason, text, retryable = str(error.reason), str(error), True
        case _:
            reason, text, retryable = INTERNAL_ERROR, "", True
    return Failure(reason=reason[:64], message=text[:LONGEST_MESSAGE], retryable=retryable, retry_after=wait)


def of_failure(failure: Failure, wanted: Wanted) -> Trouble:
    """What went wrong last with the origin, while others, or later attempts, may still succeed."""
    message = failure.message
    if failure.reason == ContentReason.RATE_LIMITED:
        message = _patience(message)
    elif failure.reason == ContentReason.ACCESS_DENIED:
        message = explain_denial(message, wanted)
    return Trouble(ModelState.FETCHING, failure.reason, message, failure.retryable)


def of_bad_file(path: str, publishers: Sequence[str]) -> Trouble:
    """A file whose digest is wrong, and who has published its bytes."""
    by = ", ".join(publishers) or "nodes that are not known any more"
    message = f"{path} does not have its digest; its bytes were published by {by}, and are read again"
    return Trouble(ModelState.FETCHING, StoreReason.DIGEST_MISMATCH, message, True)


def of_liar(node: str, paths: Sequence[str]) -> Trouble:
    """The bytes are right now, and somebody should look at that node: its disk, its memory, or who runs it."""
    message = f"{node} published bytes of {', '.join(paths)} that are not the origin's; the other nodes shun it"
    return Trouble(ModelState.FETCHING, PEER_SHUNNED, message, True)


def of_silence(seeders: int) -> Trouble:
    """Complete nodes that gave nothing for too long."""
    message = f"{seeders} nodes that have all of it send nothing; looking for another way"
    return Trouble(ModelState.WAITING, PEER_UNAVAILABLE, message, True)


def explain_denial(message: str, wanted: Wanted) -> str:
    """The origin's refusal, with the Secret that this content's claims name; the origin's words know none."""
    claim = next((each for each in wanted.claims if each.secret is not None), None)
    if claim is not None and claim.secret is not None:
        key = f" (key {claim.secret.key})" if claim.secret.key else ""
        where = f"Secret {claim.secret.namespace}/{claim.secret.name}{key}"
        return f"{wanted.name}: the origin refuses what is in {where}, which {_field(claim)} names; check it"
    claim = next((each for each in wanted.claims if not each.is_task), None)
    if claim is None:
        return message
    return f"{wanted.name}: the origin wants a token; put one into a Secret and name that in {_field(claim)}"


def _field(claim: Claim) -> str:
    where = f"{claim.namespace}/{claim.name}" if claim.namespace else claim.name
    return f"{'spec' if claim.is_task else 'storage.key'} of {claim.kind} {where}"


def _patience(message: str) -> str:
    return f"{message}; no node reads it before the time that it named"


def _of_api_server(error: KubeError) -> tuple[str, bool]:
    denied = isinstance(error, Forbidden)
    return (API_SERVER_FORBIDDEN, False) if denied else (API_SERVER_UNAVAILABLE, True)
