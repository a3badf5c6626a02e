"""The ``.complete`` file of a content's directory: that everything is there, and how to see that it still is."""

import json
import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from modelswarm.agent.store import files
from modelswarm.agent.store.keys import COMPLETE

_FORMAT = 1
_MOST_BYTES = 256 << 20


@dataclass(frozen=True, slots=True)
class Entry:
    """A file as it was when it was verified. ``sha256`` is hex."""

    size: int
    mtime_ns: int
    key: str
    sha256: str


@dataclass(frozen=True, slots=True)
class Marker:
    """``digest`` is the manifest's (``sha256:...``); ``files`` goes by path."""

    digest: str
    files: Mapping[str, Entry]

    def encode(self) -> bytes:
        listed = {path: [it.size, it.mtime_ns, it.key, it.sha256] for path, it in sorted(self.files.items())}
        total = sum(entry.size for entry in self.files.values())
        document = {"format": _FORMAT, "digest": self.digest, "bytes": total, "files": listed}
        return json.dumps(document, separators=(",", ":")).encode() + b"\n"


def decode(data: bytes) -> Marker | None:
    """None for everything that is not a whole marker of ours."""
    try:
        document = json.loads(data)
        if document["format"] != _FORMAT:
            return None
        listed = {
            str(path): Entry(int(size), int(mtime), str(key), str(sha256))
            for path, (size, mtime, key, sha256) in document["files"].items()
        }
        return Marker(str(document["digest"]), listed)
    except (ValueError, KeyError, TypeError, AttributeError):
        return None


def read(root: Path, parts: tuple[str, ...]) -> Marker | None:
    """The marker of the directory ``root/parts``; None where there is none."""
    try:
        fd = files.open_file(root, (*parts, COMPLETE))
    except FileNotFoundError:
        return None
    with os.fdopen(fd, "rb") as file:
        return decode(file.read(_MOST_BYTES))


def holds(root: Path, parts: tuple[str, ...], marker: Marker) -> bool:
    """Whether every file is there as it was: size and time of change, not a byte is read."""
    for path, entry in marker.files.items():
        found = files.status(root, (*parts, *path.split("/")))
        if found is None or (found.st_size, found.st_mtime_ns) != (entry.size, entry.mtime_ns):
            return False
    return True
