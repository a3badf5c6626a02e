"""Many nodes, one content, and a coordinator that may die: what must hold whatever happens in which order.

Every segment leaves the origin once, but for what was in flight on a node that died or fell silent, and the only copies
that a dead node took with it; it always ends; and a report costs little, however many members there are.
"""

import random
from dataclasses import dataclass, field

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from modelswarm.agent import bits
from modelswarm.agent.coordinator import SETTLE_SECONDS, Coordinator
from modelswarm.agent.messages import Answer, Failure, Publication, Report
from modelswarm.agent.segments import plan
from tests.unit.agent.coordination import MIB, hashes_of, manifest, report

CONTENT = manifest(a=20 * MIB, b=9 * MIB, c=3 * MIB, **{f"s{number}": 70_000 for number in range(150)})
SEGMENTS = plan(CONTENT, 2 * MIB)
SIZES = [file.size for file in sorted(CONTENT.files)]
ALL = bits.full(len(SEGMENTS))


@dataclass
class Node:
    name: str
    speed: int
    """Steps that a segment takes from the origin."""
    alive: bool = True
    cut_off: bool = False
    """From the origin: whatever it begins to read fails."""
    life: int = 0
    number: int = 0
    epoch: int = 0
    cursor: int = 0
    have: int = 0
    late: Report | None = None
    """On its way still, although a later one is there."""
    known: dict[int, Publication] = field(default_factory=dict)
    work: dict[int, int] = field(default_factory=dict)
    fresh: list[int] = field(default_factory=list)
    failed: dict[int, Failure] = field(default_factory=dict)

    def say(self) -> Report:
        news = tuple(
            self.known.get(segment)
            or Publication(segments=(segment,), hashes=hashes_of(SEGMENTS[segment], SIZES), publisher=self.name)
            for segment in self.fresh
        )
        self.number += 1
        return report(
            self.name,
            life=self.life,
            number=self.number,
            epoch=self.epoch,
            cursor=self.cursor,
            have=self.have,
            published=news,
            working={segment: done * 100 for segment, done in self.work.items()},
            failed=self.failed,
            complete=self.have == ALL,
            wants=2 if self.have != ALL else 0,
        )

    def hear(self, answer: Answer) -> list[int]:
        """Returns the fetches that begin now."""
        if answer.epoch != self.epoch:
            self.known.clear()
        self.epoch, self.cursor = answer.epoch, answer.cursor
        self.fresh = list(answer.asked)
        self.failed = {}
        for publication in answer.published:
            self.known.update((segment, publication) for segment in publication.segments)
        for segment in answer.revoke:
            self.work.pop(segment, None)
        begun = [segment for segment in answer.assign if segment not in self.work and not self.have >> segment & 1]
        self.work.update((segment, 0) for segment in begun)
        return begun


class World:
    def __init__(self, speeds: list[int], origin_nodes: int | None, seed: int) -> None:
        self.random = random.Random(seed)
        self.nodes = [Node(f"n{number}", speed) for number, speed in enumerate(speeds)]
        self.origin_nodes = origin_nodes
        self.now = 0.0
        self.epoch = 1
        self.fetches: dict[int, int] = {}
        self.excused: dict[int, int] = {}
        self.coordinator = self.elect(successor=False)
        self.without_until = 0.0

    def elect(self, *, successor: bool) -> Coordinator:
        return Coordinator(
            CONTENT, SEGMENTS, segment_bytes=2 * MIB, epoch=self.epoch, now=self.now, origin_nodes=self.origin_nodes,
            own=f"n{self.epoch % len(self.nodes)}", successor=successor,
        )  # fmt: skip

    def excuse(self, mask: int) -> None:
        for segment in bits.members(mask):
            self.excused[segment] = self.excused.get(segment, 0) + 1

    def kill(self, node: Node) -> None:
        """What it was reading may be read again, and what it alone had; it comes back with what is on its disk."""
        node.alive = False
        others = 0
        for other in self.nodes:
            others |= other.have if other.alive else 0
        self.excuse(bits.mask_of(node.work) | node.have & ~others)

    def restart(self, node: Node) -> None:
        node.alive, node.epoch, node.cursor = True, 0, 0
        node.life, node.number, node.late = node.life + 1, 0, None
        node.work.clear()
        node.known.clear()
        node.fresh, node.failed = [], {}

    def lose_coordinator(self) -> None:
        """A successor is there after a while, and knows nothing but what it is told."""
        self.epoch += 1
        self.without_until = self.now + 20.0
        self.coordinator = self.elect(successor=True)
        self.coordinator._settled_at = self.without_until + SETTLE_SECONDS

    def step(self) -> None:
        self.now += 1.0
        live = [node for node in self.nodes if node.alive]
        self.random.shuffle(live)
        for node in live:
            if node.cut_off:
                self.excuse(bits.mask_of(node.work))
                node.failed = dict.fromkeys(node.work, Failure(reason="SourceUnavailable"))
                node.work.clear()
            for segment in list(node.work):
                node.work[segment] += 1
                if node.work[segment] >= node.speed:
                    del node.work[segment]
                    node.have |= 1 << segment
                    node.fresh.append(segment)
            self.swarm(node, live)
        if self.now < self.without_until:
            return
        self.coordinator.tick(self.now)
        for node in live:
            said = node.say()
            for segment in node.hear(self.coordinator.report(said, self.now)):
                self.fetches[segment] = self.fetches.get(segment, 0) + 1
            if node.late is not None:
                self.coordinator.report(node.late, self.now)
            node.late = said if self.random.random() < 0.2 else None
        holding: dict[int, str] = {}
        for member in self.coordinator._roster:
            for segment in member.held:
                assert holding.setdefault(segment, member.node) == member.node
        if self.origin_nodes is not None:
            assert len(self.coordinator.readers) <= self.origin_nodes

    def swarm(self, node: Node, live: list[Node]) -> None:
        """Up to three published segments come from others."""
        wanted = [segment for segment in node.known if not node.have >> segment & 1 and segment not in node.work]
        for segment in wanted[:3]:
            if any(other.have >> segment & 1 for other in live if other is not node):
                node.have |= 1 << segment

    @property
    def finished(self) -> bool:
        return all(node.have == ALL for node in self.nodes if node.alive) and self.coordinator.is_complete


Happening = tuple[int, str, int]
happenings = st.lists(
    st.tuples(st.integers(1, 60), st.sampled_from(["kill", "restart", "coordinator", "cut off"]), st.integers(0, 7)),
    max_size=12,
)


@settings(max_examples=80, deadline=None, suppress_health_check=list(HealthCheck))
@given(
    st.lists(st.integers(1, 6), min_size=1, max_size=8),
    st.sampled_from([None, 1, 2]),
    happenings,
    st.integers(0, 1000),
)
def test_it_ends_and_nothing_is_fetched_twice(
    speeds: list[int], origin_nodes: int | None, events: list[Happening], seed: int
) -> None:
    world = World(speeds, origin_nodes, seed)
    due = sorted(events)
    for second in range(2000):
        while due and due[0][0] <= second:
            _, what, number = due.pop(0)
            node = world.nodes[number % len(world.nodes)]
            if what == "coordinator":
                world.lose_coordinator()
            elif what == "kill" and node.alive:
                world.kill(node)
            elif what == "restart" and not node.alive:
                world.restart(node)
            elif what == "cut off":
                node.cut_off = not node.cut_off
        if not due:
            for node in world.nodes:
                node.cut_off = False
                if not node.alive:
                    world.restart(node)
        world.step()
        if not due and world.finished:
            break
    assert world.finished, [(node.name, node.have == ALL, node.work) for node in world.nodes]
    for segment in range(len(SEGMENTS)):
        # The only copy may be lost, found again, and lost once more; each loss excuses one more fetch.
        assert world.fetches.get(segment, 0) <= 1 + world.excused.get(segment, 0), segment


def test_without_trouble_each_segment_leaves_the_origin_once_and_all_nodes_take_part() -> None:
    world = World([2] * 8, None, 1)
    readers: set[str] = set()
    while not world.finished:
        world.step()
        readers |= set(world.coordinator.readers)
    assert world.fetches == dict.fromkeys(range(len(SEGMENTS)), 1)
    assert readers == {node.name for node in world.nodes}


@pytest.mark.parametrize("origin_nodes", [1, 2])
def test_a_coordinators_node_that_never_reaches_the_origin_keeps_nobody_from_it(origin_nodes: int) -> None:
    world = World([1] * 4, origin_nodes, 1)
    own = world.nodes[world.epoch]
    own.cut_off = True
    own.hear(world.coordinator.report(own.say(), world.now))
    assert own.work, "it is the first to read"
    at_once = 0
    while not world.finished and world.now < 300.0:
        world.step()
        at_once = max(at_once, sum(bool(node.work) for node in world.nodes))
    assert world.finished
    assert at_once == origin_nodes


def test_five_hundred_members_cost_little() -> None:
    """Ten thousand segments, five hundred members: all is told to all, in answers of bounded size."""
    content = manifest(**{f"f{number:02}": 1 << 30 for number in range(20)})
    segments = plan(content, 2 * MIB)
    sizes = [file.size for file in sorted(content.files)]
    coordinator = Coordinator(content, segments, segment_bytes=2 * MIB, epoch=1, now=0.0)
    publishers = [f"n{number}" for number in range(500)]
    told: dict[str, int] = {}
    cursors: dict[str, int] = {}
    for number, node in enumerate(publishers):
        mine = range(number, len(segments), 500)
        news = tuple(
            Publication(segments=(index,), hashes=hashes_of(segments[index], sizes), publisher=node) for index in mine
        )
        coordinator.report(report(node, have=tuple(mine), published=news, wants=0), 0.0)
    for node in publishers[:5]:
        more = True
        while more:
            answer = coordinator.report(report(node, epoch=1, cursor=cursors.get(node, 0), wants=0), 1.0)
            assert len(answer.model_dump_json()) < 2 << 20
            told[node] = told.get(node, 0) + sum(len(each.segments) for each in answer.published)
            cursors[node], more = answer.cursor, answer.more
    assert set(told.values()) == {len(segments)}
    # Those five said that they have nothing any more; each had been the only one with 21 segments.
    assert coordinator.progress() == (len(segments) - 5 * 21, len(segments))
