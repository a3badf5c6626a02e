"""Files that are filled: is their digest right? If not, whose bytes are they, and what becomes of them?"""

import asyncio
import logging
from collections.abc import Callable, Iterable, Mapping

from modelswarm.agent.errands import Errands
from modelswarm.agent.exchange import Exchange, Replaced
from modelswarm.agent.messages import BadFile
from modelswarm.agent.segments import Segment
from modelswarm.agent.stock import Stock
from modelswarm.agent.troubles import Trouble, of_bad_file, of_liar
from modelswarm.errors import DigestMismatch

AT_ONCE = 2
_LOOKS, _LOOK_SECONDS = 100, 0.05

log = logging.getLogger(__name__)


class Verifying:
    """``changed`` is called when a file was found right or wrong, ``mismatched`` for one that is wrong."""

    def __init__(
        self,
        stock: Stock,
        exchange: Exchange,
        errands: Errands,
        *,
        changed: Callable[[], None],
        mismatched: Callable[[], None],
    ) -> None:
        self._stock = stock
        self._exchange = exchange
        self._errands = errands
        self._changed = changed
        self._mismatched = mismatched
        self._bad: dict[int, tuple[BadFile, int]] = {}
        self._suspects: dict[str, dict[str, None]] = {}
        self._shunned: frozenset[str] = frozenset()
        self._label = stock.filling.content[:16]
        self._at_once = asyncio.Semaphore(AT_ONCE)

    @property
    def bad(self) -> dict[int, BadFile]:
        """Files that are all here and have not their digest, as they were delivered."""
        return {number: bad for number, (bad, losses) in self._bad.items() if losses == self._stock.losses(number)}

    @property
    def trouble(self) -> Trouble | None:
        """The file that is wrong now; or who was found to have told other bytes than the origin's."""
        for number, bad in self.bad.items():
            return of_bad_file(self._stock.files[number].path, bad.publishers)
        for node, paths in self._suspects.items():
            if node in self._shunned:
                return of_liar(node, list(paths))
        return None

    def look(self, numbers: Iterable[int] | None = None) -> None:
        """Files (None: all) that are in place count; those that are filled are verified."""
        stock = self._stock
        for number in range(len(stock.files)) if numbers is None else numbers:
            if stock.holdings.is_verified(number):
                continue
            if stock.is_placed(number):
                self._settle(number)
                stock.note([number])
            elif stock.files[number].size and not stock.is_small(number):
                self._errands.start("ahead", number, lambda number=number: stock.hash_ahead(number))  # type: ignore[misc]
                if stock.holdings.is_filled(number) and number not in self.bad:
                    # One that runs may have found a range missing that is here by now.
                    self._errands.start("verify", number, lambda number=number: self._verify(number), again=True)  # type: ignore[misc]

    def replaced(self, replaced: Iterable[Replaced]) -> None:
        """Other bytes hold for these segments now: whose word was it before?"""
        for each in replaced:
            path = self._stock.files[each.segment.file].path
            self._suspects.setdefault(each.publisher, {})[path] = None

    def shun(self, nodes: Iterable[str]) -> None:
        """Nodes that have published wrong bytes, as the coordinator found out."""
        before, self._shunned = self._shunned, frozenset(nodes)
        for node in sorted(self._shunned - before):
            paths = ", ".join(self._suspects.get(node, {})) or "a file"
            log.warning("P2P %s: %s published bytes of %s that are not the origin's", self._label, node, paths)

    async def agree(self, digests: Mapping[int, str]) -> None:
        """Digests that hold, of files that the origin has none for. What is here and is something else goes."""
        for number, digest in digests.items():
            if number >= len(self._stock.files) or not self._stock.agree(number, digest):
                continue
            path = self._stock.files[number].path
            log.warning("P2P %s: %s is not what the first reader found; fetching it again", self._label, path)
            self._mismatched()
            await self._stock.reject(number)
            segments = [each for each in self._stock.holdings.segments_of(number) if not each.is_bundle]
            await self._exchange.refetch(segments)

    async def _verify(self, number: int) -> None:
        stock = self._stock
        async with self._at_once:
            while stock.holdings.is_filled(number) and number not in self.bad:
                losses = stock.losses(number)
                try:
                    await stock.filling.finish(stock.keys[number], stock.digest(number))
                except ValueError:
                    # Ranges were dropped meanwhile; if they are here again, once more.
                    if losses == stock.losses(number):
                        await self._mend(number)
                except DigestMismatch as error:
                    if losses == stock.losses(number):
                        await self._mismatch(number, error)
                else:
                    stock.note([number])
                    self._settle(number)
        self._changed()

    async def _mend(self, number: int) -> None:
        """What counts as here and is not on the disk: it is being noted this very moment, or it is fetched."""
        stock = self._stock
        lacking: list[Segment] = []
        for _ in range(_LOOKS):
            await asyncio.sleep(_LOOK_SECONDS)
            here = [each for each in stock.holdings.segments_of(number) if stock.holdings.has(each.index)]
            lacking = [each for each in here if not await stock.covers(each)]
            if not lacking:
                return
        log.info("P2P %s: %s lacks %d of its segments", self._label, stock.files[number].path, len(lacking))
        await self._exchange.refetch(lacking)

    def _settle(self, number: int) -> None:
        self._stock.holdings.verify(number)
        if self._exchange.settle(number):
            self._errands.start("serve", number, self._exchange.serve)

    async def _mismatch(self, number: int, error: DigestMismatch) -> None:
        self._mismatched()
        if error.damaged:
            # What arrived was right and what is on the disk is not: fetch that again.
            log.warning("P2P %s: %s; the disk has changed it", self._label, error)
            lost = {
                segment.index: segment
                for start, end in error.damaged
                for segment in self._stock.holdings.ranges_in(number, start, end - start)
            }
            await self._exchange.refetch(lost.values())
            return
        publishers = self._exchange.publishers(number)
        log.error("P2P %s: %s, published by %s", self._label, error, ", ".join(publishers) or "nobody")
        self._bad[number] = BadFile(file=number, publishers=publishers), self._stock.losses(number)
