"""Windows between real sessions."""

import asyncio
import os
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from modelswarm.agent.swarm import (
    Encryption,
    Peer,
    PeerBanned,
    Swarm,
    SwarmSettings,
    TorrentFailed,
    WindowDone,
    WindowStalled,
)
from modelswarm.agent.swarm.settings import MAX_CONNECTIONS
from modelswarm.agent.swarm.windows import MIB
from modelswarm.errors import CannotListen
from tests.unit.agent.swarm.conftest import Node, StartNode, eventually, random_bytes, window_of

CONTENT = random_bytes(8 * MIB + 5)


async def test_a_window_arrives_in_place_and_nothing_else_is_touched(start_node: StartNode) -> None:
    one, two = await start_node("one"), await start_node("two")
    window = window_of(CONTENT, (2, 2), (7, 2))
    target = two.empty(len(CONTENT))
    one.swarm.offer(window, one.file(CONTENT), content="c")
    two.swarm.want(window, target, content="c", peers=[one.peer, two.peer])
    assert await two.wait(WindowDone) == WindowDone(window.id)
    got = target.read_bytes()
    assert got[2 * MIB : 4 * MIB] == CONTENT[2 * MIB : 4 * MIB]
    assert got[7 * MIB :] == CONTENT[7 * MIB :]
    assert not any(got[: 2 * MIB])
    assert not any(got[4 * MIB : 7 * MIB])
    assert list(two.directory.iterdir()) == [target]


async def test_four_nodes_each_with_some_parts_of_a_window_all_end_up_with_everything(start_node: StartNode) -> None:
    nodes = [await start_node(f"n{index}") for index in range(4)]
    everybody = [node.peer for node in nodes]
    window = window_of(CONTENT, (0, 9))
    for index, node in enumerate(nodes):
        mine = {2 * index, 2 * index + 1} | ({8} if index == 3 else set())
        path = node.empty(len(CONTENT))
        with path.open("r+b") as file:
            for number in mine:
                file.seek(number * MIB)
                file.write(CONTENT[number * MIB : (number + 1) * MIB])
        node.swarm.share(window, path, content="c", have=mine, peers=everybody)
    for node in nodes:
        await node.wait(WindowDone)
        assert (node.directory / "partial").read_bytes() == CONTENT


async def test_windows_of_one_file_are_filled_while_the_file_still_grows(start_node: StartNode) -> None:
    one, two = await start_node("one"), await start_node("two")
    source, target = one.empty(len(CONTENT)), two.empty(len(CONTENT))
    for first in range(0, 9, 3):
        # What the window names is written just before it is offered, as the origin delivers it.
        with source.open("r+b") as file:
            file.seek(first * MIB)
            file.write(CONTENT[first * MIB : (first + 3) * MIB])
        window = window_of(CONTENT, (first, 3))
        one.swarm.offer(window, source, content="c", peers=[two.peer])
        two.swarm.want(window, target, content="c", peers=[one.peer])
    await eventually(lambda: sum(isinstance(event, WindowDone) for event in two.events) == 3)
    assert target.read_bytes() == CONTENT


async def test_more_windows_than_are_fetched_at_a_time_all_arrive(start_node: StartNode) -> None:
    one, two = await start_node("one"), await start_node("two")
    source, target = one.file(CONTENT), two.empty(len(CONTENT))
    for number in range(9):
        window = window_of(CONTENT, (number, 1))
        one.swarm.offer(window, source, content="c")
        two.swarm.want(window, target, content="c", peers=[one.peer])
    await eventually(lambda: sum(isinstance(event, WindowDone) for event in two.events) == 9)
    assert target.read_bytes() == CONTENT


async def test_who_hears_of_a_window_late_is_found_nevertheless(start_node: StartNode) -> None:
    one, two = await start_node("one"), await start_node("two")
    window = window_of(CONTENT, (0, 1))
    two.swarm.want(window, two.empty(len(CONTENT)), content="c", peers=[one.peer])
    await eventually(lambda: two.swarm._torrents[window.id].handle is not None)
    one.swarm.offer(window, one.file(CONTENT), content="c", peers=[two.peer])
    await two.wait(WindowDone)


async def test_peers_that_become_known_later_are_asked(start_node: StartNode) -> None:
    one, two = await start_node("one"), await start_node("two")
    window = window_of(CONTENT, (0, 1))
    one.swarm.offer(window, one.file(CONTENT), content="c")
    two.swarm.want(window, two.empty(len(CONTENT)), content="c", peers=[])
    two.swarm.add_peers(window.id, [one.peer])
    await two.wait(WindowDone)


async def test_the_only_one_who_has_it_is_found_among_more_peers_than_are_asked_at_once(start_node: StartNode) -> None:
    one, two = await start_node("one"), await start_node("two", widen_seconds=0.2)
    deaf = [Peer(f"deaf-{number}", f"127.9.9.{number + 1}", one.peer.port) for number in range(2 * MAX_CONNECTIONS)]
    window = window_of(CONTENT, (0, 1))
    one.swarm.offer(window, one.file(CONTENT), content="c")
    two.swarm.want(window, two.empty(len(CONTENT)), content="c", peers=[*deaf, one.peer])
    await two.wait(WindowDone)


async def test_wrong_bytes_ban_their_sender_and_come_right_from_another(start_node: StartNode) -> None:
    liar, honest, node = await start_node("liar"), await start_node("honest"), await start_node("node")
    window = window_of(CONTENT, (0, 4))
    liar.swarm.offer(window, liar.file(random_bytes(len(CONTENT), seed=2)), content="c")
    target = node.empty(len(CONTENT))
    node.swarm.want(window, target, content="c", peers=[liar.peer])
    assert await node.wait(PeerBanned) == PeerBanned("liar", liar.peer.host, window.id)
    assert not any(isinstance(event, WindowDone) for event in node.events)
    honest.swarm.offer(window, honest.file(CONTENT), content="c")
    node.swarm.add_peers(window.id, [honest.peer])
    await node.wait(WindowDone)
    assert target.read_bytes()[: 4 * MIB] == CONTENT[: 4 * MIB]


async def test_a_shunned_peer_gets_nothing_and_gives_nothing(start_node: StartNode) -> None:
    one, two = await start_node("one"), await start_node("two", stall_seconds=2.0)
    window = window_of(CONTENT, (0, 1))
    one.swarm.shun([two.peer.host])
    one.swarm.offer(window, one.file(CONTENT), content="c", peers=[two.peer])
    two.swarm.want(window, two.empty(len(CONTENT)), content="c", peers=[one.peer])
    await two.wait(WindowStalled)
    assert not any(isinstance(event, WindowDone) for event in two.events)
    one.swarm.shun([])
    await two.wait(WindowDone)


async def test_another_secret_is_another_torrent(start_node: StartNode) -> None:
    one, two = await start_node("one", secret=b"theirs"), await start_node("two", stall_seconds=2.0)
    window = window_of(CONTENT, (0, 1))
    one.swarm.offer(window, one.file(CONTENT), content="c")
    two.swarm.want(window, two.empty(len(CONTENT)), content="c", peers=[one.peer])
    stalled = await two.wait(WindowStalled)
    # Who is refused tries again, and may count as connected for a moment.
    assert isinstance(stalled, WindowStalled)
    assert (stalled.window_id, stalled.missing) == (window.id, (0,))
    assert not any(isinstance(event, WindowDone) for event in two.events)


@pytest.mark.parametrize(
    ("ours", "theirs", "works"),
    [
        pytest.param(Encryption.REQUIRED, Encryption.REQUIRED, True, id="both require it"),
        pytest.param(Encryption.REQUIRED, Encryption.PREFERRED, True, id="one requires, the other prefers"),
        pytest.param(Encryption.PREFERRED, Encryption.OFF, True, id="one prefers, the other cannot"),
        pytest.param(Encryption.REQUIRED, Encryption.OFF, False, id="one requires, the other cannot"),
    ],
)
async def test_encryption(start_node: StartNode, ours: Encryption, theirs: Encryption, works: bool) -> None:
    one, two = await start_node("one", encryption=ours), await start_node("two", encryption=theirs, stall_seconds=2.5)
    window = window_of(CONTENT, (0, 1))
    one.swarm.offer(window, one.file(CONTENT), content="c", peers=[two.peer])
    two.swarm.want(window, two.empty(len(CONTENT)), content="c", peers=[one.peer])
    await two.wait(WindowDone if works else WindowStalled)
    assert any(isinstance(event, WindowDone) for event in two.events) is works


@pytest.mark.parametrize("side", ["upload", "download"])
async def test_rate_limits_hold_between_private_addresses(start_node: StartNode, side: str) -> None:
    rate = 2 * MIB
    one = await start_node("one", upload_rate=rate if side == "upload" else 0)
    two = await start_node("two", download_rate=rate if side == "download" else 0)
    window = window_of(CONTENT, (0, 6))
    one.swarm.offer(window, one.file(CONTENT), content="c")
    began = asyncio.get_running_loop().time()
    two.swarm.want(window, two.empty(len(CONTENT)), content="c", peers=[one.peer])
    await two.wait(WindowDone)
    # Six MiB at two a second; the first second's worth may come at once.
    assert asyncio.get_running_loop().time() - began > 1.5


async def test_ipv6(start_node: StartNode) -> None:
    try:
        one, two = await start_node("one", host="::1"), await start_node("two", host="::1")
    except CannotListen:
        pytest.skip("this machine has no IPv6 loopback")
    window = window_of(CONTENT, (0, 1))
    one.swarm.offer(window, one.file(CONTENT), content="c")
    two.swarm.want(window, two.empty(len(CONTENT)), content="c", peers=[one.peer])
    await two.wait(WindowDone)


async def test_a_taken_port_is_an_error(start_node: StartNode) -> None:
    one = await start_node("one")
    settings = SwarmSettings(node="two", host=one.peer.host, port=one.peer.port)
    second = Swarm(settings, report=lambda event: None)
    with pytest.raises(CannotListen):
        await second.start()


async def test_an_address_of_another_machine_is_an_error() -> None:
    swarm = Swarm(SwarmSettings(node="n", host="192.0.2.1", port=0), report=lambda event: None)
    with pytest.raises(CannotListen):
        await swarm.start()


async def test_bytes_are_counted_by_content(start_node: StartNode) -> None:
    one, two = await start_node("one"), await start_node("two")
    window, other = window_of(CONTENT, (0, 2)), window_of(CONTENT, (4, 1))
    source, target = one.file(CONTENT), two.empty(len(CONTENT))
    for wanted, content in ((window, "c"), (other, "d")):
        one.swarm.offer(wanted, source, content=content)
        two.swarm.want(wanted, target, content=content, peers=[one.peer])
    await eventually(lambda: sum(isinstance(event, WindowDone) for event in two.events) == 2)
    # Dropped before the next reading: the last counts must not be lost.
    for wanted in (window, other):
        one.swarm.drop(wanted.id)
        two.swarm.drop(wanted.id)
    await eventually(lambda: two.swarm.counters.total.downloaded == 3 * MIB)
    await eventually(lambda: one.swarm.counters.total.uploaded == 3 * MIB)
    assert two.swarm.counters.contents["c"].downloaded == 2 * MIB
    assert one.swarm.counters.contents["d"].uploaded == MIB


async def test_a_dropped_window_is_forgotten_and_can_come_back(start_node: StartNode) -> None:
    one, two = await start_node("one"), await start_node("two")
    window = window_of(CONTENT, (0, 1))
    source, target = one.file(CONTENT), two.empty(len(CONTENT))
    one.swarm.offer(window, source, content="c")
    one.swarm.drop(window.id)
    one.swarm.drop(window.id)
    assert not one.swarm.has(window.id)
    one.swarm.offer(window, source, content="c")
    two.swarm.want(window, target, content="c", peers=[one.peer])
    await two.wait(WindowDone)
    assert one.swarm.has(window.id)


async def test_a_file_that_cannot_be_written_is_an_event(start_node: StartNode, tmp_path: Path) -> None:
    one, two = await start_node("one"), await start_node("two")
    window = window_of(CONTENT, (0, 1))
    one.swarm.offer(window, one.file(CONTENT), content="c")
    blocked = two.file(b"a file, not a directory", "blocked")
    two.swarm.want(window, blocked / "partial", content="c", peers=[one.peer])
    event = await two.wait(TorrentFailed)
    assert isinstance(event, TorrentFailed)
    assert (event.torrent, event.full) == (window.id, False)


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A file system of 256 KiB."""
    place = tmp_path / "small"
    place.mkdir()
    subprocess.run(["mount", "-t", "tmpfs", "-o", "size=256k", "tmpfs", place], check=True)
    yield place
    subprocess.run(["umount", "--lazy", place], check=True)


@pytest.mark.skipif(os.geteuid() != 0, reason="needs root for a file system of its own")
async def test_a_full_disk_is_told_as_such(start_node: StartNode, small_disk: Path) -> None:
    one, two = await start_node("one"), await start_node("two")
    window = window_of(CONTENT, (0, 1))
    one.swarm.offer(window, one.file(CONTENT), content="c")
    target = small_disk / "partial"
    with target.open("wb") as file:
        file.truncate(len(CONTENT))
    two.swarm.want(window, target, content="c", peers=[one.peer])
    event = await two.wait(TorrentFailed)
    assert isinstance(event, TorrentFailed)
    assert (event.torrent, event.full) == (window.id, True), event.message


async def test_stopping_twice_and_in_the_middle_of_a_transfer(start_node: StartNode) -> None:
    one, two = await start_node("one", upload_rate=MIB), await start_node("two")
    window = window_of(CONTENT, (0, 9))
    one.swarm.offer(window, one.file(CONTENT), content="c")
    two.swarm.want(window, two.empty(len(CONTENT)), content="c", peers=[one.peer])
    await eventually(lambda: _connections(two) > 0)
    async with asyncio.timeout(20):
        await two.swarm.stop()
        await two.swarm.stop()
        await one.swarm.stop()
    assert not any(isinstance(event, WindowDone) for event in two.events)


def _connections(node: Node) -> int:
    return node.swarm.counters.connections
