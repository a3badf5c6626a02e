"""Segments: the units in which a content leaves its origin. Whoever has the manifest and one number has the same plan.

A large file is cut into ranges, and small files are bundled. Ranges begin and end where pieces do (a window of the
swarm has whole pieces only). A segment's index is also its place in the order in which the origin is read: bundles
first, because many small files take long; then large files by size, each from its beginning, so that files are
complete, and can be verified, one after the other, and what is left to verify at the very end is small.
"""

from collections.abc import Iterator
from dataclasses import dataclass

from modelswarm.agent.swarm.windows import piece_length
from modelswarm.content.manifest import Manifest, ManifestFile
from modelswarm.errors import InvalidReference

MIB = 1 << 20
SMALL_FILE = MIB
"""Files up to this many bytes are bundled and travel over HTTP."""
BUNDLE_BYTES = 4 * MIB
BUNDLE_FILES = 64

MIN_SEGMENT = MIB
MAX_SEGMENT = 64 * MIB
ROUNDS = 128
"""Segments for each node. Until the first are read nodes have nothing to give each other, and what the slowest has
still to do at the end is about one of them: with four times larger ones both cost some hundredths of the time."""
MAX_SEGMENTS = 16_384
"""Ranges of a content; larger contents get larger segments."""


@dataclass(frozen=True, slots=True)
class Segment:
    """A range of one file, or a bundle of whole files. ``files`` are positions in ``sorted(manifest.files)``.

    ``offset`` and ``length`` are in bytes; of a bundle, ``offset`` is 0 and ``length`` the sum of its files.
    """

    index: int
    files: tuple[int, ...]
    offset: int
    length: int
    is_bundle: bool

    @property
    def file(self) -> int:
        """The file that a range belongs to (of a bundle: its first)."""
        return self.files[0]

    @property
    def end(self) -> int:
        return self.offset + self.length


def choose_segment_bytes(total: int, nodes: int) -> int:
    """How large the segments of a content of ``total`` bytes should be when ``nodes`` nodes help (a multiple of 1 MiB).

    Every node has some ``ROUNDS`` of them to fetch, but each also costs a request, a report and a torrent.
    """
    wanted = total // (max(nodes, 1) * ROUNDS)
    bounded = min(max(wanted, MIN_SEGMENT), MAX_SEGMENT)
    return -(-max(bounded, -(-total // MAX_SEGMENTS)) // MIB) * MIB


def plan(manifest: Manifest, segment_bytes: int) -> tuple[Segment, ...]:
    """The segments: every byte that has to travel is in exactly one of them.

    Empty files have none: every node makes them by itself. Nor has a file whose digest and size an earlier one has
    (``same_as``): it is the same blob. Raises InvalidReference if there would be too many, or ``segment_bytes`` makes
    no sense (both may have been read from a Lease).
    """
    if segment_bytes < MIB or segment_bytes % MIB:
        raise InvalidReference(f"segments of {segment_bytes} bytes make no sense")
    if manifest.bytes // segment_bytes > 2 * MAX_SEGMENTS:
        raise InvalidReference(f"segments of {segment_bytes} bytes are too small for {manifest.bytes} bytes")
    files = sorted(manifest.files)
    twins = same_as(files)
    travelling = [number for number, file in enumerate(files) if file.size and number not in twins]
    small = [number for number in travelling if files[number].size <= SMALL_FILE]
    large = [number for number in travelling if files[number].size > SMALL_FILE]
    segments: list[Segment] = []
    for bundle in _bundles(files, small):
        length = sum(files[number].size for number in bundle)
        segments.append(Segment(len(segments), tuple(bundle), 0, length, is_bundle=True))
    for number in sorted(large, key=lambda number: (-files[number].size, number)):
        size = files[number].size
        step = _whole_pieces(segment_bytes, size)
        for offset in range(0, size, step):
            segments.append(Segment(len(segments), (number,), offset, min(step, size - offset), is_bundle=False))
    return tuple(segments)


def same_as(files: list[ManifestFile]) -> dict[int, int]:
    """Which files (positions) have the bytes of an earlier one, and of which: known where there is a digest."""
    first: dict[tuple[str, int], int] = {}
    twins: dict[int, int] = {}
    for number, file in enumerate(files):
        if file.digest is not None and file.size:
            earlier = first.setdefault((file.digest, file.size), number)
            if earlier != number:
                twins[number] = earlier
    return twins


def hash_count(segment: Segment, size: int) -> int:
    """How many pieces a range of a file with ``size`` bytes has."""
    return -(-segment.length // piece_length(size))


def _whole_pieces(segment_bytes: int, size: int) -> int:
    piece = piece_length(size)
    return -(-segment_bytes // piece) * piece


def _bundles(files: list[ManifestFile], small: list[int]) -> Iterator[list[int]]:
    bundle: list[int] = []
    room = BUNDLE_BYTES
    for number in small:
        size = files[number].size
        if bundle and (size > room or len(bundle) == BUNDLE_FILES):
            yield bundle
            bundle, room = [], BUNDLE_BYTES
        bundle.append(number)
        room -= size
    if bundle:
        yield bundle
