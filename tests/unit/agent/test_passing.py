"""No node gets far ahead of the others, by the coordinator's rules. Time is an argument."""

from dataclasses import dataclass, field

import pytest

from modelswarm.agent import bits
from modelswarm.agent.allotment import GATHER_SECONDS
from modelswarm.agent.coordinator import SETTLE_SECONDS, SILENT_SECONDS, Coordinator
from modelswarm.agent.messages import Publication
from modelswarm.agent.passing import LEAST, PATIENCE_SECONDS, SHARE
from modelswarm.agent.segments import plan
from tests.unit.agent.coordination import MIB, hashes_of, manifest, report

EPOCH = 7
SEGMENT = 2 * MIB
START = GATHER_SECONDS + 1.0
"""From here on nodes get all that they want."""


@dataclass
class Play:
    """A content of so many MiB, and what each node has of it."""

    size: int
    origin_nodes: int | None = None
    have: dict[str, int] = field(default_factory=dict)
    cursors: dict[str, int] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self.content = manifest(model_bin=self.size * MIB)
        self.segments = plan(self.content, SEGMENT)
        self.coordinator = Coordinator(
            self.content, self.segments, segment_bytes=SEGMENT, epoch=EPOCH, now=0.0, origin_nodes=self.origin_nodes
        )

    def say(self, node: str, now: float, *read: int, wants: int = 3) -> tuple[int, ...]:
        """``read``: what it has read since it last said something. What it shall read now."""
        news = tuple(
            Publication(segments=(index,), hashes=hashes_of(self.segments[index], [self.size * MIB]), publisher=node)
            for index in read
        )
        self.have[node] = self.have.get(node, 0) | bits.mask_of(read)
        told = report(
            node, epoch=EPOCH, cursor=self.cursors.get(node, 0), have=self.have[node], published=news, wants=wants
        )
        answer = self.coordinator.report(told, now)
        self.cursors[node] = answer.cursor
        return answer.assign

    def race(self, node: str, now: float, seconds: float = 1.0) -> int:
        """The node reads what it gets, until it gets nothing more; how many segments those were."""
        count, assigned, end = 0, self.say(node, now), now + seconds
        while assigned and now < end:
            count += len(assigned)
            now += 0.001
            assigned = self.say(node, now, *assigned)
        return count


@pytest.mark.parametrize("size", [64, 128, 1024])
def test_a_fast_reader_is_a_part_of_the_content_ahead_of_the_others_at_most(size: int) -> None:
    play = Play(size)
    play.say("fast", 0.0, wants=0)
    play.say("slow", 0.0)
    count = play.race("fast", START)
    assert count * SEGMENT <= size * MIB / SHARE
    assert count * SEGMENT > size * MIB / SHARE - 3 * SEGMENT, "it is not held back before"


@pytest.mark.parametrize(("size", "most"), [(40, LEAST // SEGMENT), (20, 20 * MIB // SEGMENT)])
def test_smaller_contents_are_read_without_much_ado(size: int, most: int) -> None:
    play = Play(size)
    play.say("fast", 0.0, wants=0)
    play.say("slow", 0.0, wants=1)
    assert play.race("fast", START) >= most - 1


def test_it_goes_on_when_somebody_has_what_it_read() -> None:
    play = Play(64)
    play.say("fast", 0.0, wants=0)
    [held] = play.say("slow", 0.0, wants=1)
    play.race("fast", START)
    assert not play.say("fast", START + 1.0)
    play.have["slow"] = bits.mask_of([*bits.members(play.have["fast"])][:2])
    play.say("slow", START + 1.0, wants=1)
    assert play.race("fast", START + 1.0) == 2
    assert held not in bits.members(play.have["fast"])


def test_what_it_read_is_told_to_the_others_at_once_when_it_waits_for_them() -> None:
    play = Play(64)
    play.say("fast", 0.0, wants=0)
    play.say("slow", 0.0)
    count = play.race("fast", START)
    told = play.coordinator.report(report("other", wants=0), START + 0.1).published
    assert sum(len(each.segments) for each in told) >= count - 1


@pytest.mark.parametrize(
    "others",
    [
        pytest.param([], id="nobody"),
        pytest.param([{"wants": 0}, {"wants": 0}], id="some with full disks"),
    ],
)
def test_where_nobody_would_take_it_nobody_is_waited_for(others: list[dict[str, bool | int]]) -> None:
    play = Play(64)
    for number, other in enumerate(others):
        play.say(f"n{number}", 0.0, **other)
    play.coordinator.tick(START)
    assert play.race("alone", START) == len(play.segments)


def test_who_takes_nothing_for_long_is_not_waited_for() -> None:
    play = Play(64)
    play.say("fast", 0.0, wants=0)
    play.say("cut-off", 0.0)
    first = play.race("fast", START)
    play.coordinator.tick(START + PATIENCE_SECONDS + 1.0)
    assert play.race("fast", START + PATIENCE_SECONDS + 1.0) == first


def test_the_only_reader_stays_the_reader_while_it_waits() -> None:
    play = Play(64, origin_nodes=1)
    play.say("fast", 0.0, wants=1)
    play.say("slow", 0.0)
    play.race("fast", START)
    assert play.coordinator.readers == ("fast",)
    assert not play.say("slow", START + 1.0)


# A successor listens first


def successor(*readers: str) -> Coordinator:
    content = manifest(model_bin=64 * MIB)
    return Coordinator(
        content, plan(content, SEGMENT), segment_bytes=SEGMENT, epoch=EPOCH, now=0.0, successor=True, readers=readers
    )


@pytest.mark.parametrize(
    ("readers", "heard", "quiet_until"),
    [
        pytest.param((), (), SETTLE_SECONDS, id="nobody is known to read"),
        pytest.param(("a", "b"), ("b",), SETTLE_SECONDS, id="all readers have said what they have"),
        pytest.param(("a", "b"), (), SILENT_SECONDS, id="one of them has not"),
    ],
)
def test_it_waits_for_those_who_read(readers: tuple[str, ...], heard: tuple[str, ...], quiet_until: float) -> None:
    coordinator = successor(*readers)
    for node in ("a", *heard):
        coordinator.report(report(node), 1.0)
    assert not coordinator.report(report("a", epoch=EPOCH), quiet_until - 0.1).assign
    assert coordinator.report(report("a", epoch=EPOCH), quiet_until).assign
