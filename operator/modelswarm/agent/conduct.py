"""How a content that is not complete here gets complete: as a member, as the coordinator too, or from complete seeders.

The election decides which (``agent.election``); this carries it out. It goes on after the content is complete here for
as long as others miss something, because this node has what they need.
"""

import asyncio
import logging
import random
from collections.abc import Awaitable, Callable, Mapping

from modelswarm.agent.coordinator import Coordinator
from modelswarm.agent.election import Acquire, Complete, Decision, Fetch, Hold, Join, Release, Renew, StandDown, Wait
from modelswarm.agent.exchange import NoSwarm
from modelswarm.agent.leases import ModelLease, Situation
from modelswarm.agent.member import Member
from modelswarm.agent.metainfo.desk import Desk
from modelswarm.agent.origin import OriginReader, open_leg
from modelswarm.agent.parts import Parts
from modelswarm.agent.progress import Sources
from modelswarm.agent.segments import choose_segment_bytes, plan
from modelswarm.agent.store import Filling
from modelswarm.agent.swarm import Event
from modelswarm.agent.wanted import Wanted
from modelswarm.errors import AgentError, InvalidReference, KubeError, NotCoordinator, PeerError, StoreError

SEEK_SECONDS = 3.0
"""How often complete seeders are looked for while nobody coordinates."""
API_PAUSE = 2.0
RACE_PAUSE = 0.2
TALK_PAUSE = 1.0

log = logging.getLogger(__name__)


class Conduct:
    """``completed`` is awaited once, when every file is verified; ``pulse`` is called when something may be new."""

    def __init__(
        self,
        filling: Filling,
        lease: ModelLease,
        parts: Parts,
        wanted: Wanted,
        *,
        completed: Callable[[Filling], Awaitable[None]],
        pulse: Callable[[], None],
        rng: random.Random,
    ) -> None:
        self.has_coordinated = False
        self._filling = filling
        self._lease = lease
        self._parts = parts
        self._wanted = wanted
        self._completed = completed
        self._pulse = pulse
        self._rng = rng
        self._label = filling.content[:16]
        self._member: Member | None = None
        self._counted = Sources()
        """By members of earlier plans, and as a late comer."""
        self._fetched_from = 0
        self._desk: Desk | None = None
        self._desk_task: asyncio.Task[None] | None = None
        self._talk: asyncio.Task[None] | None = None
        self._url = ""
        self._joined = False
        self._done = False
        self._over = False
        self._seeders: Mapping[str, bytes] = {}
        self._sought_at = float("-inf")
        self._unseeded_since: float | None = None
        self._distrusted: set[str] = set()
        self._changed = asyncio.Event()

    # What others ask

    @property
    def readers(self) -> tuple[str, ...]:
        return self._desk.coordinator.readers if self._desk is not None else ()

    @property
    def trouble(self) -> AgentError | None:
        """What stands in the way at the moment, if anything."""
        member = self._member
        if member is None:
            return None
        if member.trouble is not None:
            return AgentError(member.trouble.reason, str(member.trouble))
        return AgentError(member.failure.reason, member.failure.message) if member.failure is not None else None

    @property
    def is_coordinated_elsewhere(self) -> bool:
        return self._desk is None and not self._done

    @property
    def peers_connected(self) -> int:
        """Members besides this node."""
        return self._member.peers if self._member is not None else self._fetched_from

    @property
    def is_waiting(self) -> bool:
        return self._talk is None and self._desk is None and not self._fetched_from

    def sources(self) -> Sources:
        """Bytes that came since this began."""
        member = self._member
        found = self._counted
        if member is not None:
            found = found + Sources(member.counts.origin, member.counts.peers)
        return found

    async def hear(self, event: Event) -> bool:
        return self._member is not None and await self._member.hear(event)

    # Life

    async def run(self) -> None:
        """Until the content is complete here and nobody coordinates it any more. Raises AgentError, StoreError."""
        if not self._parts.settings.p2p_enabled:
            await self._run_alone()
            return
        await self._parts.discovery.refresh()
        while not self._over:
            await self._finish_if_complete()
            wait = await self._step()
            if self._over:
                break
            try:
                async with asyncio.timeout(wait):
                    await self._changed.wait()
            except TimeoutError:
                pass
            self._changed.clear()

    async def close(self) -> None:
        await self._stop_talking()
        await self._close_desk()
        if self._member is not None:
            await self._member.close()
            self._counted = self.sources()
            self._member = None

    async def _run_alone(self) -> None:
        """No peers: this node reads all of it, and coordinates itself."""
        loop = asyncio.get_running_loop()
        size = choose_segment_bytes(self._filling.manifest.bytes, 1)
        member = await self._become_member(size)
        self._open_desk(member, epoch=1, holds=lambda: True, successor=False)
        talk = asyncio.create_task(member.talk(self._parts.address.url))
        try:
            while not self._done:
                await self._finish_if_complete()
                self._raise_failure()
                if talk.done() and not self._done:
                    talk.result()
                await asyncio.wait(
                    {talk, loop.create_task(self._changed.wait())}, timeout=1.0, return_when="FIRST_COMPLETED"
                )
                self._changed.clear()
        finally:
            talk.cancel()
            await asyncio.gather(talk, return_exceptions=True)

    async def _finish_if_complete(self) -> None:
        if not self._done and not self._filling.missing():
            self._done = True
            await self._completed(self._filling)

    async def _step(self) -> float:
        """One look at the Lease and what follows; returns the seconds until the next."""
        self._raise_failure()
        try:
            await self._seek()
            decision = await self._lease.step(self._situation())
        except KubeError as error:
            log.warning("P2P %s: the API server does not answer: %s", self._label, error.message)
            if self._seeders and not self._done and self._talk is None:
                return await self._fetch()
            return API_PAUSE
        return await self._do(decision)

    async def _do(self, decision: Decision) -> float:
        own = self._parts.address.url
        match decision:
            case Acquire():
                if self._lease.term is None:
                    return RACE_PAUSE * self._rng.uniform(0.2, 1.0)
                await self._coordinate()
                return 0.0
            case Hold() | Renew():
                if self._desk is None:
                    await self._coordinate()
                await self._talk_to(own)
                return decision.after if isinstance(decision, Hold) else 0.0
            case Join(url=url, after=after):
                await self._close_desk()
                await self._join(url)
                return after
            case Fetch():
                await self._close_desk()
                return await self._fetch()
            case Wait(after=after):
                return await self._wait(after)
            case Complete():
                log.info("P2P %s: every member has everything", self._label)
                self._over = True
            case Release():
                await self._close_desk()
            case StandDown():
                await self._close_desk()
                await self._stop_talking()
        return 0.0

    async def _wait(self, after: float) -> float:
        """Nothing to do by the election's word; but who has everything helps whoever coordinates."""
        record = self._lease.record
        if not self._done:
            return after
        if record is None or record.complete or not record.holder:
            self._over = True
            return 0.0
        if record.coordinator:
            await self._join(record.coordinator)
        return after

    def _situation(self) -> Situation:
        finished = self._desk is not None and not self._desk.coordinator.is_open
        member = self._member
        return Situation(
            have=self._done,
            seeders=len(self._seeders),
            unseeded_since=self._unseeded_since,
            finished=finished and self._done,
            failed=member is not None and member.failure is not None and not member.failure.retryable,
            joined=self._joined,
        )

    async def _seek(self) -> None:
        """Look for nodes that have everything, unless somebody coordinates: then those are members."""
        loop = asyncio.get_running_loop()
        if self._done or self._lease.term is not None or (self._lease.record is None and await self._taken()):
            self._seeders = {}
            return
        if self._lease.is_fresh():
            self._seeders, self._unseeded_since = {}, None
            return
        if loop.time() - self._sought_at < SEEK_SECONDS * self._rng.uniform(0.5, 1.0):
            return
        self._sought_at = loop.time()
        found = await self._parts.seeding.seeders(self._wanted.model_hash)
        self._seeders = {url: metainfo for url, metainfo in found.items() if url not in self._distrusted}
        if self._seeders:
            self._unseeded_since = None
        elif self._unseeded_since is None:
            self._unseeded_since = loop.time()

    async def _taken(self) -> bool:
        await self._lease.look()
        return self._lease.is_fresh()

    # Coordinating

    async def _coordinate(self) -> None:
        """Open the desk for our term, and be its first member."""
        lease = self._lease
        assert lease.term is not None
        assert lease.record is not None
        size = lease.record.segment_bytes or lease.plan.segment_bytes
        if not size:
            size = choose_segment_bytes(self._filling.manifest.bytes, 1 + len(self._parts.discovery.peers()))
        member = await self._become_member(size)
        successor = lease.predecessor is not None
        await self._close_desk()
        self._open_desk(member, epoch=lease.term.epoch, holds=lambda: lease.holds, successor=successor)
        self.has_coordinated = True
        self._parts.metrics.lease_acquired()
        await self._talk_to(self._parts.address.url)

    def _open_desk(self, member: Member, *, epoch: int, holds: Callable[[], bool], successor: bool) -> None:
        parts, loop = self._parts, asyncio.get_running_loop()
        coordinator = Coordinator(
            self._filling.manifest,
            member.holdings.segments,
            segment_bytes=member.segment_bytes,
            epoch=epoch,
            now=loop.time(),
            origin_nodes=parts.settings.origin_nodes,
            own=parts.address.node,
            successor=successor,
        )
        self._desk = parts.hosting.desks[self._filling.content] = Desk(coordinator, holds=holds)
        self._desk_task = asyncio.create_task(self._desk.run(), name=f"desk {self._label}")

    async def _close_desk(self) -> None:
        if self._desk_task is not None:
            self._desk_task.cancel()
            await asyncio.gather(self._desk_task, return_exceptions=True)
            self._desk_task = None
        if self._desk is not None:
            self._desk.close()
            if self._parts.hosting.desks.get(self._filling.content) is self._desk:
                del self._parts.hosting.desks[self._filling.content]
            self._desk = None

    # Being a member

    async def _join(self, url: str) -> None:
        self._parts.hosting.holders[self._filling.content] = url
        record = self._lease.record
        size = record.segment_bytes if record is not None else 0
        if size:
            await self._become_member(size)
            await self._talk_to(url)

    async def _become_member(self, segment_bytes: int) -> Member:
        """The plan may be another one under another coordinator; what is on disk counts in any plan."""
        if self._member is not None and self._member.segment_bytes == segment_bytes:
            return self._member
        try:
            plan(self._filling.manifest, segment_bytes)
        except InvalidReference as error:
            raise AgentError("InvalidPlan", f"the model's Lease makes no sense: {error.message}; delete it") from None
        await self._stop_talking()
        if self._member is not None:
            await self._member.close()
            self._counted = self.sources()
        parts = self._parts
        self._member = Member(
            self._filling,
            segment_bytes,
            address=parts.address,
            store=parts.store,
            swarm=parts.swarm if parts.settings.p2p_enabled else NoSwarm(),
            client=parts.client,
            open_reader=self._open_reader,
            meet=parts.discovery.meet,
            changed=self._notice,
            mismatched=lambda: parts.metrics.verification_failed(self._wanted.model_hash),
        )
        await self._member.recover()
        return self._member

    async def _open_reader(self) -> OriginReader:
        parts = self._parts
        credentials = await parts.provisions.credentials(self._wanted)
        leg = await open_leg(self._filling.manifest, credentials, parts.endpoints, parts.http, parts.gate)
        return OriginReader(leg, parts.store.threads)

    async def _talk_to(self, url: str) -> None:
        if self._talk is not None and self._url == url:
            return
        await self._stop_talking()
        assert self._member is not None
        self._url = url
        self._talk = asyncio.create_task(self._keep_talking(self._member, url), name=f"talk {self._label}")

    async def _stop_talking(self) -> None:
        if self._talk is not None:
            self._talk.cancel()
            await asyncio.gather(self._talk, return_exceptions=True)
            self._talk = None
        self._joined, self._url = False, ""

    async def _keep_talking(self, member: Member, url: str) -> None:
        """A coordinator that does not answer is asked again, until the Lease names another one."""
        self._joined = True
        while not member.closed.is_set():
            try:
                await member.talk(url)
            except NotCoordinator:
                self._joined = False
                self._talk, self._url = None, ""
                self._changed.set()
                return
            except PeerError as error:
                self._joined = False
                self._changed.set()
                log.warning("P2P %s: the coordinator at %s: %s", self._label, url, error.message)
                await asyncio.sleep(TALK_PAUSE * self._rng.uniform(0.5, 1.5))
                self._joined = True
        self._notice()
        if self._desk is None:
            self._over = True
        self._changed.set()

    def _notice(self) -> None:
        self._changed.set()
        self._pulse()

    def _raise_failure(self) -> None:
        """What no node can have, or what this node's disk refuses, ends the attempt."""
        member = self._member
        if member is None or self._done:
            return
        if member.trouble is not None:
            raise member.trouble
        if member.failure is not None and not member.failure.retryable:
            raise AgentError(member.failure.reason, member.failure.message)

    # Coming late

    async def _fetch(self) -> float:
        """From nodes that have everything, without a coordinator."""
        parts, seeders = self._parts, self._seeders
        await self._stop_talking()
        if self._member is not None:
            await self._member.close()
            self._counted = self.sources()
            self._member = None
        before = self._downloaded()
        self._fetched_from = len(seeders)
        self._pulse()
        try:
            complete = await parts.seeding.fetch(self._filling, seeders, parts.settings.download_timeout)
        except StoreError:
            raise
        finally:
            self._fetched_from = 0
            self._counted = self._counted + Sources(0, self._downloaded() - before)
        self._seeders = {}
        self._sought_at = float("-inf")
        if not complete:
            self._distrusted.update(seeders)
            self._unseeded_since = asyncio.get_running_loop().time()
            return TALK_PAUSE * self._rng.uniform(0.5, 1.5)
        await self._finish_if_complete()
        self._over = self._done
        return 0.0

    def _downloaded(self) -> int:
        traffic = self._parts.swarm.counters.contents.get(self._filling.content)
        return traffic.downloaded if traffic is not None else 0
