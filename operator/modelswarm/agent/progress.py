"""How far a content is, for whoever waits for it: bytes, speed, and the file that loaders on this node look at."""

import json
import os
from collections import deque
from collections.abc import Callable
from contextlib import suppress
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Literal

from modelswarm.loader.node import PROGRESS

SPEED_SECONDS = 15.0
"""Over which the speed is averaged."""


@dataclass(frozen=True, slots=True)
class Sources:
    """Bytes of a content that came to this node, over restarts."""

    origin: int = 0
    peers: int = 0

    def __add__(self, other: "Sources") -> "Sources":
        return Sources(self.origin + other.origin, self.peers + other.peers)


class Ledger:
    """Where the bytes of one content came from, over restarts. ``received`` is told what is new, for the metrics."""

    def __init__(self, received: Callable[[Sources], None]) -> None:
        self._received = received
        self._path: Path | None = None
        self._before = Sources()
        self._told = Sources()

    def open(self, path: Path) -> None:
        """What earlier runs have counted is at ``path``; blocks for a small read."""
        self._path, self._before = path, read_sources(path)

    def total(self, current: Sources) -> Sources:
        """``current``: what the attempt that is under way has brought so far."""
        return self._before + current

    def tell(self, current: Sources) -> None:
        before = self._told
        self._told = Sources(max(current.origin, before.origin), max(current.peers, before.peers))
        self._received(Sources(self._told.origin - before.origin, self._told.peers - before.peers))

    def save(self, current: Sources) -> None:
        """Blocks for a small write."""
        if self._path is not None:
            write_sources(self._path, self.total(current))

    def close_attempt(self, current: Sources) -> None:
        """The attempt is over: the next one begins to count at zero."""
        self.tell(current)
        self.save(current)
        self._before, self._told = self.total(current), Sources()


class Speed:
    """Fed with totals now and then."""

    def __init__(self) -> None:
        self._samples: deque[tuple[float, Sources]] = deque()

    def note(self, now: float, sources: Sources) -> None:
        self._samples.append((now, sources))
        while len(self._samples) > 2 and now - self._samples[0][0] > SPEED_SECONDS:
            self._samples.popleft()

    @property
    def bytes_per_second(self) -> int:
        origin, peers, seconds = self._moved()
        return int((origin + peers) / seconds) if seconds > 0 else 0

    @property
    def mostly_from(self) -> Literal["Origin", "Peers"] | None:
        """Where most bytes came from lately; None while nothing moves."""
        origin, peers, _ = self._moved()
        if not origin and not peers:
            return None
        return "Origin" if origin >= peers else "Peers"

    def _moved(self) -> tuple[int, int, float]:
        if len(self._samples) < 2:
            return 0, 0, 0.0
        (began, first), (ended, last) = self._samples[0], self._samples[-1]
        return last.origin - first.origin, last.peers - first.peers, ended - began


def write_progress(directory: Path, *, state: str, done: int, total: int, message: str) -> None:
    """The sign of life that a loader on this node waits by; blocks for a small write. Does not fail."""
    with suppress(OSError):
        directory.mkdir(parents=True, exist_ok=True)
        fresh = directory / f"{PROGRESS}.new"
        fresh.write_text(json.dumps({"state": state, "doneBytes": done, "bytes": total, "message": message}))
        fresh.chmod(0o644)
        fresh.replace(directory / PROGRESS)


def clear_progress(directory: Path) -> None:
    with suppress(OSError):
        os.unlink(directory / PROGRESS)


def counts_file(root: Path, content: str) -> Path:
    """Where the store below ``root`` keeps how many bytes of a content came from where."""
    return root / ".modelswarm" / "counts" / f"{content}.json"


def forget_sources(root: Path, content: str) -> None:
    """The content is gone from the disk: what comes next time is counted from the beginning."""
    with suppress(OSError):
        os.unlink(counts_file(root, content))


def read_sources(path: Path) -> Sources:
    """What an earlier run has counted."""
    try:
        found = json.loads(path.read_text())
        return Sources(int(found["origin"]), int(found["peers"]))
    except (OSError, ValueError, KeyError, TypeError):
        return Sources()


def write_sources(path: Path, sources: Sources) -> None:
    """Blocks for a small write. Does not fail: these are numbers for the eye."""
    with suppress(OSError):
        path.parent.mkdir(parents=True, exist_ok=True)
        fresh = path.with_suffix(".new")
        fresh.write_text(json.dumps(asdict(sources)))
        fresh.replace(path)
