"""Liars and the coordinator: whatever one node says, the others get the right bytes, and not for many readings."""

from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

import pytest

from modelswarm.agent import bits
from modelswarm.agent.asking import PROOF_SECONDS
from modelswarm.agent.coordinator import STUCK_SECONDS, Coordinator
from modelswarm.agent.messages import Answer, BadFile, Busy, Failure, Publication
from modelswarm.agent.rereading import ROUNDS, Rereading
from modelswarm.agent.segments import plan
from modelswarm.agent.trust import CHECKS, FRESH_SECONDS
from modelswarm.agent.yielding import BUSY_SECONDS, Yielding
from tests.unit.agent.coordination import MIB, hashes_of, manifest, report

CONTENT = manifest(a_bin=8 * MIB, b_bin=8 * MIB)
SEGMENTS = plan(CONTENT, 2 * MIB)
SIZES = [file.size for file in sorted(CONTENT.files)]
FILE_A, FILE_B = (0, 1, 2, 3), (4, 5, 6, 7)
ALL = bits.full(len(SEGMENTS))
LATER = FRESH_SECONDS + 1


@dataclass
class Node:
    """What a member says; honest, unless a test says otherwise. ``salt``: it reads other bytes than the others."""

    name: str
    desk: Coordinator
    have: int = 0
    verified: tuple[int, ...] = ()
    bad: tuple[int, ...] = ()
    starved: tuple[int, ...] = ()
    wants: int = 2
    salt: str = ""
    insists: bool = False
    """Complains on, whatever it has read since."""
    cursor: int = 0
    reread: list[int] = field(default_factory=list)
    """What it was told to read although it was there."""
    read: list[int] = field(default_factory=list)

    def say(self, now: float, *published: Publication) -> Answer:
        """One report, and whatever it is told to read is read by the next one."""
        answer = self.desk.report(
            report(
                self.name,
                epoch=self.desk.epoch,
                cursor=self.cursor,
                have=self.have,
                verified=self.verified,
                published=published,
                working=dict.fromkeys(self.held, 0),
                bad=tuple(BadFile(file=number) for number in self.bad),
                starved=self.starved,
                wants=self.wants,
            ),
            now,
        )
        self.cursor = answer.cursor
        self.reread += [each for each in answer.reread if each not in self.reread]
        self.told = answer
        return answer

    @property
    def held(self) -> tuple[int, ...]:
        return self.told.assign

    told: Answer = field(default_factory=lambda: Answer(epoch=0, segment_bytes=1))

    def work(self, now: float) -> None:
        """Read everything that there is for it."""
        self.say(now)
        while self.held:
            held = self.held
            self.read += held
            if not self.insists:
                self.bad = ()
            self.have |= bits.mask_of(held)
            self.say(now, *(self.publication(segment) for segment in held))

    def publication(self, segment: int, *, by: str = "") -> Publication:
        hashes = hashes_of(SEGMENTS[segment], SIZES, salt=self.salt)
        return Publication(segments=(segment,), hashes=hashes, publisher=by or self.name)


def coordinator(*, origin_nodes: int | None = None) -> Coordinator:
    return Coordinator(CONTENT, SEGMENTS, segment_bytes=2 * MIB, epoch=7, now=0.0, origin_nodes=origin_nodes)


def told(desk: Coordinator, segment: int) -> bytes:
    return desk._publications.hashes(segment)


def right(segment: int) -> bytes:
    return hashes_of(SEGMENTS[segment], SIZES)


# A node that claims to have verified what is wrong


def test_who_finds_wrong_what_another_says_is_right_looks_at_the_origin_itself_and_the_liar_is_found() -> None:
    desk = coordinator()
    liar, honest = Node("liar", desk, salt="wrong", verified=(0, 1)), Node("honest", desk, wants=0)
    liar.work(0.0)
    honest.have, honest.bad, honest.wants = ALL, (0,), 2
    honest.say(0.0)
    honest.work(1.0)
    assert sorted(honest.reread) == sorted(honest.read) == list(FILE_A)
    assert desk.shunned == {"liar"}
    assert [told(desk, segment) for segment in FILE_A] == [right(segment) for segment in FILE_A]
    # What only the liar has told of the other file is read again too: nobody else has it.
    honest.bad, honest.have = (), bits.mask_of(FILE_A)
    honest.work(2.0)
    assert [told(desk, segment) for segment in FILE_B] == [right(segment) for segment in FILE_B]


def test_a_complaint_against_a_true_word_costs_the_complainer_one_reading_and_nobody_else_anything() -> None:
    desk = coordinator()
    publisher, other = Node("a", desk), Node("b", desk, wants=0)
    publisher.work(0.0)
    publisher.verified = (0, 1)
    publisher.say(1.0)
    other.have = ALL
    other.say(1.0)
    other.bad, other.wants, other.insists = (0,), 8, True
    for now in range(1, 10):
        other.work(float(now))
        publisher.say(float(now))
    assert sorted(other.read) == list(FILE_A), "once, although it goes on to complain"
    assert sorted(publisher.read) == list(range(len(SEGMENTS))), "nobody else reads anything again"
    assert desk.shunned == set()
    assert desk.failure is None


def test_a_false_word_after_a_complaint_is_found_by_the_next_who_is_misled() -> None:
    desk = coordinator()
    publisher, liar, third = Node("a", desk), Node("liar", desk, salt="wrong", wants=0), Node("c", desk, wants=0)
    publisher.work(0.0)
    publisher.verified = (0, 1)
    publisher.say(1.0)
    liar.have = ALL
    liar.say(1.0)
    liar.bad, liar.wants = (0,), 8
    liar.work(1.0)
    assert desk.shunned == {"a"}, "of two words the later one holds"
    third.have = ALL
    third.say(2.0)
    third.bad, third.wants = (0,), 8
    third.say(2.0)
    third.work(3.0)
    assert desk.shunned == {"liar"}
    publisher.say(3.0)
    assert [told(desk, segment) for segment in FILE_A] == [right(segment) for segment in FILE_A]


def test_who_only_passes_on_what_another_has_told_is_not_blamed_and_cannot_blame() -> None:
    desk = coordinator()
    gossip = Node("gossip", desk, salt="wrong", have=ALL, wants=0)
    gossip.say(0.0, *(gossip.publication(segment, by="victim") for segment in range(len(SEGMENTS))))
    victim = Node("victim", desk, have=ALL, wants=8)
    victim.say(0.0)
    victim.bad = (0,)
    victim.say(1.0)
    victim.work(1.0)
    assert [told(desk, segment) for segment in FILE_A] == [right(segment) for segment in FILE_A]
    assert desk.shunned == set()


@pytest.mark.parametrize("truth_first", [True, False])
def test_a_complaint_of_one_does_not_end_it_for_all(truth_first: bool) -> None:
    """A liar complains of everything, outvotes who told the truth, and goes on to complain."""
    desk = coordinator()
    publisher, other = Node("a", desk), Node("b", desk, wants=0)
    liar = Node("liar", desk, salt="wrong", wants=0, insists=True)
    publisher.work(0.0)
    publisher.verified = (0, 1) if truth_first else ()
    publisher.say(0.0)
    liar.have = ALL
    liar.say(1.0)
    liar.bad, liar.wants = (0, 1), 8
    for now in range(2, 30):
        liar.work(float(now))
        publisher.say(float(now))
    assert desk.failure is None
    other.wants = 8
    other.say(40.0)
    other.have, other.bad = ALL, (0, 1)
    for now in range(41, 60):
        other.work(float(now))
        publisher.say(float(now))
    assert desk.failure is None
    assert desk.shunned == {"liar"}
    assert [told(desk, segment) for segment in range(len(SEGMENTS))] == [right(each) for each in range(len(SEGMENTS))]


# A publisher whose hashes match nothing that it serves


def test_what_nobody_gives_is_read_by_who_waits_and_a_liar_is_found_by_its_hashes() -> None:
    desk = coordinator()
    liar, a, b = Node("liar", desk, salt="wrong"), Node("a", desk), Node("b", desk)
    liar.work(0.0)
    for node in (a, b):
        node.say(1.0)
        assert node.held == (), "it was published"
        node.starved = (2,)
    a.work(LATER)
    assert a.reread == a.read[:1] == [2]
    assert desk.shunned == {"liar"}
    assert told(desk, 2) == right(2)
    b.starved = ()
    b.say(LATER)
    assert (2,) in [publication.segments for publication in b.told.published]
    # What the liar alone had is read by the others now.
    a.starved = ()
    a.work(LATER)
    assert sorted(a.read) == list(range(len(SEGMENTS)))


def test_a_publisher_that_is_slow_or_cut_off_is_not_blamed_and_not_all_who_wait_read_at_once() -> None:
    desk = coordinator()
    slow = Node("slow", desk)
    slow.work(0.0)
    waiting = [Node(name, desk, starved=(2,)) for name in "abc"]
    for node in waiting:
        node.say(1.0)
    assert [node.held for node in waiting] == [(), (), ()], "the swarm has had no time yet"
    for node in waiting:
        node.say(LATER)
    assert [node.held for node in waiting] == [(2,), (), ()]
    waiting[0].work(LATER)
    for node in waiting[1:]:
        node.say(LATER + FRESH_SECONDS - 1)
        assert node.held == (), "there is another who gives it now"
    assert desk.shunned == set()
    waiting[1].say(2 * LATER)
    assert waiting[1].held == (2,)


def test_nobody_checks_much_at_once_nor_for_ever() -> None:
    content = manifest(a_bin=100 * MIB)
    segments = plan(content, 2 * MIB)
    desk = Coordinator(content, segments, segment_bytes=2 * MIB, epoch=7, now=0.0)
    size = [100 * MIB]
    everything = tuple(
        Publication(segments=(each.index,), hashes=hashes_of(each, size), publisher="a") for each in segments
    )
    desk.report(report("a", have=bits.full(len(segments)), published=everything, wants=0), 0.0)
    starved, now = tuple(range(len(segments))), LATER
    given: Counter[int] = Counter()
    for _ in range(200):
        now += STUCK_SECONDS + 1
        desk.report(report("a", epoch=7, have=bits.full(len(segments)), wants=0), now)
        answer = desk.report(report("idle", epoch=7, cursor=99, starved=starved, wants=32), now)
        assert len(answer.assign) <= CHECKS
        given.update(answer.assign)
        # It never reads what it is given.
        desk.tick(now)
        desk.report(report("a", epoch=7, have=bits.full(len(segments)), wants=0), now + STUCK_SECONDS + 1)
        desk.report(
            report("idle", epoch=7, cursor=99, working=dict.fromkeys(answer.assign, 0)), now + STUCK_SECONDS + 1
        )
        desk.tick(now + STUCK_SECONDS + 1)
        now += 2 * STUCK_SECONDS
    assert given.keys() == set(starved)
    assert max(given.values()) <= ROUNDS


@pytest.mark.parametrize(
    "spoil",
    [
        pytest.param(lambda node: setattr(node, "starved", (99,)), id="there is no such segment"),
        pytest.param(lambda node: setattr(node, "starved", (4,)), id="it was not published"),
        pytest.param(lambda node: setattr(node, "have", 1 << 2), id="it has it"),
        pytest.param(lambda node: setattr(node, "wants", 0), id="it does not read"),
    ],
)
def test_complaints_that_mean_nothing(spoil: Callable[[Node], None]) -> None:
    desk = coordinator()
    publisher = Node("a", desk, wants=0)
    publisher.have = bits.mask_of(FILE_A)
    publisher.say(0.0, *(publisher.publication(segment) for segment in FILE_A))
    node = Node("b", desk, starved=(2,))
    spoil(node)
    node.say(LATER)
    assert 2 not in node.held
    assert node.reread == []


def test_with_one_reader_allowed_who_waits_in_vain_gets_the_place_when_the_reader_has_nothing_to_read() -> None:
    desk = coordinator(origin_nodes=1)
    reader, other = Node("reader", desk), Node("other", desk)
    reader.work(0.0)
    assert reader.wants > 0
    other.starved = (2,)
    other.say(LATER)
    reader.say(LATER)
    other.say(LATER)
    assert other.held == (2,)


# A node that says it has what nobody ever sees


def test_who_says_that_it_has_everything_and_proves_nothing_is_not_believed() -> None:
    desk = coordinator()
    braggart, honest = Node("braggart", desk, have=ALL, wants=0), Node("honest", desk)
    now = 0.0
    while now < 3 * PROOF_SECONDS and sorted(honest.read) != list(range(len(SEGMENTS))):
        braggart.say(now)
        honest.work(now)
        desk.tick(now)
        now += 5.0
    assert sorted(honest.read) == list(range(len(SEGMENTS)))
    assert now >= PROOF_SECONDS, "a slow disk has its time"


def test_who_is_slow_to_hash_is_believed_while_something_comes() -> None:
    desk = coordinator()
    slow, other = Node("slow", desk, have=ALL, wants=0), Node("other", desk)
    now = 0.0
    for segment in range(len(SEGMENTS)):
        for _ in range(int(PROOF_SECONDS / 5) - 1):
            slow.say(now)
            other.say(now)
            desk.tick(now)
            now += 5.0
        slow.say(now, slow.publication(segment))
    assert other.read == []
    assert other.told.assign == ()


# A node that says it fills everything for another content


def test_who_says_for_ever_that_a_file_comes_with_another_content_keeps_nobody_from_it() -> None:
    yielding = Yielding("f" * 64, lambda file: 1 << file)
    busy, now = Busy(file=3, content="0" * 64), 0.0
    yielding.note("a", busy, now)
    assert yielding.mask == 1 << 3
    yielding.tick(1 << 3, BUSY_SECONDS + 1)
    yielding.note("a", busy, BUSY_SECONDS + 1)
    assert yielding.mask == 0
    yielding.note("b", busy, BUSY_SECONDS + 1)
    assert yielding.mask == 1 << 3, "another node's word is another word"


def test_a_file_that_came_may_be_left_to_the_other_content_again() -> None:
    yielding = Yielding("f" * 64, lambda file: 1 << file)
    busy = Busy(file=3, content="0" * 64)
    for now in (0.0, 1000.0):
        yielding.note("a", busy, now)
        assert yielding.mask == 1 << 3
        yielding.tick(0, now + BUSY_SECONDS + 1)
        assert yielding.mask == 0


# Who reads what again


def test_a_check_is_one_nodes_affair_and_can_be_given_up() -> None:
    rereading = Rereading(SEGMENTS)
    rereading.check(0b110, "a")
    rereading.check(0b100, "b")
    assert [rereading.checker(each) for each in (0, 1, 2)] == [None, "a", "a"]
    rereading.abandon("b")
    assert rereading.mask == 0b110
    rereading.abandon("a")
    assert rereading.mask == 0
    rereading.check(0b100, "b")
    assert rereading.checker(2) == "b"


def confirm(rereading: Rereading, checks: Sequence[str], *, changed: bool) -> list[str]:
    """Who gets to check the first segment, of those who want to."""
    found = []
    for node in checks:
        rereading.check(1, node)
        if rereading.checker(0) == node:
            found.append(node)
            rereading.done(0, (0,), changed=changed)
    return found


def test_who_has_seen_the_origins_bytes_need_not_look_again_until_others_hold() -> None:
    rereading = Rereading(SEGMENTS)
    assert confirm(rereading, ["a", "a", "b"], changed=False) == ["a", "b"]
    assert confirm(rereading, ["c"], changed=True) == ["c"]
    assert confirm(rereading, ["a"], changed=False) == ["a"]


def test_an_origin_that_refuses_one_node_leaves_the_check_to_others() -> None:
    desk = coordinator()
    liar, a, b = Node("liar", desk, salt="wrong"), Node("a", desk), Node("b", desk)
    liar.work(0.0)
    a.starved = b.starved = (2,)
    a.say(LATER)
    denied = Failure(reason="AccessDenied", retryable=False)
    desk.report(report("a", epoch=7, cursor=a.cursor, starved=(2,), failed={2: denied}), LATER)
    b.work(LATER)
    assert b.reread == [2]
    assert told(desk, 2) == right(2)
