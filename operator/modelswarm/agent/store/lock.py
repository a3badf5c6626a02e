"""One agent per store: a lock that its holder's death releases."""

import fcntl
import json
import os
from contextlib import suppress
from pathlib import Path

from modelswarm.errors import StoreBusy


class StoreLock:
    """``flock`` on a file that says who holds it."""

    def __init__(self, path: Path, root: Path) -> None:
        self._path = path
        self._root = root
        self._fd = -1

    def acquire(self, node: str) -> None:
        """Raises ``StoreBusy`` with the holder's node and process id."""
        fd = os.open(self._path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600)
        try:
            fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            holder = _describe(os.pread(fd, 4096, 0))
            os.close(fd)
            raise StoreBusy(f"another agent{holder} uses {self._root}; two must not share a directory") from None
        self._fd = fd
        with suppress(OSError):  # a full disk: only the note for whoever comes second is missing
            os.ftruncate(fd, 0)
            os.pwrite(fd, json.dumps({"pid": os.getpid(), "node": node}).encode(), 0)

    def release(self) -> None:
        if self._fd >= 0:
            os.close(self._fd)
            self._fd = -1


def _describe(data: bytes) -> str:
    try:
        holder = json.loads(data)
        node = f" on node {holder['node']}" if holder["node"] else ""
        return f" (process {int(holder['pid'])}{node})"
    except (ValueError, KeyError, TypeError):
        return ""
