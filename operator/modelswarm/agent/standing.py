"""How far this node is with one model: what a session tells the reporter and the metrics."""

from collections.abc import Iterable
from dataclasses import dataclass, replace
from datetime import datetime
from typing import Literal

from modelswarm.agent.wanted import Claim, Noted, Wanted
from modelswarm.api.nodecache import ModelState

FetchingFrom = Literal["Origin", "Peers"]

_FURTHEST_FIRST = (
    ModelState.READY,
    ModelState.VERIFYING,
    ModelState.FETCHING,
    ModelState.WAITING,
    ModelState.FAILED,
    ModelState.ABSENT,
    ModelState.EVICTED,
)


@dataclass(frozen=True, slots=True)
class Standing:
    """``key`` as in the NodeCache (``sha256:<hex>`` as soon as the content is known). Bytes are totals, not speeds."""

    key: str
    name: str
    state: ModelState
    revision: str | None = None
    claims: tuple[Claim, ...] = ()
    """Who wants it; empty for what merely is here still."""
    fetching_from: FetchingFrom | None = None
    bytes: int = 0
    done_bytes: int = 0
    origin_bytes: int = 0
    peer_bytes: int = 0
    bytes_per_second: int = 0
    reason: str | None = None
    message: str = ""
    ready_time: datetime | None = None


@dataclass(frozen=True, slots=True)
class Capacity:
    """Bytes. ``total``: the quota, or the file system if it is smaller."""

    total: int = 0
    used: int = 0
    free: int = 0


def of_wanted(wanted: Wanted, state: ModelState = ModelState.ABSENT) -> Standing:
    """The standing of what was not begun."""
    return Standing(wanted.key, wanted.name, state, wanted.revision, wanted.claims, bytes=wanted.bytes)


def of_noted(noted: Noted) -> Standing:
    """The standing of what is never fetched."""
    return Standing(
        noted.key, noted.name, noted.state, claims=(noted.claim,), reason=noted.reason, message=noted.message
    )


def merged(standings: Iterable[Standing]) -> tuple[Standing, ...]:
    """One for each content, by key. A BaseModel and a task may turn out to mean the same: the one that is further
    speaks for both."""
    found: dict[str, Standing] = {}
    for standing in standings:
        known = found.get(standing.key)
        if known is None:
            found[standing.key] = standing
            continue
        first, second = sorted((known, standing), key=lambda each: _FURTHEST_FIRST.index(each.state))
        claims = tuple(dict.fromkeys((*first.claims, *second.claims)))
        found[standing.key] = replace(first, claims=claims)
    return tuple(standing for _, standing in sorted(found.items()))
