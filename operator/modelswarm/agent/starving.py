"""Segments that were published and that nobody gives: who told them may be cut off, or has told hashes of no bytes.

A window that stands still for a while is nothing special: a node may be busy, or have died, and the coordinator sees to
that. So it is only told after several times in a row; sooner where the publisher itself was caught giving other bytes.
"""

import asyncio
from collections.abc import Callable
from dataclasses import dataclass

from modelswarm.agent.exchange import Exchange
from modelswarm.agent.swarm import Event, PeerBanned, WindowStalled

STALLS = 4
"""Times in a row that a segment's window stood still."""
CAUGHT = 3
"""What it counts for that its publisher gave bytes that do not have its own hashes."""
FORGET_SECONDS = 120.0
"""Between two times in a row."""


@dataclass(frozen=True, slots=True)
class _Case:
    publisher: str
    count: int
    at: float


class Starving:
    """``clock``: any monotonic one, in seconds; None: the loop's."""

    def __init__(self, exchange: Exchange, *, clock: Callable[[], float] | None = None) -> None:
        self._exchange = exchange
        self._clock = clock or (lambda: asyncio.get_running_loop().time())
        self._cases: dict[int, _Case] = {}

    def hear(self, event: Event) -> bool:
        """An event of the swarm, before the exchange acts on it; whether there is something more to complain of."""
        before = self.segments
        match event:
            case WindowStalled(window_id=window):
                for segment, publisher in self._exchange.lacking(window, event.missing):
                    self._count(segment, publisher, 1)
            case PeerBanned(node=str(node), torrent=window):
                for segment, publisher in self._exchange.lacking(window):
                    if publisher == node:
                        self._count(segment, publisher, CAUGHT)
        return bool(set(self.segments) - set(before))

    @property
    def segments(self) -> tuple[int, ...]:
        """What this node waits for in vain, as it was published."""
        return tuple(
            sorted(
                segment
                for segment, case in self._cases.items()
                if case.count >= STALLS and self._exchange.publisher_of(segment) == case.publisher
            )
        )

    def _count(self, segment: int, publisher: str, count: int) -> None:
        now, case = self._clock(), self._cases.get(segment)
        if case is not None and case.publisher == publisher and now - case.at <= FORGET_SECONDS:
            count += case.count
        self._cases[segment] = _Case(publisher, count, now)
