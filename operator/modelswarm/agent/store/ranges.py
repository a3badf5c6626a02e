"""Which bytes of a file are there: disjoint ranges, in order."""

from bisect import bisect_left, bisect_right
from collections.abc import Iterable, Iterator


class Ranges:
    """A set of offsets, kept as half-open ranges ``(start, end)`` that neither overlap nor touch."""

    __slots__ = ("_ends", "_starts")

    def __init__(self, ranges: Iterable[tuple[int, int]] = ()) -> None:
        self._starts: list[int] = []
        self._ends: list[int] = []
        for start, end in ranges:
            self.add(start, end)

    def __iter__(self) -> Iterator[tuple[int, int]]:
        return zip(self._starts, self._ends, strict=True)

    @property
    def total(self) -> int:
        return sum(self._ends) - sum(self._starts)

    def add(self, start: int, end: int) -> None:
        if start >= end:
            return
        first, last = bisect_left(self._ends, start), bisect_right(self._starts, end)
        if first < last:
            start, end = min(start, self._starts[first]), max(end, self._ends[last - 1])
        self._starts[first:last] = [start]
        self._ends[first:last] = [end]

    def remove(self, start: int, end: int) -> None:
        if start >= end:
            return
        first, last = bisect_right(self._ends, start), bisect_left(self._starts, end)
        if first >= last:
            return
        head = (self._starts[first], start)
        tail = (end, self._ends[last - 1])
        rest = [piece for piece in (head, tail) if piece[0] < piece[1]]
        self._starts[first:last] = [piece[0] for piece in rest]
        self._ends[first:last] = [piece[1] for piece in rest]

    def reach(self, start: int) -> int:
        """How far the bytes from ``start`` go without a gap; ``start`` itself where that byte is not there."""
        at = bisect_right(self._starts, start) - 1
        return max(start, self._ends[at]) if at >= 0 else start

    def covers(self, start: int, end: int) -> bool:
        return self.reach(start) >= end

    def missing(self, start: int, end: int) -> list[tuple[int, int]]:
        """What of ``start`` to ``end`` is not there."""
        gaps: list[tuple[int, int]] = []
        for at in range(bisect_right(self._ends, start), len(self._starts)):
            if self._starts[at] >= end:
                break
            if start < self._starts[at]:
                gaps.append((start, self._starts[at]))
            start = self._ends[at]
        if start < end:
            gaps.append((start, end))
        return gaps
