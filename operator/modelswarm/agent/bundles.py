"""Small files, which travel over HTTP: a bundle of them is asked from a node that has all, and written in one go."""

import asyncio
import logging
import random
from collections.abc import Callable, Mapping, Sequence
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

log = logging.getLogger(__name__)


class BlobClient(Protocol):
    async def blobs(self, url: str, keys: Sequence[str]) -> dict[str, bytes]: ...


class Bundles:
    """``arrived`` is called with the files that came. ``own_url`` is this node's."""

    def __init__(
        self,
        stock: Stock,
        client: BlobClient,
        errands: Errands,
        *,
        own_url: str,
        arrived: Callable[[Sequence[int]], None],
        rng: random.Random,
    ) -> None:
        self.bytes = 0
        """That came from peers."""
        self.bad: set[str] = set()
        """Holders that gave wrong bytes: they are not asked again."""
        self._stock = stock
        self._client = client
        self._errands = errands
        self._own_url = own_url
        self._arrived = arrived
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
        if not self._stock.holdings.has(number) and self._urls(number):
            segment = self._stock.holdings.segments[number]
            self._errands.start(BUNDLE, number, lambda: self._bring(segment))

    def _urls(self, number: int) -> list[str]:
        return [url for url in self._holders.get(number, ()) if url != self._own_url and url not in self.bad]

    async def _bring(self, segment: Segment) -> None:
        async with self._at_once:
            last = ""
            while missing := self._stock.unplaced(segment):
                urls = self._urls(segment.index)
                if not urls:
                    return
                # Another one than last time, if there is one.
                url = self._rng.choice([each for each in urls if each != last] or urls)
                if not await self._bring_from(url, missing):
                    last = url
                    await asyncio.sleep(PAUSE * self._rng.uniform(0.5, 1.5))
        self._arrived(segment.files)

    async def _bring_from(self, url: str, missing: Sequence[int]) -> bool:
        """Whether all of them came, and were right. Those that were are in place in any case."""
        stock = self._stock
        label = stock.filling.content[:16]
        wanted = missing[:MAX_BLOBS]
        try:
            blobs = await self._client.blobs(url, [stock.keys[number] for number in wanted])
        except PeerError as error:
            log.debug("P2P %s: no small files from %s: %s", label, url, error.message)
            return False
        came = {number: blobs[stock.keys[number]] for number in wanted if stock.keys[number] in blobs}
        digests = {stock.files[number].path: digest for number in came if (digest := stock.digest(number))}
        try:
            await stock.filling.write_bundle({stock.files[number].path: data for number, data in came.items()}, digests)
        except DigestMismatch as error:
            log.warning("P2P %s: wrong bytes from %s, which is not asked again: %s", label, url, error)
            self.bad.add(url)
        right = [number for number in came if stock.is_placed(number)]
        stock.note(right)
        self.bytes += sum(len(came[number]) for number in right)
        return len(right) == len(missing)
