"""What a file is held against, and the hash that follows a file while it grows."""

import hashlib
import os
import re
from enum import Enum
from typing import Protocol

from modelswarm.content.manifest import ManifestFile

SLICE = 16 << 20
"""Bytes hashed in one go in a thread: short enough to be interrupted at once, long enough to make threads cheap."""
_BUFFER = 1 << 20
_MD5 = re.compile(r'"?([0-9a-f]{32})"?')


class Verdict(Enum):
    """What a finished file's hash says."""

    RIGHT = "right"
    WRONG = "wrong"
    UNVERIFIED = "unverified"


class HashState(Protocol):
    """A hash in progress."""

    def update(self, data: memoryview, /) -> None: ...
    def hexdigest(self) -> str: ...


class Expected:
    """The digest that a file must have, by the strongest thing the manifest knows of it.

    ``binding`` is False for an ETag that looks like an MD5: a store that encrypts has other things there.
    """

    def __init__(self, file: ManifestFile) -> None:
        self.size = file.size
        self.algorithm, _, self.hex = (file.digest or "").partition(":")
        self.binding = bool(self.algorithm)
        if not self.binding and (md5 := _MD5.fullmatch(file.version or "")):
            self.algorithm, self.hex = "md5", md5[1]

    def hash(self) -> HashState | None:
        """A fresh hash, or None where there is nothing to compare with."""
        match self.algorithm:
            case "sha256":
                return hashlib.sha256()
            case "git-sha1":
                state = hashlib.sha1(usedforsecurity=False)
                state.update(f"blob {self.size}\0".encode())
                return state
            case "md5":
                return hashlib.md5(usedforsecurity=False)
            case _:
                return None

    def verdict(self, state: HashState | None) -> Verdict:
        """Judge the hash of the whole file."""
        if state is None:
            return Verdict.UNVERIFIED
        return Verdict.RIGHT if state.hexdigest() == self.hex else Verdict.WRONG


def hash_range(fd: int, state: HashState, start: int, end: int) -> int:
    """Feed bytes ``start`` to ``end`` of an open file into ``state``; returns how far it got."""
    buffer = bytearray(min(_BUFFER, max(end - start, 1)))
    view = memoryview(buffer)
    while start < end:
        count = os.preadv(fd, [view[: min(len(buffer), end - start)]], start)
        if count == 0:
            break
        state.update(view[:count])
        start += count
    return start
