"""How far a file that another program is writing can be read already: so that its hash need not wait for its end."""

import os
import stat
import time
from contextlib import suppress
from pathlib import Path

SETTLED_SECONDS = 0.2
"""Bytes are read so long after they appeared: zeros were once found in place of fresh ones (ext4, busy machine)."""


class Ahead:
    """Looks at the file at ``path``, which will be ``size`` bytes long. For one reader; ``close`` when it has ended.

    The length says nothing: ``dfget`` has the file at its full length from the start, and its pieces come in any order.
    But what is not written yet is a hole, also where room has been reserved for it (``lseek(2)``). A file system that
    does not know of holes calls everything data: then nothing is read ahead.
    """

    def __init__(self, path: Path, size: int, *, settled: float = SETTLED_SECONDS) -> None:
        self.fd = -1
        self.read = False
        """Whether anything was: if the hash is wrong then, it may be for that reason."""
        self._path = path
        self._size = size
        self._settled = settled
        self._end = 0
        self._seen = 0
        self._seen_at = 0.0
        self._blind = False

    def end(self) -> int:
        """Up to here, from the front, the bytes have been there for a while. Never less than it was."""
        if self._blind or not self._open():
            return 0
        now = time.monotonic()
        if now - self._seen_at < self._settled:
            return self._end
        self._end, self._seen_at, first = self._seen, now, self._seen == 0
        with suppress(OSError):  # ENXIO: the file is not so long yet
            self._seen = min(os.lseek(self.fd, self._end, os.SEEK_HOLE), self._size)
        if first and self._seen == self._size:
            # Whole at the first look: most likely the file system has no holes to tell of.
            self._blind, self._seen = True, 0
        self.read = self.read or self._end > 0
        return self._end

    def is_file(self, fd: int) -> bool:
        """Whether ``fd`` is open on the file that was looked at."""
        return self.fd >= 0 and os.path.sameopenfile(self.fd, fd)

    def close(self) -> None:
        if self.fd >= 0:
            os.close(self.fd)
            self.fd = -1

    def _open(self) -> bool:
        if self.fd >= 0:
            return True
        try:
            fd = os.open(self._path, os.O_RDONLY | os.O_CLOEXEC | os.O_NOFOLLOW | os.O_NONBLOCK)
        except OSError:
            return False
        if not stat.S_ISREG(os.fstat(fd).st_mode):
            os.close(fd)
            return False
        # The kernel must not read what is not there yet: pages that it has read in advance would pass for data.
        os.posix_fadvise(fd, 0, 0, os.POSIX_FADV_RANDOM)
        self.fd = fd
        return True
