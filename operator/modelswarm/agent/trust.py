"""Whose word counts: what was told of a content is weighed, doubted, and read again until every file has its digest.

Nobody has to be in the majority, for the digest that a file must have is known to everybody, and so is the way to the
origin. There are three reasons to read something again:

====================================================  ==========================================================
A member complains                                    What follows
====================================================  ==========================================================
a file is as it was published, and its digest wrong   others than those who have read it read it again
the same, and another member says that it is right    one of the two is wrong, and it may be either: the complainer
                                                      looks at the origin itself, and its word is weighed
nobody gives it what was published                    the same; who told it may be slow, cut off, or have told
                                                      hashes of bytes that do not exist
====================================================  ==========================================================

So a false complaint costs reading by who made it, and a true one ends with the right bytes. Of two words about a
segment the later one holds, until a third decides; who is outvoted is shunned.
"""

import logging
from collections.abc import Sequence

from modelswarm.agent import bits
from modelswarm.agent.allotment import Allotment
from modelswarm.agent.members import GONE_SECONDS, Member, Roster
from modelswarm.agent.publications import Publications, Suspicion, Word
from modelswarm.agent.rereading import Rereading
from modelswarm.agent.segments import Segment

FRESH_SECONDS = 60.0
"""Time for the swarm to spread a segment that was just read: so long nobody's complaint about it counts."""
CHECKS = 8
"""Segments that one node checks at a time for want of anybody who gives them."""

log = logging.getLogger(__name__)


class Trust:
    """What the coordinator of a content believes, and has read again. ``label`` names the content in the log."""

    def __init__(
        self, segments: Sequence[Segment], roster: Roster, publications: Publications, work: Allotment, *, label: str
    ) -> None:
        self._roster = roster
        self._publications = publications
        self._work = work
        self._label = label
        self._segments = segments
        self._suspicion = Suspicion()
        self._rereading = Rereading(segments)
        self._hearsay: set[int] = set()
        """What somebody else than its publisher has told: not to be held against the publisher."""
        self._fresh: dict[int, float] = {}
        """When a segment was last read from the origin."""

    @property
    def mask(self) -> int:
        """The segments that are to be read again."""
        return self._rereading.mask

    def wants(self, segment: int) -> bool:
        """Whether it is to be read again."""
        return self._rereading.wants(segment)

    def segments_of(self, file: int) -> int:
        return self._rereading.segments_of(file)

    def liars(self) -> set[str]:
        """Who is outvoted at present; a later vote may say otherwise."""
        return self._suspicion.liars()

    def note_told(self, segment: int, word: Word, node: str) -> None:
        """``node`` tells the hashes of a segment; to be called before they are recorded."""
        known = self._publications.get(segment)
        if word.publisher != node and known is None:
            self._hearsay.add(segment)
        elif word.publisher == node and known in (None, word):
            self._hearsay.discard(segment)

    # What is read again

    def is_for_others(self, member: Member, segment: int, now: float) -> bool:
        """Whether it is to be read again, and somebody else than this member should do it, and can."""
        if not self._rereading.wants(segment):
            return False
        checker = self._rereading.checker(segment)
        if checker is not None:
            return checker != member.node
        known = self._publications.publisher(segment)
        readers = self._suspicion.voters(segment) | ({known} if known is not None else set())
        return member.node in readers and any(
            other.node not in readers and self._work.may_read(other, now) for other in self._roster
        )

    def weigh(self, segment: int, node: str, hashes: bytes) -> bool:
        """A segment was read a second time, as ordered. Says whether the new hashes hold from now on."""
        publisher = self._publications.publisher(segment)
        before = self._publications.hashes(segment)
        if publisher is None or (before == hashes and not self._rereading.wants(segment)):
            return False
        if segment not in self._hearsay and publisher not in self._suspicion.voters(segment):
            self._suspicion.vote(segment, publisher, before)
        self._suspicion.vote(segment, node, hashes)
        return before != hashes and self._suspicion.prevailing(segment) == hashes

    def note_read(self, segment: int, now: float, *, changed: bool) -> None:
        """A member has read it, as ordered; ``changed``: other hashes hold now."""
        self._fresh[segment] = now
        if changed:
            self._hearsay.discard(segment)
        self._rereading.done(segment, self._segments[segment].files, changed=changed)

    def abandon(self, member: Member) -> None:
        """It does not read what it holds: somebody else may check it."""
        self._rereading.abandon(member.node)

    # Complaints

    def doubt(self, member: Member, file: int, cursor: int, now: float) -> bool:
        """The member has all of a file as it was published, and its digest is wrong. True: there is no hope for it."""
        segments = self._rereading.segments_of(file)
        if not segments or segments & ~self._publications.known:
            return False
        if segments & self._publications.outdated(member.node, cursor):
            return False
        if self._roster.is_verified(file, member):
            self._check(member, segments, now, "does not agree that a file is right")
            return False
        if not self._rereading.begin(file):
            return False
        log.error("P2P %s: the bytes of file %d do not have its digest", self._label, file)
        if not self._rereading.is_hopeless(file):
            return False
        if not self._is_agreed(segments, now):
            self._check(member, segments, now, "is alone with what the origin is said to have")
            return False
        return self._is_wrong_for_all(file, segments)

    def miss(self, member: Member, starved: Sequence[int], cursor: int, now: float) -> None:
        """The member waits for segments that were published, and nobody gives them."""
        asked = bits.mask_of(segment for segment in starved if segment < len(self._segments))
        asked &= self._publications.known & ~self._publications.outdated(member.node, cursor) & ~member.have
        # What nobody has, or somebody reads, comes by itself.
        asked &= ~self._roster.lacking & ~self._work.held
        due = (each for each in bits.members(asked) if now - self._fresh.get(each, -FRESH_SECONDS) >= FRESH_SECONDS)
        self._check(member, bits.mask_of(due), now, "gets from nobody what was published", most=CHECKS)

    def _check(self, member: Member, segments: int, now: float, why: str, *, most: int | None = None) -> None:
        if self._work.may_read(member, now) and self._rereading.check(segments, member.node, most=most):
            log.warning("P2P %s: %s %s, and looks at the origin itself", self._label, member.node, why)

    def _is_agreed(self, segments: int, now: float) -> bool:
        """Whether two nodes have read the same at the origin; where there is only one, it has to do."""
        alone = sum(now - member.seen <= GONE_SECONDS for member in self._roster) < 2
        return alone or all(self._suspicion.is_confirmed(each) for each in bits.members(segments))

    def _is_wrong_for_all(self, file: int, segments: int) -> bool:
        """Whether everybody who has all of the file complains: who has found it right may be about to say so."""
        have = [member for member in self._roster.live() if not segments & ~member.have]
        return all(any(bad.file == file for bad in member.report.bad) for member in have)
