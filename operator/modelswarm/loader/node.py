"""The model on the node itself: its agent puts verified files into one directory, and pods link to them.

Nothing is copied and nothing is read: the agent links a file into the directory only after it has compared it with the
manifest's digest, and the pod sees the directory read-only. While the agent is still fetching, the loader waits; a
``PROGRESS`` file in the directory, rewritten every few seconds, is the agent's sign of life. What the agent does
not bring (it is not there, it has failed, it has died) is left to the other legs.
"""

import asyncio
import json
import os
import stat
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from modelswarm.content.manifest import Manifest, ManifestFile
from modelswarm.loader.progress import Meter, duration, size
from modelswarm.loader.tree import Tree

NAME = "node"
"""The key in the summary's ``bytesBySource``."""
COMPLETE = ".complete"
PROGRESS = ".progress.json"
"""``{"state": ..., "doneBytes": ..., "bytes": ..., "message": ...}``, replaced whole by the agent."""
FAILED = "Failed"
_LOOK_SECONDS = 0.5
_LARGEST = 64 << 10


@dataclass(frozen=True, slots=True)
class Patience:
    """Seconds. ``first_sign``: for an agent that has only just heard of this pod; ``fresh``: between two signs."""

    first_sign: float = 20.0
    fresh: float = 30.0
    tell: float = 5.0


@dataclass(frozen=True, slots=True)
class Sighting:
    """What the directory says about the agent's work."""

    complete: bool = False
    state: str = ""
    done: int = 0
    total: int = 0
    message: str = ""
    age: float | None = None
    """Seconds since the last sign of life; None before the first."""

    def gone(self, waited: float, patience: Patience) -> str:
        """Why there is nothing to wait for; empty while there is."""
        if self.complete:
            return ""
        if self.age is None:
            return "" if waited < patience.first_sign else "the node has no agent that fetches this model"
        if self.age > patience.fresh:
            # Left by an earlier attempt, maybe: an agent that has only just heard of this pod has not written yet.
            silent = f"the node's agent has given no sign for {duration(self.age)}"
            return "" if waited < patience.first_sign else silent
        if self.state == FAILED:
            return f"the node's agent cannot fetch it: {self.message}"
        return ""


class NodeModel:
    """``directory`` is the model's on the node, as this pod sees it; ``now`` is the time of day in seconds."""

    def __init__(
        self, directory: Path, patience: Patience | None = None, *, now: Callable[[], float] = time.time
    ) -> None:
        self.directory = directory
        self._patience = patience or Patience()
        self._now = now

    async def take(
        self, manifest: Manifest, tree: Tree, meter: Meter, say: Callable[[str], None]
    ) -> tuple[tuple[ManifestFile, ...], str]:
        """Link every file as it arrives; returns those that did not come, and why."""
        if self.directory.name != manifest.digest.removeprefix("sha256:"):
            return manifest.files, "the node keeps another version"
        waiting = list(manifest.files)
        began, told = self._now(), 0.0
        while True:
            sighting = await asyncio.to_thread(self.look)
            waiting = await asyncio.to_thread(self._link, waiting, tree, meter)
            waited = self._now() - began
            if not waiting:
                return (), ""
            if sighting.complete:
                return tuple(waiting), f"{len(waiting)} files are not as the manifest says"
            if why := sighting.gone(waited, self._patience):
                return tuple(waiting), why
            if waited - told >= self._patience.tell:
                told = waited
                say(_line(sighting, self._patience))
            await asyncio.sleep(_LOOK_SECONDS)

    def look(self) -> Sighting:
        if (self.directory / COMPLETE).exists():
            return Sighting(complete=True)
        try:
            with (self.directory / PROGRESS).open("rb") as file:
                age = max(0.0, self._now() - os.fstat(file.fileno()).st_mtime)
                told = json.loads(file.read(_LARGEST))
            return Sighting(
                state=str(told["state"]),
                done=int(told["doneBytes"]),
                total=int(told["bytes"]),
                message=str(told.get("message", "")),
                age=age,
            )
        except (OSError, ValueError, KeyError, TypeError, AttributeError):
            return Sighting()

    def _link(self, files: Sequence[ManifestFile], tree: Tree, meter: Meter) -> list[ManifestFile]:
        left: list[ManifestFile] = []
        for file in files:
            source = self.directory / file.path
            if not self._has(source, file):
                left.append(file)
                continue
            tree.link(file.path, source)
            meter.received(NAME, file.size)
            meter.finished(verified=True)
        return left

    def _has(self, source: Path, file: ManifestFile) -> bool:
        try:
            found = source.lstat()
        except OSError:
            return False
        inside = Path(os.path.realpath(source)).is_relative_to(os.path.realpath(self.directory))
        return inside and stat.S_ISREG(found.st_mode) and found.st_size == file.size


def _line(sighting: Sighting, patience: Patience) -> str:
    if sighting.age is None or sighting.age > patience.fresh:
        return "waiting for the node's agent"
    percent = 100 * sighting.done // sighting.total if sighting.total else 0
    line = f"the node's agent is fetching it: {percent}% {size(sighting.done)} of {size(sighting.total)}"
    return f"{line}, {sighting.message}" if sighting.message else line
