import asyncio
import random
from collections.abc import Sequence

import pytest

from modelswarm.agent.messages import PeerInfo
from modelswarm.agent.peers import EVERY, Discovery, PeerAddress, metainfo_url, parse_address


class Dns:
    def __init__(self, **names: list[str]) -> None:
        self.names = names
        self.asked = 0
        self.fails = False

    async def __call__(self, name: str) -> Sequence[str]:
        self.asked += 1
        if self.fails:
            raise OSError("no such name")
        return self.names[name]


def discovery(dns: Dns, *services: str, own: Sequence[str] = ("10.0.0.1",)) -> Discovery:
    return Discovery(
        services or ("peers",), own=own, metainfo_port=8081, torrent_port=6881, lookup=dns, rng=random.Random(1)
    )


def member(node: str, host: str, *, gone: bool = False) -> PeerInfo:
    return PeerInfo(node=node, url=metainfo_url(host, 9081), host=host, port=7881, gone=gone)


def hosts(found: Discovery) -> list[str]:
    return [peer.host for peer in found.peers()]


@pytest.mark.parametrize(
    ("own", "answer", "expected"),
    [
        pytest.param(["10.0.0.1"], ["10.0.0.2", "10.0.0.1"], ["10.0.0.2"], id="oneself is no peer"),
        pytest.param(["10.0.0.1"], ["10.0.0.1"], [], id="nobody but oneself"),
        pytest.param(["10.0.0.1"], ["::ffff:10.0.0.1"], [], id="oneself in IPv6 clothes"),
        pytest.param(["fd00::1"], ["fd00:0:0:0:0:0:0:1", "fd00::2"], ["fd00::2"], id="oneself, written differently"),
        pytest.param([""], ["10.0.0.2", "10.0.0.2"], ["10.0.0.2"], id="an address twice"),
        pytest.param([], ["10.0.0.10", "10.0.0.9", "fd00::1"], ["10.0.0.9", "10.0.0.10", "fd00::1"], id="in order"),
        pytest.param([], ["rubbish", "10.0.0.2"], ["10.0.0.2"], id="what is no address is left out"),
    ],
)
async def test_who_is_a_peer(own: list[str], answer: list[str], expected: list[str]) -> None:
    found = discovery(Dns(peers=answer), own=own)
    await found.refresh()
    assert hosts(found) == expected


async def test_urls_and_ports() -> None:
    found = discovery(Dns(peers=["10.0.0.2", "fd00::2"]))
    await found.refresh()
    assert found.peers() == (
        PeerAddress("http://10.0.0.2:8081", "10.0.0.2", 6881),
        PeerAddress("http://[fd00::2]:8081", "fd00::2", 6881),
    )


async def test_names_and_literal_addresses_together() -> None:
    dns = Dns(peers=["10.0.0.2"], more=["10.0.0.3"])
    found = discovery(dns, "peers", "more", "127.0.1.5", "[fd00::9]")
    await found.refresh()
    assert hosts(found) == ["10.0.0.2", "10.0.0.3", "127.0.1.5", "fd00::9"]
    assert dns.asked == 2


async def test_a_lookup_that_fails_keeps_what_was_known() -> None:
    dns = Dns(peers=["10.0.0.2"])
    found = discovery(dns)
    await found.refresh()
    dns.fails = True
    await found.refresh()
    assert hosts(found) == ["10.0.0.2"]
    dns.fails, dns.names = False, {"peers": ["10.0.0.3"]}
    await found.refresh()
    assert hosts(found) == ["10.0.0.3"]


async def test_members_have_names_and_are_not_there_twice() -> None:
    found = discovery(Dns(peers=["10.0.0.2", "10.0.0.3"]))
    await found.refresh()
    found.meet([member("b", "10.0.0.2"), member("far", "10.9.0.1"), member("self", "10.0.0.1")])
    assert [(peer.node, peer.host, peer.port) for peer in found.peers()] == [
        ("b", "10.0.0.2", 7881),
        ("far", "10.9.0.1", 7881),
        ("", "10.0.0.3", 6881),
    ]
    found.meet([member("far", "10.9.0.1", gone=True)])
    assert hosts(found) == ["10.0.0.2", "10.0.0.3"]


@pytest.mark.looptime
async def test_it_looks_again_and_again_not_at_fixed_times_and_at_once_in_a_hurry() -> None:
    times: list[float] = []

    async def lookup(name: str) -> Sequence[str]:
        times.append(asyncio.get_running_loop().time())
        return []

    found = Discovery(
        ["peers"], own=[], metainfo_port=1, torrent_port=2, lookup=lookup, rng=random.Random(1)
    )  # fmt: skip
    task = asyncio.create_task(found.run())
    await asyncio.sleep(5 * EVERY)
    pauses = [later - earlier for earlier, later in zip(times, times[1:], strict=False)]  # noqa: RUF007
    assert len(set(pauses)) == len(pauses) >= 4
    assert all(0.8 * EVERY <= pause <= 1.2 * EVERY for pause in pauses)
    before = len(times)
    found.hurry()
    await asyncio.sleep(0.01)
    assert len(times) == before + 1
    task.cancel()


@pytest.mark.looptime
async def test_a_lookup_that_hangs_ends() -> None:
    async def lookup(name: str) -> Sequence[str]:
        await asyncio.sleep(3600)
        return []

    found = Discovery(["peers"], own=[], metainfo_port=1, torrent_port=2, lookup=lookup)
    await found.refresh()
    assert asyncio.get_running_loop().time() < 60
    assert found.peers() == ()


@pytest.mark.parametrize("text", ["", "localhost", "10.0.0", "1.2.3.4/8"])
def test_what_is_no_address(text: str) -> None:
    assert parse_address(text) is None
