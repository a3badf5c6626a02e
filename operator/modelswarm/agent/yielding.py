"""Files that are left to another content: a node that fills both says so, and the content with the smaller id brings
them. So what several contents share leaves the origin once.
"""

from collections.abc import Callable

from modelswarm.agent.messages import Busy

BUSY_SECONDS = 120.0
"""How long a file is left to another content that fills it while nothing of it arrives."""


class Yielding:
    """``segments_of`` gives a file's segments as a set of bits."""

    def __init__(self, content_id: str, segments_of: Callable[[int], int]) -> None:
        self._content_id = content_id
        self._segments_of = segments_of
        self._since: dict[int, tuple[str, float]] = {}
        self._in_vain: set[tuple[str, int]] = set()
        """Nodes and files: who has said so before, and nothing came of it."""
        self.mask = 0
        """The segments that are not read for this content."""

    def note(self, node: str, busy: Busy, now: float) -> None:
        """A member fills the file for another content. Only in favour of the smaller id, or each would wait for the
        other; and only once in vain, or a node that always says so would keep everybody from the file."""
        if busy.content >= self._content_id or busy.file in self._since or (node, busy.file) in self._in_vain:
            return
        self._since[busy.file] = node, now
        self.mask |= self._segments_of(busy.file)

    def tick(self, lacking: int, now: float) -> None:
        """``lacking``: segments that no member has."""
        for file, (node, since) in list(self._since.items()):
            arrived = not lacking & self._segments_of(file)
            if not arrived and now - since > BUSY_SECONDS:
                self._in_vain.add((node, file))
            elif not arrived:
                continue
            del self._since[file]
            self.mask &= ~self._segments_of(file)
