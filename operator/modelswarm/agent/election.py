"""Who coordinates a model: what to do next, decided from the Lease as it was read and from what this node knows.

One Lease per model. Clocks of different machines are never compared: whoever waits counts, on its own clock, how long
the record has not changed. The holder gives up (``GIVE_UP``) before anybody may take over (``duration``), and whoever
finds the Lease free goes back to acquiring it: nobody goes to the origin without it.

====================================================  ==========================================================
The Lease, for a node that lacks the content          What it does
====================================================  ==========================================================
absent, or without holder                             ``Acquire``
deleted, and the coordinator still answers            ``Wait``: its holder makes it again with the next renewal
held by this node (it was restarted)                  ``Acquire`` at once, as a new term
held by another, and changing                         ``Join`` its coordinator, look again later
held by another, unchanged for ``duration``           ``Acquire``: of all who try, the API server lets one
complete, a complete live seeder is known             ``Fetch``
complete, none known for ``reopen_after`` seconds     ``Acquire``, which clears the mark
anything, and a complete live seeder is known         ``Fetch``
====================================================  ==========================================================
"""

from dataclasses import dataclass
from typing import TypeAlias

DURATION = 120.0
"""``leaseDurationSeconds``; the seed's."""
RENEW = 30.0
"""Time between renewals; the seed's."""
GIVE_UP = 100 / 120
"""Part of the duration without a confirmed renewal after which the holder stops to coordinate."""
LOOK = 2.0
"""A node that has no coordinator looks at the Lease about so often,"""
LOOK_JOINED = 30.0
"""and one that has, so often."""
REOPEN = 10.0
TELL = 1 / 3
"""Part of the time between renewals after which one comes early because others read the origin than the Lease says,"""
TELL_FIRST = 2.0
"""and seconds, where it names nobody yet."""


@dataclass(frozen=True, slots=True)
class Record:
    """A model's Lease. Times are kept as they are written: they are compared for change only."""

    holder: str = ""
    duration: float = DURATION
    renewed: str = ""
    acquired: str = ""
    transitions: int = 0
    complete: bool = False
    coordinator: str = ""
    """Base URL of the holder's metainfo server."""
    segment_bytes: int = 0
    readers: tuple[str, ...] = ()
    """Nodes that read the origin when it was last renewed."""
    repo: str = ""
    commit: str = ""
    manifest: str = ""
    """Digest of the manifest that the holder pinned (``sha256:...``)."""
    models: tuple[str, ...] = ()
    """UIDs of the BaseModels for which it was pinned."""
    epoch: int = 0
    """Names the holder's term."""


@dataclass(frozen=True, slots=True)
class Term:
    """Our own time as the holder. ``renewed_at``: when the last renewal that was confirmed was *sent*."""

    epoch: int
    renewed_at: float


@dataclass(frozen=True, slots=True)
class View:
    """All that the decision depends on. Times are of this node's monotonic clock, in seconds.

    ``record`` is the Lease as last read (None: there is none), first seen in this state at ``changed_at``.
    ``seeders``: live nodes that have all of the content, as far as known; ``unseeded_since``: since when none is known
    although they were looked for. ``wanted``: the model still belongs on this node. ``finished``: our coordinator says
    that everybody has everything. ``failed``: the content cannot be had. ``joined``: the coordinator answers us.
    ``news``: the Lease does not show any more who reads the origin.
    """

    me: str
    now: float
    record: Record | None
    changed_at: float
    term: Term | None = None
    have: bool = False
    seeders: int = 0
    unseeded_since: float | None = None
    wanted: bool = True
    finished: bool = False
    failed: bool = False
    joined: bool = False
    news: bool = False
    jitter: float = 0.0
    """From 0 to 1, drawn anew for every decision."""
    reopen_after: float = REOPEN
    renew_every: float = RENEW


@dataclass(frozen=True, slots=True)
class Acquire:
    """Write ourselves into the Lease (create it if there is none), as a new term; if that fails, look again."""

    why: str


@dataclass(frozen=True, slots=True)
class Renew:
    """Write the renewal, or, where it was deleted, the Lease. Until it is confirmed the old one counts."""


@dataclass(frozen=True, slots=True)
class Hold:
    """Go on to coordinate; decide again after so many seconds."""

    after: float


@dataclass(frozen=True, slots=True)
class Join:
    """Report to the coordinator of this term; look at the Lease again after so many seconds."""

    url: str
    holder: str
    epoch: int
    after: float


@dataclass(frozen=True, slots=True)
class Fetch:
    """Get the content from complete seeders; no coordinator is needed. Look again after so many seconds."""

    after: float


@dataclass(frozen=True, slots=True)
class Wait:
    """There is nothing to do but to look again after so many seconds."""

    after: float


@dataclass(frozen=True, slots=True)
class Complete:
    """Mark the Lease complete, and stop to coordinate."""


@dataclass(frozen=True, slots=True)
class Release:
    """Clear the holder, so that the next one need not wait, and stop to coordinate."""

    why: str


@dataclass(frozen=True, slots=True)
class StandDown:
    """We do not hold the Lease any more: stop to coordinate at once, and write nothing."""

    why: str


Decision: TypeAlias = Acquire | Renew | Hold | Join | Fetch | Wait | Complete | Release | StandDown


def decide(view: View) -> Decision:
    """What to do next."""
    if view.term is not None:
        return _as_holder(view, view.term)
    if not view.wanted or view.failed:
        return Wait(_spread(LOOK_JOINED, view))
    if view.have:
        return _with_content(view)
    return _without_content(view)


def still_holds(term: Term, duration: float, now: float) -> bool:
    """Whether nobody else can hold the Lease yet, as far as time tells; checked before every answer to a member."""
    return now < term.renewed_at + duration * GIVE_UP


def renewal_due(record: Record | None, news: bool, renew_every: float) -> float:
    """Seconds from one renewal to the next: sooner with ``news``, but never so often that it matters."""
    if not news or record is None:
        return renew_every
    early = renew_every * TELL
    return early if record.readers else min(TELL_FIRST, early)


def _as_holder(view: View, term: Term) -> Decision:
    record = view.record
    duration = record.duration if record is not None else DURATION
    if record is not None and (record.holder != view.me or record.epoch != term.epoch):
        return StandDown(f"the Lease is held by {record.holder or 'nobody'}")
    if not still_holds(term, duration, view.now):
        return StandDown("the Lease could not be renewed in time")
    if view.finished and view.have:
        return Complete()
    if view.failed or not view.wanted:
        return Release("the content cannot be had" if view.failed else "the model is not wanted here any more")
    if record is None:
        return Renew()  # somebody deleted it; the term goes on, so that nobody reads anything again
    since = view.now - term.renewed_at
    due = renewal_due(record, view.news, view.renew_every)
    return Renew() if since >= due else Hold(min(due - since, LOOK_JOINED))


def _with_content(view: View) -> Decision:
    record = view.record
    if record is not None and record.holder == view.me and not record.complete:
        # We were restarted and have everything: others may still need a coordinator, and the mark is ours to set.
        return Acquire("it was ours before a restart")
    if record is not None and not record.holder and not record.complete:
        # Somebody who lacks something is about to follow, and has to hear soon what is here.
        return Wait(_spread(max(LOOK, (view.now - view.changed_at) / 2), view))
    return Wait(_spread(LOOK_JOINED, view))


def _without_content(view: View) -> Decision:
    record = view.record
    if view.seeders:
        return Fetch(_spread(LOOK_JOINED, view))
    if record is None:
        left = view.changed_at + 2 * view.renew_every - view.now
        return Wait(min(_spread(LOOK, view), left)) if view.joined and left > 0 else Acquire("there is no Lease")
    if record.complete:
        if view.unseeded_since is not None and view.now - view.unseeded_since >= view.reopen_after * (1 + view.jitter):
            return Acquire("it is complete, but nobody has it")
        return Wait(_spread(LOOK, view))
    if not record.holder:
        return Acquire("nobody holds the Lease")
    if record.holder == view.me:
        return Acquire("it was ours before a restart")
    left = view.changed_at + record.duration - view.now
    if left <= 0:
        return Acquire(f"{record.holder} has not renewed it")
    look = LOOK_JOINED if view.joined else LOOK
    if not record.coordinator:
        return Wait(min(_spread(look, view), left))
    return Join(record.coordinator, record.holder, record.epoch, min(_spread(look, view), left))


def _spread(seconds: float, view: View) -> float:
    return seconds * (0.5 + view.jitter)
