"""What a node has read from the origin and nobody else has yet: it is lost with the node, and read once more.

How much that is depends on the rates of origin and swarm, not on the content's size. So no node gets further ahead of
the others than a part of the content: then whatever node dies costs no more than that.
"""

from collections.abc import Iterable, Sequence

from modelswarm.agent.segments import MIB, Segment

SHARE = 5
"""A node has at most one part in so many of the content in hand: on its way from the origin, or with nobody else;"""
LEAST = 12 * MIB
"""but so many bytes in any case."""
SMALL = 32 * MIB
"""Contents of less are soon through, and nobody waits."""
PATIENCE_SECONDS = 10.0
"""After which what nobody takes does not count any more: the others may be slow, or cut off, and the work goes on."""


class Passing:
    """Times are the caller's, in seconds."""

    def __init__(self, segments: Sequence[Segment]) -> None:
        self._lengths = [segment.length for segment in segments]
        total = sum(self._lengths)
        self._limit = max(LEAST, total // SHARE) - max(self._lengths, default=0) if total >= SMALL else total
        self._read: dict[int, tuple[str, float]] = {}
        self._bytes: dict[str, int] = {}

    def has_room(self, node: str, held: Iterable[int]) -> bool:
        """Whether the node, which reads ``held`` now, may be given one more segment."""
        in_flight = sum(self._lengths[segment] for segment in held)
        return self._bytes.get(node, 0) + in_flight <= self._limit

    def note_read(self, node: str, segment: int, now: float) -> None:
        """The node has read a segment that nobody else has."""
        self.end(segment)
        self._read[segment] = node, now
        self._bytes[node] = self._bytes.get(node, 0) + self._lengths[segment]

    def note_had(self, node: str, segment: int) -> None:
        """The node has the segment now."""
        if segment in self._read and self._read[segment][0] != node:
            self.end(segment)

    def end(self, segment: int) -> None:
        """It counts no more."""
        if (known := self._read.pop(segment, None)) is not None:
            self._bytes[known[0]] -= self._lengths[segment]

    def tick(self, now: float) -> None:
        for segment, (_, since) in list(self._read.items()):
            if now - since < PATIENCE_SECONDS:
                break
            self.end(segment)
