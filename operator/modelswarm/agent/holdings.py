"""What of a content is on this node: segments that are whole, files that were verified. Bookkeeping, no IO."""

from collections.abc import Iterator, Sequence

from modelswarm.agent import bits
from modelswarm.agent.segments import Segment, same_as
from modelswarm.content.manifest import ManifestFile


class Holdings:
    """``files`` are ``sorted(manifest.files)``. A verified file has all its segments; a bundle is whole when all its
    files are verified; a file with the bytes of an earlier one is verified with it."""

    def __init__(self, files: Sequence[ManifestFile], segments: Sequence[Segment]) -> None:
        self.files = tuple(files)
        self.segments = tuple(segments)
        self.have = 0
        self.verified = 0
        self._of_file: dict[int, list[Segment]] = {}
        for segment in self.segments:
            for number in segment.files:
                self._of_file.setdefault(number, []).append(segment)
        self._twins: dict[int, list[int]] = {}
        for number, first in same_as(list(files)).items():
            self._twins.setdefault(first, []).append(number)

    @property
    def complete(self) -> bool:
        return self.verified == bits.full(len(self.files))

    def has(self, segment: int) -> bool:
        return bool(self.have >> segment & 1)

    def is_verified(self, file: int) -> bool:
        return bool(self.verified >> file & 1)

    def segments_of(self, file: int) -> Sequence[Segment]:
        """In order of their bytes; none for an empty file, and for one whose bytes are those of another."""
        return self._of_file.get(file, ())

    def ranges_in(self, file: int, offset: int, length: int) -> Iterator[Segment]:
        """The segments of a large file that overlap with a range of it."""
        for segment in self.segments_of(file):
            if not segment.is_bundle and segment.offset < offset + length and offset < segment.end:
                yield segment

    def arrived(self, segment: int) -> bool:
        """A range is here; returns whether it was the last one of its file."""
        self.have |= 1 << segment
        return self.is_filled(self.segments[segment].file)

    def lost(self, segment: int) -> None:
        """A range is not to be believed any more."""
        self.have &= ~(1 << segment)

    def is_filled(self, file: int) -> bool:
        """Whether every range of a file that is not verified yet is here."""
        return not self.is_verified(file) and all(self.has(segment.index) for segment in self.segments_of(file))

    def verify(self, file: int) -> None:
        """A file is in place, and its digest was right."""
        for number in (file, *self._twins.get(file, ())):
            self.verified |= 1 << number
        for segment in self.segments_of(file):
            if not segment.is_bundle or all(self.is_verified(number) for number in segment.files):
                self.have |= 1 << segment.index

    def discard(self, file: int) -> None:
        """A file that was verified is not to be believed after all (its origin has no digest of it)."""
        self.verified &= ~(1 << file)
        for segment in self.segments_of(file):
            self.lost(segment.index)
