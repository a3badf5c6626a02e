"""The store of one node: what it holds, what is on its way, and what has to leave."""

import asyncio
import time
from collections.abc import Callable, Iterable, Sequence
from dataclasses import replace
from pathlib import Path
from types import TracebackType
from typing import Self

from modelswarm.agent.store import adopt, files, materialize
from modelswarm.agent.store.capacity import Capacity
from modelswarm.agent.store.eviction import Protection
from modelswarm.agent.store.filling import Filling
from modelswarm.agent.store.held import ContentState, Held
from modelswarm.agent.store.partial import Partial
from modelswarm.agent.store.records import Record, record_of
from modelswarm.agent.store.room import Room
from modelswarm.agent.store.settings import StoreSettings
from modelswarm.agent.store.shelf import MODELS, Shelf
from modelswarm.agent.store.threads import Threads
from modelswarm.agent.store.verify import BlobHash, Verified
from modelswarm.content.manifest import Manifest
from modelswarm.errors import DigestMismatch, DiskFull, StorageFailed


class Store:
    """Open it with ``async with``; everything but the plain properties does its disk work in a bounded pool."""

    def __init__(self, settings: StoreSettings, *, now: Callable[[], float] = time.time) -> None:
        self.settings = settings
        self.shelf = Shelf(settings)
        self.threads = Threads(settings.threads)
        self._now = now
        self._fillings: dict[str, Filling] = {}
        self._partials: dict[str, Partial] = {}
        self._opening: dict[str, asyncio.Lock] = {}
        self._finishing: dict[str, asyncio.Lock] = {}
        self._users: dict[str, list[str]] = {}
        self._complete: set[str] = set()
        self._room = Room(self.shelf, self.threads, self._fillings, self._partials, self._complete, now=now)

    @property
    def root(self) -> Path:
        """Without symbolic links."""
        return self.shelf.root

    def directory(self, content: str) -> Path:
        """Where a content's files are, or appear."""
        return self.root / MODELS / content

    async def open(self) -> None:
        """Take the lock and see what is there; no file is read. Raises ``StoreBusy``, ``StorageFailed``."""
        await self.threads.run(self.shelf.open)
        self._complete.update(await self.threads.run(self._find_complete))

    def _find_complete(self) -> list[str]:
        return [content for content in self.shelf.records if self.shelf.is_complete(content)]

    async def close(self) -> None:
        """Close every filling and give the lock back; partials stay and are continued."""
        for filling in list(self._fillings.values()):
            await self._end(filling)
        await self.threads.run(self.shelf.close)
        self.threads.close()

    # Filling

    async def begin(self, manifest: Manifest, adopt_from: Sequence[Path] = ()) -> Filling:
        """Take over what is there of a content, and hold the room for the rest.

        ``adopt_from`` are further directories below the root that may have its files. Hashing what lies in them can
        take minutes; it may be cancelled. A content that is complete already comes back complete, at once. Begun
        twice, it is the same filling, which ends when it was closed as often.

        Raises ``InsufficientCapacity`` before a byte is written (what is there stays), ``PathOutsideRoot``,
        ``InvalidReference`` (a manifest that no directory can hold) and ``StorageFailed``.
        """
        record = record_of(manifest)
        places = [*adopt.known_layouts(record), *(materialize.parts_below(self.shelf, path) for path in adopt_from)]
        filling = self._fillings.get(record.content)
        if filling is None:
            # Before the first await: from here on nothing of it is evicted.
            filling = self._fillings[record.content] = Filling(self, record, manifest)
        filling.share(+1)
        try:
            async with self.key_lock(record.content):
                if not filling.is_complete:
                    await self._prepare(filling, places)
        except BaseException as error:
            await self.end(filling, error)
            raise
        return filling

    async def _prepare(self, filling: Filling, places: Sequence[tuple[str, ...]]) -> None:
        record = filling.record
        await self.threads.run(self.shelf.remember, record)
        if await self.threads.run(self.shelf.is_complete, record.content):
            await self._place_marked(filling)
        else:
            await self.threads.run(self.shelf.uncomplete, record.content)
            self._complete.discard(record.content)
        found, unsure = await self.threads.run(self.shelf.look, record)
        await self._place(filling, [Verified(key, it.size, it.sha256) for key, it in found.items()])
        places = await self.threads.run(self._existing, places)
        for key, size in filling.missing_keys().items():
            # Most contents are new to the node: nothing to look for, and thousands of small files are no reason to.
            if places or key in unsure or size == 0:
                await self._find(filling, key, places, unsure=key in unsure)
        if not filling.missing():
            await filling.complete()
            self._complete.add(record.content)
            return
        await self._room.reserve(filling)

    async def _place_marked(self, filling: Filling) -> None:
        marker = await self.threads.run(self.shelf.marker, filling.content)
        for path, entry in marker.files.items() if marker is not None else ():
            if filling.record.keys.get(path) == entry.key:
                filling.put(path, Verified(entry.key, entry.size, entry.sha256))
        filling.is_complete = not filling.missing()

    def _existing(self, places: Sequence[tuple[str, ...]]) -> list[tuple[str, ...]]:
        return [place for place in places if files.status(self.root, place) is not None]

    async def _find(self, filling: Filling, key: str, places: Sequence[tuple[str, ...]], *, unsure: bool) -> None:
        """A blob that is there already: trusted, hashed again, adopted, or empty."""
        async with self._finishing.setdefault(key, asyncio.Lock()):
            if await self.place_known(filling, key) is not None:
                return
            file = filling.file(key)
            if unsure and not await self.threads.stoppable(self.shelf.recheck, key, file):
                self._forget(key)
            for path in filling.paths[key]:
                if await self.threads.run(self.shelf.trusted, key, file.size) is None:
                    each = replace(file, path=path)
                    await self.threads.stoppable(adopt.adopt, self.shelf, filling.record, each, places)
            if await self.place_known(filling, key) is not None or file.size > 0:
                return
        if BlobHash(file).mismatch(None) is None:
            await filling.write_small(file.path, b"")

    def key_lock(self, key: str) -> asyncio.Lock:
        """One at a time for each blob."""
        return self._finishing.setdefault(key, asyncio.Lock())

    def elders(self, content: str) -> list[Filling]:
        """The contents that are being filled and have smaller ids, the smallest last."""
        found = [it for it in self._fillings.values() if it.content < content and not it.is_complete]
        return sorted(found, key=lambda it: it.content, reverse=True)

    def partial_progress(self, key: str) -> int:
        partial = self._partials.get(key)
        return partial.filled if partial is not None else 0

    async def open_partial(self, filling: Filling, key: str) -> Partial:
        async with self._opening.setdefault(key, asyncio.Lock()):
            partial = self._partials.get(key)
            if partial is None:
                partial = Partial(self.shelf.partial(key), key, filling.file(key), self.shelf.boot)
                try:
                    await self.threads.run(partial.open)
                except BaseException:
                    partial.close()
                    raise
                self._partials[key] = partial
            users = self._users.setdefault(key, [])
            if filling.content not in users:
                users.append(filling.content)
            return partial

    async def place_known(self, filling: Filling, key: str, sha256: str | None = None) -> Verified | None:
        """Link a blob that is there and as it was verified into the filling's directory; None where it is not."""
        size = filling.record.sizes[key]
        stamp = await self.threads.run(self.shelf.trusted, key, size)
        if stamp is None:
            return None
        if sha256 is not None and key.startswith("object-") and stamp.sha256 != sha256:
            path = filling.file(key).path
            raise DigestMismatch(path, expected=f"sha256:{sha256}", actual=f"sha256:{stamp.sha256}")
        verified = Verified(key, size, stamp.sha256)
        await self._place(filling, [verified])
        return verified

    async def placed(self, blobs: Sequence[Verified]) -> None:
        """Blobs have come: every content that waits for them gets them."""
        for filling in list(self._fillings.values()):
            theirs = [blob for blob in blobs if blob.key in filling.paths]
            if theirs:
                await self._place(filling, theirs)

    async def _place(self, filling: Filling, blobs: Iterable[Verified]) -> None:
        pairs = [(path, blob) for blob in blobs for path in filling.paths[blob.key]]
        await self.threads.run(self.shelf.place, filling.content, [(path, blob.key) for path, blob in pairs])
        for path, blob in pairs:
            filling.put(path, blob)

    async def verify_changed(self, filling: Filling) -> bool:
        """Hash again the blobs of a filling that were touched since they were verified; whether there were any, and
        all are right. What is wrong goes, and is missing."""
        _, unsure = await self.threads.run(self.shelf.look, filling.record)
        right = bool(unsure)
        for key in sorted(unsure):
            async with self.key_lock(key):
                if await self.threads.stoppable(self.shelf.recheck, key, filling.file(key)):
                    await self.place_known(filling, key)
                else:
                    self._forget(key)
                    right = False
        return right

    async def end(self, filling: Filling, error: BaseException | None = None) -> None:
        if filling.share(-1) <= 0:
            await self._end(filling)
        if isinstance(error, DiskFull):
            await self._room.count(filling, error)

    async def _end(self, filling: Filling) -> None:
        if self._fillings.get(filling.content) is not filling:
            return
        del self._fillings[filling.content]
        if filling.is_complete:
            self._complete.add(filling.content)
        for key in [key for key, users in self._users.items() if filling.content in users]:
            self._users[key].remove(filling.content)
            if not self._users[key]:
                del self._users[key]
                await self.threads.run(self._close_partial, self._partials.pop(key))

    def _close_partial(self, partial: Partial) -> None:
        """Its second name goes only now: a swarm may have been reading it by that name."""
        if self.shelf.trusted(partial.key, partial.size) is not None:
            partial.remove()
        else:
            partial.close()

    # Room

    def protect(self, protection: Protection) -> None:
        """Who needs what, as the caller knows it now. Before the first call nothing is ever evicted."""
        self._room.protection = protection

    def on_evicted(self, tell: Callable[[str], None]) -> None:
        """``tell`` is called, in a thread, with each content that has made room."""
        self._room.evicted = tell

    async def capacity(self) -> Capacity:
        """Bytes used, reserved and available."""
        return await self._room.capacity()

    async def keep_watermark(self) -> None:
        """Above the high watermark, evict down to the low one. For a timer."""
        await self._room.keep_watermark()

    async def sweep(self) -> int:
        """Remove what nothing refers to and is old enough; returns bytes freed. For a timer."""
        return await self._room.sweep()

    async def purge(self, content: str) -> int:
        """A content is not wanted any more: it goes now, with what nobody else needs; returns bytes freed.

        An open filling of it is closed first. Protection is the caller's word from before, and does not count here.
        """
        async with self.key_lock(content):
            if (filling := self._fillings.get(content)) is not None:
                await self._end(filling)
            return await self._room.purge(content)

    # What is there

    async def models(self) -> list[Held]:
        """Every content that the store has something of, in order of id."""
        return await self.threads.run(self._models)

    def _models(self) -> list[Held]:
        blobs, partials = self.shelf.blob_sizes(), self.shelf.partial_bytes()
        found: list[Held] = []
        for content, record in sorted(self.shelf.records.items()):
            there = {key: blobs.get(key, 0) or min(partials.get(key, 0), size) for key, size in record.sizes.items()}
            present = sum(there[key] for key in record.keys.values())
            state = ContentState.PARTIAL
            if content in self._complete or (content in self._fillings and self._fillings[content].is_complete):
                state = ContentState.COMPLETE
            elif content in self._fillings:
                state = ContentState.FILLING
            places = tuple(
                self.root.joinpath(*it.parts) for it in list(self.shelf.placements.values()) if it.content == content
            )
            used = self.shelf.usage.last_used(content)
            if present or state is not ContentState.PARTIAL:
                found.append(Held(content, state, record.bytes, present, used, record.manifest, places))
        return found

    def has(self, content: str) -> bool:
        """Whether a content is complete."""
        return content in self._complete or (content in self._fillings and self._fillings[content].is_complete)

    def knows(self, content: str) -> bool:
        """Whether there is a record of a content, complete or not: it was not evicted."""
        return content in self.shelf.records

    def manifest(self, content: str) -> Manifest | None:
        """Of a content that was begun here at some time, and not removed."""
        record = self.shelf.records.get(content)
        return record.manifest if record is not None else None

    def blob(self, key: str) -> Path | None:
        """Where a verified blob lies; None where there is none."""
        return self.shelf.blob(key) if self.shelf.stamps.get(key) is not None else None

    async def touch(self, content: str) -> None:
        """A pod uses the content now: it is the last to be evicted."""
        await self.threads.run(self.shelf.usage.touch, content, self._now())

    async def recheck(self, content: str, *, rate: float | None = None) -> tuple[str, ...]:
        """Hash a complete content again, file by file; returns the paths that are wrong.

        What is wrong is gone afterwards, from every content that had it, and they are no longer complete. One thread
        at a time; with ``rate`` (bytes per second, on average) it also leaves the disk alone in between.
        """
        record: Record | None = self.shelf.records.get(content)
        if record is None or record.manifest is None or not self.has(content):
            return ()
        wrong: list[str] = []
        for file in record.manifest.files:
            key = record.keys[file.path]
            async with self.key_lock(key):
                if not await self.threads.stoppable(self.shelf.recheck, key, file):
                    wrong.append(file.path)
                    self._forget(key)
            if rate:
                await asyncio.sleep(file.size / rate)
        return tuple(wrong)

    async def reject(self, key: str) -> None:
        """A blob is not to be believed (the first reader's digest is another): it goes from everywhere.

        So does the partial that it was made from, which is the same file: nothing should read it any more.
        """
        async with self.key_lock(key):
            await self.threads.run(self.shelf.condemn, key)
            self._forget(key)
            self._users.pop(key, None)
            if (partial := self._partials.pop(key, None)) is not None:
                await self.threads.run(partial.remove)

    def _forget(self, key: str) -> None:
        self._complete.difference_update(it.content for it in list(self.shelf.records.values()) if key in it.sizes)
        for filling in self._fillings.values():
            if key in filling.record.sizes:
                filling.lost(key)

    # Directories of users

    async def materialize(self, content: str, path: Path) -> None:
        """Let a directory of a user (``storage.path`` of a BaseModel) hold a complete content, as hard links.

        A directory that is not there yet appears whole. In one that is, each file appears whole, files of an earlier
        content that this one does not have go, and everything else is left alone.

        Raises ``PathOutsideRoot``, and ``StorageFailed``, also for a content that is not complete (any more).
        """
        parts = materialize.parts_below(self.shelf, path)
        if not self.has(content):
            raise StorageFailed(f"{self.directory(content)} is not complete any more")
        await self.threads.run(materialize.materialize, self.shelf, content, parts)

    async def unmaterialize(self, path: Path) -> None:
        """Take our files out of a user's directory, and the directory if nothing else is in it."""
        placement = self.shelf.placements.get(materialize.parts_below(self.shelf, path))
        if placement is not None:
            await self.threads.run(self.shelf.clear_placement, placement)

    async def __aenter__(self) -> Self:
        await self.open()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.close()
