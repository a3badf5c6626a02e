"""Who is asked for hashes that the coordinator does not know: of a segment's holders one at a time.

Whoever says that it has a segment, and neither tells its hashes nor anything else that it was asked for, is not
believed: nobody would read the segment otherwise.
"""

from itertools import islice

from modelswarm.agent import bits
from modelswarm.agent.members import Member, Roster
from modelswarm.agent.messages import MAX_WORKING

ASK_SECONDS = 30.0
"""How long a member that was asked has, before another one is asked,"""
PROOF_SECONDS = 90.0
"""and in which it must have told something of what it was asked for: hashing may take a slow disk long."""


class Asking:
    def __init__(self, roster: Roster) -> None:
        self._roster = roster
        self._asked: dict[int, tuple[str, float]] = {}
        self._mask = 0

    def choose(self, member: Member, unknown: int) -> tuple[int, ...]:
        """Of the segments whose hashes nobody told, those that this member should publish."""
        wanted = member.have & unknown
        return tuple(islice(bits.members(wanted & (member.asked | ~self._mask)), MAX_WORKING)) if wanted else ()

    def note(self, member: Member, asked: tuple[int, ...], now: float) -> None:
        """The member is told."""
        for segment in asked:
            member.owes.setdefault(segment, now)
            if segment not in self._asked:
                self._asked[segment] = member.node, now
                self._mask |= 1 << segment
                member.asked |= 1 << segment

    def hear(self, member: Member, segment: int, now: float) -> None:
        """The member tells hashes of the segment."""
        if member.owes.pop(segment, None) is not None:
            # It is at it: it has time for the others.
            member.owes = dict.fromkeys(member.owes, now)
        member.unproven &= ~(1 << segment)

    def forget(self, known: int, now: float) -> None:
        """Of those who did not answer in time, the next who reports is asked."""
        for segment, (node, at) in list(self._asked.items()):
            if now - at >= ASK_SECONDS or known >> segment & 1:
                del self._asked[segment]
                self._mask &= ~(1 << segment)
                member = self._roster.get(node)
                if member is not None:
                    member.asked &= ~(1 << segment)
        for member in self._roster:
            if member.owes:
                self._demand(member, known, now)

    def _demand(self, member: Member, known: int, now: float) -> None:
        for segment, since in list(member.owes.items()):
            if known >> segment & 1:
                del member.owes[segment]
            elif now - since >= PROOF_SECONDS:
                del member.owes[segment]
                member.unproven |= 1 << segment
                self._roster.set_have(member, member.have & ~member.unproven)
