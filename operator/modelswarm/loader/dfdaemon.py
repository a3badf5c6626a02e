"""The Dragonfly leg: the node's dfdaemon, which has a file, or gets it from a peer, or from the origin.

How it is asked is the business of a writer: ``dfget`` for what anybody may have, ``dfstream`` for what needs a token.
Either writes beside the part file; what it has written counts when its size is right, and then only as what is to be
verified: nobody checks a digest on the way, and older versions end well with holes in the file.
"""

import re
import stat
from collections.abc import Callable, Container, Iterable
from enum import StrEnum
from pathlib import Path
from typing import Protocol

from modelswarm.content.manifest import ManifestFile
from modelswarm.loader.leg import Sink
from modelswarm.loader.outcome import Unserved
from modelswarm.loader.settings import DfdaemonSettings
from modelswarm.loader.threads import in_thread
from modelswarm.loader.tree import BESIDE

SMALL = 4 << 20
"""Up to this size a file is one piece, and finding out who has it takes longer than getting it."""
NEGLIGIBLE = 10_000
_MOST_WORDS = 200
_URL = re.compile(r"[A-Za-z][A-Za-z0-9+.-]*://(?:[^\s/?#@\"']*@)?([^\s/?#\"'()<>\]]*)[^\s\"'()<>\]]*")


class Why(StrEnum):
    """Why a file does not come from the daemon. Bytes that turn out wrong are found by whoever verifies them."""

    SOCKET_MISSING = "SocketMissing"
    PROGRAM_MISSING = "ProgramMissing"
    GRPC_MISSING = "GrpcMissing"
    """The image lacks the library with which a token can be handed to the daemon."""
    FAILED = "DfgetFailed"
    REFUSED = "DaemonFailed"
    STALLED = "Stalled"
    TOO_SLOW = "TooSlow"
    WRONG_SIZE = "WrongSize"


class Writer(Protocol):
    """A way to have the daemon's bytes written to a file."""

    @property
    def name(self) -> str:
        """Who it is, in messages."""

    async def write(self, url: str, size: int, output: Path) -> None:
        """Return when everything that came for ``url`` is at ``output``, each byte written once.

        Raises ``Unserved``; nothing that it has started is left then, and neither when it is cancelled.
        """


def negligible(files: Iterable[ManifestFile]) -> frozenset[str]:
    """Paths of the smallest files, as many as make up a ten-thousandth of the bytes.

    The loaders of a hundred nodes take those from the origin for a hundredth of the model's size, and each of them
    saves what the scheduler takes for a file that it has not heard of: a second.
    """
    ordered = sorted(files, key=lambda file: (file.size, file.path))
    left = sum(file.size for file in ordered) // NEGLIGIBLE
    paths: set[str] = set()
    for file in ordered:
        left -= file.size
        if left < 0 or file.size > SMALL:
            break
        paths.add(file.path)
    return frozenset(paths)


class Dfdaemon:
    """``url_of`` gives a file's address at the hub, at the pinned commit, as it was preheated.

    Files in ``left_out`` (paths) are not asked for.
    """

    name = "dfdaemon"
    splittable = False

    def __init__(
        self,
        settings: DfdaemonSettings,
        url_of: Callable[[str], str],
        writer: Writer,
        left_out: Container[str] = frozenset(),
    ) -> None:
        self._settings = settings
        self._url_of = url_of
        self._writer = writer
        self._left_out = left_out

    def serves(self, file: ManifestFile) -> bool:
        """Not what could not be verified."""
        return file.digest is not None and file.size > 0 and file.path not in self._left_out

    async def fetch(self, file: ManifestFile, sink: Sink, start: int, end: int) -> None:
        socket = self._settings.socket
        if not is_socket(socket):
            raise Unserved(Why.SOCKET_MISSING, f"there is no socket {socket}: no dfdaemon on this node")
        output = sink.path.with_name(sink.path.name + BESIDE)
        await in_thread(output.unlink, missing_ok=True)
        sink.growing(output)
        try:
            await self._writer.write(self._url_of(file.path), file.size, output)
            size = _size(output)
            if size != file.size:
                raise Unserved(Why.WRONG_SIZE, f"{self._writer.name} wrote {size} bytes instead of {file.size}")
            output.replace(sink.path)
        finally:
            await in_thread(output.unlink, missing_ok=True)
        await sink.filled()


def shown(text: str) -> str:
    """What the daemon said, short, and of URLs only the host (a CDN's are signed)."""
    words = _URL.sub(r"\1", " ".join(text.split()))
    return words if len(words) <= _MOST_WORDS else words[: _MOST_WORDS - 3] + "..."


def is_socket(path: Path) -> bool:
    try:
        return stat.S_ISSOCK(path.stat().st_mode)
    except OSError:
        return False


def _size(path: Path) -> int:
    """0 for what is not there or not a file."""
    try:
        found = path.lstat()
    except OSError:
        return 0
    return found.st_size if stat.S_ISREG(found.st_mode) else 0
