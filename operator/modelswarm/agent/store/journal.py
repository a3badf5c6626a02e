"""A file of JSON lines that survives being killed: a line counts when it is whole."""

import json
import os
from collections.abc import Iterable
from contextlib import suppress
from pathlib import Path

Line = dict[str, object]


class Journal:
    """Appended to, line by line; rewritten, or resumed, when it is opened. Methods block for a small write, and are not
    locked."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self._fd = -1
        self._whole = 0
        """Bytes of the lines that the last ``read`` gave."""

    def read(self) -> list[Line]:
        """The lines up to the first that is damaged or not whole; none where there is no journal."""
        lines: list[Line] = []
        self._whole = 0
        try:
            fd = os.open(self.path, os.O_RDONLY | os.O_CLOEXEC | os.O_NOFOLLOW)
        except FileNotFoundError:
            return lines
        with os.fdopen(fd, "rb") as file:
            for text in file:
                try:
                    line = json.loads(text) if text.endswith(b"\n") else None
                except ValueError:
                    line = None
                if not isinstance(line, dict):
                    break
                lines.append(line)
                self._whole += len(text)
        return lines

    def rewrite(self, lines: Iterable[Line]) -> None:
        """Replace everything, and stay open for more."""
        self.close()
        fresh = self.path.with_name(self.path.name + ".new")
        fd = os.open(fresh, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_APPEND | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600)
        try:
            _write(fd, lines)
            fresh.replace(self.path)
        except BaseException:
            os.close(fd)
            with suppress(OSError):
                fresh.unlink()
            raise
        self._fd = fd

    def resume(self) -> None:
        """Stay open for more behind what ``read`` gave, which needs no room on the disk."""
        self.close()
        self._fd = os.open(self.path, os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600)
        os.ftruncate(self._fd, self._whole)

    def append(self, lines: Iterable[Line], *, durable: bool = False) -> None:
        """Add lines, all of them or (on a full disk) none; what is half would hide whatever follows it."""
        length = os.fstat(self._fd).st_size
        try:
            _write(self._fd, lines)
        except OSError:
            os.ftruncate(self._fd, length)
            raise
        if durable:
            os.fsync(self._fd)

    @property
    def is_open(self) -> bool:
        return self._fd >= 0

    def close(self) -> None:
        if self._fd >= 0:
            os.close(self._fd)
            self._fd = -1


def _write(fd: int, lines: Iterable[Line]) -> None:
    view = memoryview(b"".join(json.dumps(line, separators=(",", ":")).encode() + b"\n" for line in lines))
    while view:
        view = view[os.write(fd, view) :]
