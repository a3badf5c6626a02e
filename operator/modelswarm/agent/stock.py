"""The files of one content as they are on this node: where they lie, which ranges are here, and what was verified."""

import asyncio
import contextlib
from collections.abc import Iterable
from pathlib import Path

from modelswarm.agent.holdings import Holdings
from modelswarm.agent.segments import Segment, plan
from modelswarm.agent.store import Filling, Partial, Store
from modelswarm.agent.swarm import piece_hashes, piece_length
from modelswarm.content.manifest import ManifestFile
from modelswarm.errors import StorageFailed

_HASHED = 4 << 20


class Stock:
    """Files are numbered by their position in ``sorted(manifest.files)``, as everywhere between nodes."""

    def __init__(self, filling: Filling, segment_bytes: int, store: Store) -> None:
        self.filling = filling
        self.files = sorted(filling.manifest.files)
        self.keys = [filling.key(file.path) for file in self.files]
        self.holdings = Holdings(self.files, plan(filling.manifest, segment_bytes))
        self.found: dict[int, str] = {}
        """Digests (``sha256:...``) that this node has computed, of files that the manifest has none for,"""
        self.agreed: dict[int, str] = {}
        """and those that hold for all nodes: the first reader's."""
        self._store = store
        self._numbers = {file.path: number for number, file in enumerate(self.files)}
        self._by_key = {key: number for number, key in reversed(list(enumerate(self.keys)))}
        self._small = {number for each in self.holdings.segments if each.is_bundle for number in each.files}
        self._partials: dict[int, Partial] = {}
        self._losses: dict[int, int] = {}

    def number(self, file: ManifestFile) -> int:
        return self._numbers[file.path]

    def number_of(self, key: str) -> int:
        """The first file with these bytes."""
        return self._by_key[key]

    def is_small(self, number: int) -> bool:
        return number in self._small

    def is_placed(self, number: int) -> bool:
        """Whether the file is in place, with the right digest."""
        return self.keys[number] in self.filling.verified

    def unplaced(self, segment: Segment) -> list[int]:
        return [number for number in segment.files if not self.is_placed(number)]

    def losses(self, number: int) -> int:
        """Changes whenever bytes of the file were given up: what was found out before does not count any more."""
        return self._losses.get(number, 0)

    async def partial(self, number: int) -> Partial:
        partial = self._partials[number] = await self.filling.partial(self.keys[number])
        return partial

    async def place(self, number: int) -> Path:
        """The file on disk: as it is filled, or as it was verified."""
        blob = self._store.blob(self.keys[number]) if self.is_placed(number) else None
        return blob or (await self.partial(number)).path

    async def covers(self, segment: Segment) -> bool:
        """Whether all bytes of a range are on disk, whoever has brought them."""
        return self.is_placed(segment.file) or (await self.partial(segment.file)).covers(segment.offset, segment.length)

    def progress(self, number: int) -> int:
        """Bytes of a segment that are here, from its beginning."""
        segment = self.holdings.segments[number]
        if segment.is_bundle:
            return sum(self.files[file].size for file in segment.files if self.is_placed(file))
        partial = self._partials.get(segment.file)
        return min(partial.reach(segment.offset) - segment.offset, segment.length) if partial is not None else 0

    async def mark(self, segment: Segment, hashes: bytes) -> None:
        """A range came through the swarm."""
        length = piece_length(self.files[segment.file].size)
        await self.filling.mark(
            self.keys[segment.file], segment.offset, segment.length, piece_length=length, hashes=hashes
        )

    async def drop(self, segment: Segment) -> None:
        """The bytes of a range are not to be believed. Those of a file whose digest was right stay."""
        self.holdings.lost(segment.index)
        self._losses[segment.file] = self.losses(segment.file) + 1
        if not self.is_placed(segment.file):
            (await self.partial(segment.file)).drop(segment.offset, segment.length)

    async def hash(self, segment: Segment) -> bytes:
        """The SHA-1s of a range's pieces: as they were noted when it came, else from the disk.

        What was noted is better: should the disk have changed the bytes since, nobody else is told wrong ones.
        Raises ``StorageFailed``.
        """
        size = piece_length(self.files[segment.file].size)
        if not self.is_placed(segment.file):
            for noted in (await self.partial(segment.file)).pieces():
                if (noted.offset, noted.length, noted.piece_length) == (segment.offset, segment.length, size):
                    return noted.hashes
        path = await self.place(segment.file)
        try:
            return await asyncio.to_thread(_hash_pieces, path, segment.offset, segment.length, size)
        except OSError as error:
            raise StorageFailed(f"{path}: {error.strerror or type(error).__name__}") from error

    async def hash_ahead(self, number: int) -> None:
        """Hash what is there of a growing file, so that little is left to do when its last byte arrives."""
        if not self.is_placed(number):
            await self.filling.hash_ahead(self.keys[number])

    # Files that the origin has no digest of

    def digest(self, number: int) -> str | None:
        """The one that holds (hex), if there is one."""
        return self.agreed[number].removeprefix("sha256:") if number in self.agreed else None

    def note(self, numbers: Iterable[int]) -> None:
        """These files are in place: remember what they were found to be."""
        for number in numbers:
            if self.files[number].digest is None and (verified := self.filling.verified.get(self.keys[number])):
                self.found[number] = f"sha256:{verified.sha256}"

    def agree(self, number: int, digest: str) -> bool:
        """The coordinator tells the digest that holds; whether what is here is something else."""
        if self.files[number].digest is not None:
            return False
        self.agreed[number] = digest
        verified = self.filling.verified.get(self.keys[number])
        return verified is not None and f"sha256:{verified.sha256}" != digest

    async def reject(self, number: int) -> None:
        """What is here of a file, verified by itself, is not what the others have: it goes from everywhere."""
        await self._store.reject(self.keys[number])
        self.found.pop(number, None)
        self._partials.pop(number, None)
        self._losses[number] = self.losses(number) + 1
        self.holdings.discard(number)


def _hash_pieces(path: Path, offset: int, length: int, piece: int) -> bytes:
    found = bytearray()
    with contextlib.closing(path.open("rb")) as file:
        file.seek(offset)
        while length > 0:
            want = min(length, max(piece, _HASHED - _HASHED % piece))
            chunk = file.read(want)
            if len(chunk) < want:
                raise OSError(5, "the file ends too early", str(path))
            found += piece_hashes(chunk, piece)
            length -= want
    return bytes(found)
