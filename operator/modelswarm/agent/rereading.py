"""Files whose segments are all there and whose digest is wrong: they are read again, by other nodes."""

from collections.abc import Sequence

from modelswarm.agent.segments import Segment

ROUNDS = 3
"""A file that was read so often, and is still wrong, is wrong at its origin."""


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

    def done(self, segment: int, files: Sequence[int], *, changed: bool) -> None:
        """``segment`` was read again; ``changed``: with other hashes than before."""
        if not self.wants(segment):
            return
        self.mask &= ~(1 << segment)
        for file in files:
            if file in self._changed:
                self._changed[file] |= changed

    def is_hopeless(self, file: int) -> bool:
        """The last reading gave the very same bytes, or there were too many."""
        return file in self._hopeless
