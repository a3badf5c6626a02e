"""The windows of one content: what is shared with the others while the content is on its way.

The coordinator makes windows of what was published, and everybody joins them as they are. When all of a file has been
published, one window for the whole file takes the place of its many, so a node has torrents for files in flight and
one for each file that is through, however large the content is. Whoever comes later joins the whole files at once.

Should other bytes hold for a segment than those that were told first, it leaves its window, on every node alike, and
is a window of its own from then on.
"""

import asyncio
import logging
from collections.abc import Awaitable, Callable, Collection, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

from modelswarm.agent.holdings import Holdings
from modelswarm.agent.messages import Publication
from modelswarm.agent.publications import Word
from modelswarm.agent.segments import Segment
from modelswarm.agent.sharing import WindowPort
from modelswarm.agent.swarm import Event, Part, Peer, TorrentFailed, Window, WindowDone, WindowStalled
from modelswarm.agent.swarm import piece_length as piece_length_of
from modelswarm.agent.words import Words

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
Discard = Callable[[Segment], Awaitable[None]]
"""The bytes of a segment are not to be believed."""


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
        discard: Discard,
    ) -> None:
        self._holdings = holdings
        self._keys = keys
        self._node = node
        self._content = content
        self._swarm = swarm
        self._place = place
        self._discard = discard
        self._peers: dict[str, Peer] = {}
        self._words = Words(holdings)
        self._waiting: dict[tuple[int, ...], None] = {}
        self._shared: dict[str, _Shared] = {}
        self._withheld: set[int] = set()
        self._way: dict[int, bool] = {}
        self._dropping: dict[str, asyncio.TimerHandle] = {}

    @property
    def wanted(self) -> int:
        """Windows that are on their way."""
        return sum(map(self._is_wanted, self._shared.values()))

    def shares(self, identity: str) -> bool:
        """Whether it is one of this content's windows."""
        return identity in self._shared

    def hashes(self, segment: int) -> bytes | None:
        """What is known of a segment: the SHA-1s of its pieces, joined."""
        word = self._words.get(segment)
        return word.hashes if word is not None else None

    def publishers(self, file: int) -> tuple[str, ...]:
        """The nodes whose word the bytes of a file are, in no order that matters."""
        return tuple(dict.fromkeys(self._words.publishers(file)))

    def publisher_of(self, segment: int) -> str | None:
        """Who told a segment that is not here; None if it is, or nobody has."""
        word = self._words.get(segment)
        return word.publisher if word is not None and not self._holdings.has(segment) else None

    def lacking(self, identity: str, pieces: Collection[int] = ()) -> list[tuple[int, str]]:
        """Of a window that is on its way: the segments that are not here, and who told them.

        ``pieces``: those of the file that are missing, where it is known: a window's segments arrive together.
        """
        shared = self._shared.get(identity)
        if shared is None or not self._is_wanted(shared):
            return []
        found: list[tuple[int, str]] = []
        for number in shared.segments:
            segment, publisher = self._holdings.segments[number], self.publisher_of(number)
            theirs = shared.window.pieces_in(segment.offset, segment.length)
            if publisher is not None and (not pieces or any(piece in theirs for piece in pieces)):
                found.append((number, publisher))
        return found

    def told(self, segment: int) -> Publication | None:
        """What was published of a segment, as far as this node knows, with all of the window that it is in."""
        return self._words.publication(segment)

    async def learn(self, publications: Iterable[Publication]) -> list[Replaced]:
        """Take in what was published, and join it; returns what it replaces, whose bytes are gone from here.

        What disagrees with a file that was verified here is not believed: its digest is the origin's own word.
        """
        replaced: list[Replaced] = []
        for publication in publications:
            parts = self._words.split(publication)
            for segment, word in ((told.segment, told.word) for told in parts):
                if self._is_news(segment, word.hashes):
                    if (known := self._words.get(segment.index)) is not None:
                        # What is here goes before the right bytes can come, or it would take them along.
                        self._withheld.add(segment.index)
                        self._forget(segment)
                        await self._discard(segment)
                        self._leave_window(segment)
                        replaced.append(Replaced(segment, known.publisher))
                    self._withheld.discard(segment.index)
                    self._words.put(segment.index, word)
            window = tuple(told.segment.index for told in parts)
            agreed = all(self.hashes(told.segment.index) == told.word.hashes for told in parts)
            if parts and agreed and self._words.enter(window):
                self._waiting[window] = None
        await self._advance()
        return replaced

    async def offer(self, segment: Segment, hashes: bytes) -> Publication | None:
        """This node has read a segment from the origin: returns what to publish. It is served when a window is told.

        None: somebody else's publication of it holds, with other hashes. Only one can, so ours are given up, and
        theirs are fetched. It is not so for a segment that was withheld to be read again: that is a second word.
        """
        known, again = self.hashes(segment.index), segment.index in self._withheld
        if known not in (None, hashes) and not again and not self._holdings.is_verified(segment.file):
            return None
        self._withheld.discard(segment.index)
        if known != hashes:
            if known is not None:
                self._forget(segment)
                self._leave_window(segment)
                self._holdings.arrived(segment.index)
            self._words.put(segment.index, Word(hashes, self._node))
        for shared in [each for each in self._shared.values() if each.wanted and segment.index in each.segments]:
            # The swarm fetches what is here now: it was published, and nobody had it any more.
            self._drop(shared.window.id)
            self._queue(shared)
        await self._advance()
        return Publication(segments=(segment.index,), hashes=hashes, publisher=self._node)

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
                    Arrival(self._holdings.segments[segment], word.hashes, word.publisher)
                    for segment in shared.segments
                    if not self._holdings.has(segment) and (word := self._words.get(segment)) is not None
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

    async def refetch(self, segments: Iterable[Segment]) -> None:
        """These segments are damaged here, or not read after all: get them from whoever has them right."""
        for segment in segments:
            self._way[segment.file] = True
            self._withheld.discard(segment.index)
            self._forget(segment)
        await self._advance()

    def settle(self, file: int) -> bool:
        """A file was verified: nothing of it is fetched any more. Says whether ``serve`` has something to do.

        It may have come with another content, while windows of this one still write the same bytes to the same file.
        """
        late = [each for each in self._shared.values() if each.file == file and each.wanted]
        for shared in late:
            self._swarm.abandon(shared.window.id)
            self._drop(shared.window.id)
            self._queue(shared)
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

    def _leave_window(self, segment: Segment) -> None:
        window, rest = self._words.leave(segment.index)
        self._waiting.pop(window, None)
        if rest:
            self._waiting[rest] = None

    def _queue(self, shared: _Shared) -> None:
        """It was left: the windows that its segments are in by now are to be joined."""
        self._waiting.update(self._words.windows_of(shared.segments) or {shared.segments: None})

    async def _advance(self) -> None:
        """Share what may be shared now."""
        waiting = (self._holdings.segments[segments[0]].file for segments in self._waiting)
        parts = (shared.file for shared in self._shared.values() if not shared.whole)
        for file in dict.fromkeys((*waiting, *parts)):
            path = await self._place(file)
            # Nothing is awaited from here on, so what holds now still does when the swarm is told.
            self._join_whole(file, path)
            self._join_parts(file, path)

    def _join_whole(self, file: int, path: Path) -> None:
        """One window for all of a file, as soon as all of it was published and nothing of it is on its way here."""
        segments = tuple(segment.index for segment in self._holdings.segments_of(file))
        parts = [shared for shared in self._shared.values() if shared.file == file]
        if any(shared.whole or self._is_wanted(shared) for shared in parts):
            return
        if not self._words.knows_all(segments) or not self._withheld.isdisjoint(segments):
            return
        here = all(map(self._holdings.has, segments))
        if here or (self.wanted < MOST_WANTED and self._takes_whole(file)):
            self._join(segments, path, whole=True)

    def _takes_whole(self, file: int) -> bool:
        """Whether to fetch by the window of the whole file rather than by its parts.

        Those who are through with a file are in both for a while, then only in that of the whole file; those who are
        not are in the parts. So who has something of it meets most others in the parts, and who comes late does not.
        """
        late = not any(self._holdings.has(segment.index) for segment in self._holdings.segments_of(file))
        return self._way.get(file, late and not any(shared.file == file for shared in self._shared.values()))

    def _join_parts(self, file: int, path: Path) -> None:
        has_whole = any(shared.whole for shared in self._shared.values() if shared.file == file)
        for segments in [each for each in self._waiting if self._holdings.segments[each[0]].file == file]:
            here = all(map(self._holdings.has, segments))
            if has_whole and not here:
                # It brings them.
                self._waiting.pop(segments)
            elif self._withheld.isdisjoint(segments) and (here or self.wanted < MOST_WANTED):
                self._waiting.pop(segments)
                self._join(segments, path, whole=False)
        if has_whole:
            # Others may be in them for a while.
            loop = asyncio.get_running_loop()
            for identity, shared in self._shared.items():
                if shared.file == file and not shared.whole and identity not in self._dropping:
                    self._dropping[identity] = loop.call_later(LINGER_SECONDS, self._drop, identity)

    def _join(self, segments: tuple[int, ...], path: Path, *, whole: bool) -> None:
        window, file = self._window(segments), self._holdings.segments[segments[0]].file
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
        holders = {self._words[segment].publisher for segment in segments}
        peers = [*self._peers.values()]
        self._swarm.share(window, path, content=self._content, have=pieces, peers=peers, holders=holders)

    async def _unstick(self, shared: _Shared) -> None:
        """Others may be in the window of the whole file and we in its parts, or they there and we here: change over."""
        file = shared.file
        self._way[file] = not shared.whole
        stuck = [each for each in self._shared.values() if each.file == file and self._is_wanted(each)]
        for each in stuck:
            self._drop(each.window.id)
            self._queue(each)
        await self._advance()

    async def _again(self, shared: _Shared) -> None:
        self._drop(shared.window.id)
        if self._is_wanted(shared):
            self._queue(shared)
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
        parts = tuple(Part(each.offset, each.length, self._words[each.index].hashes) for each in found)
        return Window(self._keys[file], size, piece_length_of(size), parts)

    def _forget(self, segment: Segment) -> None:
        """Its bytes are not to be believed, nor are torrents with it; the windows are joined again when they can be."""
        self._holdings.lost(segment.index)
        for shared in [each for each in self._shared.values() if segment.index in each.segments]:
            self._swarm.abandon(shared.window.id)
            self._drop(shared.window.id)
            self._queue(shared)

    def _drop(self, identity: str) -> None:
        timer = self._dropping.pop(identity, None)
        if timer is not None:
            timer.cancel()
        if self._shared.pop(identity, None) is not None:
            self._swarm.drop(identity)
