"""The windows of one content: what is shared with the others while the content is on its way.

Every publication (segments that one node has read from the origin) is a window. When all of a file has been published,
one window for the whole file takes the place of its many, so a node has torrents for files in flight and one for each
file that is through, however large the content is. Whoever comes later joins the whole files at once.
"""

import asyncio
import logging
from collections import deque
from collections.abc import Awaitable, Callable, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

from modelswarm.agent.holdings import Holdings
from modelswarm.agent.messages import Publication
from modelswarm.agent.segments import Segment, hash_count
from modelswarm.agent.sharing import WindowPort
from modelswarm.agent.swarm import Event, Part, Peer, TorrentFailed, Window, WindowDone, WindowStalled
from modelswarm.agent.swarm import piece_length as piece_length_of
from modelswarm.agent.swarm.windows import HASH_BYTES

MOST_WANTED = 48
"""Windows that are fetched at once; the others wait, in the order in which they were published."""
LINGER_SECONDS = 20.0
"""How long the windows of a file are still served after one for the whole file has replaced them."""

log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Arrival:
    """A segment came through a window: it agrees with the hashes that ``publisher`` told."""

    segment: Segment
    hashes: bytes
    publisher: str


@dataclass(frozen=True, slots=True)
class Replaced:
    """Another publication of a segment holds now: ``publisher`` told the one before, and its bytes are not believed."""

    segment: Segment
    publisher: str


@dataclass(slots=True)
class _Shared:
    window: Window
    file: int
    segments: tuple[int, ...]
    whole: bool
    wanted: bool


Place = Callable[[int], Awaitable[Path]]
"""The file on disk that a file of the content (by position) is filled in."""


class Exchange:
    """``keys`` are the blob keys of the content's files, in their order. For one event loop."""

    def __init__(
        self,
        holdings: Holdings,
        keys: Sequence[str],
        *,
        node: str,
        content: str,
        swarm: WindowPort,
        place: Place,
    ) -> None:
        self._holdings = holdings
        self._keys = keys
        self._node = node
        self._content = content
        self._swarm = swarm
        self._place = place
        self._peers: dict[str, Peer] = {}
        self._known: dict[int, tuple[bytes, str]] = {}
        self._waiting: deque[tuple[int, ...]] = deque()
        self._shared: dict[str, _Shared] = {}
        self._withheld: set[int] = set()
        self._dropping: dict[str, asyncio.TimerHandle] = {}

    @property
    def wanted(self) -> int:
        """Windows that are on their way."""
        return sum(map(self._is_wanted, self._shared.values()))

    def hashes(self, segment: int) -> bytes | None:
        """What is known of a segment: the SHA-1s of its pieces, joined."""
        known = self._known.get(segment)
        return known[0] if known is not None else None

    def publishers(self, file: int) -> tuple[str, ...]:
        """The nodes whose word the bytes of a file are, in no order that matters."""
        named = (self._known.get(segment.index) for segment in self._holdings.segments_of(file))
        return tuple(dict.fromkeys(known[1] for known in named if known is not None))

    def told(self, segment: int) -> Publication | None:
        """What was published of a segment, as far as this node knows."""
        known = self._known.get(segment)
        return Publication(segments=(segment,), hashes=known[0], publisher=known[1]) if known is not None else None

    async def learn(self, publications: Iterable[Publication]) -> list[Replaced]:
        """Take in what was published, and join it; returns what it replaces.

        What disagrees with a file that was verified here is not believed: its digest is the origin's own word.
        """
        replaced: list[Replaced] = []
        for publication in publications:
            parts = self._split(publication)
            fresh = [(segment, hashes) for segment, hashes in parts if self._is_news(segment, hashes)]
            for segment, hashes in fresh:
                if (known := self._known.get(segment.index)) is not None:
                    self._forget(segment)
                    replaced.append(Replaced(segment, known[1]))
                self._withheld.discard(segment.index)
                self._known[segment.index] = (hashes, publication.publisher)
            if fresh:
                self._waiting.append(tuple(segment.index for segment, _ in fresh))
        await self._advance()
        return replaced

    async def offer(self, segment: Segment, hashes: bytes) -> Publication | None:
        """This node has read a segment from the origin: serve it at once; returns what to publish.

        None: somebody else's publication of it holds, with other hashes. Only one can, so ours are given up, and
        theirs are fetched. It is not so for a segment that was withheld to be read again: that is a second word.
        """
        known, again = self.hashes(segment.index), segment.index in self._withheld
        if known not in (None, hashes) and not again and not self._holdings.is_verified(segment.file):
            return None
        self._withheld.discard(segment.index)
        publication = Publication(segments=(segment.index,), hashes=hashes, publisher=self._node)
        if known != hashes:
            self._known[segment.index] = (hashes, self._node)
        # By itself in any case: others may join it before they know that the file is all published.
        await self._join((segment.index,), whole=False)
        await self._advance()
        return publication

    def meet(self, peers: Iterable[Peer], gone: Iterable[str] = ()) -> None:
        """Peers that want the content or have it. Windows that wait for bytes get to know the new ones."""
        for name in gone:
            self._peers.pop(name, None)
        fresh = [peer for peer in peers if peer.node != self._node and self._peers.get(peer.node) != peer]
        self._peers.update((peer.node, peer) for peer in fresh)
        if fresh:
            for identity in self._shared:
                self._swarm.add_peers(identity, fresh)

    async def hear(self, event: Event) -> list[Arrival] | None:
        """An event of the swarm: what has arrived with it. None: it is not about this content."""
        match event:
            case WindowDone(window_id=identity) if (shared := self._shared.get(identity)) is not None:
                shared.wanted = False
                arrivals = [
                    Arrival(self._holdings.segments[segment], *self._known[segment])
                    for segment in shared.segments
                    if not self._holdings.has(segment) and segment in self._known
                ]
                for arrival in arrivals:
                    self._holdings.arrived(arrival.segment.index)
                await self._advance()
                return arrivals
            case WindowStalled(window_id=identity) if identity in self._shared:
                await self._unstick(self._shared[identity])
                return []
            case TorrentFailed(torrent=identity, message=message) if identity in self._shared:
                log.warning("P2P %s: a window failed: %s", self._content[:16], message)
                await self._again(self._shared[identity])
                return []
        return None

    def withhold(self, segment: Segment) -> None:
        """A segment is about to be read again in place: until ``offer`` or ``refetch``, it is not shared."""
        self._withheld.add(segment.index)
        self._forget(segment)
        self._waiting = deque(
            rest for each in self._waiting if (rest := tuple(index for index in each if index != segment.index))
        )

    async def refetch(self, segments: Iterable[Segment]) -> None:
        """These segments are damaged here, or not read after all: get them from whoever has them right."""
        for segment in segments:
            self._withheld.discard(segment.index)
            self._forget(segment)
            if segment.index in self._known:
                self._waiting.append((segment.index,))
        await self._advance()

    def settle(self, file: int) -> bool:
        """A file was verified: nothing of it is fetched any more. Says whether ``serve`` has something to do.

        It may have come with another content, while windows of this one still write the same bytes to the same file.
        """
        late = [each for each in self._shared.values() if each.file == file and each.wanted]
        for shared in late:
            self._swarm.abandon(shared.window.id)
            self._drop(shared.window.id)
            self._waiting.append(shared.segments)
        return bool(late)

    async def serve(self) -> None:
        """Share again what ``settle`` has left, as something that is here."""
        await self._advance()

    def close(self) -> None:
        """Leave all windows. The files stay."""
        for timer in self._dropping.values():
            timer.cancel()
        self._dropping.clear()
        for identity in list(self._shared):
            self._drop(identity)
        self._waiting.clear()

    # Inside

    def _split(self, publication: Publication) -> list[tuple[Segment, bytes]]:
        """The ranges of a publication with their hashes; none if it makes no sense (a peer has told it)."""
        segments = self._holdings.segments
        if any(index >= len(segments) or segments[index].is_bundle for index in publication.segments):
            return []
        found: list[tuple[Segment, bytes]] = []
        start = 0
        for segment in sorted((segments[index] for index in publication.segments), key=lambda each: each.offset):
            end = start + HASH_BYTES * hash_count(segment, self._holdings.files[segment.file].size)
            found.append((segment, publication.hashes[start:end]))
            start = end
        one_file = len({segment.file for segment, _ in found}) == 1
        return found if one_file and start == len(publication.hashes) else []

    async def _advance(self) -> None:
        """Share what may be shared now."""
        for file in dict.fromkeys(self._holdings.segments[each[0]].file for each in self._waiting):
            await self._join_whole(file)
        later: list[tuple[int, ...]] = []
        while self._waiting:
            segments = self._waiting.popleft()
            if all(map(self._holdings.has, segments)) or self.wanted < MOST_WANTED:
                await self._join(segments, whole=False)
            else:
                later.append(segments)
        self._waiting.extend(later)
        for file in {shared.file for shared in self._shared.values() if not shared.whole}:
            await self._join_whole(file)

    async def _join_whole(self, file: int) -> None:
        """One window for all of a file, as soon as all of it was published and nothing of it is on its way here."""
        segments = tuple(segment.index for segment in self._holdings.segments_of(file))
        parts = [shared for shared in self._shared.values() if shared.file == file]
        if any(shared.whole or self._is_wanted(shared) for shared in parts):
            return
        if not all(segment in self._known and segment not in self._withheld for segment in segments):
            return
        if self.wanted >= MOST_WANTED and not all(map(self._holdings.has, segments)):
            return
        self._waiting = deque(each for each in self._waiting if self._holdings.segments[each[0]].file != file)
        await self._join(segments, whole=True)
        loop = asyncio.get_running_loop()
        for shared in parts:
            if not shared.whole and shared.segments != segments:
                identity = shared.window.id
                self._dropping[identity] = loop.call_later(LINGER_SECONDS, self._drop, identity)

    async def _join(self, segments: tuple[int, ...], *, whole: bool) -> None:
        window, file = self._window(segments), self._holdings.segments[segments[0]].file
        path = await self._place(file)
        known = self._shared.get(window.id)
        if known is not None:
            known.whole = known.whole or whole
            return
        have = [segment for segment in segments if self._holdings.has(segment)]
        pieces = {
            piece
            for segment in have
            for piece in window.pieces_in(
                self._holdings.segments[segment].offset, self._holdings.segments[segment].length
            )
        }
        wanted = len(have) < len(segments)
        self._shared[window.id] = _Shared(window, file, segments, whole, wanted)
        holders = {self._known[segment][1] for segment in segments}
        peers = [*self._peers.values()]
        self._swarm.share(window, path, content=self._content, have=pieces, peers=peers, holders=holders)

    async def _unstick(self, shared: _Shared) -> None:
        """Others may have gone over to the window of the whole file, or our connections may be dead: begin again."""
        file = shared.file
        stuck = [each for each in self._shared.values() if each.file == file and self._is_wanted(each)]
        for each in stuck:
            self._drop(each.window.id)
            self._waiting.append(each.segments)
        await self._advance()

    async def _again(self, shared: _Shared) -> None:
        self._drop(shared.window.id)
        if self._is_wanted(shared):
            self._waiting.append(shared.segments)
        await self._advance()

    def _is_news(self, segment: Segment, hashes: bytes) -> bool:
        known = self.hashes(segment.index)
        return known != hashes and (known is None or not self._holdings.is_verified(segment.file))

    def _is_wanted(self, shared: _Shared) -> bool:
        """Whether it is on its way still; the file may have come with another content meanwhile."""
        return shared.wanted and not all(map(self._holdings.has, shared.segments))

    def _window(self, segments: Iterable[int]) -> Window:
        found = sorted((self._holdings.segments[index] for index in segments), key=lambda each: each.offset)
        file = found[0].file
        size = self._holdings.files[file].size
        parts = tuple(Part(each.offset, each.length, self._known[each.index][0]) for each in found)
        return Window(self._keys[file], size, piece_length_of(size), parts)

    def _forget(self, segment: Segment) -> None:
        """Another publication holds now: the bytes are not to be believed, nor are windows with them."""
        self._holdings.lost(segment.index)
        for shared in [each for each in self._shared.values() if segment.index in each.segments]:
            self._swarm.abandon(shared.window.id)
            self._drop(shared.window.id)
            # One by one, as they were published. What is here is served again with the window of the whole file.
            others = (each for each in shared.segments if each != segment.index and not self._holdings.has(each))
            self._waiting.extend((each,) for each in others if each not in self._withheld)

    def _drop(self, identity: str) -> None:
        timer = self._dropping.pop(identity, None)
        if timer is not None:
            timer.cancel()
        if self._shared.pop(identity, None) is not None:
            self._swarm.drop(identity)
