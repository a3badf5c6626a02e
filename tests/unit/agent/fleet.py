"""Nodes of one process that bring a content to each other: real stores, coordinators and desks, no sockets.

The swarm and the origin are played: windows move bytes between the nodes' files when their hashes agree, and the
origin is a dictionary that counts what it gives.
"""

import asyncio
import contextlib
import hashlib
import random
from collections.abc import AsyncIterator, Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Unpack

from modelswarm.agent.coordinator import Coordinator
from modelswarm.agent.member import Address, Member
from modelswarm.agent.messages import Answer, Report
from modelswarm.agent.metainfo.desk import Desk
from modelswarm.agent.origin import OriginReader
from modelswarm.agent.segments import plan
from modelswarm.agent.sharing import Joining, Sharing
from modelswarm.agent.store import Filling, Store, StoreSettings
from modelswarm.agent.swarm import Event, Peer, Window, WindowDone
from modelswarm.content.manifest import Manifest, ManifestFile
from modelswarm.errors import LoadError, PeerUnavailable, StorageFailed
from modelswarm.loader.effort import Effort
from modelswarm.loader.leg import Stream

MIB = 1 << 20
SEGMENT = 2 * MIB
TIMEOUT = 120.0


class Origin:
    """The files by path. ``given`` counts bytes by path; ``errors`` are raised once each, ``always`` ever."""

    def __init__(self, files: Mapping[str, bytes]) -> None:
        self.files = dict(files)
        self.given: dict[str, int] = {}
        self.errors: list[LoadError] = []
        self.always: LoadError | None = None
        self.calls = 0

    @property
    def total(self) -> int:
        return sum(self.given.values())


class Leg:
    """One node's way to the origin. ``flips``: of how many reads of a path the first byte arrives inverted, as on a
    broken machine. ``open``: cleared, it gives nothing. ``pause``: seconds between two pieces of half a MiB."""

    def __init__(self, origin: Origin) -> None:
        self.origin = origin
        self.flips: dict[str, int] = {}
        self.pause = 0.0
        self.open = asyncio.Event()
        self.open.set()

    async def fetch(self, file: ManifestFile, sink: Stream, start: int, end: int) -> None:
        self.origin.calls += 1
        if self.origin.always is not None:
            raise self.origin.always
        if self.origin.errors:
            raise self.origin.errors.pop(0)
        await self.open.wait()
        data = bytearray(self.origin.files[file.path])
        if self.flips.get(file.path, 0) > 0:
            self.flips[file.path] -= 1
            data[start] ^= 0xFF
        await sink.begin()
        for at in range(start, end, MIB // 2):
            piece = bytes(data[at : min(at + MIB // 2, end)])
            self.origin.given[file.path] = self.origin.given.get(file.path, 0) + len(piece)
            await sink.write(piece)
            await asyncio.sleep(self.pause)


@dataclass(slots=True)
class _Entry:
    window: Window
    path: Path
    have: set[int]
    told: bool


class Swarm:
    """One node's, played. ``Air`` moves the pieces."""

    def __init__(self, air: "Air", node: str) -> None:
        self.entries: dict[str, _Entry] = {}
        self.node = node
        self.deaf = False
        """It gives and does not take."""
        self.report: Callable[[Event], None] = lambda event: None
        self._air = air
        air.swarms.append(self)

    def share(self, window: Window, path: Path, **joining: Unpack[Joining]) -> None:
        if window.id not in self.entries:
            have = set(joining["have"])
            self.entries[window.id] = _Entry(window, path, have, set(window.piece_numbers()) <= have)
            self._air.stirred.set()

    def drop(self, torrent: str) -> None:
        self.entries.pop(torrent, None)

    def add_peers(self, torrent: str, peers: Iterable[Peer]) -> None:
        self._air.stirred.set()


class Air:
    """Between all swarms."""

    def __init__(self) -> None:
        self.swarms: list[Swarm] = []
        self.stirred = asyncio.Event()
        self.moved = 0
        self.pause = 0.0
        """Seconds that a window takes, one after the other."""

    async def run(self) -> None:
        while True:
            await self.stirred.wait()
            self.stirred.clear()
            for swarm in [each for each in self.swarms if not each.deaf]:
                for identity, entry in list(swarm.entries.items()):
                    if not entry.told and swarm.entries.get(identity) is entry:
                        self._feed(swarm, identity, entry)
                        await asyncio.sleep(self.pause)
                    await asyncio.sleep(0)

    def _feed(self, swarm: Swarm, identity: str, entry: _Entry) -> None:
        window = entry.window
        numbers = list(window.piece_numbers())
        hashes = b"".join(part.hashes for part in window.parts)
        for index, number in enumerate(numbers):
            for other in self.swarms:
                source = other.entries.get(identity)
                if number in entry.have or source is None or number not in source.have:
                    continue
                start = number * window.piece_length
                with source.path.open("rb") as file:
                    file.seek(start)
                    piece = file.read(min(window.piece_length, window.size - start))
                if hashlib.sha1(piece).digest() == hashes[20 * index : 20 * index + 20]:
                    with entry.path.open("r+b") as file:
                        file.seek(start)
                        file.write(piece)
                    entry.have.add(number)
                    self.moved += len(piece)
                    self.stirred.set()
        if set(numbers) <= entry.have:
            entry.told = True
            swarm.report(WindowDone(identity))


@dataclass
class Node:
    """One node of the fleet."""

    name: str
    store: Store
    leg: Leg
    swarm: Swarm
    sharing: Sharing
    fleet: "Fleet"
    events: asyncio.Queue[Event] = field(default_factory=asyncio.Queue)
    members: list[Member] = field(default_factory=list)
    lies: dict[str, bytes] = field(default_factory=dict)
    """What this node gives for small blobs, by key."""
    silent: bool = False
    asked: int = 0
    """Requests for small blobs."""

    @property
    def url(self) -> str:
        return f"http://{self.name}.example:8081"

    async def join(self, filling: Filling, **options: object) -> Member:
        async def open_reader() -> OriginReader:
            if self.fleet.refusal is not None:
                raise self.fleet.refusal
            effort = Effort(attempts=2, first_pause=0.001, longest_pause=0.001)
            return OriginReader(self.leg, self.store.threads, effort=effort)  # type: ignore[arg-type]

        member = Member(
            filling,
            self.fleet.segment_bytes,
            address=Address(self.name, self.url, "127.0.0.1", 6881),
            store=self.store,
            windows=self.sharing.port(),
            client=self.fleet,
            open_reader=open_reader,
            rng=random.Random(self.name),
            **options,  # type: ignore[arg-type]
        )
        self.members.append(member)
        try:
            await member.recover()
        except BaseException:
            await self.leave(member)
            raise
        return member

    async def leave(self, member: Member) -> None:
        await member.close()
        self.members.remove(member)

    async def bring(self, manifest: Manifest, **options: object) -> Filling:
        """The whole way of one content, without a session: until it is complete here."""
        async with await self.store.begin(manifest) as filling:
            member = await self.join(filling, **options)
            talk = asyncio.create_task(self.talk(member))
            try:
                done = asyncio.create_task(member.complete.wait())
                await asyncio.wait({talk, done}, return_when=asyncio.FIRST_COMPLETED)
                if not done.done():
                    done.cancel()
                    await talk
                while not filling.is_complete:
                    # As a session does: what something still writes to is looked at again.
                    with contextlib.suppress(StorageFailed):
                        await filling.complete()
                # The others may need what is here.
                await talk
            finally:
                talk.cancel()
                await asyncio.gather(talk, return_exceptions=True)
                await self.leave(member)
        return filling

    async def talk(self, member: Member) -> None:
        """Until every node of the fleet has everything: one that begins late needs those that were early."""
        while True:
            await member.talk("http://coordinator")
            self.fleet.lacking.discard((self.name, member.stock.filling.content))
            if not any(content == member.stock.filling.content for _, content in self.fleet.lacking):
                return
            member.closed.clear()
            await asyncio.sleep(0.02)

    async def dispatch(self) -> None:
        while True:
            event = await self.events.get()
            self.sharing.hear(event)
            for member in [*self.members]:
                await member.hear(event)


class Fleet:
    """``desks`` are by content id. It is every node's client: reports go to the desks, blobs come from the stores."""

    def __init__(self, directory: Path, segment_bytes: int = SEGMENT) -> None:
        self.segment_bytes = segment_bytes
        self.nodes: dict[str, Node] = {}
        self.desks: dict[str, Desk] = {}
        self.air = Air()
        self.refusal: Exception | None = None
        """Raised by whoever opens the way to the origin."""
        self.reports: list[Report] = []
        self.lacking: set[tuple[str, str]] = set()
        """Nodes and contents: what has still to be brought before anybody leaves."""
        self._directory = directory
        self._stack = contextlib.AsyncExitStack()
        self._tasks: list[asyncio.Task[None]] = []

    async def __aenter__(self) -> "Fleet":
        self._tasks.append(asyncio.create_task(self.air.run()))
        return self

    async def __aexit__(self, *_: object) -> None:
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        await self._stack.aclose()

    async def add(self, name: str, origin: Origin) -> Node:
        store = await self._stack.enter_async_context(
            Store(StoreSettings(self._directory / name, node=name, reserve=0))
        )
        swarm = Swarm(self.air, name)
        node = Node(name, store, Leg(origin), swarm, Sharing(swarm, lambda event: None), self)
        node.sharing.report = swarm.report = node.events.put_nowait
        self.nodes[name] = node
        self._tasks.append(asyncio.create_task(node.dispatch()))
        return node

    def coordinate(self, manifest: Manifest, *, epoch: int = 1) -> Coordinator:
        loop = asyncio.get_running_loop()
        coordinator = Coordinator(
            manifest,
            plan(manifest, self.segment_bytes),
            segment_bytes=self.segment_bytes,
            epoch=epoch,
            now=loop.time(),
        )
        self.lacking |= {(name, coordinator.content_id) for name in self.nodes}
        desk = self.desks[coordinator.content_id] = Desk(coordinator, holds=lambda: True)
        self._tasks.append(asyncio.create_task(desk.run()))
        return coordinator

    async def report(self, url: str, content_id: str, report: Report) -> Answer:
        self.reports.append(report)
        # As on the wire: nothing is shared but what the message says.
        sent = Report.model_validate_json(report.model_dump_json(exclude_defaults=True))
        answer = await self.desks[content_id].report(sent)
        return Answer.model_validate_json(answer.model_dump_json(exclude_defaults=True))

    async def blobs(self, url: str, keys: Sequence[str]) -> dict[str, bytes]:
        node = next(node for node in self.nodes.values() if node.url == url)
        node.asked += 1
        if node.silent:
            raise PeerUnavailable("no answer", url=url)
        found = {key: path.read_bytes() for key in keys if (path := node.store.blob(key)) is not None}
        return found | {key: node.lies[key] for key in keys if key in node.lies}


@contextlib.asynccontextmanager
async def fleet_of(
    directory: Path, files: Mapping[str, bytes], manifest: Manifest, *names: str
) -> AsyncIterator[tuple[Fleet, Origin, Coordinator]]:
    """Nodes, one origin, and a coordinator for one content."""
    async with Fleet(directory) as fleet, asyncio.timeout(TIMEOUT):
        origin = Origin(files)
        for name in names:
            await fleet.add(name, origin)
        yield fleet, origin, fleet.coordinate(manifest)
