"""Holding bytes on disk against what they should be."""

import hashlib
import os
import threading
from dataclasses import dataclass
from pathlib import Path

from modelswarm.content.manifest import ManifestFile
from modelswarm.loader.digests import SLICE, Expected, Verdict, hash_range


@dataclass(frozen=True, slots=True)
class Verified:
    """A file that is what it should be. ``sha256`` is hex; of a file without a digest it is the first reader's word.

    ``etag`` is what the store's ETag says of such a file, where it looks like an MD5 (UNVERIFIED: nothing; WRONG: it
    is no MD5, or bytes were wrong on the way: a store that encrypts has something else there).
    """

    key: str
    size: int
    sha256: str
    etag: Verdict = Verdict.UNVERIFIED


class BlobHash:
    """The hashes of one file in progress: its sha256 always, and what the manifest has instead of one."""

    def __init__(self, file: ManifestFile) -> None:
        self._expected = Expected(file)
        self._sha256 = hashlib.sha256()
        self._other = None if self._expected.algorithm == "sha256" else self._expected.hash()

    def update(self, data: memoryview, /) -> None:
        self._sha256.update(data)
        if self._other is not None:
            self._other.update(data)

    def hexdigest(self) -> str:
        return self._sha256.hexdigest()

    def verdict(self) -> Verdict:
        """What the manifest says of the bytes."""
        return self._expected.verdict(self._sha256 if self._expected.algorithm == "sha256" else self._other)

    def mismatch(self, sha256: str | None) -> tuple[str, str] | None:
        """Expected and actual digest where they differ. ``sha256`` (hex) counts where the manifest has no digest."""
        if self._expected.binding:
            algorithm, wanted, found = self._expected.algorithm, self._expected.hex, (self._other or self).hexdigest()
        else:
            algorithm, wanted, found = "sha256", sha256 or self.hexdigest(), self.hexdigest()
        return None if wanted == found else (f"{algorithm}:{wanted}", f"{algorithm}:{found}")

    def verified(self, key: str, size: int) -> Verified:
        etag = Verdict.UNVERIFIED if self._expected.binding else self.verdict()
        return Verified(key, size, self.hexdigest(), etag)


def hash_file(fd: int, file: ManifestFile, stopped: threading.Event) -> BlobHash | None:
    """Hash a whole open file (in a thread).

    None when ``stopped``, when its size is another, or when it was written to meanwhile.
    """
    before = os.fstat(fd)
    if before.st_size != file.size:
        return None
    state = BlobHash(file)
    reached, end = 0, 0
    while reached == end < file.size and not stopped.is_set():
        end = min(reached + SLICE, file.size)
        reached = hash_range(fd, state, reached, end)
    after = os.fstat(fd)
    if reached != file.size or (after.st_size, after.st_mtime_ns) != (before.st_size, before.st_mtime_ns):
        return None
    return state


def boot_id(path: Path = Path("/proc/sys/kernel/random/boot_id")) -> str:
    """Changes with every start of the machine: what was written under another one may have been lost with its cache."""
    try:
        return path.read_text().strip()
    except OSError:
        return ""
