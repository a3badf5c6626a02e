"""Who reads what from the origin: each segment is with one node at a time, and not too many nodes read at once."""

import logging
from collections.abc import Callable

from modelswarm.agent import bits
from modelswarm.agent.members import Member, Roster
from modelswarm.agent.passing import Passing

GATHER_SECONDS = 3.0
"""For how long after the first hand-out nodes may still come: the first one, which is alone, is not given everything,
or all of that would be in flight on one node, and lost with it."""
FIRST_SEGMENTS = 2
"""That a node is given until then."""

log = logging.getLogger(__name__)


class Allotment:
    """``origin_nodes``: how many nodes may read at once (None: any number); ``own``: the one for which a place is kept,
    unless the origin has just failed it.

    A node that was let in stays in while it wants work: with one reader, one node reads everything.
    """

    def __init__(self, roster: Roster, passing: Passing, *, origin_nodes: int | None, own: str, label: str) -> None:
        self._roster = roster
        self._passing = passing
        self._origin_nodes = origin_nodes
        self._own = own
        self._label = label
        self._nodes: dict[int, str] = {}
        self._readers: dict[str, None] = {}
        self._helpers = 1
        self._takers: set[str] = set()
        self._began: float | None = None
        self.held = 0
        """The segments that some node has, as bits."""

    @property
    def readers(self) -> tuple[str, ...]:
        return tuple(self._readers)

    def count_helpers(self) -> None:
        """To be called now and then: how many nodes there are to share what is left, and to take what others read."""
        self._helpers = sum(1 for member in self._roster if member.helps) or 1
        self._takers = {member.node for member in self._roster if member.takes}

    def may_read(self, member: Member, now: float) -> bool:
        if not member.helps or now < member.barred_until:
            return False
        if self._origin_nodes is None or member.node in self._readers:
            return True
        free = self._origin_nodes - len(self._readers)
        own = self._roster.get(self._own)
        if (
            own is not None
            and own is not member
            and own.helps
            and now >= own.barred_until
            and own.node not in self._readers
        ):
            free -= 1
        return free > 0

    def assign(self, member: Member, available: int, now: float, shared: Callable[[int], bool]) -> None:
        """Give the member what it wants and may have of ``available``, in order.

        ``shared`` says of a segment that somebody else should read it. Towards the end nobody gets more than a share
        of what is left, or all would wait for the slowest.
        """
        free = available & ~self.held
        if self.may_read(member, now):
            self._give(member, free, now, shared)
        if not member.held and not (free and self.is_ahead(member)):
            # There is nothing for it to read, or it may not: somebody else may have the place.
            self._readers.pop(member.node, None)

    def _give(self, member: Member, available: int, now: float, shared: Callable[[int], bool]) -> None:
        if not available or len(member.held) >= member.report.wants:
            return
        share = max(1, available.bit_count() // (2 * self._helpers)) if self._helpers > 1 else member.report.wants
        if self._is_gathering(now):
            share = min(share, FIRST_SEGMENTS)
        most = min(member.report.wants, share)
        if len(member.held) >= most or self.is_ahead(member):
            return
        for segment in bits.members(available):
            if not shared(segment):
                self.hand(member, segment, now, 0)
                if len(member.held) >= most or self.is_ahead(member):
                    return

    def is_ahead(self, member: Member) -> bool:
        """Whether so much would be lost with the node that it should wait until others have some of it."""
        nobody_takes = len(self._takers) == (member.node in self._takers)
        return not nobody_takes and not self._passing.has_room(member.node, member.held)

    def _is_gathering(self, now: float) -> bool:
        if self._began is None:
            self._began = now
        return self._origin_nodes != 1 and now - self._began < GATHER_SECONDS

    def hand(self, member: Member, segment: int, now: float, done: int) -> None:
        if not member.held:
            member.moved = now
        self._nodes[segment] = member.node
        self.held |= 1 << segment
        member.held[segment] = done
        self._readers[member.node] = None

    def release(self, segment: int) -> None:
        """Nobody has to read it any more, or somebody else shall."""
        node = self._nodes.pop(segment, None)
        self.held &= ~(1 << segment)
        member = self._roster.get(node) if node is not None else None
        if member is not None:
            member.held.pop(segment, None)
            if not member.held and self._origin_nodes is None:
                self._readers.pop(member.node, None)

    def take_back(self, member: Member, why: str) -> None:
        """Everything that the member holds goes back; somebody else may read in its place."""
        if member.held:
            log.warning("P2P %s: %s %s; %d segments go to others", self._label, member.node, why, len(member.held))
        for segment in list(member.held):
            self.release(segment)
        self._readers.pop(member.node, None)
