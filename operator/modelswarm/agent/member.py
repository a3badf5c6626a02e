"""This node's part in bringing one content to everybody: it reports, reads what it is given, takes what others have.

Coordinators may come and go; what a member knows and has stays with it. Everything that it does can be done again: a
report says its whole state, and a segment that was read or fetched twice is the same segment.

    Member      talks to the coordinator, and hands on what it says
    ├── Reading     segments from the origin
    ├── Bundles     small files from other nodes
    ├── Exchange    windows of large files, with the swarm
    └── Verifying   files that are filled, and what is wrong with them
"""

import asyncio
import random
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Protocol

from modelswarm.agent import bits
from modelswarm.agent.alone import Alone
from modelswarm.agent.bundles import BlobClient, Bundles
from modelswarm.agent.errands import Errands
from modelswarm.agent.exchange import Exchange
from modelswarm.agent.messages import Answer, Busy, Failure, PeerInfo, Publication, Report
from modelswarm.agent.progress import Sources
from modelswarm.agent.reading import OpenReader, Reading
from modelswarm.agent.segments import Segment
from modelswarm.agent.sharing import WindowPort
from modelswarm.agent.starving import Starving
from modelswarm.agent.stock import Stock
from modelswarm.agent.store import Filling, Store
from modelswarm.agent.swarm import Event, Peer, TorrentFailed
from modelswarm.agent.troubles import Trouble
from modelswarm.agent.verifying import Verifying
from modelswarm.errors import DiskFull, StoreError

CONNECTIONS = 8
"""To the origin, of all members together, as far as few members can give that many."""
AHEAD = 1
"""Segments that a node is given beyond those that it reads, so that it never waits for the next."""
COALESCE_SECONDS = 0.02
"""What happens within so short a time goes into one report."""
LOOK_SECONDS = 0.1
"""How soon it is seen that files have come another way."""
_BUSY_TOLD = 4096
_BAD_TOLD = 256
_WORKING_TOLD = 64
_DIGESTS_TOLD = 4096
_PUBLISHED_TOLD = 1024


@dataclass(frozen=True, slots=True)
class Address:
    """Where this node is reached by the others."""

    node: str
    url: str
    host: str
    port: int


class CoordinatorClient(BlobClient, Protocol):
    """What a member asks of other nodes (``metainfo.client.MetainfoClient``)."""

    async def report(self, url: str, content_id: str, report: Report) -> Answer: ...


class Member:
    """``changed`` is called when the standing may be another one, ``mismatched`` for a file with a wrong digest."""

    def __init__(
        self,
        filling: Filling,
        segment_bytes: int,
        *,
        address: Address,
        store: Store,
        windows: WindowPort,
        client: CoordinatorClient,
        open_reader: OpenReader,
        meet: Callable[[Sequence[PeerInfo]], None] = lambda peers: None,
        changed: Callable[[], None] = lambda: None,
        mismatched: Callable[[], None] = lambda: None,
        rng: random.Random | None = None,
    ) -> None:
        self.segment_bytes = segment_bytes
        self.failure: Failure | None = None
        """Why the content cannot be had, for anybody; or (retryable) what went wrong last."""
        self.broken: StoreError | None = None
        """Why this node cannot go on: its disk."""
        self.answers = 0
        """Of coordinators, so far."""
        self.complete = asyncio.Event()
        self.closed = asyncio.Event()
        """Everybody has everything, says the coordinator."""
        self.stock = Stock(filling, segment_bytes, store)
        self._filling = filling
        self._address = address
        self._client = client
        self._discover = meet
        self._changed = changed
        self._news = asyncio.Event()
        self._epoch = 0
        self._cursor = 0
        self._life = random.getrandbits(53)
        self._told = 0
        self._heard = 0
        self._outbox: list[Publication] = []
        self._peers: dict[str, PeerInfo] = {}
        self._from_swarm = 0
        self._errands = Errands(filling.content[:16], ended=self._ended, refused=self._refused)
        stock, errands = self.stock, self._errands
        self._exchange = Exchange(
            stock.holdings,
            stock.keys,
            node=address.node,
            content=filling.content,
            swarm=windows,
            place=stock.place,
            discard=stock.drop,
        )
        self._starving = Starving(self._exchange)
        self._verifying = Verifying(stock, self._exchange, errands, changed=self._look_round, mismatched=mismatched)
        self._reading = Reading(
            stock,
            self._exchange,
            errands,
            self._outbox,
            open_reader,
            node=address.node,
            arrived=self._arrived,
        )
        self._alone = Alone(stock, self._reading, self._verifying)
        self._bundles = Bundles(
            stock,
            client,
            errands,
            own_url=address.url,
            arrived=self._arrived,
            read=self._reading.read_unasked,
            rng=rng or random.Random(),
        )

    # What others ask

    @property
    def sources(self) -> Sources:
        """Bytes of content that came here."""
        return Sources(self._reading.received, self._from_swarm + self._bundles.bytes)

    @property
    def peers(self) -> int:
        return len(self._peers)

    @property
    def requests(self) -> int:
        """To the origin."""
        return self._reading.requests

    @property
    def trouble(self) -> Trouble | None:
        """A file that is wrong, or a node that was found to have made it so."""
        return self._verifying.trouble

    # Life

    async def recover(self) -> None:
        """Take stock of what an earlier run, or another content, has left. To be awaited once, first of all."""
        begun: list[int] = []
        for number, file in enumerate(self.stock.files):
            if file.size and not self.stock.is_placed(number) and not self.stock.is_small(number):
                for segment in self.stock.holdings.segments_of(number):
                    if await self.stock.covers(segment):
                        await self._offer(segment)
                    elif self.stock.progress(segment.index) > 0:
                        begun.append(segment.index)
        self._reading.resume(begun[: CONNECTIONS + AHEAD])
        self._errands.start("arrivals", 0, self._follow_arrivals)
        self._arrived(None)

    async def talk(self, url: str) -> None:
        """Report to the coordinator at ``url`` and do what it says, until cancelled or ``closed``. Raises PeerError."""
        pending: dict[asyncio.Task[Answer], tuple[int, Report]] = {}
        known = self._epoch, self._cursor
        try:
            while not self.closed.is_set():
                # A later report sends the one before it home; without anything new they would do so for ever.
                if not pending or self._news.is_set() or known != (self._epoch, self._cursor):
                    if pending:
                        await asyncio.sleep(COALESCE_SECONDS)
                    self._news.clear()
                    self._told += 1
                    report, known = self._report(), (self._epoch, self._cursor)
                    request = asyncio.create_task(self._client.report(url, self._filling.content, report))
                    pending[request] = self._told, report
                news = asyncio.create_task(self._news.wait())
                try:
                    await asyncio.wait({*pending, news}, return_when=asyncio.FIRST_COMPLETED)
                finally:
                    news.cancel()
                for request in [each for each in pending if each.done()]:
                    number, report = pending.pop(request)
                    await self._apply(request.result(), report, number)
        finally:
            for request in pending:
                request.cancel()
            await asyncio.gather(*pending, return_exceptions=True)

    async def hear(self, event: Event) -> bool:
        """An event of the swarm; whether it was about this content."""
        if self._starving.hear(event):
            self._news.set()
        if isinstance(event, TorrentFailed) and event.full and self._exchange.shares(event.torrent):
            self._refused(DiskFull())
            return True
        arrivals = await self._exchange.hear(event)
        if arrivals is None:
            return False
        for arrival in arrivals:
            self._from_swarm += arrival.segment.length
            await self.stock.mark(arrival.segment, arrival.hashes)
            self._arrived([arrival.segment.file])
        return True

    async def close(self) -> None:
        """Stop everything. What is on disk stays."""
        await self._errands.close()
        self._exchange.close()

    async def _follow_arrivals(self) -> None:
        """Files come other ways, too: with another content, or as a whole torrent."""
        while True:
            arrived = self._filling.arrived
            self._arrived(None)
            await arrived.wait()
            # Small files come by the thousand.
            await asyncio.sleep(LOOK_SECONDS)

    def _arrived(self, files: Sequence[int] | None) -> None:
        """Something of these files (None: of any) is here."""
        self._verifying.look(files)
        self._look_round()

    def _look_round(self) -> None:
        """Something is another way than before: see whether that was the last of it, and tell."""
        if not self.complete.is_set() and self.stock.holdings.complete and not self._filling.missing():
            self.complete.set()
        self._news.set()
        self._changed()

    def _ended(self, kind: str) -> None:
        self._reading.go_on(self._parallel())
        if kind != "ahead":
            self._news.set()

    def _refused(self, error: StoreError) -> None:
        self.broken = error
        self._look_round()

    # Reporting

    def _report(self) -> Report:
        stock = self.stock
        # Not small files: their whole bundle would wait, with files that nobody else brings.
        busy = [
            Busy(file=number, content=content)
            for key, content in self._filling.busy().items()
            if not stock.is_small(number := stock.number_of(key))
        ]
        return Report(
            node=self._address.node,
            url=self._address.url,
            host=self._address.host,
            port=self._address.port,
            life=self._life,
            number=self._told,
            epoch=self._epoch,
            cursor=self._cursor,
            have=bits.to_bytes(stock.holdings.have),
            verified=bits.to_bytes(stock.holdings.verified),
            published=tuple(self._outbox[:_PUBLISHED_TOLD]),
            working={number: stock.progress(number) for number in self._reading.accepted[:_WORKING_TOLD]},
            busy=tuple(busy[:_BUSY_TOLD]),
            bad=tuple(self._verifying.bad.values())[:_BAD_TOLD],
            starved=self._starving.segments[:_WORKING_TOLD],
            failed=dict(list(self._reading.failed.items())[:_WORKING_TOLD]),
            digests=dict(list(stock.found.items())[:_DIGESTS_TOLD]),
            complete=self.complete.is_set(),
            wants=0 if self.complete.is_set() or self.broken is not None else self._parallel() + AHEAD,
        )

    def _parallel(self) -> int:
        return max(1, CONNECTIONS // (1 + len(self._peers)))

    # Doing what the coordinator says

    async def _apply(self, answer: Answer, report: Report, number: int) -> None:
        told = set(map(id, report.published))
        self.answers += 1
        self._outbox[:] = [each for each in self._outbox if id(each) not in told]
        for segment, failure in report.failed.items():
            if self._reading.failed.get(segment) == failure:
                del self._reading.failed[segment]
        if number < self._heard:
            # A later one has overtaken it, and says all that it says, and what has changed since.
            return
        self._heard = number
        if answer.epoch != self._epoch:
            self._epoch, self._cursor = answer.epoch, 0
        self._cursor = max(self._cursor, answer.cursor)
        self._meet(answer)
        self.failure = answer.failure
        replaced = await self._exchange.learn(answer.published)
        self._verifying.replaced(replaced)
        self._verifying.shun(answer.shunned)
        await self._verifying.agree(answer.digests)
        if not self.stock.holdings.complete:
            self.complete.clear()
        self._reading.stop([each.segment.index for each in replaced])
        self._bundles.learn(answer.holders)
        self._bundles.bring_missing()
        self._obey(answer)
        if not answer.open and self.complete.is_set():
            self.closed.set()
        if self._outbox[_PUBLISHED_TOLD:] or answer.more:
            self._news.set()
        self._changed()

    def _obey(self, answer: Answer) -> None:
        if self._address.node in answer.shunned:
            self._alone.go(answer.pause)
            self._reading.go_on(self._parallel())
            return
        segments = self.stock.holdings.segments
        self._reading.stop(answer.revoke)
        self._reading.assign([each for each in answer.assign if each < len(segments)], answer.reread, answer.pause)
        for number in answer.asked:
            if number < len(segments) and self.stock.holdings.has(number) and not segments[number].is_bundle:
                self._errands.start("publish", number, lambda number=number: self._offer(segments[number]))  # type: ignore[misc]
        self._reading.go_on(self._parallel())

    def _meet(self, answer: Answer) -> None:
        self._discover(answer.peers)
        gone = [peer.node for peer in answer.peers if peer.gone or peer.node in answer.shunned]
        for peer in answer.peers:
            self._peers[peer.node] = peer
        for name in gone:
            self._peers.pop(name, None)
        self._exchange.meet(
            [Peer(peer.node, peer.host, peer.port) for peer in answer.peers if peer.node not in gone], gone
        )

    async def _offer(self, segment: Segment) -> None:
        """Tell the hashes of a segment that is here, and who told them first, as far as is known."""
        publication = self._exchange.told(segment.index)
        if publication is None:
            hashes = await self.stock.hash(segment)
            if not await self.stock.covers(segment):
                # It was found wrong meanwhile.
                return
            self.stock.holdings.arrived(segment.index)
            publication = await self._exchange.offer(segment, hashes)
        if publication is not None and publication not in self._outbox:
            self._outbox.append(publication)
