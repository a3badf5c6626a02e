"""The coordinator of a content: hands each segment of the origin's work to exactly one node at a time.

It lives on the node that holds the model's Lease. Members tell it everything they have (``Report``), so a successor
knows after one round of reports what its predecessor knew, and nobody starts a fetch again. It does no IO, and time
is an argument: any monotonic clock, in seconds.

A segment is with a node from its assignment until it is published or somebody has it; it is taken back when the node
falls silent, makes no progress, gives it up, or has read wrong bytes. So every byte leaves the origin once, but for
what was in flight on a node that died, and what a liar published.
"""

import logging
from collections.abc import Collection, Sequence
from itertools import islice

from modelswarm.agent import bits
from modelswarm.agent.journal import Journal
from modelswarm.agent.members import GONE_SECONDS, Member, Roster
from modelswarm.agent.messages import Answer, Failure, Publication, Report
from modelswarm.agent.publications import Publications, Suspicion
from modelswarm.agent.rereading import Rereading
from modelswarm.agent.segments import Segment
from modelswarm.content.manifest import Manifest

SILENT_SECONDS = 15.0
"""Silence after which what a node was reading is taken back."""
STUCK_SECONDS = 60.0
"""Time without a byte read, after which what a node was reading is taken back."""
SETTLE_SECONDS = 3.0
"""For how long a successor at most waits for those who read the origin before it hands anything out."""
BUSY_SECONDS = 120.0
"""How long a file is left to another content that fills it, while nothing of it arrives."""
ASK_SECONDS = 30.0
"""How long a member that was asked for a publication has, before another one is asked."""
MAX_MEMBERS = 4096
DENIALS = 3
"""So many nodes to which the origin refuses the content speak for all."""

_ANSWER_HASHES = 512 << 10
_ANSWER_ENTRIES = 1024
_HOLDERS = 4
_ASK = 64

log = logging.getLogger(__name__)


class Coordinator:
    """``epoch`` names this coordinator's term; no other coordinator of the content ever had the same number.

    ``expected``: nodes that read the origin under the predecessor; until they have reported, or ``SETTLE_SECONDS``
    are over, nothing is handed out. ``own``: the coordinator's own node, which reads the origin in any case if only
    ``origin_nodes`` may. ``origin_nodes`` None: as many as want to.
    """

    def __init__(
        self,
        manifest: Manifest,
        segments: Sequence[Segment],
        *,
        segment_bytes: int,
        origin_nodes: int | None = None,
        epoch: int,
        now: float,
        own: str = "",
        expected: Collection[str] = (),
        settle: float | None = None,
    ) -> None:
        files = sorted(manifest.files)
        self.epoch = epoch
        self.content_id = manifest.digest.removeprefix("sha256:")
        self.failure: Failure | None = None
        self._segments = tuple(segments)
        self._segment_bytes = segment_bytes
        self._origin_nodes = origin_nodes
        self._own = own
        self._undigested = {number for number, file in enumerate(files) if file.digest is None}
        self._roster = Roster(len(self._segments), len(files), MAX_MEMBERS)
        self._publications = Publications(self._segments, [file.size for file in files])
        self._suspicion = Suspicion()
        self._rereading = Rereading(self._segments)
        self._journal: Journal[int | str] = Journal()  # segments, and nodes
        self._held: dict[int, str] = {}
        self._readers: dict[str, None] = {}
        self._busy: dict[int, tuple[float, int]] = {}
        self._shunned: set[str] = set()
        self._digests: dict[int, str] = {}
        self._trouble: Failure | None = None
        self._pause_until = now
        wait = SETTLE_SECONDS if expected else 0.0
        self._settled_at = now + (wait if settle is None else settle)
        self._expected = set(expected)

    # What others look at

    @property
    def readers(self) -> tuple[str, ...]:
        """The nodes that read the origin now."""
        return tuple(self._readers)

    @property
    def members(self) -> int:
        return sum(1 for _ in self._roster.live())

    @property
    def is_open(self) -> bool:
        """Whether anybody still misses anything; True as long as nobody has reported."""
        members = [member for member in self._roster.live() if member.node not in self._shunned]
        return not members or not all(member.complete for member in members)

    @property
    def shunned(self) -> frozenset[str]:
        return frozenset(self._shunned)

    def progress(self) -> tuple[int, int]:
        """Segments that somebody has, and all."""
        return len(self._segments) - self._roster.lacking.bit_count(), len(self._segments)

    def calm(self) -> float:
        """Seconds that news of no urgency may wait, so that many of them make one answer."""
        return max(0.05, len(self._roster) / 250)

    def has_news(self, node: str, cursor: int) -> bool:
        """Whether the member should hear something that its last report did not know, soon."""
        return self._journal.head > cursor

    def has_orders(self, node: str, now: float) -> bool:
        """Whether the member should start or stop something at once."""
        member = self._roster.get(node)
        if member is None or self.failure is not None or not self.is_open:
            return True
        self._assign(member, now)
        working = member.report.working.keys()
        return bool(member.held.keys() ^ working) or bool(self._ask(member, now, peek=True))

    def patience(self, node: str) -> float:
        """Seconds for which a report of this member may be held: one that reads the origin is heard of often."""
        member = self._roster.get(node)
        return SILENT_SECONDS / 3 if member is not None and member.held else 20.0

    # What members say

    def report(self, report: Report, now: float) -> Answer:
        """``take`` and ``answer`` in one."""
        self.take(report, now)
        return self.answer(report.node, report.cursor if report.epoch == self.epoch else 0, now)

    def take(self, report: Report, now: float) -> None:
        """Believe what a member says of itself. The same report may come twice."""
        member = self._enter(report, now)
        if member is None:
            return
        cursor = report.cursor if report.epoch == self.epoch else 0
        for publication in report.published:
            self._publish(member, publication)
        self._accept_have(member, report, cursor)
        self._accept_work(member, report, now)
        for segment, failure in report.failed.items():
            self._fail(member, segment, failure, now)
        for number, digest in report.digests.items():
            if number in self._undigested and number not in self._digests:
                self._digests[number] = digest
                self._journal.note(f"digest/{number}")
        for busy in report.busy:
            if busy.content < self.content_id and busy.file not in self._busy:
                self._busy[busy.file] = (now, member.verified)
        for bad in report.bad:
            self._reread(member, bad.file, cursor)
        self._expected.discard(report.node)

    def tick(self, now: float) -> None:
        """What time alone brings about: silent and stuck nodes. To be called about once a second."""
        for member in list(self._roster):
            silence = now - member.seen
            if member.live and silence > GONE_SECONDS:
                log.info("P2P %s: node %s has not been heard of for %.0f s", self.content_id[:16], member.node, silence)
                self._bury(member)
            elif member.held and silence > SILENT_SECONDS:
                self._take_back(member, "is silent")
            elif member.held and now - max(member.moved, self._pause_until) > STUCK_SECONDS:
                member.barred_until = now + STUCK_SECONDS
                self._take_back(member, "reads nothing")
        self._free_busy(now)
        self._judge_denials()

    def answer(self, node: str, cursor: int, now: float) -> Answer:
        """All that a member has to do; ``cursor`` is where it is in the journal of this epoch."""
        member = self._roster.get(node)
        if member is None:
            return Answer(epoch=self.epoch, segment_bytes=self._segment_bytes, failure=_full())
        self._assign(member, now)
        publications: dict[int, Publication] = {}
        holders: dict[int, tuple[str, ...]] = {}
        peers, digests, position, hashes, more = [], {}, cursor, 0, False
        for at, thing in self._journal.after(cursor):
            if hashes > _ANSWER_HASHES or len(publications) + len(peers) + len(holders) >= _ANSWER_ENTRIES:
                more = True
                break
            position = at
            if isinstance(thing, int):
                publication = self._publications.get(thing)
                if publication is not None and publication.segments[0] not in publications:
                    publications[publication.segments[0]] = publication
                    hashes += len(publication.hashes)
                if self._segments[thing].is_bundle:
                    holders[thing] = self._holders(thing, node)
            elif thing.startswith("digest/"):
                number = int(thing.removeprefix("digest/"))
                digests[number] = self._digests[number]
            elif thing != node and (other := self._roster.get(thing)) is not None:
                peers.append(other.info())
        return Answer.model_construct(
            epoch=self.epoch,
            segment_bytes=self._segment_bytes,
            cursor=position,
            more=more,
            assign=tuple(sorted(member.held)),
            revoke=tuple(segment for segment in member.report.working if segment not in member.held),
            asked=self._ask(member, now),
            published=tuple(publications.values()),
            holders=holders,
            peers=tuple(peers),
            shunned=tuple(sorted(self._shunned)),
            digests=digests,
            pause=max(0.0, self._pause_until - now),
            calm=self.calm(),
            readers=tuple(self._readers),
            failure=self.failure or self._trouble,
            open=self.is_open,
        )

    # Members

    def _enter(self, report: Report, now: float) -> Member | None:
        member = self._roster.get(report.node)
        if member is None:
            if not self._roster.has_room() and not self._forget_somebody():
                return None
            member = self._roster.enter(report, now)
            self._journal.note(report.node)
        else:
            before = member.report
            moved = (before.url, before.host, before.port) != (report.url, report.host, report.port)
            if moved or not member.live:
                self._journal.note(report.node)
            member.live = report.node not in self._shunned
            member.report, member.seen = report, now
        return member

    def _forget_somebody(self) -> bool:
        for member in self._roster:
            if not member.live and member.node not in self._shunned:
                self._roster.forget(member.node)
                return True
        return False

    def _bury(self, member: Member) -> None:
        self._take_back(member, "is gone")
        member.live = False
        self._roster.set_have(member, 0)
        self._journal.note(member.node)

    def _accept_have(self, member: Member, report: Report, cursor: int) -> None:
        have = bits.full(len(self._segments)) if report.complete else report.segments
        have &= ~self._publications.outdated(member.node, cursor)
        gained = have & ~member.have
        first = self._roster.set_have(member, have)
        self._roster.set_verified(member, report.files)
        for segment in bits.members(first):
            if self._segments[segment].is_bundle and self._publications.get(segment) is None:
                self._publish(member, Publication(segments=(segment,), publisher=member.node))
            holder = self._held.get(segment)
            if holder is not None and not self._rereading.wants(segment) and self._publications.get(segment):
                self._release(segment)
        for segment in bits.members(gained):
            # Told at 1, 2, 4, 8... holders, so that those who still miss it spread over them.
            count = self._roster.count(segment)
            if self._segments[segment].is_bundle and count & (count - 1) == 0:
                self._journal.note(segment)

    def _accept_work(self, member: Member, report: Report, now: float) -> None:
        for segment, done in report.working.items():
            if segment in member.held:
                if done > member.held[segment]:
                    member.held[segment] = done
                    member.moved = now
            elif segment < len(self._segments) and self._available() >> segment & 1 and self._may_read(member, now):
                # The predecessor gave it out, or we took it back too early: it goes on where it is.
                self._hand(member, segment, now, done)

    # Handing out and taking back

    def _available(self) -> int:
        """The segments that somebody has to read and nobody reads."""
        held = bits.mask_of(self._held)
        waiting = bits.mask_of(
            segment.index for file in self._busy for segment in self._rereading.segments_of(file)
        )
        return (self._roster.lacking | self._rereading.mask) & ~held & ~waiting

    def _settled(self, now: float) -> bool:
        return not self._expected or now >= self._settled_at

    def _may_read(self, member: Member, now: float) -> bool:
        if not member.helps or member.node in self._shunned or now < member.barred_until:
            return False
        if self._origin_nodes is None or member.node in self._readers:
            return True
        free = self._origin_nodes - len(self._readers)
        own = self._roster.get(self._own)
        if own is not None and own.helps and self._own not in self._readers and self._own != member.node:
            free -= 1
        return free > 0

    def _assign(self, member: Member, now: float) -> None:
        if self._origin_nodes is not None and not member.held and not self._may_read(member, now):
            self._readers.pop(member.node, None)
        if self.failure is not None or now < self._pause_until or not self._settled(now):
            return
        if len(member.held) >= member.report.wants or not self._may_read(member, now):
            return
        available = self._available()
        if not available:
            return
        # Towards the end nobody gets more than its share, or the others would wait for the slowest.
        helpers = sum(1 for other in self._roster if other.helps) or 1
        share = max(1, available.bit_count() // (2 * helpers))
        room = min(member.report.wants, share) - len(member.held)
        for segment in islice(self._choose(member, available), max(room, 0)):
            self._hand(member, segment, now, 0)

    def _choose(self, member: Member, available: int) -> list[int]:
        """In order; a segment that is read again not by somebody who has read it, if anybody else can."""
        mine = available
        for segment in bits.members(available & self._rereading.mask):
            voters = self._suspicion.voters(segment)
            if member.node in voters and any(other.helps and other.node not in voters for other in self._roster):
                mine &= ~(1 << segment)
        return list(islice(bits.members(mine), member.report.wants))

    def _hand(self, member: Member, segment: int, now: float, done: int) -> None:
        if not member.held:
            member.moved = now
        self._held[segment] = member.node
        member.held[segment] = done
        self._readers[member.node] = None

    def _release(self, segment: int) -> None:
        node = self._held.pop(segment, None)
        member = self._roster.get(node) if node is not None else None
        if member is None:
            return
        member.held.pop(segment, None)
        if not member.held and self._origin_nodes is None:
            self._readers.pop(member.node, None)

    def _take_back(self, member: Member, why: str) -> None:
        if member.held:
            log.warning("P2P %s: node %s %s; its %d segments go to others", self.content_id[:16], member.node, why, len(member.held))
        for segment in list(member.held):
            self._release(segment)
        self._readers.pop(member.node, None)

    # Publications

    def _publish(self, member: Member, publication: Publication) -> None:
        if member.node in self._shunned or not self._publications.is_sound(publication):
            return
        news = []
        for segment, hashes in self._publications.split(publication):
            known = self._publications.get(segment)
            ours = self._held.get(segment) == member.node and publication.publisher == member.node
            if known is None:
                news.append(segment)
            elif ours and self._differs(segment, member.node, hashes):
                news.append(segment)
                self._publications.note_replaced(segment, self._journal.head + 1)
            if ours:
                member.failures = 0
                self._rereading.done(segment, changed=segment in news)
                self._release(segment)
        replaced = [segment for segment in news if self._publications.get(segment) is not None]
        if self._publications.put(publication, news) is not None:
            for segment in news:
                self._journal.note(segment)
        for segment in replaced:
            self._forget_bytes(segment, member.node)
        self._shun()

    def _differs(self, segment: int, node: str, hashes: bytes) -> bool:
        """Count a second reading; says whether it shall hold from now on."""
        before = self._publications.get(segment)
        if before is not None:
            known = self._publications.hashes(segment)
            if known == hashes and not self._rereading.wants(segment):
                return False
            if before.publisher not in self._suspicion.voters(segment):
                self._suspicion.vote(segment, before.publisher, known)
            self._suspicion.vote(segment, node, hashes)
            return known != hashes and self._suspicion.prevailing(segment) == hashes
        return False

    def _forget_bytes(self, segment: int, publisher: str) -> None:
        for member in list(self._roster.holders(segment)):
            if member.node != publisher:
                self._roster.set_have(member, member.have & ~(1 << segment))

    def _shun(self) -> None:
        liars = self._suspicion.liars()
        for node in liars ^ self._shunned:
            member = self._roster.get(node)
            if node in liars:
                log.error("P2P %s: node %s published bytes that the origin does not have; it is shunned", self.content_id[:16], node)
            if member is None:
                continue
            if node in liars:
                self._shunned.add(node)
                self._bury(member)
            else:
                member.live = True
                self._journal.note(node)
        self._shunned = liars

    def _reread(self, member: Member, file: int, cursor: int) -> None:
        """A member says that a file has the wrong digest."""
        if member.node in self._shunned or self._roster.somebody_verified(file, member.node):
            return
        numbers = [segment.index for segment in self._rereading.segments_of(file)]
        wrong = self._publications.outdated("", cursor)
        if not numbers or any(wrong >> number & 1 or self._publications.get(number) is None for number in numbers):
            return
        if not self._rereading.begin(file):
            return
        log.error("P2P %s: the bytes of file %d do not have its digest; it is read again", self.content_id[:16], file)
        if self._rereading.is_hopeless(file):
            self.failure = Failure(
                reason="DigestMismatch", message="the origin's bytes do not have the digest it names", retryable=False
            )
