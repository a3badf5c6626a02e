"""A content on its way to being complete."""

import asyncio
import os
import threading
from collections.abc import Mapping
from types import MappingProxyType, TracebackType
from typing import TYPE_CHECKING, Self

from modelswarm.agent.store import files
from modelswarm.agent.store.partial import Partial
from modelswarm.agent.store.records import Record
from modelswarm.agent.store.shelf import OWN
from modelswarm.agent.store.verify import BlobHash, Verified
from modelswarm.content.manifest import Manifest, ManifestFile
from modelswarm.errors import DigestMismatch, StorageFailed

if TYPE_CHECKING:
    from modelswarm.agent.store.store import Store

_PASSES = 3


class Filling:
    """Made by ``Store.begin``; holds the content's room until it is closed. For one event loop.

    ``content`` is the content id, ``directory`` where its files appear, ``paths`` the files that have a key's bytes.
    ``arrived`` is set when the next file was put in place, also by another content that has the same one; then there
    is another event for the one after that, so any number may wait.
    """

    def __init__(self, store: "Store", record: Record, manifest: Manifest) -> None:
        self.content = record.content
        self.manifest = manifest
        self.record = record
        self.arrived = asyncio.Event()
        self.is_complete = False
        self._store = store
        self._files = {file.path: file for file in manifest.files}
        self.paths: dict[str, list[str]] = {}
        for path, key in record.keys.items():
            self.paths.setdefault(key, []).append(path)
        self._placed: set[str] = set()
        self._verified: dict[str, Verified] = {}
        self._shared = 0

    @property
    def directory(self) -> str:
        return str(self._store.directory(self.content))

    @property
    def verified(self) -> Mapping[str, Verified]:
        """By key, what is in place; also what was there before."""
        return self._verified

    def key(self, path: str) -> str:
        return self.record.keys[path]

    def file(self, key: str) -> ManifestFile:
        """One of the files that have these bytes (all have the same size and digest)."""
        return self._files[self.paths[key][0]]

    def missing(self) -> list[ManifestFile]:
        """The files that are not in place, in order of path."""
        return [self._files[path] for path in sorted(self._files.keys() - self._placed)]

    def missing_keys(self) -> dict[str, int]:
        """The blobs that are not in place, and their sizes."""
        missing = self._files.keys() - self._placed
        return {self.record.keys[path]: self._files[path].size for path in missing}

    def busy(self) -> dict[str, str]:
        """Missing blobs that another content on this node lacks too, and is to bring: the one with the smallest id.

        The same answer on every node, whoever began first: two contents never wait for each other.
        """
        elders = self._store.elders(self.content)
        if not elders:
            return {}
        return {key: elder.content for key in self.missing_keys() for elder in elders if elder.lacks(key)}

    def lacks(self, key: str) -> bool:
        """Whether it has a file with these bytes that is not in place."""
        return key in self.paths and not self._placed.issuperset(self.paths[key])

    def present_bytes(self) -> int:
        """Bytes on disk, whole files and parts; a file that is there twice counts twice, as in the manifest."""
        there = sum(self._files[path].size for path in self._placed)
        missing = self._files.keys() - self._placed
        return there + sum(self._store.partial_progress(self.record.keys[path]) for path in missing)

    async def partial(self, key: str) -> Partial:
        """The file that a missing blob is filled in; contents that share it get the same one.

        Raises ``StorageFailed``.
        """
        return await self._store.open_partial(self, key)

    async def mark(self, key: str, offset: int, length: int, *, piece_length: int = 0, hashes: bytes = b"") -> None:
        """``Partial.mark`` and its journal, in a thread."""
        partial = await self.partial(key)
        partial.mark(offset, length, piece_length=piece_length, hashes=hashes)
        await self._store.threads.run(partial.flush)

    async def hash_ahead(self, key: str) -> None:
        """Hash what is there of a partial from the front; worth calling now and then while it fills."""
        partial = await self.partial(key)
        before = -1
        while (reached := await self._store.threads.run(partial.hash_ahead)) > before:
            before = reached

    async def finish(self, key: str, sha256: str | None = None) -> Verified:
        """Hash a filled blob and put it in place, in every content that waits for it. Again is fine.

        ``sha256`` (hex) is what the first reader found, for files whose origin has no digest; without it this node is
        the first reader, and the answer's is the one to tell the others.

        Raises ``DigestMismatch``: where ``damaged`` is empty, the bytes are what was delivered, and they stay where
        they are until the caller drops the ranges that it does not believe (``Partial.drop``). Raises ``ValueError``
        when ranges are missing, ``StorageFailed`` and ``InsufficientCapacity``.
        """
        async with self._store.key_lock(key):
            found = await self._store.place_known(self, key, sha256)
            if found is not None:
                return found
            partial = await self.partial(key)
            file = self.file(key)
            if not partial.covers(0, file.size):
                raise ValueError(f"{file.path} is not complete: {partial.missing()[:3]} are missing")
            verified = await self._judge(partial, file, sha256)
            await self._store.threads.run(self._shelve, partial, verified)
            await self._store.placed([verified])
            return verified

    def _shelve(self, partial: Partial, verified: Verified) -> None:
        with partial.descriptor() as fd:
            self._store.shelf.shelve(fd, verified.key, verified.sha256, durable=True)

    async def _judge(self, partial: Partial, file: ManifestFile, sha256: str | None) -> Verified:
        threads = self._store.threads
        mismatch: tuple[str, str] = ("", "")
        for _ in range(_PASSES):
            state, ahead = partial.take_hash(), True
            before = await threads.run(_status, partial)
            if state is None:
                state, ahead = await self._hash(partial), False
            after = await threads.run(_status, partial)
            wrong = state.mismatch(sha256)
            if wrong is None and after.st_size == file.size and after.st_mtime_ns == before.st_mtime_ns:
                return state.verified(partial.key, file.size)
            mismatch = wrong or mismatch
            if not ahead and after.st_mtime_ns == before.st_mtime_ns:
                # Read in one go, while nobody wrote: this is what is on the disk.
                break
        if wrong is None:
            raise StorageFailed(f"{file.path}: it is written to while it is verified")
        damaged = await threads.run(partial.recheck)
        await threads.run(partial.flush)
        raise DigestMismatch(file.path, expected=mismatch[0], actual=mismatch[1], damaged=tuple(damaged))

    async def _hash(self, partial: Partial) -> BlobHash:
        while True:
            reached = await self._store.threads.run(partial.hash_ahead)
            state = partial.take_hash() if reached == partial.size else None
            if state is not None:
                return state
            if not partial.covers(0, partial.size):
                raise ValueError(f"ranges of {partial.key} were dropped while it was verified")

    async def write_small(self, path: str, data: bytes, sha256: str | None = None) -> Verified:
        """A whole small file, verified before it is written. Raises ``DigestMismatch`` and nothing is written."""
        await self.write_bundle({path: data}, {path: sha256} if sha256 else {})
        return self._verified[self.record.keys[path]]

    async def write_bundle(self, blobs: Mapping[str, bytes], sha256: Mapping[str, str] = MappingProxyType({})) -> None:
        """Whole small files by path, verified; many at once cost far less than one by one.

        Raises ``DigestMismatch`` for the first that is wrong; those that are right are in place then.
        """
        verified, wrong = await self._store.threads.run(self._write_all, blobs, sha256)
        await self._store.placed(verified)
        if wrong is not None:
            raise wrong

    def _write_all(
        self, blobs: Mapping[str, bytes], sha256: Mapping[str, str]
    ) -> tuple[list[Verified], DigestMismatch | None]:
        verified: list[Verified] = []
        wrong: DigestMismatch | None = None
        with files.directory(self._store.root, (OWN, "new")) as directory:
            for path, data in blobs.items():
                try:
                    verified.append(self._write(directory, path, data, sha256.get(path)))
                except DigestMismatch as error:
                    wrong = wrong or error
        return verified, wrong

    def _write(self, directory: int, path: str, data: bytes, sha256: str | None) -> Verified:
        file, key, shelf = self._files[path], self.record.keys[path], self._store.shelf
        if len(data) != file.size:
            raise DigestMismatch(path, expected=f"{file.size} bytes", actual=f"{len(data)} bytes")
        state = BlobHash(file)
        state.update(memoryview(data))
        if (mismatch := state.mismatch(sha256)) is not None:
            raise DigestMismatch(path, expected=mismatch[0], actual=mismatch[1])
        known = shelf.trusted(key, file.size)
        if known is not None:
            if known.sha256 != state.hexdigest():
                raise DigestMismatch(path, expected=f"sha256:{known.sha256}", actual=f"sha256:{state.hexdigest()}")
            return state.verified(key, file.size)
        name = f"{key}-{threading.get_ident()}"
        fd = os.open(name, os.O_RDWR | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC | os.O_NOFOLLOW, 0o644, dir_fd=directory)
        try:
            view = memoryview(data)
            while view:
                view = view[os.write(fd, view) :]
            # Not fsynced one by one: ``complete`` does that before the marker is written.
            shelf.shelve(fd, key, state.hexdigest(), durable=False)
        finally:
            os.close(fd)
            os.unlink(name, dir_fd=directory)
        return state.verified(key, file.size)

    async def complete(self) -> None:
        """Everything to disk, then the marker. Raises ``ValueError`` while files are missing, ``StorageFailed``.

        A file whose time of change is another one than when it was verified is hashed once more: a swarm that had
        asked for the same bytes twice may have written them again.
        """
        if missing := self.missing():
            raise ValueError(f"{len(missing)} files are missing, among them {missing[0].path}")
        if not self.is_complete:
            for _ in range(_PASSES - 1):
                try:
                    await self._store.threads.run(self._complete)
                    break
                except StorageFailed:
                    if not await self._store.verify_changed(self):
                        raise
            else:
                await self._store.threads.run(self._complete)
            self.is_complete = True

    def _complete(self) -> None:
        shelf = self._store.shelf
        shelf.make_durable(self.record.sizes)
        shelf.write_marker(self.record)
        shelf.usage.touch(self.content)

    async def close(self) -> None:
        """Give back the room that was not used, and the partials; what was downloaded stays. Again is fine."""
        await self._store.end(self)

    def put(self, path: str, verified: Verified) -> None:
        """For the store: the file is linked into the directory."""
        self._placed.add(path)
        self._verified[verified.key] = verified
        arrived, self.arrived = self.arrived, asyncio.Event()
        arrived.set()

    def lost(self, key: str) -> None:
        """For the store: the blob turned out to be wrong, and is gone."""
        self._placed.difference_update(self.paths[key])
        self._verified.pop(key, None)
        self.is_complete = False

    def share(self, count: int) -> int:
        """For the store: how many have begun this content and not closed it."""
        self._shared += count
        return self._shared

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self._store.end(self, error)


def _status(partial: Partial) -> os.stat_result:
    with partial.descriptor() as fd:
        return os.fstat(fd)
