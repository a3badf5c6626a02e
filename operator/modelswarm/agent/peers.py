"""Peer discovery: the addresses behind the headless Service, and the members that a coordinator names.

DNS is asked again and again, with jitter, because pods come and go. A failing lookup keeps what was known.
"""

import asyncio
import contextlib
import logging
import random
import socket
from collections.abc import Awaitable, Callable, Iterable, Sequence
from dataclasses import dataclass
from ipaddress import IPv4Address, IPv6Address, ip_address
from typing import TypeAlias

from modelswarm.agent.messages import PeerInfo

Address: TypeAlias = IPv4Address | IPv6Address
Lookup: TypeAlias = Callable[[str], Awaitable[Sequence[str]]]

EVERY = 15.0
"""Seconds between lookups, about."""
LOOKUP_SECONDS = 10.0
MAX_PEERS = 4096

log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True, order=True)
class PeerAddress:
    """An agent that may be there. The node's name is known of members only."""

    url: str
    host: str
    port: int
    node: str = ""


def metainfo_url(host: str, port: int) -> str:
    """The base URL of a metainfo server; IPv6 addresses in brackets."""
    return f"http://[{host}]:{port}" if ":" in host else f"http://{host}:{port}"


def parse_address(text: str) -> Address | None:
    """A literal address, with or without brackets; an IPv4 address in IPv6 clothes becomes one in its own."""
    try:
        found = ip_address(text.strip().removeprefix("[").removesuffix("]"))
    except ValueError:
        return None
    return found.ipv4_mapped or found if isinstance(found, IPv6Address) else found


async def look_up(name: str) -> Sequence[str]:
    """All A and AAAA records. Raises OSError."""
    found = await asyncio.get_running_loop().getaddrinfo(name, None, type=socket.SOCK_STREAM)
    return [str(entry[4][0]) for entry in found]


class Discovery:
    """``services``: DNS names, or literal addresses. ``own``: this agent's addresses, which are no peers."""

    def __init__(
        self,
        services: Sequence[str],
        *,
        own: Iterable[str],
        metainfo_port: int,
        torrent_port: int,
        lookup: Lookup = look_up,
        rng: random.Random | None = None,
    ) -> None:
        self._services = tuple(services)
        self._own = {address for text in own if (address := parse_address(text)) is not None}
        self._metainfo_port = metainfo_port
        self._torrent_port = torrent_port
        self._lookup = lookup
        self._rng = rng or random.Random()
        self._found: dict[str, frozenset[Address]] = {}
        self._members: dict[str, PeerAddress] = {}
        self._wake = asyncio.Event()

    async def run(self) -> None:
        """Look up for ever; to be cancelled."""
        while True:
            await self.refresh()
            self._wake.clear()
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(EVERY * self._rng.uniform(0.8, 1.2)):
                    await self._wake.wait()

    def hurry(self) -> None:
        """Somebody needs peers now: look up again, without waiting for the next time."""
        self._wake.set()

    async def refresh(self) -> None:
        """One lookup of every name. Does not fail."""
        await asyncio.gather(*map(self._look_up, self._services))

    async def _look_up(self, service: str) -> None:
        literal = parse_address(service)
        if literal is not None:
            self._found[service] = frozenset({literal})
            return
        try:
            async with asyncio.timeout(LOOKUP_SECONDS):
                texts = await self._lookup(service)
        except (OSError, UnicodeError, TimeoutError) as error:
            level = logging.DEBUG if service in self._found else logging.WARNING
            log.log(level, "P2P: no peers found in DNS under %s (%s)", service, type(error).__name__)
            return
        found = frozenset(address for text in texts if (address := parse_address(text)) is not None)
        if found != self._found.get(service):
            log.info("P2P: %d agents found under %s", len(found - self._own), service)
        self._found[service] = found

    def meet(self, members: Iterable[PeerInfo]) -> None:
        """What a coordinator says of members: those that are gone are forgotten."""
        for member in members:
            if member.gone:
                self._members.pop(member.node, None)
            elif len(self._members) < MAX_PEERS and parse_address(member.host) not in self._own:
                self._members[member.node] = PeerAddress(member.url, member.host, member.port, member.node)

    @property
    def discovered(self) -> int:
        """How many addresses of others the services name."""
        return len({address for addresses in self._found.values() for address in addresses} - self._own)

    def peers(self) -> tuple[PeerAddress, ...]:
        """Everybody who may be there, in order; a member that DNS lists too is there once."""
        known = {parse_address(member.host) for member in self._members.values()}
        found = {address for addresses in self._found.values() for address in addresses} - self._own - known
        by_dns = (
            PeerAddress(metainfo_url(str(address), self._metainfo_port), str(address), self._torrent_port)
            for address in sorted(found, key=lambda address: (address.version, int(address)))[:MAX_PEERS]
        )
        return (*sorted(self._members.values()), *by_dns)
