"""This node's part in bringing one content to everybody: it reports, reads what it is given, takes what others have.

Coordinators may come and go; what a member knows and has stays with it. Everything that it does can be done again: a
report says its whole state, and a segment that was read or fetched twice is the same segment.
"""

import asyncio
import contextlib
import hashlib
import logging
import random
from collections.abc import Callable, Coroutine, Sequence
from dataclasses import dataclass
from pathlib import Path

from modelswarm.agent import bits
from modelswarm.agent.exchange import Exchange, SwarmPort
from modelswarm.agent.holdings import Holdings
from modelswarm.agent.messages import Answer, BadFile, Busy, Failure, PeerInfo, Publication, Report
from modelswarm.agent.metainfo.client import MetainfoClient
from modelswarm.agent.metainfo.routes import MAX_BLOBS
from modelswarm.agent.origin import OriginReader
from modelswarm.agent.segments import Segment, plan
from modelswarm.agent.store import Filling, Partial, Store
from modelswarm.agent.swarm import Event, Peer, piece_hashes, piece_length
from modelswarm.content.manifest import ManifestFile
from modelswarm.errors import ContentError, DigestMismatch, PeerError, RateLimited, StoreError

CONNECTIONS = 8
"""To the origin, of all members together, as far as few members can give that many."""
AHEAD = 1
"""Segments that a node is given beyond those that it reads, so that it never waits for the next."""
BUNDLES_AT_ONCE = 4
VERIFIES_AT_ONCE = 2
BUNDLE_PAUSE = 0.5
COALESCE_SECONDS = 0.02
"""What happens within so short a time goes into one report."""
_HASHED = 4 << 20

log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Address:
    """Where this node is reached by the others."""

    node: str
    url: str
    host: str
    port: int


@dataclass(slots=True)
class Counts:
    """Bytes of content that came here."""

    origin: int = 0
    peers: int = 0


OpenReader = Callable[[], Coroutine[None, None, OriginReader]]
"""Made when the first segment has to be read: until then no credentials are needed."""


class Member:
    """``changed`` is called when the standing may be another one, ``mismatched`` for a file with a wrong digest."""

    def __init__(
        self,
        filling: Filling,
        segment_bytes: int,
        *,
        address: Address,
        store: Store,
        swarm: SwarmPort,
        client: MetainfoClient,
        open_reader: OpenReader,
        meet: Callable[[Sequence[PeerInfo]], None] = lambda peers: None,
        changed: Callable[[], None] = lambda: None,
        mismatched: Callable[[], None] = lambda: None,
        rng: random.Random | None = None,
    ) -> None:
        self.segment_bytes = segment_bytes
        self.failure: Failure | None = None
        """Why the content cannot be had, for anybody; or (retryable) what went wrong last."""
        self.trouble: StoreError | None = None
        """Why this node cannot go on: its disk."""
        self.counts = Counts()
        self.complete = asyncio.Event()
        self.closed = asyncio.Event()
        """Everybody has everything, says the coordinator."""
        manifest = filling.manifest
        self.files = sorted(manifest.files)
        self.keys = [filling.key(file.path) for file in self.files]
        self.holdings = Holdings(self.files, plan(manifest, segment_bytes))
        self._filling = filling
        self._address = address
        self._store = store
        self._client = client
        self._open_reader = open_reader
        self._discover = meet
        self._changed = changed
        self._mismatched = mismatched
        self._rng = rng or random.Random()
        self._exchange = Exchange(
            self.holdings,
            self.keys,
            node=address.node,
            content=filling.content,
            swarm=swarm,
            place=self._place,
        )
        self._partials: dict[int, Partial] = {}
        self._reader: OriginReader | None = None
        self._reading = asyncio.Lock()
        self._news = asyncio.Event()
        self._epoch = 0
        self._cursor = 0
        self._outbox: list[Publication] = []
        self._failed: dict[int, Failure] = {}
        self._bad: dict[int, BadFile] = {}
        self._digests: dict[int, str] = {}
        """Those that hold, of files that the manifest has none for."""
        self._found: dict[int, str] = {}
        """Those that this node has computed."""
        self._peers: dict[str, PeerInfo] = {}
        self._assigned: list[int] = []
        self._ending = False
        self._tasks: dict[tuple[str, int], asyncio.Task[None]] = {}
        self._holders: dict[int, tuple[str, ...]] = {}
        self._paused_until = 0.0
        self._bundles = asyncio.Semaphore(BUNDLES_AT_ONCE)
        self._verifies = asyncio.Semaphore(VERIFIES_AT_ONCE)

    # What others ask

    @property
    def reads_origin(self) -> bool:
        return any(kind == "read" for kind, _ in self._tasks)

    @property
    def peers(self) -> int:
        return len(self._peers)

    @property
    def requests(self) -> int:
        """To the origin."""
        return self._reader.traffic.requests if self._reader is not None else 0

    # Life

    async def recover(self) -> None:
        """Take stock of what an earlier run, or another content, has left."""
        for number, file in enumerate(self.files):
            if self.keys[number] in self._filling.verified:
                self.holdings.verify(number)
            elif file.size and not self._is_small(number):
                partial = await self._partial(number)
                for segment in self.holdings.segments_of(number):
                    if not segment.is_bundle and partial.covers(segment.offset, segment.length):
                        hashes = await self._hash_range(number, segment)
                        self._outbox.append(await self._exchange.offer(segment, hashes))
                        self.holdings.arrived(segment.index)
        self._look_at_files(range(len(self.files)))
        self._check_complete()

    async def talk(self, url: str) -> None:
        """Report to the coordinator at ``url`` and do what it says, until cancelled or ``closed``. Raises PeerError."""
        pending: dict[asyncio.Task[Answer], Report] = {}
        try:
            while not self.closed.is_set():
                if pending:
                    await asyncio.sleep(COALESCE_SECONDS)
                self._news.clear()
                report = self._report()
                pending[asyncio.create_task(self._client.report(url, self._filling.content, report))] = report
                news = asyncio.create_task(self._news.wait())
                try:
                    await asyncio.wait({*pending, news}, return_when=asyncio.FIRST_COMPLETED)
                finally:
                    news.cancel()
                for request in [each for each in pending if each.done()]:
                    self._told(pending.pop(request))
                    await self._apply(request.result())
        finally:
            for request in pending:
                request.cancel()
            await asyncio.gather(*pending, return_exceptions=True)

    def look(self) -> None:
        """Files may have come another way: with another content, or as a whole torrent."""
        self._look_at_files(range(len(self.files)))
        self._news.set()

    async def hear(self, event: Event) -> bool:
        """An event of the swarm; whether it was about this content."""
        arrivals = await self._exchange.hear(event)
        if arrivals is None:
            return False
        for arrival in arrivals:
            segment = arrival.segment
            self.counts.peers += segment.length
            file = self.files[segment.file]
            await self._filling.mark(
                self.keys[segment.file],
                segment.offset,
                segment.length,
                piece_length=piece_length(file.size),
                hashes=arrival.hashes,
            )
            self._look_at_files([segment.file])
        if arrivals:
            self._news.set()
            self._changed()
        return True

    async def close(self) -> None:
        """Stop everything. What is on disk stays."""
        self._ending = True  # or the end of one read would begin the next
        tasks = list(self._tasks.values())
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        self._exchange.close()

    # Reporting

    def _report(self) -> Report:
        working = {number: self._progress(number) for kind, number in self._tasks if kind == "read"}
        working |= {number: 0 for number in self._assigned if not self.holdings.has(number)}
        by_key = {key: number for number, key in reversed(list(enumerate(self.keys)))}
        busy = [
            Busy(file=by_key[key], content=filler)
            for key in self._filling.busy()
            if (filler := self._store.filler(key)) is not None
        ]
        return Report(
            node=self._address.node,
            url=self._address.url,
            host=self._address.host,
            port=self._address.port,
            epoch=self._epoch,
            cursor=self._cursor,
            have=bits.to_bytes(self.holdings.have),
            verified=bits.to_bytes(self.holdings.verified),
            published=tuple(self._outbox),
            working=working,
            busy=tuple(busy),
            bad=tuple(self._bad.values()),
            failed=dict(self._failed),
            digests=dict(self._found),
            complete=self.complete.is_set(),
            wants=self._wants(),
        )

    def _told(self, report: Report) -> None:
        """The report was answered."""
        told = set(map(id, report.published))
        self._outbox = [each for each in self._outbox if id(each) not in told]
        self._failed = {number: each for number, each in self._failed.items() if report.failed.get(number) != each}

    def _wants(self) -> int:
        if self.complete.is_set() or self.trouble is not None:
            return 0
        return self._parallel() + AHEAD

    def _parallel(self) -> int:
        return max(1, CONNECTIONS // (1 + len(self._peers)))

    def _progress(self, number: int) -> int:
        segment = self.holdings.segments[number]
        if segment.is_bundle:
            return sum(self.files[file].size for file in segment.files if self._is_placed(file))
        partial = self._partials.get(segment.file)
        return min(partial.reach(segment.offset) - segment.offset, segment.length) if partial is not None else 0

    # Doing what the coordinator says

    async def _apply(self, answer: Answer) -> None:
        if answer.epoch != self._epoch:
            self._epoch, self._cursor = answer.epoch, 0
        self._cursor = max(self._cursor, answer.cursor)
        self._meet(answer)
        self._digests.update(answer.digests)
        self._holders.update(answer.holders)
        self.failure = answer.failure
        loop = asyncio.get_running_loop()
        self._paused_until = loop.time() + answer.pause
        for number in await self._forgotten(await self._exchange.learn(answer.published)):
            self._cancel("read", number)
        for number in answer.revoke:
            self._cancel("read", number)
        self._assigned = [number for number in answer.assign if not self.holdings.has(number)]
        for number in answer.asked:
            self._start("publish", number, self._publish(self.holdings.segments[number]))
        for number in answer.holders:
            if not self.holdings.has(number) and ("read", number) not in self._tasks:
                self._start("bundle", number, self._bring_bundle(self.holdings.segments[number]))
        self._read_on()
        if not answer.open and self.complete.is_set():
            self.closed.set()
        self._changed()

    def _meet(self, answer: Answer) -> None:
        self._discover(answer.peers)
        gone = [peer.node for peer in answer.peers if peer.gone or peer.node in answer.shunned]
        for peer in answer.peers:
            self._peers[peer.node] = peer
        for name in gone:
            self._peers.pop(name, None)
        self._exchange.meet(
            [Peer(peer.node, peer.host, peer.port) for peer in answer.peers if peer.node not in gone], gone
        )

    async def _forgotten(self, replaced: Sequence[Segment]) -> list[int]:
        """Other bytes hold for these segments now: what is here of them goes."""
        for segment in replaced:
            partial = await self._partial(segment.file)
            partial.drop(segment.offset, segment.length)
            self._bad.pop(segment.file, None)
        return [segment.index for segment in replaced]

    def _read_on(self) -> None:
        """Begin with the next of the assigned segments, as many at once as this node may."""
        active = sum(kind == "read" for kind, _ in self._tasks)
        for number in self._assigned:
            if active >= self._parallel():
                return
            if ("read", number) not in self._tasks and not self.holdings.has(number) and number not in self._failed:
                self._start("read", number, self._read(self.holdings.segments[number]))
                active += 1

    def _start(self, kind: str, number: int, work: Coroutine[None, None, None]) -> None:
        if self._ending or (kind, number) in self._tasks:
            work.close()
            return
        task = asyncio.create_task(
            self._guard(work, tell=kind != "ahead"), name=f"{kind} {self._filling.content[:16]}/{number}"
        )
        self._tasks[kind, number] = task
        task.add_done_callback(lambda _: self._ended(kind, number))

    def _ended(self, kind: str, number: int) -> None:
        self._tasks.pop((kind, number), None)
        if kind == "read":
            self._read_on()

    def _cancel(self, kind: str, number: int) -> None:
        if (task := self._tasks.get((kind, number))) is not None:
            task.cancel()

    async def _guard(self, work: Coroutine[None, None, None], *, tell: bool) -> None:
        """The disk may refuse at any step, and then this node stops to help; anything else is a defect, and is told."""
        try:
            await work
        except StoreError as error:
            self.trouble = error
            self._changed()
        except asyncio.CancelledError:
            raise
        except Exception:
            log.exception("P2P %s: a step failed", self._filling.content[:16])
        finally:
            if tell:
                self._news.set()

    # Reading the origin

    async def _read(self, segment: Segment) -> None:
        loop = asyncio.get_running_loop()
        await asyncio.sleep(max(0.0, self._paused_until - loop.time()))
        try:
            reader = await self._get_reader()
            if segment.is_bundle:
                missing = [self.files[number] for number in segment.files if not self._is_placed(number)]
                await reader.read_small(missing, self._accept)
                self.counts.origin += sum(file.size for file in missing)
                self._look_at_files(segment.files)
            else:
                file = self.files[segment.file]
                partial = await self._partial(segment.file)
                had = partial.reach(segment.offset) - segment.offset
                hashes = await reader.read(
                    file, partial, segment.offset, segment.length, piece_length=piece_length(file.size)
                )
                self.counts.origin += segment.length - min(had, segment.length)
                self.holdings.arrived(segment.index)
                self._outbox.append(await self._exchange.offer(segment, hashes))
                self._look_at_files([segment.file])
        except ContentError as error:
            self._failed[segment.index] = _failure(error)
            log.warning("P2P %s: cannot read the origin: %s", self._filling.content[:16], error.message)
        except DigestMismatch as error:
            self._failed[segment.index] = Failure(reason=error.reason, message=str(error)[:512], retryable=True)
        finally:
            self._changed()

    async def _get_reader(self) -> OriginReader:
        async with self._reading:
            if self._reader is None:
                self._reader = await self._open_reader()
            return self._reader

    async def _accept(self, file: ManifestFile, data: bytes) -> None:
        number = self._number(file)
        verified = await self._filling.write_small(file.path, data, self._digest(number))
        self._note_digest(number, verified.sha256)

    # Taking what others have

    async def _bring_bundle(self, segment: Segment) -> None:
        """Get the small files of a bundle from somebody who has them."""
        async with self._bundles:
            while not self.holdings.has(segment.index):
                missing = [number for number in segment.files if not self._is_placed(number)]
                urls = [url for url in self._holders.get(segment.index, ()) if url != self._address.url]
                if not missing or not urls:
                    return
                if await self._bring_from(self._rng.choice(urls), missing):
                    self._look_at_files(segment.files)
                else:
                    await asyncio.sleep(BUNDLE_PAUSE * self._rng.uniform(0.5, 1.5))

    async def _bring_from(self, url: str, missing: Sequence[int]) -> bool:
        """Whether all of them came, and were right."""
        try:
            blobs = await self._client.blobs(url, [self.keys[number] for number in missing[:MAX_BLOBS]])
        except PeerError as error:
            log.debug("P2P %s: no small files from %s: %s", self._filling.content[:16], url, error)
            return False
        for number in missing:
            data = blobs.get(self.keys[number])
            if data is None:
                return False
            try:
                await self._accept(self.files[number], data)
            except DigestMismatch as error:
                log.warning("P2P %s: %s from %s: %s", self._filling.content[:16], self.files[number].path, url, error)
                return False
            self.counts.peers += len(data)
        return True

    # Verifying

    def _look_at_files(self, numbers: Sequence[int]) -> None:
        """Files that are in place count; those that are filled are verified."""
        for number in numbers:
            if self._is_placed(number):
                self.holdings.verify(number)
            elif self.files[number].size and not self._is_small(number):
                self._start("ahead", number, self._filling.hash_ahead(self.keys[number]))
                if self.holdings.is_filled(number) and number not in self._bad:
                    self._start("verify", number, self._verify(number))
        self._check_complete()

    async def _verify(self, number: int) -> None:
        async with self._verifies:
            try:
                verified = await self._filling.finish(self.keys[number], self._digest(number))
            except DigestMismatch as error:
                await self._mismatch(number, error)
                return
            except ValueError:
                return  # ranges were dropped meanwhile; they will come again
        self._note_digest(number, verified.sha256)
        self.holdings.verify(number)
        self._check_complete()
        self._changed()

    async def _mismatch(self, number: int, error: DigestMismatch) -> None:
        self._mismatched()
        if error.damaged:
            # What arrived was right and what is on the disk is not: fetch that again.
            lost = {
                segment.index: segment
                for start, end in error.damaged
                for segment in self.holdings.ranges_in(number, start, end - start)
            }
            await self._exchange.refetch(lost.values())
            return
        publishers = self._exchange.publishers(number)
        log.error("P2P %s: %s, published by %s", self._filling.content[:16], error, ", ".join(publishers) or "nobody")
        self._bad[number] = BadFile(file=number, publishers=publishers)

    def _check_complete(self) -> None:
        if self.holdings.complete and not self._filling.missing() and not self.complete.is_set():
            self.complete.set()
            self._news.set()

    async def _publish(self, segment: Segment) -> None:
        """The coordinator wants to know the hashes of a segment that is here."""
        if not self.holdings.has(segment.index) or segment.is_bundle:
            return
        hashes = self._exchange.hashes(segment.index) or await self._hash_range(segment.file, segment)
        self._outbox.append(await self._exchange.offer(segment, hashes))

    # Files

    async def _place(self, number: int) -> Path:
        key = self.keys[number]
        if key in self._filling.verified and self._store.filler(key) is None:
            return self._store.shelf.blob(key)
        return (await self._partial(number)).path

    async def _partial(self, number: int) -> Partial:
        partial = self._partials[number] = await self._filling.partial(self.keys[number])
        return partial

    async def _hash_range(self, number: int, segment: Segment) -> bytes:
        path, size = await self._place(number), piece_length(self.files[number].size)
        return await asyncio.to_thread(_hash_pieces, path, segment.offset, segment.length, size)

    def _is_small(self, number: int) -> bool:
        return any(segment.is_bundle for segment in self.holdings.segments_of(number))

    def _is_placed(self, number: int) -> bool:
        return self.keys[number] in self._filling.verified

    def _number(self, file: ManifestFile) -> int:
        return self.files.index(file)

    def _digest(self, number: int) -> str | None:
        """The first reader's, of a file that the manifest has none for (hex)."""
        return self._digests[number].removeprefix("sha256:") if number in self._digests else None

    def _note_digest(self, number: int, sha256: str) -> None:
        if self.files[number].digest is None:
            self._found[number] = f"sha256:{sha256}"


def _failure(error: ContentError) -> Failure:
    return Failure(
        reason=error.reason,
        message=error.message[:512],
        retryable=error.retryable,
        retry_after=error.retry_after if isinstance(error, RateLimited) else None,
    )


def _hash_pieces(path: Path, offset: int, length: int, piece: int) -> bytes:
    found = bytearray()
    with contextlib.closing(path.open("rb")) as file:
        file.seek(offset)
        while length > 0:
            want = min(length, max(piece, _HASHED - _HASHED % piece))
            chunk = file.read(want)
            if len(chunk) < want:
                return hashlib.sha1(b"", usedforsecurity=False).digest()
            found += piece_hashes(chunk, piece)
            length -= want
    return bytes(found)
