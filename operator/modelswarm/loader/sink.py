"""The sink of one span: gathers pieces and writes them in a thread while the next ones arrive."""

import asyncio
import os
from pathlib import Path

from modelswarm.errors import ContentReason
from modelswarm.loader.outcome import Transient
from modelswarm.loader.part import Part, Span
from modelswarm.loader.threads import in_thread

BATCH = 1 << 20
"""Bytes gathered before they are written: a thread for every network read would cost more than the write."""
_MOST_PIECES = 512


class SpanSink:
    """At most two batches are in memory, one being gathered and one being written.

    ``begun`` is set when the source has answered: then it is known whether it honours ranges. ``alone`` says that no
    other span of the file is being fetched: only then may the source send the whole file where a range was asked for.
    """

    def __init__(self, part: Part, span: Span, source: str, *, begun: asyncio.Event, alone: bool) -> None:
        self.span = span
        self._begun = begun
        self._part = part
        self._source = source
        self._alone = alone
        self._pieces: list[bytes | memoryview] = []
        self._gathered = 0
        self._writing: tuple[asyncio.Future[None], int] | None = None

    @property
    def path(self) -> Path:
        return self._part.path

    async def begin(self, *, whole: bool = False) -> None:
        if whole and (self.span.done, self.span.end) != (0, self._part.size):
            if not self._alone:
                raise Transient(ContentReason.SOURCE_UNAVAILABLE, "the source ignores the range that it was asked for")
            self._part.restart(whole=True)
            self.span = self._part.spans[0]
        self._begun.set()

    async def write(self, data: bytes | memoryview) -> None:
        self._pieces.append(data)
        self._gathered += len(data)
        in_flight = self._writing[1] if self._writing else 0
        if self.span.done + in_flight + self._gathered > self.span.end:
            self._pieces.clear()
            self._gathered = 0
            raise Transient(ContentReason.SOURCE_UNAVAILABLE, "the source sends more bytes than it was asked for")
        if self._gathered >= BATCH or len(self._pieces) >= _MOST_PIECES:
            await self._settle()
            self._start_write()

    def growing(self, path: Path) -> None:
        self._part.watch(path)

    async def filled(self) -> None:
        self._part.adopt(self._source)
        if self._part.spans:
            self.span = self._part.spans[0]
        self._begun.set()

    async def flush(self) -> None:
        """Write what was gathered; afterwards everything that was accepted is on disk."""
        await self._settle()
        if self._pieces:
            self._start_write()
            await self._settle()
        await in_thread(self._part.record, force=True)

    def _start_write(self) -> None:
        pieces, count = self._pieces, self._gathered
        self._pieces, self._gathered = [], 0
        loop = asyncio.get_running_loop()
        future = loop.run_in_executor(None, _write, self._part, pieces, self.span.done)
        self._writing = (future, count)

    async def _settle(self) -> None:
        if self._writing is None:
            return
        future, count = self._writing
        # A thread cannot be called back: were the write left alone on cancellation, the descriptor could be closed
        # (and its number be given to another file) under it.
        await asyncio.wait([future])
        # One that failed stays: whoever writes or flushes later hears of it, and no other batch takes its place.
        future.result()
        self._writing = None
        self._part.advance(self.span, count, self._source)


def _write(part: Part, pieces: list[bytes | memoryview], offset: int) -> None:
    views = [memoryview(piece) for piece in pieces]
    while views:
        written = os.pwritev(part.fd, views, offset)
        offset += written
        while views and written >= len(views[0]):
            written -= len(views.pop(0))
        if written:
            views[0] = views[0][written:]
    part.record()
