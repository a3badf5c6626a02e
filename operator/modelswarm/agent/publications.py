"""What is published of a content: every segment once, by the first who published it, and the windows made of them.

A second publication counts only where the coordinator asked for the segment to be read again. If its hashes differ,
one of the two nodes read or told something else than the origin has; which of them, votes decide (``Suspicion``).
"""

from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from itertools import pairwise

from modelswarm.agent import bits
from modelswarm.agent.cuts import Cuts
from modelswarm.agent.messages import Publication
from modelswarm.agent.segments import Segment, hash_count
from modelswarm.agent.swarm.windows import HASH_BYTES


@dataclass(frozen=True, slots=True)
class Word:
    """What holds of a segment: its hashes (of a bundle: none), and who told them."""

    hashes: bytes
    publisher: str


class Publications:
    """``sizes``: of the files, by position."""

    def __init__(self, segments: Sequence[Segment], sizes: Sequence[int]) -> None:
        self._segments = segments
        self._hash_bytes = [
            0 if segment.is_bundle else HASH_BYTES * hash_count(segment, sizes[segment.file]) for segment in segments
        ]
        self._words: list[Word | None] = [None] * len(segments)
        self._cuts = Cuts(segments)
        self._windows: list[tuple[int, ...]] = []
        self._window_of: dict[int, int] = {}
        self._replaced: dict[int, int] = {}
        self.known = 0
        """The published segments."""

    def get(self, segment: int) -> Word | None:
        return self._words[segment]

    def hashes(self, segment: int) -> bytes:
        """Of one segment; empty where it is not published."""
        word = self._words[segment]
        return word.hashes if word is not None else b""

    def publisher(self, segment: int) -> str | None:
        word = self._words[segment]
        return word.publisher if word is not None else None

    def is_sound(self, publication: Publication) -> bool:
        """Whether it can be: ranges of one file in order, or one bundle; with as many hashes as they need."""
        numbers = publication.segments
        if any(number >= len(self._segments) for number in numbers):
            return False
        if publication.publishers and len(publication.publishers) != len(numbers):
            return False
        first = self._segments[numbers[0]]
        if first.is_bundle:
            return len(numbers) == 1 and not publication.hashes
        if any(later <= earlier for earlier, later in pairwise(numbers)):
            return False
        if any(self._segments[number].is_bundle or self._segments[number].file != first.file for number in numbers):
            return False
        return len(publication.hashes) == sum(self._hash_bytes[number] for number in numbers)

    def split(self, publication: Publication) -> list[tuple[int, Word]]:
        """Each segment of a sound publication by itself."""
        parts, at = [], 0
        for position, number in enumerate(publication.segments):
            end = at + self._hash_bytes[number]
            parts.append((number, Word(publication.hashes[at:end], publication.publisher_of(position))))
            at = end
        return parts

    def put(self, segment: int, word: Word) -> None:
        """Record what holds from now on. A range is in a window by ``gather`` or ``make_window`` only."""
        self._words[segment] = word
        self.known |= 1 << segment

    # Windows

    def is_loose(self, segment: int, word: Word) -> bool:
        """Whether just this holds of the range, and it is in no window yet."""
        return self._words[segment] == word and segment not in self._window_of

    def gather(self, segment: int, now: float) -> None:
        """The range shall be in a window with others, soon."""
        self._cuts.gather(segment, now)

    def make_window(self, segments: Iterable[int]) -> int:
        """These ranges of one file, in order, are a window from now on. Returns its number."""
        number = len(self._windows)
        self._windows.append(tuple(segments))
        for segment in self._windows[-1]:
            if segment not in self._window_of:
                self._cuts.settle(segment)
            self._window_of[segment] = number
        return number

    def cut(self, now: float, *, at_once: bool = False) -> list[int]:
        """Make windows of what was gathered, if it is time (see ``Cuts``). Returns their numbers."""
        made = self._cuts.cut(now, at_once=at_once)
        for window in made:
            self._window_of.update(dict.fromkeys(window, len(self._windows)))
            self._windows.append(window)
        return list(range(len(self._windows) - len(made), len(self._windows)))

    def tell(self, window: int) -> Publication | None:
        """A window as it is now: without what another one has taken over. None if that is all of it."""
        segments = tuple(each for each in self._windows[window] if self._window_of[each] == window)
        return self._publication(segments) if segments else None

    def tell_bundle(self, segment: int) -> Publication | None:
        return self._publication((segment,)) if self._words[segment] is not None else None

    def _publication(self, segments: tuple[int, ...]) -> Publication:
        words = [word for each in segments if (word := self._words[each]) is not None]
        publishers = tuple(word.publisher for word in words)
        return Publication.model_construct(
            segments=segments,
            hashes=b"".join(word.hashes for word in words),
            publisher=publishers[0],
            publishers=publishers if len(set(publishers)) > 1 else (),
            window=not self._segments[segments[0]].is_bundle,
        )

    # Of segments that were read again

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

    def is_confirmed(self, segment: int) -> bool:
        """Whether two have said the same, and it prevails."""
        said = list(self._votes.get(segment, {}).values())
        return said.count(self.prevailing(segment) or b"") > 1

    def liars(self) -> set[str]:
        """Who is outvoted, unless all who say so are liars themselves."""
        accusers: dict[str, set[str]] = {}
        for segment, votes in self._votes.items():
            right = self.prevailing(segment)
            sure = {node for node, hashes in votes.items() if hashes == right}
            for node in votes.keys() - sure:
                accusers.setdefault(node, set()).update(sure)
        return {node for node, others in accusers.items() if len(others) > 1 or not others <= accusers.keys()}
