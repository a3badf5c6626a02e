"""What is on disk of a file that is not complete yet, in a form that survives being killed at any moment.

A file is fetched in one span, or in several at the same time. With one span, the part file's length says how far it is.
With several, a record beside it does; the record is written before the first byte and always after the bytes that it
speaks of, so it may be behind and is never ahead. (After a power cut it can be ahead of the disk; the digest over the
whole file finds that.)
"""

import asyncio
import json
import os
import threading
import time
from contextlib import suppress
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path

from modelswarm.loader.ahead import Ahead
from modelswarm.loader.progress import RESUMED, Meter

_RECORD_SECONDS = 1.0
_AHEAD_SECONDS = 0.05
"""How often a file that another program writes is looked at; nobody tells of its growth."""


@dataclass(slots=True)
class Span:
    """Bytes ``start`` up to ``end`` of the file; those before ``done`` are on disk."""

    start: int
    end: int
    done: int


def split(size: int, span_bytes: int) -> list[Span]:
    """Equal spans of about a sixteenth of the file, not shorter than ``span_bytes``, nor much longer than four of that.

    Short enough that all connections end at about the same time and that hashing, which goes from the front, is not
    left far behind; long enough that requests do not matter.
    """
    if size == 0:
        return []
    count = max(size // min(max(size // 16, span_bytes), 4 * span_bytes), 1)
    edges = [size * index // count for index in range(count + 1)]
    return [Span(start, end, start) for start, end in pairwise(edges)]


class Part:
    """A part file. Blocking methods (``open``, ``commit``, ``discard``) are for a thread."""

    def __init__(self, stem: Path, size: int, span_bytes: int, meter: Meter) -> None:
        self.path = stem.with_name(stem.name + ".part")
        self.size = size
        self.spans: list[Span] = []
        self.epoch = 0
        """Grows whenever bytes that were on disk are given up: whoever has read them must start again."""
        self.furthest = 0
        """The most bytes that were ever on disk: what tells progress from going round in circles."""
        self.fd = -1
        self.ahead: Ahead | None = None
        """The file that another program is writing, to be taken over when it is whole."""
        self._grown = asyncio.Event()
        self._record = stem.with_name(stem.name + ".json")
        self._span_bytes = span_bytes
        self._meter = meter
        self._recorded_at = 0.0
        self._lock = threading.Lock()

    def open(self) -> None:
        """Open or create it; what an earlier run left is taken over as far as the record allows."""
        self.fd = os.open(self.path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW, 0o644)
        length = os.fstat(self.fd).st_size
        restored = self._restore(length)
        self.spans = restored if restored is not None else split(self.size, self._span_bytes)
        if restored is None:
            os.ftruncate(self.fd, 0)
            self._forget()
        self.furthest = self.done
        if self.done:
            self._meter.received(RESUMED, self.done)
        self.record(force=True)

    @property
    def done(self) -> int:
        """Bytes on disk."""
        return sum(span.done - span.start for span in self.spans)

    @property
    def frontier(self) -> int:
        """Bytes on disk without a gap, from the front."""
        return next((span.done for span in self.spans if span.done < span.end), self.size)

    @property
    def pending(self) -> list[Span]:
        return [span for span in self.spans if span.done < span.end]

    def readable(self) -> tuple[int, int]:
        """A descriptor, and up to where its bytes can be read. They count only when ``frontier`` is there, too."""
        if self.ahead is not None and self.done == 0 and (end := self.ahead.end()):
            return self.ahead.fd, end
        return self.fd, self.frontier

    async def growth(self) -> None:
        """Return when there may be more to read, or the epoch has changed."""
        with suppress(TimeoutError):
            async with asyncio.timeout(_AHEAD_SECONDS if self.ahead is not None and self.done == 0 else None):
                await self._grown.wait()
        self._grown.clear()

    def advance(self, span: Span, count: int, source: str) -> None:
        """``count`` bytes more of ``span`` are on disk."""
        span.done += count
        self.furthest = max(self.furthest, self.done)
        self._meter.received(source, count)
        self._grown.set()

    def restart(self, *, whole: bool = False) -> None:
        """Give up what is there; ``whole``: it will come in one piece."""
        self._meter.lost(self.done)
        self.epoch += 1
        if not whole:
            self.furthest = 0
        os.ftruncate(self.fd, 0)
        self._forget()
        self.spans = split(self.size, max(self.size, 1) if whole else self._span_bytes)
        self.record(force=True)
        self._grown.set()

    def respan(self, *, whole: bool) -> None:
        """Choose spans anew while nothing is on disk."""
        spans = split(self.size, max(self.size, 1) if whole else self._span_bytes)
        if len(spans) != len(self.spans):
            self.restart(whole=whole)

    def watch(self, path: Path) -> None:
        """Another program writes the whole file at ``path``, from now on until ``adopt`` or ``unwatch``."""
        if self.ahead is None:
            self.ahead = Ahead(path, self.size)
            self._grown.set()

    def unwatch(self) -> None:
        """Forget that file; nobody reads it any more."""
        if self.ahead is not None:
            self.ahead.close()
            self.ahead = None

    def adopt(self, source: str) -> None:
        """Take over a file that another program has put at ``path``."""
        os.close(self.fd)
        self.fd = os.open(self.path, os.O_RDWR | os.O_CLOEXEC | os.O_NOFOLLOW)
        self._meter.lost(self.done)
        if self.done or self.ahead is None or not self.ahead.is_file(self.fd):
            self.epoch += 1
        self._forget()
        self.spans = split(self.size, max(self.size, 1))
        if os.fstat(self.fd).st_size == self.size:
            for span in self.spans:
                self.advance(span, self.size, source)
        self._grown.set()

    def record(self, *, force: bool = False) -> None:
        """Note on disk how far each span is, at most once a second unless forced. Safe from several threads."""
        if len(self.spans) < 2 or not (force or time.monotonic() - self._recorded_at > _RECORD_SECONDS):
            return
        with self._lock:
            self._recorded_at = time.monotonic()
            text = json.dumps([[span.start, span.end, span.done] for span in self.spans])
            fresh = self._record.with_name(self._record.name + ".new")
            fresh.write_text(text)
            fresh.replace(self._record)

    def commit(self, target: Path) -> None:
        """Make it the file: durable under its name, or not there."""
        os.ftruncate(self.fd, self.size)
        os.fsync(self.fd)
        target.parent.mkdir(parents=True, exist_ok=True)
        self.path.replace(target)
        self._forget()
        directory = os.open(target.parent, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        try:
            os.fsync(directory)
        finally:
            os.close(directory)

    def discard(self) -> None:
        """Remove it from the disk."""
        self.path.unlink(missing_ok=True)
        self._forget()

    def close(self) -> None:
        """Note how far it is and close it; a later run continues."""
        self.unwatch()
        if self.fd < 0:
            return
        if self.path.exists():
            with suppress(OSError):
                self.record(force=True)
        os.close(self.fd)
        self.fd = -1

    def _forget(self) -> None:
        self._record.unlink(missing_ok=True)

    def _restore(self, length: int) -> list[Span] | None:
        try:
            entries = json.loads(self._record.read_text())
            spans = [Span(int(start), int(end), int(done)) for start, end, done in entries]
        except FileNotFoundError:
            spans = split(self.size, self._span_bytes)
            if len(spans) > 1 or length > self.size:
                return None
            for span in spans:
                span.done = length
            return spans
        except (ValueError, TypeError):
            return None
        edges = [0, *(span.end for span in spans)]
        sound = edges[-1] == self.size and all(
            span.start == edge
            and span.start <= span.done <= span.end
            and (span.done == span.start or span.done <= length)
            for span, edge in zip(spans, edges, strict=False)
        )
        return spans if sound else None
