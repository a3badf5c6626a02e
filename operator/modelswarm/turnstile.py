"""Who may read the origin now: at most so many loaders of the whole cluster at once, first come, first served.

Loaders ask when an engine has failed them. Were all of them let through, a broken engine would become a stampede.
Nothing is kept on disk: holders and those who wait ask again every few seconds, and whoever does not is forgotten.
A new turnstile (the operator was restarted, another one leads) therefore lets nobody new through for the length of a
lease: by then every loader that is reading has said so.

It is a courtesy and no lock. Who says that it holds a permit is believed: it is reading already, and cannot be
stopped. So holders may be more than the limit for a while, but nobody new gets through then.
"""

from dataclasses import dataclass

LEASE_SECONDS = 30.0
"""How long a permit is good for without being renewed."""
MOST_WAITING = 2000
"""Beyond that nobody is remembered: they ask again, and have their turn when there is room."""
_LATE = 10.0
"""How late somebody who waits may ask again: its requests may meet a standby, or get lost."""
_SHORTEST, _LONGEST = 1.0, 10.0


@dataclass(frozen=True, slots=True)
class Answer:
    """``position`` counts from 1, among ``waiting``. Times are seconds."""

    granted: bool
    lease: float = LEASE_SECONDS
    position: int = 0
    waiting: int = 0
    ask_again: float = 0.0


@dataclass(frozen=True, slots=True)
class _Waiting:
    since: float
    until: float


class Turnstile:
    """``limit`` loaders at once. Times are seconds of one monotonic clock; ``now`` is when it opens."""

    def __init__(self, limit: int, now: float, *, lease: float = LEASE_SECONDS) -> None:
        self._limit = limit
        self._lease = lease
        self._opens = now + lease
        self._holders: dict[str, float] = {}
        self._queue: dict[str, _Waiting] = {}

    def ask(self, who: str, now: float, *, holding: bool = False, waited: float = 0.0) -> Answer:
        """Ask for a permit, or for its renewal (``holding``); has no other effect when repeated.

        ``waited`` says for how long it has been waiting, in case this is another turnstile than the last time.
        """
        self._forget(now)
        if holding or who in self._holders:
            self._queue.pop(who, None)
            return self._grant(who, now)
        since = self._queue[who].since if who in self._queue else now - max(waited, 0.0)
        before = self._before(who, since)
        if now >= self._opens and before < self._limit - len(self._holders):
            self._queue.pop(who, None)
            return self._grant(who, now)
        pause = min(max(_SHORTEST, before / 2), _LONGEST)
        if who in self._queue or len(self._queue) < MOST_WAITING:
            self._queue[who] = _Waiting(since, now + pause + _LATE)
        return Answer(False, self._lease, before + 1, len(self._queue), pause)

    def leave(self, who: str) -> None:
        """Give the permit back, or the place in the queue; unknown names do not matter."""
        self._holders.pop(who, None)
        self._queue.pop(who, None)

    def counts(self, now: float) -> tuple[int, int]:
        """How many read, and how many wait. From any thread: it changes nothing."""
        holders, queue = list(self._holders.values()), list(self._queue.values())
        return sum(until > now for until in holders), sum(each.until > now for each in queue)

    def _before(self, who: str, since: float) -> int:
        before, earlier = 0, True
        for name, other in self._queue.items():
            if name == who:
                earlier = False
            else:
                before += other.since < since or (earlier and other.since == since)
        return before

    def _grant(self, who: str, now: float) -> Answer:
        self._holders[who] = now + self._lease
        return Answer(True, self._lease)

    def _forget(self, now: float) -> None:
        self._holders = {who: until for who, until in self._holders.items() if until > now}
        self._queue = {who: waiting for who, waiting in self._queue.items() if waiting.until > now}
