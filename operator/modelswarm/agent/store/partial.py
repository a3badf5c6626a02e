"""A file that is being filled in place, in any order, by any number of writers.

The file has its full length from the start and holes where nothing was written. A journal beside it says which ranges
are there, and has the piece hashes of those that were published. A range is noted after its bytes were written, so the
journal may be behind and is never ahead; but a power cut can take bytes that the journal speaks of. Under another boot
only ranges whose hashes still fit are believed. Whatever happens, the digest of the whole file decides at the end.
"""

import base64
import errno
import hashlib
import os
import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

from modelswarm.agent.store.journal import Journal, Line
from modelswarm.agent.store.ranges import Ranges
from modelswarm.agent.store.verify import BlobHash
from modelswarm.content.manifest import ManifestFile
from modelswarm.loader.digests import SLICE, hash_range

_HASH = 20


@dataclass(frozen=True, slots=True)
class Pieces:
    """SHA-1 hashes (20 bytes each, joined) of the pieces of a range; the last piece may be short."""

    offset: int
    length: int
    piece_length: int
    hashes: bytes

    def __post_init__(self) -> None:
        if self.piece_length <= 0 or len(self.hashes) != _HASH * -(-self.length // self.piece_length):
            raise ValueError("the hashes are not those of the range's pieces")


class Partial:
    """One file's partial. Safe from several threads; ``open``, ``flush``, ``recheck`` and ``hash_ahead`` block."""

    def __init__(self, path: Path, key: str, file: ManifestFile, boot: str) -> None:
        self.path = path
        self.key = key
        self.size = file.size
        self.fd = -1
        self._file = file
        self._boot = boot
        self._journal = Journal(path.with_name(path.name + ".json"))
        self._lock = threading.RLock()
        self._idle = threading.Condition()
        self._uses = 0
        self._hashing = threading.Lock()
        self._present = Ranges()
        self._pieces: dict[int, Pieces] = {}
        self._pending: list[Line] = []
        self._fresh = Ranges()
        self._hash: BlobHash | None = None
        self._hashed = 0

    @property
    def present(self) -> list[tuple[int, int]]:
        """The ranges (start, end) that are there, in order."""
        with self._lock:
            return list(self._present)

    @property
    def filled(self) -> int:
        """Bytes that are there."""
        with self._lock:
            return self._present.total

    def covers(self, offset: int, length: int) -> bool:
        with self._lock:
            return self._present.covers(offset, offset + length)

    def missing(self, offset: int = 0, length: int | None = None) -> list[tuple[int, int]]:
        """The ranges (start, end) within ``offset`` and ``offset + length`` that are not there."""
        with self._lock:
            return self._present.missing(offset, self.size if length is None else offset + length)

    def reach(self, offset: int) -> int:
        """Up to where the bytes from ``offset`` on are there without a gap."""
        with self._lock:
            return self._present.reach(offset)

    def pieces(self) -> list[Pieces]:
        """The published ranges that are there, with their hashes, in order."""
        with self._lock:
            return [self._pieces[offset] for offset in sorted(self._pieces)]

    def mark(self, offset: int, length: int, *, piece_length: int = 0, hashes: bytes = b"") -> None:
        """Bytes ``offset`` to ``offset + length`` are written; with ``hashes``, they were published or came as pieces.

        Does not block: the journal follows with ``flush``. Idempotent. Raises ``ValueError`` for a range or hashes
        that are not the file's.
        """
        if offset < 0 or length <= 0 or offset + length > self.size:
            raise ValueError(f"{offset}+{length} is not a range of {self.size} bytes")
        pieces = Pieces(offset, length, piece_length, hashes) if hashes else None
        with self._lock:
            if offset < self._hashed and not self._present.covers(offset, min(offset + length, self._hashed)):
                self._forget_hash()
            if pieces is None:
                for start, end in self._present.missing(offset, offset + length):
                    self._fresh.add(start, end)
            elif self._pieces.get(offset) != pieces:
                self._pieces[offset] = pieces
                self._pending.append(_line(pieces))
                self._fresh.remove(offset, offset + length)
            self._present.add(offset, offset + length)

    def drop(self, offset: int, length: int) -> None:
        """Bytes that were there are not to be believed; published ranges that they belong to are forgotten."""
        with self._lock:
            end = offset + length
            self._present.remove(offset, end)
            self._fresh.remove(offset, end)
            for start in [at for at, it in self._pieces.items() if at < end and offset < at + it.length]:
                del self._pieces[start]
            if offset < self._hashed:
                self._forget_hash()
            self._pending.append({"drop": [offset, end]})

    def flush(self) -> None:
        """Bring the journal up to date (a small write, in a thread)."""
        with self._lock:
            lines = list(self._pending)
            if self._fresh.total:
                lines.append({"ranges": [list(item) for item in self._fresh]})
            if lines and self._journal.is_open:
                self._journal.append(lines)
            self._fresh = Ranges()
            self._pending = []

    @contextmanager
    def descriptor(self) -> Iterator[int]:
        """The open file, which stays open while it is used. Raises ``OSError`` (EBADF) when the partial is closed.

        Without this a late thread would write to a number that belongs to another file by then.
        """
        with self._idle:
            if self.fd < 0:
                raise OSError(errno.EBADF, "the partial is closed", str(self.path))
            self._uses += 1
        try:
            yield self.fd
        finally:
            with self._idle:
                self._uses -= 1
                self._idle.notify_all()

    def write(self, pieces: Sequence[bytes | memoryview], offset: int) -> None:
        """Write pieces one after the other from ``offset`` on (in a thread); ``mark`` them afterwards."""
        views = [memoryview(piece) for piece in pieces]
        with self.descriptor() as fd:
            while views:
                written = os.pwritev(fd, views, offset)
                offset += written
                while views and written >= len(views[0]):
                    written -= len(views.pop(0))
                if written:
                    views[0] = views[0][written:]

    def open(self) -> None:
        """Take over what an earlier run left."""
        self.fd = os.open(self.path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW, 0o644)
        found = os.fstat(self.fd)
        same_boot = self._restore() if found.st_size == self.size else True
        if found.st_size != self.size:
            # Another length: not a file that we have prepared, or one whose preparation was cut short. The journal goes
            # first: killed in between, the next run would believe it of a file full of holes.
            self._journal.path.unlink(missing_ok=True)
            os.ftruncate(self.fd, 0)
            os.ftruncate(self.fd, self.size)
        if not same_boot:
            self.recheck()
            self._present = Ranges((item.offset, item.offset + item.length) for item in self._pieces.values())
        self._journal.rewrite(self._snapshot())
        self._fresh = Ranges()
        self._pending.clear()

    def recheck(self) -> list[tuple[int, int]]:
        """Hold published ranges against their hashes; those pieces that do not fit are dropped and returned."""
        wrong = Ranges()
        for item in self.pieces():
            for index in range(len(item.hashes) // _HASH):
                start = item.offset + index * item.piece_length
                end = min(start + item.piece_length, item.offset + item.length)
                state = hashlib.sha1(usedforsecurity=False)
                with self.descriptor() as fd:
                    reached = hash_range(fd, state, start, end)
                if reached < end or state.digest() != item.hashes[index * _HASH : (index + 1) * _HASH]:
                    wrong.add(start, end)
        for start, end in wrong:
            self.drop(start, end - start)
        return list(wrong)

    def hash_ahead(self, limit: int = SLICE) -> int:
        """Hash up to ``limit`` bytes more of what is there from the front; returns how far hashing is.

        Called while the file fills, it leaves little to do when the last byte arrives.
        """
        with self._hashing:
            with self._lock:
                if self._hash is None:
                    self._hash, self._hashed = BlobHash(self._file), 0
                state, start = self._hash, self._hashed
                end = min(self._present.reach(start), start + limit)
            with self.descriptor() as fd:
                reached = hash_range(fd, state, start, end)
            with self._lock:
                # Dropped meanwhile: what was hashed here is of no use.
                if self._hash is state:
                    self._hashed = reached
                return self._hashed

    def take_hash(self) -> BlobHash | None:
        """The hash over the whole file, once; None when hashing is not that far."""
        with self._lock:
            state = self._hash if self._hashed == self.size else None
            self._forget_hash()
            return state

    def close(self) -> None:
        with suppress(OSError):
            self.flush()
        with self._idle:
            fd, self.fd = self.fd, -1
            self._idle.wait_for(lambda: self._uses == 0)
            if fd >= 0:
                os.close(fd)
        with self._lock:
            self._journal.close()

    def remove(self) -> None:
        """Close it and remove its name and its journal (a blob that was linked from it stays)."""
        self.close()
        self.path.unlink(missing_ok=True)
        self._journal.path.unlink(missing_ok=True)

    def _forget_hash(self) -> None:
        self._hash, self._hashed = None, 0

    def _snapshot(self) -> list[Line]:
        head: Line = {"format": 1, "size": self.size, "boot": self._boot}
        ranges: Line = {"ranges": [list(item) for item in self._present]}
        return [head, ranges, *(_line(item) for item in self.pieces())]

    def _restore(self) -> bool:
        """Read the journal; False when it was written under another boot."""
        head, *lines = self._journal.read() or [{}]
        if head.get("format") != 1 or head.get("size") != self.size:
            return True
        for line in lines:
            with suppress(ValueError, TypeError):
                match line:
                    case {"ranges": list(items)}:
                        for start, end in items:
                            self.mark(start, end - start)
                    case {"drop": [int(start), int(end)]}:
                        self.drop(start, end - start)
                    case {"at": int(at), "bytes": int(length), "piece": int(piece), "sha1": str(text)}:
                        self.mark(at, length, piece_length=piece, hashes=base64.b64decode(text, validate=True))
        return head.get("boot") == self._boot


def _line(item: Pieces) -> Line:
    hashes = base64.b64encode(item.hashes).decode()
    return {"at": item.offset, "bytes": item.length, "piece": item.piece_length, "sha1": hashes}
