"""When what was published becomes windows: several segments of a file, mostly of several nodes, are one window.

Of such a window every node that has read some of it has something to give from the start, and few torrents with much
in each cost less than many with little. So what is published is gathered: the more, the more was published before and
the more is left. The swarm begins at once, and at the end nobody waits for the last.
"""

from collections.abc import Sequence

from modelswarm.agent.segments import Segment

SHARE = 5
"""Windows are cut when one part in so many was gathered, of what was published before or of what is left."""
LONGEST_WAIT = 2.0
"""Seconds after which they are cut in any case."""
MOST = 64
"""Segments of a window."""


class Cuts:
    """For the ranges of a content; bundles make no windows. Times are the caller's, in seconds."""

    def __init__(self, segments: Sequence[Segment]) -> None:
        self._segments = segments
        self._left = sum(segment.length for segment in segments if not segment.is_bundle)
        self._done = 0
        self._gathered: dict[int, float] = {}
        self._bytes = 0

    def gather(self, segment: int, now: float) -> None:
        """A segment was published. It must not have been before."""
        self._gathered[segment] = now
        self._bytes += self._segments[segment].length
        self._left -= self._segments[segment].length

    def settle(self, segment: int) -> None:
        """It is in a window; it may or may not have been gathered before."""
        length = self._segments[segment].length
        if self._gathered.pop(segment, None) is not None:
            self._bytes -= length
        else:
            self._left -= length
        self._done += length

    def cut(self, now: float, *, at_once: bool = False) -> list[tuple[int, ...]]:
        """The windows that are due now, each with segments of one file in order; mostly there are none.

        ``at_once``: somebody waits for what was gathered.
        """
        if not self._gathered:
            return []
        waited = now - next(iter(self._gathered.values()))
        if not at_once and self._bytes * SHARE < min(self._done, self._left) and waited < LONGEST_WAIT:
            return []
        by_file: dict[int, list[int]] = {}
        for segment in sorted(self._gathered):
            by_file.setdefault(self._segments[segment].file, []).append(segment)
            self.settle(segment)
        return [
            tuple(numbers[start : start + MOST])
            for numbers in by_file.values()
            for start in range(0, len(numbers), MOST)
        ]
