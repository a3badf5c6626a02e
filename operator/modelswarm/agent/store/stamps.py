"""What was verified, and how to see that it was not written to since: size and time of change."""

import os
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

from modelswarm.agent.store import files
from modelswarm.agent.store.journal import Journal, Line


@dataclass(frozen=True, slots=True)
class Stamp:
    """``boot`` is empty when the bytes were made durable, else the boot in which they were verified."""

    size: int
    mtime_ns: int
    sha256: str
    boot: str = ""

    def fits(self, found: os.stat_result) -> bool:
        return (found.st_size, found.st_mtime_ns) == (self.size, self.mtime_ns)


class Stamps:
    """The stamps of all blobs, kept in one journal. Methods block for a small write; they are for one thread.

    What is lost with the journal is only time: a blob without a stamp is hashed again. The exception is a file without
    a digest, whose sha256 is nowhere else: such a line is made durable.
    """

    def __init__(self, path: Path, boot: str) -> None:
        self._journal = Journal(path)
        self._boot = boot
        self._stamps: dict[str, Stamp] = {}

    def open(self) -> None:
        for line in self._journal.read():
            match line:
                case {"key": str(key), "gone": True}:
                    self._stamps.pop(key, None)
                case {"key": str(key), "size": int(size), "mtime": int(mtime), "sha256": str(sha256)}:
                    self._stamps[key] = Stamp(size, mtime, sha256, str(line.get("boot", "")))
        try:
            self._journal.rewrite(_line(key, stamp) for key, stamp in self._stamps.items())
        except OSError as error:
            if not files.is_full(error):
                raise
            self._journal.resume()

    def close(self) -> None:
        self._journal.close()

    def __iter__(self) -> Iterator[str]:
        return iter(self._stamps)

    def get(self, key: str) -> Stamp | None:
        """The stamp, unless it is of bytes that a power cut may have taken."""
        stamp = self._stamps.get(key)
        return stamp if stamp is not None and stamp.boot in ("", self._boot) else None

    def sha256(self, key: str) -> str | None:
        """What the file's sha256 was when it was verified, also where its bytes have to be read again."""
        stamp = self._stamps.get(key)
        return stamp.sha256 if stamp else None

    def put(self, key: str, found: os.stat_result, sha256: str, *, durable: bool) -> None:
        stamp = Stamp(found.st_size, found.st_mtime_ns, sha256, "" if durable else self._boot)
        if self._stamps.get(key) != stamp:
            self._stamps[key] = stamp
            self._journal.append([_line(key, stamp)], durable=durable and key.startswith("object-"))

    def drop(self, keys: Iterable[str]) -> None:
        gone = [key for key in keys if self._stamps.pop(key, None) is not None]
        if gone:
            self._journal.append({"key": key, "gone": True} for key in gone)


def _line(key: str, stamp: Stamp) -> Line:
    return {"key": key, "size": stamp.size, "mtime": stamp.mtime_ns, "sha256": stamp.sha256, "boot": stamp.boot}
