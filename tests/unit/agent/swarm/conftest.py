"""Swarms on loopback addresses: each node has one of its own, as it has in a cluster."""

import asyncio
import itertools
import random
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AsyncExitStack
from pathlib import Path

import pytest_asyncio

from modelswarm.agent.swarm import Encryption, Event, Part, Peer, Swarm, SwarmSettings, Window, piece_hashes
from modelswarm.agent.swarm.windows import MIB

SECRET = b"of these tests"
TIMEOUT = 30.0
_hosts = itertools.count(1)


class Node:
    """A running swarm, the events that it reported, and a directory."""

    def __init__(self, settings: SwarmSettings, directory: Path) -> None:
        self.events: list[Event] = []
        self.directory = directory
        self.changed = asyncio.Event()
        self.swarm = Swarm(settings, report=self._report)

    @property
    def peer(self) -> Peer:
        assert self.swarm.settings.host is not None
        return Peer(self.swarm.settings.node, self.swarm.settings.host, self.swarm.port)

    async def wait(self, kind: type[Event], timeout: float = TIMEOUT) -> Event:
        """The first event of the kind; what has happened already counts."""
        async with asyncio.timeout(timeout):
            while True:
                for event in self.events:
                    if isinstance(event, kind):
                        return event
                self.changed.clear()
                await self.changed.wait()

    def empty(self, size: int, name: str = "partial") -> Path:
        path = self.directory / name
        with path.open("wb") as file:
            file.truncate(size)
        return path

    def file(self, content: bytes, name: str = "partial") -> Path:
        path = self.directory / name
        path.write_bytes(content)
        return path

    def _report(self, event: Event) -> None:
        self.events.append(event)
        self.changed.set()


StartNode = Callable[..., Awaitable[Node]]


@pytest_asyncio.fixture
async def start_node(tmp_path: Path) -> AsyncIterator[StartNode]:
    async with AsyncExitStack() as stack:

        async def start(
            name: str,
            *,
            host: str | None = None,
            secret: bytes = SECRET,
            encryption: Encryption = Encryption.OFF,
            download_rate: int = 0,
            upload_rate: int = 0,
            stall_seconds: float = 60.0,
            widen_seconds: float = 1.0,
        ) -> Node:
            directory = tmp_path / name
            directory.mkdir(exist_ok=True)
            settings = SwarmSettings(
                node=name,
                host=host or f"127.0.7.{next(_hosts) % 250 + 1}",
                port=0,
                secret=secret,
                encryption=encryption,
                download_rate=download_rate,
                upload_rate=upload_rate,
                stall_seconds=stall_seconds,
                widen_seconds=widen_seconds,
                reading_seconds=0.1,
            )
            node = Node(settings, directory)
            stack.push_async_callback(node.swarm.stop)
            await node.swarm.start()
            return node

        yield start


def random_bytes(size: int, seed: int = 1) -> bytes:
    return random.Random(seed).randbytes(size)


def window_of(content: bytes, *ranges: tuple[int, int], blob: str = "sha256-of-it") -> Window:
    """A window with the right hashes of these ranges (offset, length), in MiB."""
    parts = []
    for offset, length in ranges:
        start = offset * MIB
        piece = content[start : start + length * MIB]
        parts.append(Part(start, len(piece), piece_hashes(piece, MIB)))
    return Window(blob, len(content), MIB, tuple(parts))


async def eventually(condition: Callable[[], bool], timeout: float = TIMEOUT) -> None:
    end = time.monotonic() + timeout
    while not condition():
        assert time.monotonic() < end, "it did not come true in time"
        await asyncio.sleep(0.02)
