"""The disk side of the store: blobs, and the directories of contents that link to them. Everything here blocks."""

import os
import shutil
import threading
from collections.abc import Collection, Iterable, Sequence
from contextlib import suppress
from pathlib import Path

from modelswarm.agent.store import files, marker
from modelswarm.agent.store.capacity import Disk
from modelswarm.agent.store.keys import COMPLETE, is_blob_key, is_content_id
from modelswarm.agent.store.lock import StoreLock
from modelswarm.agent.store.marker import Entry, Marker
from modelswarm.agent.store.records import Placement, Placements, Record, Records, record_of_marker
from modelswarm.agent.store.settings import StoreSettings
from modelswarm.agent.store.stamps import Stamp, Stamps
from modelswarm.agent.store.verify import BlobHash, boot_id, hash_file
from modelswarm.content.manifest import ManifestFile
from modelswarm.loader.digests import Verdict

BLOBS = "blobs"
PARTIAL = "partial"
MODELS = "models"
OWN = ".modelswarm"
READ_ONLY = 0o444


class Shelf:
    """Safe from several threads: what changes several things at once holds ``lock``, and no hashing happens in it."""

    def __init__(self, settings: StoreSettings) -> None:
        self.settings = settings
        self.boot = boot_id()
        self.lock = threading.RLock()
        self.root = Path(os.path.realpath(settings.root))
        self.records: dict[str, Record] = {}
        self.placements: dict[tuple[str, ...], Placement] = {}
        own = self.root / OWN
        self.stamps = Stamps(own / "verified.json", self.boot)
        self.usage = Records(own)
        self._paths = Placements(own)
        self._lock = StoreLock(own / "lock", self.root)

    def open(self) -> None:
        """Make the layout, take the lock (``StoreBusy``), and read what is known."""
        self.root.mkdir(parents=True, exist_ok=True)
        for parts in ((BLOBS,), (PARTIAL,), (MODELS,), (OWN, "contents"), (OWN, "usage"), (OWN, "paths")):
            with files.directory(self.root, parts, create=True):
                pass
        self._lock.acquire(self.settings.node)
        try:
            for name in ("trash", "new"):
                with files.directory(self.root, (OWN, name), create=True):
                    pass
                _empty(self.root / OWN / name)
            self.stamps.open()
            self.records = self.usage.load()
            self.placements = {placement.parts: placement for placement in self._paths.load()}
            for content in self.directories():
                if content not in self.records and (found := self.marker(content)) is not None:
                    record = record_of_marker(content, found)
                    if record is not None:
                        self.records[content] = record
            self._drop_finished()
        except BaseException:
            self.close()
            raise

    def _drop_finished(self) -> None:
        """Partials that became blobs before the last run ended, or was ended."""
        for name in os.listdir(self.root / PARTIAL):
            key = name.removesuffix(".json")
            stamp = self.stamps.get(key)
            if stamp is not None and self.trusted(key, stamp.size) is not None:
                files.unlink(self.root, (PARTIAL, name))

    def close(self) -> None:
        self.stamps.close()
        self._lock.release()

    def directories(self) -> list[str]:
        """Content ids that have a directory."""
        return sorted(entry.name for entry in os.scandir(self.root / MODELS) if is_content_id(entry.name))

    def disk(self) -> Disk:
        found = os.statvfs(self.root)
        return Disk(found.f_blocks * found.f_frsize, found.f_bavail * found.f_frsize)

    # Blobs

    def blob(self, key: str) -> Path:
        return self.root / BLOBS / key

    def partial(self, key: str) -> Path:
        return self.root / PARTIAL / key

    def blob_sizes(self) -> dict[str, int]:
        found = files.statuses(self.root / BLOBS)
        return {name: status.st_size for name, status in found if is_blob_key(name)}

    def freeable(self) -> dict[str, int]:
        """Sizes of the blobs; zero where somebody else has a link as well (an adopted directory), which keeps it."""
        links: dict[str, int] = {}
        with self.lock:
            holders = [*self.directories(), *(placement.content for placement in self.placements.values())]
            held = [self.records[content] for content in holders if content in self.records]
        for record in held:
            for key in record.keys.values():
                links[key] = links.get(key, 0) + 1
        # The name of a partial outlives its becoming a blob for a while.
        for name in filter(is_blob_key, os.listdir(self.root / PARTIAL)):
            links[name] = links.get(name, 0) + 1
        found: dict[str, int] = {}
        for name, status in files.statuses(self.root / BLOBS):
            if is_blob_key(name):
                found[name] = status.st_size if status.st_nlink <= 1 + links.get(name, 0) else 0
        return found

    def partial_bytes(self) -> dict[str, int]:
        """What partials occupy, by key; one that has become a blob does not count twice."""
        found: dict[str, int] = {}
        for name, status in files.statuses(self.root / PARTIAL):
            if is_blob_key(name):
                found[name] = 0 if status.st_nlink > 1 else status.st_blocks * 512
        return found

    def trusted(self, key: str, size: int) -> Stamp | None:
        """The stamp of a blob that is as it was when it was verified."""
        found = files.status(self.root, (BLOBS, key))
        stamp = self.stamps.get(key)
        return stamp if found is not None and stamp is not None and stamp.size == size and stamp.fits(found) else None

    def look(self, record: Record) -> tuple[dict[str, Stamp], set[str]]:
        """Of the blobs of a content: the trusted ones with their stamps, and those that have to be read again."""
        found: dict[str, Stamp] = {}
        unsure: set[str] = set()
        with files.directory(self.root, (BLOBS,)) as blobs:
            for key, size in record.sizes.items():
                try:
                    status = os.stat(key, dir_fd=blobs, follow_symlinks=False)
                except FileNotFoundError:
                    continue
                stamp = self.stamps.get(key)
                if stamp is not None and stamp.size == size and stamp.fits(status):
                    found[key] = stamp
                else:
                    unsure.add(key)
        return found, unsure

    def recheck(self, key: str, file: ManifestFile, stopped: threading.Event) -> bool:
        """Hash a blob that is there without a stamp; a wrong one goes, with everything that links to it."""
        try:
            fd = files.open_file(self.root, (BLOBS, key))
        except FileNotFoundError:
            return False
        try:
            state = hash_file(fd, file, stopped)
            if state is not None and self._right(key, state):
                os.fsync(fd)
                with self.lock:
                    self.stamps.put(key, os.fstat(fd), state.hexdigest(), durable=True)
                return True
        finally:
            os.close(fd)
        if stopped.is_set():
            return False
        self.condemn(key)
        return False

    def _right(self, key: str, state: BlobHash) -> bool:
        known = self.stamps.sha256(key)
        if known is not None and known == state.hexdigest() and key.startswith("object-"):
            return True
        return state.verdict() is Verdict.RIGHT

    def shelve(self, fd: int, key: str, sha256: str, *, durable: bool) -> None:
        """Make the open, verified file a blob; in place of whatever has that name."""
        os.fchmod(fd, READ_ONLY)
        if durable:
            os.fsync(fd)
        with self.lock, files.directory(self.root, (BLOBS,)) as blobs:
            # By descriptor: it is the very file that was hashed, whatever its name leads to by now.
            itself = f"/proc/self/fd/{fd}"
            try:
                os.link(itself, key, dst_dir_fd=blobs, follow_symlinks=True)
            except FileExistsError:
                if self.trusted(key, os.fstat(fd).st_size) is not None:
                    # Somebody was faster; contents link to that file already.
                    return
                fresh = f"{files.TEMPORARY}{key}"
                with suppress(FileNotFoundError):
                    os.unlink(fresh, dir_fd=blobs)
                os.link(itself, fresh, dst_dir_fd=blobs, follow_symlinks=True)
                os.rename(fresh, key, src_dir_fd=blobs, dst_dir_fd=blobs)
                with suppress(FileNotFoundError):
                    # Renaming a link over another link of the same file does nothing at all.
                    os.unlink(fresh, dir_fd=blobs)
            if durable:
                os.fsync(blobs)
            self.stamps.put(key, os.fstat(fd), sha256, durable=durable)

    def make_durable(self, keys: Iterable[str]) -> None:
        """Bring blobs to disk that were shelved in haste."""
        changed = False
        for key in keys:
            stamp = self.stamps.get(key)
            if stamp is None or not stamp.boot:
                continue
            fd = files.open_file(self.root, (BLOBS, key))
            try:
                os.fsync(fd)
                if stamp.fits(os.fstat(fd)):
                    with self.lock:
                        self.stamps.put(key, os.fstat(fd), stamp.sha256, durable=True)
                    changed = True
            finally:
                os.close(fd)
        if changed:
            with files.directory(self.root, (BLOBS,)) as blobs:
                os.fsync(blobs)

    # Contents

    def marker(self, content: str) -> Marker | None:
        return marker.read(self.root, (MODELS, content))

    def is_complete(self, content: str) -> bool:
        """Whether the marker is there and every file is as it says."""
        found = self.marker(content)
        return (
            found is not None
            and found.digest == f"sha256:{content}"
            and marker.holds(self.root, (MODELS, content), found)
        )

    def uncomplete(self, content: str) -> None:
        """Take the marker away before anything else changes."""
        with suppress(FileNotFoundError), files.directory(self.root, (MODELS, content)) as fd:
            os.unlink(COMPLETE, dir_fd=fd)
            os.fsync(fd)

    def place(self, content: str, paths: Iterable[tuple[str, str]]) -> None:
        """Link blobs into the content's directory: ``paths`` are pairs of path and key."""
        for path, key in paths:
            files.link(self.blob(key), self.root, (MODELS, content, *path.split("/")))

    def write_marker(self, record: Record) -> None:
        """``.complete``, after everything that it speaks of is on disk."""
        entries: dict[str, Entry] = {}
        for path, key in record.keys.items():
            stamp = self.stamps.get(key)
            if stamp is None:
                raise FileNotFoundError(2, "the blob is gone", str(self.blob(key)))
            entries[path] = Entry(stamp.size, stamp.mtime_ns, key, stamp.sha256)
        written = Marker(f"sha256:{record.content}", entries)
        parts = (MODELS, record.content)
        if not marker.holds(self.root, parts, written):
            raise FileNotFoundError(2, "files changed while the content was completed", str(self.root.joinpath(*parts)))
        files.sync_directories(self.root, parts)
        files.write(self.root, (*parts, COMPLETE), written.encode(), mode=READ_ONLY)

    def condemn(self, key: str) -> list[str]:
        """A blob is wrong: it and its links go, and no content that has it is complete any more; returns those."""
        with self.lock:
            found = files.status(self.root, (BLOBS, key))
            self.stamps.drop([key])
            affected = [record for record in self.records.values() if key in record.sizes]
            for record in affected:
                self.uncomplete(record.content)
                places: list[tuple[str, ...]] = [(MODELS, record.content)]
                places += [it.parts for it in self.placements.values() if it.content == record.content]
                for place in places:
                    for path in (path for path, its in record.keys.items() if its == key and found is not None):
                        files.unlink(self.root, (*place, *path.split("/")), only=found)
            files.unlink(self.root, (BLOBS, key))
            return [record.content for record in affected]

    def remember(self, record: Record) -> None:
        with self.lock:
            self.usage.save(record)
            self.records[record.content] = record

    def remove(self, content: str, *, held: Iterable[str] = ()) -> int:
        """A content leaves, with the directories it lies in and the blobs that nobody else has; returns bytes freed.

        ``held`` are keys that running downloads need. Killed half-way, the next ``open`` or ``sweep`` ends it.
        """
        with self.lock:
            with suppress(FileNotFoundError):
                # In one step from complete to not there.
                os.rename(self.root / MODELS / content, self.root / OWN / "trash" / content)
                with files.directory(self.root, (MODELS,)) as models:
                    os.fsync(models)
            for placement in [it for it in self.placements.values() if it.content == content]:
                self.clear_placement(placement)
            record = self.records.pop(content, None)
            self.usage.forget(content)
            freed = 0
            if record is not None:
                needed = set(held).union(*(other.sizes for other in self.records.values()))
                freed = self.discard(record.sizes.keys() - needed)
        shutil.rmtree(self.root / OWN / "trash" / content, ignore_errors=True)
        return freed

    def discard(self, keys: Collection[str]) -> int:
        """Blobs and their partials go; returns the bytes of the blobs."""
        freed = 0
        with (
            self.lock,
            files.directory(self.root, (BLOBS,)) as blobs,
            files.directory(self.root, (PARTIAL,)) as partials,
        ):
            self.stamps.drop(keys)
            for key in keys:
                with suppress(FileNotFoundError):
                    freed += os.stat(key, dir_fd=blobs, follow_symlinks=False).st_size
                    os.unlink(key, dir_fd=blobs)
                for name in (key, f"{key}.json"):
                    with suppress(FileNotFoundError):
                        os.unlink(name, dir_fd=partials)
        return freed

    # Directories of users

    def note_placement(self, placement: Placement) -> None:
        with self.lock:
            self._paths.save(placement)
            self.placements[placement.parts] = placement

    def clear_placement(self, placement: Placement, *, except_paths: Sequence[str] = ()) -> None:
        """Remove from a user's directory what is still as we put it there; everything else stays."""
        with self.lock:
            found = marker.read(self.root, placement.parts)
            record = self.records.get(placement.content)
            keys = dict(record.keys) if record is not None else {}
            if found is not None:
                keys |= {path: entry.key for path, entry in found.files.items()}
            if found is not None:
                files.unlink(self.root, (*placement.parts, COMPLETE))
            for path in keys.keys() - set(except_paths):
                blob = files.status(self.root, (BLOBS, keys[path]))
                parts = (*placement.parts, *path.split("/"))
                there = files.status(self.root, parts)
                entry = found.files.get(path) if found is not None else None
                ours = there is not None and (
                    (blob is not None and os.path.samestat(blob, there))
                    or (entry is not None and (entry.size, entry.mtime_ns) == (there.st_size, there.st_mtime_ns))
                )
                if ours:
                    files.unlink(self.root, parts, only=there)
                    files.remove_empty(self.root, parts[:-1], above=len(placement.parts))
            if not except_paths:
                files.remove_empty(self.root, placement.parts, above=len(placement.parts) - 1)
                self._paths.forget(placement.parts)
                self.placements.pop(placement.parts, None)


def _empty(folder: Path) -> None:
    """Remove what is in a directory, as far as that goes. The directory stays: to make it again takes room."""
    for entry in os.scandir(folder):
        if entry.is_dir(follow_symlinks=False):
            shutil.rmtree(entry.path, ignore_errors=True)
        else:
            with suppress(OSError):
                os.unlink(entry.path)
