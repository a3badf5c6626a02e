"""What is published of a content: every segment once, by the first who published it.

A second publication counts only where the coordinator asked for the segment to be read again. If its hashes differ,
one of the two nodes read or told something else than the origin has; which of them, votes decide (``Suspicion``).
"""

from collections import Counter
from collections.abc import Sequence
from itertools import pairwise

from modelswarm.agent import bits
from modelswarm.agent.messages import Publication
from modelswarm.agent.segments import Segment, hash_count
from modelswarm.agent.swarm.windows import HASH_BYTES


class Publications:
    """``sizes``: of the files, by position."""

    def __init__(self, segments: Sequence[Segment], sizes: Sequence[int]) -> None:
        self._segments = segments
        self._hash_bytes = [
            0 if segment.is_bundle else HASH_BYTES * hash_count(segment, sizes[segment.file]) for segment in segments
        ]
        self._of: list[Publication | None] = [None] * len(segments)
        self._replaced: dict[int, int] = {}
        self.known = 0
        """The published segments."""

    def get(self, segment: int) -> Publication | None:
        return self._of[segment]

    def hashes(self, segment: int) -> bytes:
        """Of one segment; empty where it is not published."""
        publication = self._of[segment]
        return dict(self.split(publication)).get(segment, b"") if publication is not None else b""

    def publisher(self, segment: int) -> str | None:
        publication = self._of[segment]
        return publication.publisher if publication is not None else None

    def is_sound(self, publication: Publication) -> bool:
        """Whether it can be a window: ranges of one file in order, or one bundle; with as many hashes as they need."""
        numbers = publication.segments
        if any(number >= len(self._segments) for number in numbers):
            return False
        first = self._segments[numbers[0]]
        if first.is_bundle:
            return len(numbers) == 1 and not publication.hashes
        if any(later <= earlier for earlier, later in pairwise(numbers)):
            return False
        if any(self._segments[number].is_bundle or self._segments[number].file != first.file for number in numbers):
            return False
        return len(publication.hashes) == sum(self._hash_bytes[number] for number in numbers)

    def split(self, publication: Publication) -> list[tuple[int, bytes]]:
        """Each segment with its own hashes."""
        parts, at = [], 0
        for number in publication.segments:
            end = at + self._hash_bytes[number]
            parts.append((number, publication.hashes[at:end]))
            at = end
        return parts

    def put(self, publication: Publication, only: Sequence[int]) -> Publication | None:
        """Record the segments in ``only`` of a sound publication, as one. Returns what was recorded, if anything."""
        wanted = set(only)
        parts = [(number, hashes) for number, hashes in self.split(publication) if number in wanted]
        if not parts:
            return None
        if len(parts) != len(publication.segments):
            publication = Publication.model_construct(
                segments=tuple(number for number, _ in parts),
                hashes=b"".join(hashes for _, hashes in parts),
                publisher=publication.publisher,
            )
        for number, _ in parts:
            self._of[number] = publication
            self.known |= 1 << number
        return publication

    def note_replaced(self, segment: int, position: int) -> None:
        """Other hashes hold for the segment from this position of the journal on."""
        self._replaced[segment] = position

    def outdated(self, node: str, cursor: int) -> int:
        """The segments of which a node that knows the journal up to ``cursor`` may have the wrong bytes."""
        return bits.mask_of(
            segment
            for segment, position in self._replaced.items()
            if position > cursor and self.publisher(segment) != node
        )


class Suspicion:
    """Who said what of segments that were read more than once, and whom that leaves as a liar."""

    def __init__(self) -> None:
        self._votes: dict[int, dict[str, bytes]] = {}

    def vote(self, segment: int, node: str, hashes: bytes) -> None:
        """A node's last word counts."""
        votes = self._votes.setdefault(segment, {})
        votes.pop(node, None)
        votes[node] = hashes

    def voters(self, segment: int) -> set[str]:
        return set(self._votes.get(segment, ()))

    def prevailing(self, segment: int) -> bytes | None:
        """What most say; of equally many, the later word: the earlier made a file whose digest was wrong."""
        votes = self._votes.get(segment)
        if not votes:
            return None
        tally = Counter(votes.values())
        most = max(tally.values())
        return next(hashes for hashes in reversed(votes.values()) if tally[hashes] == most)

    def liars(self) -> set[str]:
        found: set[str] = set()
        for segment, votes in self._votes.items():
            right = self.prevailing(segment)
            found.update(node for node, hashes in votes.items() if hashes != right)
        return found
