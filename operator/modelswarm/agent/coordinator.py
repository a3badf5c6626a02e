"""The coordinator of a content: shares the origin's work out, and tells everybody what is published.

It lives on the node that holds the model's Lease. Members tell it everything they have (``Report``), so a successor
knows after one round of reports what its predecessor knew, and nobody starts a fetch again. It does no IO, and time
is an argument: any monotonic clock, in seconds.

A segment is with one node from its assignment until it is published or somebody has it; it is taken back when the
node falls silent, makes no progress, or gives it up. So every byte leaves the origin once, but for what was in flight
on a node that died, and what a liar published.
"""

import logging
from collections.abc import Collection, Sequence

from modelswarm.agent import bits
from modelswarm.agent.allotment import Allotment
from modelswarm.agent.asking import Asking
from modelswarm.agent.journal import Journal
from modelswarm.agent.members import GONE_SECONDS, Member, Orders, Roster
from modelswarm.agent.messages import Answer, Failure, Publication, Report
from modelswarm.agent.news import Thing, news_for
from modelswarm.agent.passing import Passing
from modelswarm.agent.publications import Publications, Word
from modelswarm.agent.refusals import WRONG_BYTES, Refusals
from modelswarm.agent.segments import Segment
from modelswarm.agent.trust import Trust
from modelswarm.agent.yielding import Yielding
from modelswarm.content.manifest import Manifest

SILENT_SECONDS = 15.0
"""Silence after which what a node was reading is taken back."""
STUCK_SECONDS = 60.0
"""Time without a byte read, after which what a node was reading is taken back."""
SETTLE_SECONDS = 5.0
"""For how long a successor only listens. Members without a coordinator look at the Lease every one to three seconds."""
HOLD_SECONDS = 20.0
"""For how long a report waits for an answer when there is nothing to tell."""
REPEAT_SECONDS = 1.0
"""After which orders that a member has not followed are told once more."""
MAX_MEMBERS = 4096

log = logging.getLogger(__name__)


class Coordinator:
    """``epoch`` names this coordinator's term; no other coordinator of the content ever has the same number.

    ``successor``: there was another one before, so some may be reading the origin, or have bytes that nobody else has;
    until all had the time to say so, nothing is handed out. ``readers``: who is known to read the origin; they have as
    long to say so as any reader may be silent. ``own``: the coordinator's node; if only ``origin_nodes`` may read, it
    is among them as long as the origin does not fail it.
    """

    def __init__(
        self,
        manifest: Manifest,
        segments: Sequence[Segment],
        *,
        segment_bytes: int,
        epoch: int,
        now: float,
        origin_nodes: int | None = None,
        own: str = "",
        successor: bool = False,
        readers: Collection[str] = (),
    ) -> None:
        files = sorted(manifest.files)
        self.epoch = epoch
        self.content_id = manifest.digest.removeprefix("sha256:")
        self.is_complete = False
        """Whether every member has everything."""
        self.keeps_members = False
        """They stay all the same, for who comes next."""
        self.shunned: set[str] = set()
        self._label = self.content_id[:16]
        self._segments = tuple(segments)
        self._all = bits.full(len(self._segments))
        self._segment_bytes = segment_bytes
        self._undigested = frozenset(number for number, file in enumerate(files) if file.digest is None)
        self._roster = Roster(len(self._segments), len(files))
        self._passing = Passing(self._segments)
        self._work = Allotment(self._roster, self._passing, origin_nodes=origin_nodes, own=own, label=self._label)
        self._refusals = Refusals(now)
        self._publications = Publications(self._segments, [file.size for file in files])
        self._trust = Trust(self._segments, self._roster, self._publications, self._work, label=self._label)
        self._yielding = Yielding(self.content_id, self._trust.segments_of)
        self._journal: Journal[Thing] = Journal()
        self._digests: dict[int, str] = {}
        self._asking = Asking(self._roster)
        self._settled_at = now + (SETTLE_SECONDS if successor else 0.0)
        self._awaited = set(readers if successor else ())
        self._awaited_until = now + SILENT_SECONDS

    @property
    def readers(self) -> tuple[str, ...]:
        """The nodes that read the origin now, for the Lease."""
        return self._work.readers

    @property
    def failure(self) -> Failure | None:
        """Why the content cannot be had, by nobody; None while there is hope."""
        return self._refusals.final

    def progress(self) -> tuple[int, int]:
        """How many segments somebody has, and how many there are."""
        return len(self._segments) - self._roster.lacking.bit_count(), len(self._segments)

    # For whoever holds reports until there is something to answer

    def calm(self) -> float:
        """Seconds that news of no urgency may wait, so that many of them make one answer."""
        return max(0.05, len(self._roster) / 250)

    def patience(self, node: str) -> float:
        """Seconds for which a report of this member may wait; of one that reads the origin, we want to hear often."""
        member = self._roster.get(node)
        return SILENT_SECONDS / 3 if member is not None and member.held else HOLD_SECONDS

    def has_news(self, cursor: int) -> bool:
        """Whether something was published, or somebody came, that a member at ``cursor`` does not know."""
        return self._journal.head > cursor

    def has_orders(self, node: str, now: float) -> bool:
        """Whether the member should start or stop something at once. Orders that it does not follow are repeated."""
        member = self._roster.get(node)
        if member is None:
            return True
        orders = self._orders(member, now)
        if orders == member.orders or orders.are_followed(member.report):
            return not orders.are_followed(member.report) and now - member.told >= REPEAT_SECONDS
        return True

    # What a member says, and what it is told

    def report(self, report: Report, now: float) -> Answer:
        """``take`` and ``answer`` in one."""
        self.take(report, now)
        return self.answer(report, now)

    def is_overtaken(self, report: Report) -> bool:
        """Whether a later report of the member was here first."""
        member = self._roster.get(report.node)
        return member is not None and report.is_before(member.report)

    def take(self, report: Report, now: float) -> None:
        """Believe what a member says of itself. The same report may come twice, and one that was overtaken is old."""
        member = None if self.is_overtaken(report) else self._enter(report, now)
        if member is None or not member.live:
            return
        cursor = self._cursor(report)
        for publication in report.published:
            self._publish(member, publication, now)
        self._cut(now, at_once=self._work.is_ahead(member))
        self._believe(member, report, cursor, now)
        for segment, failure in report.failed.items():
            if segment in member.held:
                self._work.release(segment)
                self._refusals.note(member, segment, failure, now)
                if member.denied is not None:
                    self._trust.abandon(member)
        self._accept_work(member, report, now)
        for number, digest in report.digests.items():
            if number in self._undigested and number not in self._digests:
                self._digests[number] = digest
                self._journal.note(("digest", number))
        for busy in report.busy:
            self._yielding.note(member.node, busy, now)
        if self.failure is None:
            self._complain(member, report, cursor, now)

    def answer(self, report: Report, now: float) -> Answer:
        """All that the member who reported has to do, and what is new to it. Asking twice does no harm."""
        member = self._roster.get(report.node)
        if member is None:
            full = Failure(reason="TooManyMembers", message=f"the content has {MAX_MEMBERS} members")
            return Answer(epoch=self.epoch, segment_bytes=self._segment_bytes, failure=full)
        orders = member.orders = self._orders(member, now)
        member.told = now
        self._asking.note(member, orders.asked, now)
        news = news_for(
            member,
            self._cursor(report),
            self._journal,
            publications=self._publications,
            roster=self._roster,
            digests=self._digests,
        )
        return Answer.model_construct(
            epoch=self.epoch,
            segment_bytes=self._segment_bytes,
            cursor=news.cursor,
            more=news.more,
            assign=orders.assign,
            reread=tuple(filter(self._trust.wants, orders.assign)),
            revoke=orders.revoke,
            asked=orders.asked,
            published=tuple(news.published),
            holders=news.holders,
            peers=tuple(news.peers),
            shunned=tuple(sorted(self.shunned)),
            digests=news.digests,
            pause=self._refusals.pause(now),
            readers=self.readers,
            failure=self._refusals.final or self._refusals.latest,
            open=orders.open,
        )

    def tick(self, now: float) -> None:
        """What time alone brings about. To be called about once a second."""
        for member in self._roster:
            silence = now - member.seen
            if member.live and silence > GONE_SECONDS:
                self._bury(member, "is gone")
            elif member.held and silence > SILENT_SECONDS:
                self._take_back(member, "is silent")
            elif member.held and now - max(member.moved, self._refusals.paused_until) > STUCK_SECONDS:
                self._take_back(member, "reads nothing")
                member.barred_until = now + STUCK_SECONDS
                self._refusals.note_silence()
        self._yielding.tick(self._roster.lacking, now)
        self._passing.tick(now)
        self._cut(now, at_once=any(map(self._work.is_ahead, self._roster)))
        self._asking.forget(self._publications.known, now)
        self._refusals.judge(self._roster)
        self._work.count_helpers()
        self._count_members()

    # Members

    def _cursor(self, report: Report) -> int:
        return report.cursor if report.epoch == self.epoch else 0

    def _enter(self, report: Report, now: float) -> Member | None:
        member = self._roster.get(report.node)
        if member is None:
            if len(self._roster) >= MAX_MEMBERS and not self._roster.forget_one():
                return None
            member = self._roster.enter(report, now)
            self._awaited.discard(report.node)
            self._journal.note(("node", report.node))
            self._work.count_helpers()
            self._count_members()
            return member
        before, was_live = member.report, member.live
        member.report, member.seen = report, now
        member.live = report.node not in self.shunned
        moved = (before.url, before.host, before.port) != (report.url, report.host, report.port)
        if member.live != was_live or moved:
            self._journal.note(("node", report.node))
        if before.complete != report.complete or member.live != was_live:
            self._count_members()
        return member

    def _count_members(self) -> None:
        members = list(self._roster.live())
        self.is_complete = bool(members) and all(member.report.complete for member in members)

    def _bury(self, member: Member, why: str) -> None:
        log.info("P2P %s: %s %s", self._label, member.node, why)
        self._take_back(member, why)
        member.live = False
        self._roster.set_have(member, 0)
        self._journal.note(("node", member.node))
        self._count_members()

    def _take_back(self, member: Member, why: str) -> None:
        self._work.take_back(member, why)
        self._trust.abandon(member)

    def _believe(self, member: Member, report: Report, cursor: int, now: float) -> None:
        """What the member has; not where the bytes of a segment changed and it has not heard of it yet."""
        have = self._all if report.complete else report.segments
        have &= ~self._publications.outdated(member.node, cursor) & ~(member.unproven & ~self._publications.known)
        gained = have & ~member.have & self._all
        self._roster.set_have(member, have)
        self._roster.set_verified(member, report.files)
        for segment in bits.members(gained):
            bundle = self._segments[segment].is_bundle
            count = self._roster.count(segment)
            self._passing.note_had(member.node, segment)
            if bundle and count == 1 and segment in member.held:
                self._passing.note_read(member.node, segment, now)
            if bundle and self._publications.get(segment) is None:
                self._publications.put(segment, Word(b"", member.node))
                self._journal.note(("bundle", segment))
            elif bundle and count & (count - 1) == 0:
                # Told at 1, 2, 4, 8... holders, so that those who still miss it spread over them.
                self._journal.note(("bundle", segment))
            if not self._trust.wants(segment):
                self._work.release(segment)

    # Work

    def _available(self) -> int:
        return (self._roster.lacking | self._trust.mask) & ~self._yielding.mask

    def _is_settled(self, now: float) -> bool:
        return now >= self._settled_at and (not self._awaited or now >= self._awaited_until)

    def _assign(self, member: Member, now: float) -> None:
        if self._is_settled(now) and self.failure is None and not self._refusals.pause(now):
            self._work.assign(
                member, self._available(), now, lambda segment: self._trust.is_for_others(member, segment, now)
            )

    def _orders(self, member: Member, now: float) -> Orders:
        self._assign(member, now)
        return Orders(
            assign=tuple(sorted(member.held)),
            revoke=tuple(segment for segment in member.report.working if segment not in member.held),
            asked=self._asking.choose(member, ~self._publications.known),
            failure=self.failure,
            open=not self.is_complete or self.keeps_members,
        )

    def _accept_work(self, member: Member, report: Report, now: float) -> None:
        available = self._available() & ~self._work.held
        for segment, done in report.working.items():
            if segment in member.held:
                if done > member.held[segment]:
                    member.held[segment], member.moved = done, now
            elif available >> segment & 1 and segment not in report.failed and self._work.may_read(member, now):
                # The predecessor gave it out, or we took it back too early: it goes on where it is.
                self._work.hand(member, segment, now, done)

    # Publications

    def _publish(self, member: Member, publication: Publication, now: float) -> None:
        if not self._publications.is_sound(publication):
            log.warning("P2P %s: %s published something that cannot be", self._label, member.node)
            return
        fresh = []
        for segment, word in self._publications.split(publication):
            ordered = segment in member.held and word.publisher == member.node
            replaced = False
            self._asking.hear(member, segment, now)
            self._trust.note_told(segment, word, member.node)
            if self._publications.get(segment) is None:
                self._publications.put(segment, word)
                fresh.append(segment)
            elif publication.window and self._publications.is_loose(segment, word):
                fresh.append(segment)
            elif ordered and self._trust.weigh(segment, member.node, word.hashes):
                replaced = True
                self._replace(segment, word, member)
            if ordered:
                if not self._roster.count(segment):
                    self._passing.note_read(member.node, segment, now)
                self._trust.note_read(segment, now, changed=replaced)
                self._work.release(segment)
                member.failures, member.moved = 0, now
        if publication.window and fresh:
            # A predecessor has made it, and its members are in it.
            self._note_window(self._publications.make_window(fresh))
        for segment in fresh if not publication.window else ():
            if self._segments[segment].is_bundle:
                self._journal.note(("bundle", segment))
            else:
                self._publications.gather(segment, now)
        self._shun()

    def _replace(self, segment: int, word: Word, member: Member) -> None:
        """From here on nobody has the segment but this member, until they say so knowing of it."""
        self._publications.put(segment, word)
        if self._segments[segment].is_bundle:
            self._journal.note(("bundle", segment))
        else:
            self._note_window(self._publications.make_window([segment]))
        self._publications.note_replaced(segment, self._journal.head)
        for holder in list(self._roster.holders(segment)):
            if holder is not member:
                self._roster.set_have(holder, holder.have & ~(1 << segment))

    def _cut(self, now: float, *, at_once: bool) -> None:
        for number in self._publications.cut(now, at_once=at_once):
            self._note_window(number)

    def _note_window(self, number: int) -> None:
        self._journal.note(("window", number))

    # Trust

    def _complain(self, member: Member, report: Report, cursor: int, now: float) -> None:
        for bad in report.bad:
            if self._trust.doubt(member, bad.file, cursor, now):
                self._refusals.final = WRONG_BYTES
        self._trust.miss(member, report.starved, cursor, now)

    def _shun(self) -> None:
        liars = self._trust.liars()
        for node in liars ^ self.shunned:
            member = self._roster.get(node)
            if node in liars:
                log.error("P2P %s: %s published bytes that are not the origin's; it is shunned", self._label, node)
            if node in liars and member is not None:
                self._bury(member, "is shunned")
        self.shunned = liars
