"""A store in a directory of the test, and contents whose bytes are known."""

import hashlib
import os
from collections.abc import Mapping
from pathlib import Path

import pytest

from modelswarm.agent.store import Filling, Store, StoreSettings
from modelswarm.content.manifest import Manifest, ManifestFile, Origin, OriginKind

MIB = 1 << 20


def noise(name: str, size: int) -> bytes:
    """Bytes that depend on the name only."""
    return hashlib.shake_256(name.encode()).digest(size)


def content(files: Mapping[str, bytes], *, id: str = "org/model", git: tuple[str, ...] = ()) -> Manifest:
    """A pinned model of a hub; the files named in ``git`` have git's digest instead of a sha256."""
    listed = tuple(
        ManifestFile(path, len(data), git_digest(data) if path in git else f"sha256:{hashlib.sha256(data).hexdigest()}")
        for path, data in files.items()
    )
    return Manifest(Origin(OriginKind.HUGGINGFACE, id), "a" * 40, listed)


def git_digest(data: bytes) -> str:
    return f"git-sha1:{hashlib.sha1(b'blob %d' % len(data) + bytes(1) + data).hexdigest()}"


def object_content(files: Mapping[str, bytes], versions: Mapping[str, str] | None = None) -> Manifest:
    """What a bucket lists: no digests, and ETags where given."""
    listed = tuple(
        ManifestFile(path, len(data), None, (versions or {}).get(path, f'"{path}-1"')) for path, data in files.items()
    )
    return Manifest(Origin(OriginKind.S3, "bucket/team/model"), None, listed)


async def put(filling: Filling, key: str, data: bytes, start: int = 0, end: int | None = None) -> None:
    """What a session does with a range that came: written into the partial, and noted."""
    end = len(data) if end is None else end
    partial = await filling.partial(key)
    partial.write([data[start:end]], start)
    await filling.mark(key, start, end - start)


async def fill(filling: Filling, files: Mapping[str, bytes]) -> None:
    """Everything that is missing, and the end."""
    for file in filling.missing():
        key = filling.key(file.path)
        if file.size and not any(it.path == file.path for it in filling.missing()):
            continue
        await put(filling, key, files[file.path])
        await filling.finish(key)
    await filling.complete()


def tree(folder: Path) -> dict[str, bytes]:
    """Every visible file below a folder."""
    return {
        path.relative_to(folder).as_posix(): path.read_bytes()
        for path in sorted(folder.rglob("*"))
        if path.is_file() and not path.name.startswith(".")
    }


def occupied(folder: Path) -> int:
    """Bytes of file content below a folder, each inode once."""
    found = {}
    for path, _, names in os.walk(folder):
        for name in names:
            status = os.lstat(os.path.join(path, name))
            found[status.st_ino] = status.st_size
    return sum(found.values())


@pytest.fixture
def settings(tmp_path: Path) -> StoreSettings:
    return StoreSettings(tmp_path / "models", node="node-1", reserve=0)


@pytest.fixture
def root(settings: StoreSettings) -> Path:
    return settings.root


async def brought(settings: StoreSettings, manifest: Manifest, files: Mapping[str, bytes]) -> None:
    """A store that has had a life before the test."""
    async with Store(settings) as store, await store.begin(manifest) as filling:
        await fill(filling, files)
