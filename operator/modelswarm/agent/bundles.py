"""Small files, which travel over HTTP: a bundle of them is asked from a node that has all, and written in one go."""

import asyncio
import logging
import random
from collections.abc import Awaitable, Callable, Mapping, Sequence
from typing import Protocol

from modelswarm.agent.errands import Errands
from modelswarm.agent.metainfo.routes import MAX_BLOBS
from modelswarm.agent.segments import Segment
from modelswarm.agent.stock import Stock
from modelswarm.errors import DigestMismatch, PeerError

BUNDLE = "bundle"
AT_ONCE = 4
PAUSE = 0.5
"""Seconds, about, before a node is asked again that could not give a bundle."""
SPREAD = 1.0
"""Seconds, at most, for which a node waits before it reads what only bad holders have: mostly one node does it."""
PATIENCE = 60.0
"""Seconds in which a holder must have given something that it was asked for; one that died is replaced before."""
RETRY = 10.0
"""Seconds, about, before the origin is asked again for that."""

log = logging.getLogger(__name__)


class BlobClient(Protocol):
    async def blobs(self, url: str, keys: Sequence[str]) -> dict[str, bytes]: ...


class Bundles:
    """``arrived`` is called with the files that came. ``own_url`` is this node's.

    ``read`` brings a bundle from the origin, and says whether it could: the coordinator believes a holder that says
    it has a bundle, so if all that it names give wrong bytes, nobody else is ever told to read it.
    """

    def __init__(
        self,
        stock: Stock,
        client: BlobClient,
        errands: Errands,
        *,
        own_url: str,
        arrived: Callable[[Sequence[int]], None],
        read: Callable[[Segment], Awaitable[bool]],
        rng: random.Random,
    ) -> None:
        self.bytes = 0
        """That came from peers."""
        self.bad: set[str] = set()
        """Holders that gave wrong bytes: they are not asked again."""
        self._failing: dict[str, tuple[float, float]] = {}
        """Holders that have given nothing since they were first asked in vain: that time, and the last one."""
        self._stock = stock
        self._client = client
        self._errands = errands
        self._own_url = own_url
        self._arrived = arrived
        self._read = read
        self._rng = rng
        self._holders: dict[int, tuple[str, ...]] = {}
        self._at_once = asyncio.Semaphore(AT_ONCE)

    def learn(self, holders: Mapping[int, Sequence[str]]) -> None:
        """Who has which bundles; those that are missing here are brought."""
        for number, urls in holders.items():
            if number < len(self._stock.holdings.segments) and self._stock.holdings.segments[number].is_bundle:
                self._holders[number] = tuple(urls)
                self._bring_if_missing(number)

    def bring_missing(self) -> None:
        for number in self._holders:
            self._bring_if_missing(number)

    def _bring_if_missing(self, number: int) -> None:
        if not self._stock.holdings.has(number) and self._others(number):
            segment = self._stock.holdings.segments[number]
            self._errands.start(BUNDLE, number, lambda: self._bring(segment))

    def _others(self, number: int) -> list[str]:
        return [url for url in self._holders.get(number, ()) if url != self._own_url]

    def _urls(self, number: int) -> list[str]:
        return [url for url in self._others(number) if url not in self.bad and not self._is_hopeless(url)]

    def _is_hopeless(self, url: str) -> bool:
        # Not by the clock: whoever was asked in vain once, long ago, may be asked again.
        first, last = self._failing.get(url, (0.0, 0.0))
        return last - first > PATIENCE

    def _note_vain(self, url: str) -> None:
        now = asyncio.get_running_loop().time()
        first, _ = self._failing.get(url, (now, now))
        self._failing[url] = first, now

    async def _bring(self, segment: Segment) -> None:
        async with self._at_once:
            last = ""
            while missing := self._stock.unplaced(segment):
                urls = self._urls(segment.index)
                if not urls:
                    await self._do_without(segment)
                    continue
                # Another one than last time, if there is one.
                url = self._rng.choice([each for each in urls if each != last] or urls)
                if not await self._bring_from(url, missing):
                    last = url
                    await asyncio.sleep(PAUSE * self._rng.uniform(0.5, 1.5))
        self._arrived(segment.files)

    async def _do_without(self, segment: Segment) -> None:
        """All holders give wrong bytes, or none: read the origin, unless another becomes known meanwhile."""
        await asyncio.sleep(SPREAD * self._rng.random())
        if not self._urls(segment.index) and self._stock.unplaced(segment) and not await self._read(segment):
            await asyncio.sleep(RETRY * self._rng.uniform(0.5, 1.5))

    async def _bring_from(self, url: str, missing: Sequence[int]) -> bool:
        """Whether all of them came, and were right. Those that were are in place in any case."""
        stock = self._stock
        label = stock.filling.content[:16]
        wanted = missing[:MAX_BLOBS]
        try:
            blobs = await self._client.blobs(url, [stock.keys[number] for number in wanted])
        except PeerError as error:
            log.debug("P2P %s: no small files from %s: %s", label, url, error.message)
            self._note_vain(url)
            return False
        came = {number: blobs[stock.keys[number]] for number in wanted if stock.keys[number] in blobs}
        digests = {stock.files[number].path: digest for number in came if (digest := stock.digest(number))}
        try:
            await stock.filling.write_bundle({stock.files[number].path: data for number, data in came.items()}, digests)
        except DigestMismatch as error:
            log.warning("P2P %s: wrong bytes from %s, which is not asked again: %s", label, url, error)
            self.bad.add(url)
        right = [number for number in came if stock.is_placed(number)]
        if right:
            self._failing.pop(url, None)
        else:
            self._note_vain(url)
        stock.note(right)
        self.bytes += sum(len(came[number]) for number in right)
        return len(right) == len(missing)
