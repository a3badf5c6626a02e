"""Reading the origin: the segments that the coordinator has given to this node, a few at once."""

import asyncio
import logging
from collections.abc import Callable, Collection, Coroutine, Sequence

from modelswarm.agent.errands import Errands
from modelswarm.agent.exchange import Exchange
from modelswarm.agent.messages import Failure, Publication
from modelswarm.agent.origin import OriginReader
from modelswarm.agent.segments import Segment
from modelswarm.agent.stock import Stock
from modelswarm.agent.swarm import piece_length
from modelswarm.agent.troubles import failure_of
from modelswarm.content.manifest import ManifestFile
from modelswarm.errors import DigestMismatch, ModelswarmError, StoreError

READ = "read"

OpenReader = Callable[[], Coroutine[None, None, OriginReader]]
"""Made when the first segment has to be read: until then no credentials are needed."""

log = logging.getLogger(__name__)


class Reading:
    """``outbox`` takes what is published; ``arrived`` is called with the files of which something came."""

    def __init__(
        self,
        stock: Stock,
        exchange: Exchange,
        errands: Errands,
        outbox: list[Publication],
        open_reader: OpenReader,
        *,
        node: str,
        arrived: Callable[[Sequence[int]], None],
    ) -> None:
        self.failed: dict[int, Failure] = {}
        """Segments that could not be read, until the coordinator knows."""
        self._stock = stock
        self._exchange = exchange
        self._errands = errands
        self._outbox = outbox
        self._open_reader = open_reader
        self._node = node
        self._arrived = arrived
        self._label = stock.filling.content[:16]
        self._reader: OriginReader | None = None
        self._opening = asyncio.Lock()
        self._assigned: list[int] = []
        self._begun: list[int] = []
        self._again: set[int] = set()
        self._paused_until = 0.0

    @property
    def accepted(self) -> list[int]:
        """The segments that this node has taken on, and has not finished; or had, before it was restarted."""
        waiting = [number for number in (*self._assigned, *self._begun) if self._is_due(number)]
        return list(dict.fromkeys((*self._errands.of(READ), *waiting)))

    @property
    def received(self) -> int:
        """Bytes that came from the origin, also of what was given up half-way, and what was read again."""
        return self._reader.traffic.bytes if self._reader is not None else 0

    @property
    def requests(self) -> int:
        return self._reader.traffic.requests if self._reader is not None else 0

    def resume(self, numbers: Sequence[int]) -> None:
        """Segments of which an earlier run has read the beginning: the coordinator is told, and should nobody else have
        them, gives them to this node again."""
        self._begun = list(numbers)

    def assign(self, numbers: Sequence[int], again: Collection[int], pause: float) -> None:
        """All segments that the coordinator has given to this node now, and those of them that it shall read although
        they may be here. ``pause``: seconds in which nobody reads."""
        told = {segment for publication in self._outbox for segment in publication.segments}
        self._again = {number for number in again if number not in told}
        self._assigned, self._begun = list(numbers), []
        self._paused_until = asyncio.get_running_loop().time() + pause

    def go_on(self, at_once: int) -> None:
        """Begin with the next of the assigned segments, as many at once as this node may."""
        active = len(self._errands.of(READ))
        for number in self._assigned:
            if active >= at_once:
                return
            if self._is_due(number) and number not in self.failed and not self._errands.has(READ, number):
                segment = self._stock.holdings.segments[number]
                self._errands.start(READ, number, lambda segment=segment: self._read(segment))  # type: ignore[misc]
                active += 1

    def stop(self, numbers: Collection[int]) -> None:
        for number in numbers:
            self._errands.cancel(READ, number)

    def _is_due(self, number: int) -> bool:
        return number in self._again or not self._stock.holdings.has(number)

    async def _read(self, segment: Segment) -> None:
        await asyncio.sleep(max(0.0, self._paused_until - asyncio.get_running_loop().time()))
        try:
            if segment.is_bundle:
                await self._read_bundle(segment)
            elif segment.index in self._again and self._stock.is_placed(segment.file):
                # The digest was right: what is here is what the origin has.
                await self._publish(segment, await self._stock.hash(segment))
            else:
                await self._read_range(segment)
        except asyncio.CancelledError:
            raise
        except Exception as error:
            if not isinstance(error, ModelswarmError):
                log.exception("P2P %s: a defect while reading the origin", self._label)
            told = error if isinstance(error, ModelswarmError) else ModelswarmError()
            failure = self.failed[segment.index] = failure_of(told)
            log.warning("P2P %s: cannot read the origin: %s: %s", self._label, failure.reason, failure.message)
            if isinstance(error, StoreError) and not isinstance(error, DigestMismatch):
                raise

    async def read_unasked(self, segment: Segment) -> bool:
        """Small files that no other node gives right, although the coordinator has not told this node to read them.

        Says whether they are here now. Raises what the disk says.
        """
        try:
            await self._fetch_bundle(segment)
        except ModelswarmError as error:
            if isinstance(error, StoreError) and not isinstance(error, DigestMismatch):
                raise
            log.warning("P2P %s: cannot read small files from the origin: %s", self._label, error)
            return False
        return True

    async def _fetch_bundle(self, segment: Segment) -> None:
        stock, reader = self._stock, await self._get_reader()
        missing = [stock.files[number] for number in stock.unplaced(segment)]
        await reader.read_small(missing, self._accept)
        stock.note(segment.files)

    async def _read_bundle(self, segment: Segment) -> None:
        again = segment.index in self._again
        await self._fetch_bundle(segment)
        if again:
            self._again.discard(segment.index)
            self._outbox.append(Publication(segments=(segment.index,), publisher=self._node))
        self._arrived(segment.files)

    async def _accept(self, file: ManifestFile, data: bytes) -> None:
        await self._stock.filling.write_small(file.path, data, self._stock.digest(self._stock.number(file)))

    async def _read_range(self, segment: Segment) -> None:
        stock = self._stock
        reader = await self._get_reader()
        partial = await stock.partial(segment.file)
        file = stock.files[segment.file]
        if again := segment.index in self._again:
            # In place, for the bytes that are here are of no use to anybody if the file's digest is wrong.
            self._exchange.withhold(segment)
            await stock.drop(segment)
        try:
            hashes = await reader.read(
                file, partial, segment.offset, segment.length, piece_length=piece_length(file.size)
            )
        except BaseException:
            if again:
                await self._exchange.refetch([segment])
            raise
        await self._publish(segment, hashes)

    async def _publish(self, segment: Segment, hashes: bytes) -> None:
        stock = self._stock
        stock.holdings.arrived(segment.index)
        publication = await self._exchange.offer(segment, hashes)
        if publication is None and segment.index in self._assigned:
            # The coordinator knows what was told, and has this node read it all the same: nobody has those bytes.
            self._exchange.withhold(segment)
            publication = await self._exchange.offer(segment, hashes)
        self._again.discard(segment.index)
        if publication is not None:
            self._outbox.append(publication)
        else:
            log.warning(
                "P2P %s: somebody else has published other bytes of %s", self._label, stock.files[segment.file].path
            )
            await stock.drop(segment)
            await self._exchange.refetch([segment])
        self._arrived([segment.file])

    async def _get_reader(self) -> OriginReader:
        async with self._opening:
            if self._reader is None:
                self._reader = await self._open_reader()
            return self._reader
