"""A journal of what changed, for readers who were told up to some point: each gets every change after it, once.

It keeps names of things, not their states: a reader is told the state at the time it reads. So a thing that changed
ten times is in the journal ten times at most until the next clean-up, and is read once.
"""

from bisect import bisect_right
from collections.abc import Hashable, Iterator
from typing import Generic, TypeVar

K = TypeVar("K", bound=Hashable)


class Journal(Generic[K]):
    def __init__(self) -> None:
        self.head = 0
        """The position of the latest entry; 0 when there is none."""
        self._entries: list[tuple[int, K]] = []
        self._latest: dict[K, int] = {}

    def note(self, thing: K) -> None:
        """``thing`` has changed."""
        self.head += 1
        self._entries.append((self.head, thing))
        self._latest[thing] = self.head
        if len(self._entries) > 2 * len(self._latest) + 1024:
            self._entries = [(at, thing) for at, thing in self._entries if self._latest[thing] == at]

    def after(self, position: int) -> Iterator[tuple[int, K]]:
        """What changed after ``position``, each thing once, with the position up to which a reader then knows."""
        start = bisect_right(self._entries, position, key=lambda entry: entry[0])
        for index in range(start, len(self._entries)):
            at, thing = self._entries[index]
            if self._latest[thing] == at:
                yield at, thing
