"""What was published of a content, as far as this node knows: who said what of each range, and in which windows."""

from collections.abc import Iterator
from dataclasses import dataclass
from itertools import pairwise

from modelswarm.agent.holdings import Holdings
from modelswarm.agent.messages import Publication
from modelswarm.agent.publications import Word
from modelswarm.agent.segments import Segment, hash_count
from modelswarm.agent.swarm.windows import HASH_BYTES


@dataclass(frozen=True, slots=True)
class Told:
    """One segment of a publication."""

    segment: Segment
    word: Word


class Words:
    """Of ranges only, for bundles have no hashes."""

    def __init__(self, holdings: Holdings) -> None:
        self._holdings = holdings
        self._words: dict[int, Word] = {}
        self._window_of: dict[int, tuple[int, ...]] = {}

    def get(self, segment: int) -> Word | None:
        return self._words.get(segment)

    def __getitem__(self, segment: int) -> Word:
        return self._words[segment]

    def knows_all(self, segments: tuple[int, ...]) -> bool:
        return all(segment in self._words for segment in segments)

    def put(self, segment: int, word: Word) -> None:
        """This holds from now on."""
        self._words[segment] = word

    def publishers(self, file: int) -> Iterator[str]:
        for segment in self._holdings.segments_of(file):
            if (word := self._words.get(segment.index)) is not None:
                yield word.publisher

    def split(self, publication: Publication) -> list[Told]:
        """The ranges of a publication one by one; none if it makes no sense."""
        segments, numbers = self._holdings.segments, publication.segments
        if any(index >= len(segments) or segments[index].is_bundle for index in numbers):
            return []
        if any(later <= earlier for earlier, later in pairwise(numbers)):
            return []
        if publication.publishers and len(publication.publishers) != len(numbers):
            return []
        found: list[Told] = []
        start = 0
        for position, segment in enumerate(segments[index] for index in numbers):
            end = start + HASH_BYTES * hash_count(segment, self._holdings.files[segment.file].size)
            word = Word(publication.hashes[start:end], publication.publisher_of(position))
            found.append(Told(segment, word))
            start = end
        one_file = len({told.segment.file for told in found}) == 1
        return found if one_file and start == len(publication.hashes) else []

    def publication(self, segment: int) -> Publication | None:
        """What is known of a segment, with all of the window that it is in."""
        if segment not in self._words:
            return None
        window = self._window_of.get(segment)
        words = [self._words[each] for each in window or (segment,)]
        publishers = tuple(word.publisher for word in words)
        return Publication(
            segments=window or (segment,),
            hashes=b"".join(word.hashes for word in words),
            publisher=publishers[0],
            publishers=publishers if len(set(publishers)) > 1 else (),
            window=window is not None,
        )

    # Windows, as the coordinator has made them

    def windows_of(self, segments: tuple[int, ...]) -> dict[tuple[int, ...], None]:
        """The windows in which these segments are, in order."""
        return dict.fromkeys(self._window_of[each] for each in segments if each in self._window_of)

    def enter(self, segments: tuple[int, ...]) -> bool:
        """They are one window; whether that is new."""
        if all(self._window_of.get(segment) == segments for segment in segments):
            return False
        self._window_of.update(dict.fromkeys(segments, segments))
        return True

    def leave(self, segment: int) -> tuple[tuple[int, ...], tuple[int, ...]]:
        """The segment leaves its window, on every node alike: what that was, and what it is without it."""
        window = self._window_of.pop(segment, ())
        rest = tuple(each for each in window if each != segment)
        self._window_of.update(dict.fromkeys(rest, rest))
        return window, rest
