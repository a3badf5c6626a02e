"""What the store knows of its contents across restarts: their manifests, when they were used, where else they lie."""

import hashlib
import json
import os
import time
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from modelswarm.agent.store import files
from modelswarm.agent.store.keys import blob_keys, content_id, is_blob_key, is_content_id
from modelswarm.agent.store.marker import Marker
from modelswarm.content.manifest import Manifest, decode, encode
from modelswarm.errors import InvalidReference

_ONE_SHARD = 1 << 40


@dataclass(frozen=True, slots=True)
class Record:
    """A content: ``keys`` by path, ``sizes`` by key. ``manifest`` is None where only the marker is left of it."""

    content: str
    keys: Mapping[str, str]
    sizes: Mapping[str, int]
    manifest: Manifest | None = None

    @property
    def bytes(self) -> int:
        return sum(self.sizes[key] for key in self.keys.values())


def record_of(manifest: Manifest) -> Record:
    keys = blob_keys(manifest)
    sizes = {keys[file.path]: file.size for file in manifest.files}
    return Record(content_id(manifest), keys, sizes, manifest)


def record_of_marker(content: str, marker: Marker) -> Record | None:
    keys = {path: entry.key for path, entry in marker.files.items()}
    if not all(map(is_blob_key, keys.values())):
        return None
    return Record(content, keys, {entry.key: entry.size for entry in marker.files.values()})


class Records:
    """The directory of records. Blocking; nothing here is worth more than a download."""

    def __init__(self, directory: Path) -> None:
        self._directory = directory

    def load(self) -> dict[str, Record]:
        found: dict[str, Record] = {}
        for path in (self._directory / "contents").iterdir():
            name = path.name.removesuffix(".json.gz")
            if not is_content_id(name):
                continue
            with suppress(InvalidReference, OSError):
                record = record_of(decode([path.read_bytes()]))
                if record.content == name:
                    found[name] = record
        return found

    def save(self, record: Record) -> None:
        if record.manifest is not None:
            data = encode(record.manifest, shard_bytes=_ONE_SHARD)[0]
            files.write(self._directory, ("contents", f"{record.content}.json.gz"), data, durable=False)

    def forget(self, content: str) -> None:
        files.unlink(self._directory, ("contents", f"{content}.json.gz"))
        files.unlink(self._directory, ("usage", content))

    def touch(self, content: str, now: float | None = None) -> None:
        """The content is in use (seconds since the epoch; None: at this moment)."""
        path = self._directory / "usage" / content
        path.touch()
        if now is not None:
            os.utime(path, (now, now))

    def changed(self, content: str) -> float:
        """When the record was last written (seconds since the epoch)."""
        try:
            return (self._directory / "contents" / f"{content}.json.gz").stat().st_mtime
        except FileNotFoundError:
            return 0.0

    def last_used(self, content: str) -> float:
        try:
            return (self._directory / "usage" / content).stat().st_mtime
        except FileNotFoundError:
            return 0.0


@dataclass(frozen=True, slots=True)
class Placement:
    """A directory of a user that holds a content as links; ``parts`` lead to it from the root."""

    content: str
    parts: tuple[str, ...]


class Placements:
    """Which directories outside of the store's own hold links to blobs: they have to go for bytes to be freed."""

    def __init__(self, directory: Path) -> None:
        self._directory = directory

    def load(self) -> list[Placement]:
        found: list[Placement] = []
        for path in sorted((self._directory / "paths").iterdir()):
            with suppress(OSError, ValueError, KeyError, TypeError):
                document = json.loads(path.read_bytes())
                placement = Placement(str(document["content"]), tuple(map(str, document["parts"])))
                if path.name == _name(placement.parts):
                    found.append(placement)
        return found

    def save(self, placement: Placement) -> None:
        document = {"content": placement.content, "parts": list(placement.parts), "at": int(time.time())}
        files.write(self._directory, ("paths", _name(placement.parts)), json.dumps(document).encode())

    def forget(self, parts: tuple[str, ...]) -> None:
        files.unlink(self._directory, ("paths", _name(parts)))


def _name(parts: tuple[str, ...]) -> str:
    return hashlib.sha256("/".join(parts).encode()).hexdigest()[:32] + ".json"
