"""Segments that are read from the origin once more although somebody has told them.

Either a file is all there and its digest is wrong: others than the first readers read it again. Or one node has reason
to doubt what others say: then that node alone looks at the origin itself (a check), and pays for it.
"""

from collections.abc import Sequence

from modelswarm.agent import bits
from modelswarm.agent.segments import Segment

ROUNDS = 3
"""A file that was read so often, and is still wrong, is wrong at its origin. No node checks anything more often."""


class Rereading:
    """Which segments are to be read once more. A file's next round begins when its last one is over."""

    def __init__(self, segments: Sequence[Segment]) -> None:
        self._of_file: dict[int, int] = {}
        for segment in segments:
            for file in segment.files:
                self._of_file[file] = self._of_file.get(file, 0) | 1 << segment.index
        self._rounds: dict[int, int] = {}
        self._changed: dict[int, bool] = {}
        self._hopeless: set[int] = set()
        self._checkers: dict[int, str] = {}
        self._checks: dict[tuple[int, str], int] = {}
        """By segment and node, how often,"""
        self._confirmed: dict[int, set[str]] = {}
        """and the nodes that have found the same as was told."""
        self.mask = 0
        """The segments that nobody has read again yet."""

    def segments_of(self, file: int) -> int:
        """As a set of bits; empty for a file that has none."""
        return self._of_file.get(file, 0)

    def wants(self, segment: int) -> bool:
        return bool(self.mask >> segment & 1)

    def begin(self, file: int) -> bool:
        """Read ``file`` again; False if that is going on."""
        if self.mask & self.segments_of(file):
            return False
        rounds = self._rounds[file] = self._rounds.get(file, 0) + 1
        # By what the last round has brought, so this is decided before the next one is set up.
        if rounds > ROUNDS or not self._changed.get(file, True):
            self._hopeless.add(file)
        else:
            self._changed[file] = False
            self.mask |= self.segments_of(file)
        return True

    def check(self, segments: int, node: str, *, most: int | None = None) -> int:
        """``node``, and nobody else, reads these segments again, but for those that it knows from the origin.

        ``most``: how many it reads at a time. Returns how many are new.
        """
        room = segments.bit_count() if most is None else most - len(self._checks_of(node))
        found = 0
        for segment in bits.members(segments & ~self.mask):
            made = self._checks.get((segment, node), 0)
            if found < room and made < ROUNDS and node not in self._confirmed.get(segment, ()):
                found += 1
                self._checks[segment, node] = made + 1
                self._checkers[segment] = node
                self.mask |= 1 << segment
        return found

    def checker(self, segment: int) -> str | None:
        """Who alone is to read it; None: anybody may."""
        return self._checkers.get(segment)

    def abandon(self, node: str) -> None:
        """The node is gone, or does not read: its checks are over."""
        for segment in self._checks_of(node):
            del self._checkers[segment]
            self.mask &= ~(1 << segment)

    def done(self, segment: int, files: Sequence[int], *, changed: bool) -> None:
        """``segment`` was read again; ``changed``: with other hashes than before."""
        if not self.wants(segment):
            return
        self.mask &= ~(1 << segment)
        checker = self._checkers.pop(segment, None)
        if changed:
            self._confirmed.pop(segment, None)
        if checker is not None:
            self._confirmed.setdefault(segment, set()).add(checker)
            return
        for file in files:
            if file in self._changed:
                self._changed[file] |= changed

    def _checks_of(self, node: str) -> list[int]:
        return [segment for segment, checker in self._checkers.items() if checker == node]

    def is_hopeless(self, file: int) -> bool:
        """The last reading gave the very same bytes, or there were too many."""
        return file in self._hopeless
