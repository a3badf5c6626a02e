"""Where the bytes go that a leg brings: a range of a partial, or memory."""

import asyncio
import errno
import hashlib
from collections.abc import Awaitable, Callable

from modelswarm.agent.store.partial import Partial
from modelswarm.agent.store.threads import Threads
from modelswarm.content.manifest import ManifestFile
from modelswarm.errors import ContentReason
from modelswarm.loader.digests import SLICE, hash_range
from modelswarm.loader.outcome import Transient

BATCH = 1 << 20
"""Bytes that are written and hashed in one go in a thread."""
_MOST_PIECES = 256

Received = Callable[[int], Awaitable[None]]
"""Awaited with the number of bytes that have arrived; it may take its time, which slows the source down."""
OnPiece = Callable[[int, bytes], None]
"""Called with a piece's index in the file and its SHA-1."""


class RangeSink:
    """A range of a partial, filled from its start: batches are written and hashed in a thread while the next arrive."""

    def __init__(
        self,
        partial: Partial,
        start: int,
        end: int,
        piece_length: int,
        threads: Threads,
        received: Received,
        on_piece: OnPiece | None,
    ) -> None:
        self.done = start
        self.end = end
        self._partial = partial
        self._start = start
        self._piece_length = piece_length
        self._threads = threads
        self._received = received
        self._on_piece = on_piece
        self._state = hashlib.sha1(usedforsecurity=False)
        self._hashes: list[bytes] = []
        self._reported = 0
        self._gathered: list[bytes | memoryview] = []
        self._count = 0
        self._writing: tuple[asyncio.Task[None], int] | None = None

    @property
    def hashes(self) -> bytes:
        """Of the pieces that are whole, joined."""
        return b"".join(self._hashes)

    async def take_over(self) -> None:
        """Hash what an earlier run has left of the range."""
        reach = min(self._partial.reach(self._start), self.end)
        while self.done < reach:
            end = min(self.done + SLICE, reach)
            await self._threads.run(self._hash_from_disk, self.done, end)
            self.done = end
            self._report()

    async def begin(self, *, whole: bool = False) -> None:
        if whole and (self.done, self.end) != (0, self._partial.size):
            # The other ranges are other nodes' work: what was not asked for must not be read to be thrown away.
            raise Transient(ContentReason.SOURCE_UNAVAILABLE, "the origin ignores the range that it was asked for")

    async def write(self, data: bytes | memoryview) -> None:
        in_flight = self._writing[1] if self._writing else 0
        if self.done + in_flight + self._count + len(data) > self.end:
            raise Transient(ContentReason.SOURCE_UNAVAILABLE, "the origin sends more bytes than it was asked for")
        self._gathered.append(data)
        self._count += len(data)
        await self._received(len(data))
        if self._count >= BATCH or len(self._gathered) >= _MOST_PIECES:
            await self._settle()
            self._start_write()

    async def flush(self) -> None:
        """Write what has arrived; afterwards ``done`` bytes are in the file, hashed and in the journal."""
        await self._settle()
        if self._gathered:
            self._start_write()
            await self._settle()
        await self._threads.run(self._partial.flush)

    def _start_write(self) -> None:
        gathered, count = self._gathered, self._count
        self._gathered, self._count = [], 0
        self._writing = (asyncio.create_task(self._threads.run(self._write, gathered, self.done)), count)

    async def _settle(self) -> None:
        if self._writing is None:
            return
        task, count = self._writing
        # The write goes on when we are cancelled, and it counts: the caller flushes in any case.
        await asyncio.wait([task])
        # One that failed stays: whoever writes or flushes later hears of it, and no other batch takes its place.
        task.result()
        self._writing = None
        self._partial.mark(self.done, count)
        self.done += count
        self._report()

    def _write(self, gathered: list[bytes | memoryview], offset: int) -> None:
        at = offset
        for data in gathered:
            self._hash(memoryview(data), at)
            at += len(data)
        self._partial.write(gathered, offset)
        # What was marked before, the last batch among it: killed now, little has to be read again.
        self._partial.flush()

    def _hash(self, view: memoryview, at: int) -> None:
        while view:
            room = self._piece_length - at % self._piece_length
            self._state.update(view[:room])
            at += len(view[:room])
            view = view[room:]
            self._end_piece(at)

    def _hash_from_disk(self, start: int, end: int) -> None:
        while start < end:
            stop = min(end, start - start % self._piece_length + self._piece_length)
            with self._partial.descriptor() as fd:
                reached = hash_range(fd, self._state, start, stop)
            if reached < stop:
                raise OSError(errno.EIO, "bytes that were written are not there", str(self._partial.path))
            start = stop
            self._end_piece(start)

    def _end_piece(self, at: int) -> None:
        if at % self._piece_length == 0 or at == self.end:
            self._hashes.append(self._state.digest())
            self._state = hashlib.sha1(usedforsecurity=False)

    def _report(self) -> None:
        if self._on_piece is not None:
            for index in range(self._reported, len(self._hashes)):
                self._on_piece(self._start // self._piece_length + index, self._hashes[index])
        self._reported = len(self._hashes)


class MemorySink:
    """A whole small file in memory."""

    def __init__(self, file: ManifestFile, received: Received) -> None:
        self.data = bytearray()
        self._size = file.size
        self._received = received

    @property
    def done(self) -> int:
        return len(self.data)

    async def begin(self, *, whole: bool = False) -> None:
        if whole:
            self.data.clear()

    async def write(self, data: bytes | memoryview) -> None:
        if len(self.data) + len(data) > self._size:
            raise Transient(ContentReason.SOURCE_UNAVAILABLE, "the origin sends more bytes than it was asked for")
        self.data += data
        await self._received(len(data))
