"""The windows of one content on one node: what is joined when, and what becomes of it."""

import asyncio
from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Unpack

import pytest

from modelswarm.agent.exchange import LINGER_SECONDS, MOST_WANTED, Arrival, Exchange, Replaced
from modelswarm.agent.holdings import Holdings
from modelswarm.agent.messages import Publication
from modelswarm.agent.segments import Segment, plan
from modelswarm.agent.sharing import Joining
from modelswarm.agent.swarm import Peer, TorrentFailed, Window, WindowDone, WindowStalled
from tests.unit.agent.coordination import MIB, hashes_of, manifest

CONTENT = manifest(a_bin=8 * MIB, b_bin=6 * MIB, c_json=100)
SEGMENTS = plan(CONTENT, 2 * MIB)
SIZES = [file.size for file in sorted(CONTENT.files)]
A, B = (1, 2, 3, 4), (5, 6, 7)
"""The ranges of the two large files; 0 is the bundle."""


@dataclass
class Joined:
    window: Window
    have: frozenset[int]
    peers: dict[str, Peer]
    holders: frozenset[str]

    @property
    def segments(self) -> tuple[int, ...]:
        offsets = {part.offset for part in self.window.parts}
        file = {"key-0": 0, "key-1": 1}[self.window.blob]
        return tuple(each.index for each in SEGMENTS if each.file == file and each.offset in offsets)

    @property
    def is_wanted(self) -> bool:
        return not set(self.window.piece_numbers()) <= self.have


@dataclass
class Swarm:
    """Notes what is shared. Nothing moves."""

    now: dict[str, Joined] = field(default_factory=dict)
    abandoned: list[str] = field(default_factory=list)

    def share(self, window: Window, path: Path, **joining: Unpack[Joining]) -> None:
        assert window.id not in self.now
        peers = {each.node: each for each in joining["peers"]}
        holders = frozenset(joining.get("holders", ()))
        self.now[window.id] = Joined(window, frozenset(joining["have"]), peers, holders)

    def drop(self, torrent: str) -> None:
        del self.now[torrent]

    def abandon(self, torrent: str) -> None:
        self.abandoned.append(torrent)

    def add_peers(self, torrent: str, peers: Iterable[Peer]) -> None:
        self.now[torrent].peers.update((each.node, each) for each in peers)


class Node:
    """``own`` with what it has read, and what others tell it."""

    def __init__(self) -> None:
        self.holdings = Holdings(sorted(CONTENT.files), SEGMENTS)
        self.swarm = Swarm()
        self.discarded: list[int] = []
        self.exchange = Exchange(
            self.holdings,
            ["key-0", "key-1", "key-2"],
            node="own",
            content="c" * 64,
            swarm=self.swarm,
            place=self.place,
            discard=self.discard,
        )

    async def place(self, file: int) -> Path:
        await asyncio.sleep(0)
        return Path(f"/files/{file}")

    async def discard(self, segment: Segment) -> None:
        """Others go on meanwhile."""
        await self.exchange.serve()
        assert all(segment.index not in segments for segments in self.wanted), "the right bytes would go as well"
        self.discarded.append(segment.index)

    async def read(self, *segments: int, salt: str = "") -> Publication | None:
        """From the origin."""
        offered = None
        for segment in segments:
            self.holdings.arrived(segment)
            offered = await self.exchange.offer(SEGMENTS[segment], hashes_of(SEGMENTS[segment], SIZES, salt=salt))
        return offered

    async def learn(self, *windows: Publication) -> list[Replaced]:
        return await self.exchange.learn(windows)

    @property
    def shared(self) -> list[tuple[int, ...]]:
        return sorted(each.segments for each in self.swarm.now.values())

    @property
    def wanted(self) -> list[tuple[int, ...]]:
        return sorted(each.segments for each in self.swarm.now.values() if each.is_wanted)

    def identity(self, *segments: int) -> str:
        return next(identity for identity, each in self.swarm.now.items() if each.segments == segments)

    async def arrive(self, *segments: int) -> list[Arrival] | None:
        identity = self.identity(*segments)
        joined = self.swarm.now[identity]
        joined.have = frozenset(joined.window.piece_numbers())
        return await self.exchange.hear(WindowDone(identity))


def told(*segments: int, by: str = "other", salt: str = "", **others: str) -> Publication:
    """A window as the coordinator tells it; ``others`` say who read a segment (``_3="node"``) that ``by`` has not."""
    publishers = tuple(others.get(f"_{segment}", by) for segment in segments)
    return Publication(
        segments=segments,
        hashes=b"".join(hashes_of(SEGMENTS[segment], SIZES, salt=salt) for segment in segments),
        publisher=publishers[0],
        publishers=publishers if others else (),
        window=True,
    )


async def test_what_was_read_is_published_by_itself_and_shared_in_the_window_that_the_coordinator_makes() -> None:
    node = Node()
    publication = await node.read(1)
    assert publication == Publication(segments=(1,), hashes=hashes_of(SEGMENTS[1], SIZES), publisher="own")
    assert node.shared == []
    await node.learn(told(1, 3, _1="own"))
    assert (node.shared, node.wanted) == ([(1, 3)], [(1, 3)])
    [joined] = node.swarm.now.values()
    assert joined.have == {0, 1}, "the pieces of what it has read"
    assert joined.holders == {"own", "other"}


async def test_what_arrives_is_told_with_its_hashes_and_publisher_but_not_what_was_here() -> None:
    node = Node()
    await node.read(1)
    await node.learn(told(1, 2, 3, _1="own", _3="third"))
    arrivals = await node.arrive(1, 2, 3)
    assert arrivals == [
        Arrival(SEGMENTS[2], hashes_of(SEGMENTS[2], SIZES), "other"),
        Arrival(SEGMENTS[3], hashes_of(SEGMENTS[3], SIZES), "third"),
    ]
    assert all(map(node.holdings.has, (1, 2, 3)))
    assert node.exchange.publishers(0) == ("own", "other", "third")


async def test_a_window_that_is_told_twice_is_one() -> None:
    node = Node()
    for _ in range(2):
        assert await node.learn(told(1, 2)) == []
    assert node.shared == [(1, 2)]


async def test_events_of_other_contents_are_not_about_this_one() -> None:
    node = Node()
    assert await node.exchange.hear(WindowDone("unknown")) is None
    assert await node.exchange.hear(TorrentFailed("unknown", "")) is None


@pytest.mark.parametrize(
    "publication",
    [
        pytest.param(told(1, 2).model_copy(update={"hashes": b"x" * 20}), id="too few hashes"),
        pytest.param(told(2, 1), id="not in order"),
        pytest.param(told(4, 5), id="two files"),
        pytest.param(Publication(segments=(99,), hashes=b"x" * 40, publisher="a"), id="no such segment"),
        pytest.param(Publication(segments=(0,), publisher="a"), id="a bundle, which is no window"),
        pytest.param(told(1, 2).model_copy(update={"publishers": ("a",)}), id="too few publishers"),
    ],
)
async def test_what_makes_no_sense_is_ignored(publication: Publication) -> None:
    node = Node()
    assert await node.learn(publication) == []
    assert node.shared == []


# Whole files


async def test_one_window_of_the_whole_file_takes_the_place_of_its_many_when_nothing_is_on_its_way() -> None:
    node = Node()
    await node.learn(told(1, 2), told(3, 4))
    # All is published, so whoever begins now does not go through its parts.
    assert (node.shared, node.wanted) == ([A], [A])


async def test_who_was_in_the_parts_goes_on_there_and_serves_them_for_a_while() -> None:
    node = Node()
    await node.learn(told(1, 2))
    await node.learn(told(3, 4))
    assert node.shared == [(1, 2), (3, 4)]
    await node.arrive(1, 2)
    assert node.shared == [(1, 2), (3, 4)], "one is on its way"
    await node.arrive(3, 4)
    assert node.shared == [(1, 2), A, (3, 4)]
    assert node.wanted == []


@pytest.mark.looptime
async def test_parts_are_left_after_a_while() -> None:
    node = Node()
    await node.learn(told(1, 2))
    await node.learn(told(3, 4))
    await node.arrive(1, 2)
    await node.arrive(3, 4)
    await asyncio.sleep(LINGER_SECONDS - 1)
    assert node.shared == [(1, 2), A, (3, 4)]
    await asyncio.sleep(2)
    assert node.shared == [A]


@pytest.mark.looptime
async def test_the_reader_of_the_last_range_is_in_its_window_too_for_others_wait_there() -> None:
    node = Node()
    await node.learn(told(1, 2, 3))
    await node.arrive(1, 2, 3)
    await node.read(4)
    assert node.shared == [(1, 2, 3), A]
    await node.learn(told(4, by="own"))
    assert node.shared == [(1, 2, 3), A, (4,)]
    await asyncio.sleep(LINGER_SECONDS + 1)
    assert node.shared == [A]


async def test_what_the_window_of_the_whole_file_brings_is_not_fetched_twice() -> None:
    node = Node()
    await node.learn(told(1, 2), told(3, 4))
    # A successor of the coordinator has made other windows.
    await node.learn(told(1, 3), told(2), told(4))
    assert (node.shared, node.wanted) == ([A], [A])


async def test_windows_that_a_successor_has_made_otherwise_are_joined_as_well() -> None:
    node = Node()
    await node.learn(told(1, 2))
    await node.arrive(1, 2)
    await node.learn(told(2, 3))
    assert node.shared == [(1, 2), (2, 3)]
    assert node.wanted == [(2, 3)]


# Bytes that others hold instead


async def test_other_bytes_of_a_segment_make_it_leave_its_window_everywhere_alike() -> None:
    had, lacked = Node(), Node()
    await had.read(2)
    for node in (had, lacked):
        await node.learn(told(1, 2, 3, _2="own"))
    await had.arrive(1, 2, 3)
    for node in (had, lacked):
        assert await node.learn(told(2, by="third", salt="right")) == [Replaced(SEGMENTS[2], "own")]
        assert node.shared == [(1, 3), (2,)]
        assert len(node.swarm.abandoned) == 1
        assert node.discarded == [2]
    assert (had.wanted, lacked.wanted) == ([(2,)], [(1, 3), (2,)])
    assert set(had.swarm.now) == set(lacked.swarm.now), "they are in the same windows"
    # Whoever comes now is told just that.
    late = Node()
    await late.learn(told(1, 3), told(2, by="third", salt="right"))
    assert set(late.swarm.now) == set(lacked.swarm.now)


async def test_other_bytes_of_a_file_that_is_through_are_fetched_as_they_were_told() -> None:
    node = Node()
    await node.learn(told(*A))
    await node.arrive(*A)
    await node.learn(told(3, salt="right"))
    assert (node.shared, node.wanted) == ([(1, 2, 4), (3,)], [(3,)])
    assert [each for each in A if not node.holdings.has(each)] == [3]


async def test_what_disagrees_with_a_verified_file_is_not_believed() -> None:
    node = Node()
    await node.read(*A)
    node.holdings.verify(0)
    assert await node.learn(told(1, 2, salt="wrong")) == []
    assert all(map(node.holdings.has, A))
    assert node.wanted == [], "nothing is written over what is right"


async def test_only_one_publication_of_a_segment_holds() -> None:
    node = Node()
    await node.learn(told(1, by="other", salt="theirs"))
    assert await node.read(1, salt="ours") is None
    assert node.exchange.hashes(1) == hashes_of(SEGMENTS[1], SIZES, salt="theirs")


# Reading again


async def test_a_segment_that_is_read_again_is_not_shared_meanwhile_nor_what_is_in_a_window_with_it() -> None:
    node = Node()
    await node.learn(told(1, 2), told(3))
    await node.arrive(1, 2)
    node.exchange.withhold(SEGMENTS[2])
    assert node.shared == [(3,)]
    await node.arrive(3)
    await node.learn(told(4))
    assert node.shared == [(3,), (4,)]
    same = await node.read(2)
    assert same is not None
    assert node.shared == [(1, 2), (3,), (4,)]


async def test_other_bytes_that_were_read_again_are_a_second_word() -> None:
    node = Node()
    await node.learn(told(1, 2))
    await node.arrive(1, 2)
    node.exchange.withhold(SEGMENTS[2])
    second = await node.read(2, salt="right")
    assert second is not None
    assert second.segments == (2,)
    assert node.shared == [(1,)]
    assert await node.learn(told(2, by="own", salt="right")) == []
    assert (node.shared, node.wanted) == ([(1,), (2,)], [])


async def test_what_nobody_has_any_more_and_is_read_once_more_is_served_in_its_window() -> None:
    node = Node()
    await node.learn(told(1, 2))
    assert await node.read(2) is not None
    [joined] = node.swarm.now.values()
    assert (joined.segments, joined.have) == ((1, 2), {2, 3})


async def test_a_segment_that_was_not_read_after_all_is_fetched() -> None:
    node = Node()
    await node.learn(told(1, 2))
    await node.arrive(1, 2)
    node.exchange.withhold(SEGMENTS[2])
    await node.exchange.refetch([SEGMENTS[2]])
    assert node.wanted == [(1, 2)]
    [joined] = node.swarm.now.values()
    assert joined.have == {0, 1}


async def test_damaged_ranges_of_a_whole_file_are_fetched_in_its_window() -> None:
    node = Node()
    await node.read(*A)
    await node.learn(told(*A, by="own"))
    assert (node.shared, node.wanted) == ([A], [])
    await node.exchange.refetch([SEGMENTS[1], SEGMENTS[4]])
    assert node.wanted == [A]
    [joined] = node.swarm.now.values()
    assert joined.have == {2, 3, 4, 5}


# Trouble


async def test_who_stands_still_in_the_parts_tries_the_whole_file_and_the_other_way_round() -> None:
    node = Node()
    await node.learn(told(1, 2))
    await node.exchange.hear(WindowStalled(node.identity(1, 2), 0))
    assert node.wanted == [(1, 2)], "there is nothing else yet"
    await node.learn(told(3, 4))
    await node.exchange.hear(WindowStalled(node.identity(3, 4), 0))
    assert node.wanted == [A]
    await node.exchange.hear(WindowStalled(node.identity(*A), 0))
    assert node.wanted == [(1, 2), (3, 4)]


async def test_who_has_something_of_a_file_fetches_the_rest_in_the_windows_where_others_do() -> None:
    node = Node()
    await node.read(1)
    await node.learn(told(1, by="own"), told(2, 3, 4))
    assert (node.shared, node.wanted) == ([(1,), (2, 3, 4)], [(2, 3, 4)])


async def test_a_window_that_failed_is_begun_again_if_it_is_wanted_and_left_if_not() -> None:
    node = Node()
    await node.learn(told(1))
    await node.learn(told(2))
    await node.arrive(1)
    await node.exchange.hear(TorrentFailed(node.identity(1), "the disk"))
    await node.exchange.hear(TorrentFailed(node.identity(2), "the disk"))
    assert node.shared == [(2,)]


async def test_a_file_that_came_with_another_content_is_served_and_not_written_to() -> None:
    node = Node()
    await node.learn(told(1, 2))
    node.holdings.verify(0)
    assert node.exchange.settle(0)
    assert node.shared == []
    await node.exchange.serve()
    assert (node.shared, node.wanted) == ([(1, 2)], [])
    assert not node.exchange.settle(0)


async def test_not_too_many_windows_are_fetched_at_once_but_all_that_is_here_is_served() -> None:
    content = manifest(a_bin=4 * MIB * MOST_WANTED)
    segments = plan(content, 2 * MIB)
    swarm = Swarm()
    holdings = Holdings(sorted(content.files), segments)

    async def place(file: int) -> Path:
        return Path("/file")

    async def discard(segment: Segment) -> None:
        raise AssertionError("nothing is replaced here")

    exchange = Exchange(holdings, ["key-0"], node="own", content="c" * 64, swarm=swarm, place=place, discard=discard)
    sizes = [file.size for file in content.files]
    windows = [
        Publication(segments=(each.index,), hashes=hashes_of(each, sizes), publisher="a", window=True)
        for each in segments[:-1]
    ]
    for segment in range(10, 20):
        holdings.arrived(segment)
    await exchange.learn(windows)
    assert exchange.wanted == MOST_WANTED
    assert len(swarm.now) == MOST_WANTED + 10
    await exchange.hear(WindowDone(next(iter(swarm.now))))
    assert exchange.wanted == MOST_WANTED, "the next one takes its place"
    exchange.close()
    assert swarm.now == {}


# What a successor of the coordinator is told


async def test_a_successor_is_told_whole_windows_so_that_they_stay_what_they_are() -> None:
    node = Node()
    window = told(1, 2, 3, _2="third")
    await node.learn(window)
    assert [node.exchange.told(segment) for segment in (1, 2, 3)] == [window] * 3
    await node.read(5)
    assert node.exchange.told(5) == Publication(segments=(5,), hashes=hashes_of(SEGMENTS[5], SIZES), publisher="own")
    assert node.exchange.told(6) is None


# Peers


async def test_peers_that_become_known_are_told_to_every_window_and_those_that_are_gone_to_none() -> None:
    node = Node()
    first, second = Peer("n1", "10.0.0.1", 6881), Peer("n2", "10.0.0.2", 6881)
    node.exchange.meet([first, Peer("own", "10.0.0.9", 6881)])
    await node.learn(told(1))
    node.exchange.meet([second], gone=["n1"])
    await node.learn(told(2))
    assert node.swarm.now[node.identity(1)].peers.keys() == {"n1", "n2"}
    assert node.swarm.now[node.identity(2)].peers.keys() == {"n2"}
