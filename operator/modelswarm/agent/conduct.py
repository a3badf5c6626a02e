"""How a content that is not complete here gets complete: as a member, as the coordinator too, or from complete seeders.

The election decides which (``agent.election``); this carries it out. It goes on after the content is complete here for
as long as others miss something, because this node has what they need.
"""

import asyncio
import contextlib
import logging
import random
from collections.abc import Awaitable, Callable, Mapping

from modelswarm.agent.coordinator import Coordinator
from modelswarm.agent.election import Acquire, Complete, Decision, Fetch, Hold, Join, Release, Renew, StandDown, Wait
from modelswarm.agent.leases import ModelLease, Situation
from modelswarm.agent.member import Member
from modelswarm.agent.metainfo.desk import Desk
from modelswarm.agent.origin import OriginReader, open_leg
from modelswarm.agent.parts import Parts
from modelswarm.agent.progress import Sources
from modelswarm.agent.seeding import Fetched
from modelswarm.agent.segments import choose_segment_bytes, plan
from modelswarm.agent.sharing import NoSwarm
from modelswarm.agent.store import Filling
from modelswarm.agent.swarm import Event
from modelswarm.agent.troubles import API_SERVER_UNAVAILABLE, Trouble, of_error, of_failure
from modelswarm.agent.wanted import Wanted
from modelswarm.errors import AgentError, InvalidReference, KubeError, NotCoordinator, PeerError

SEEK_SECONDS = 3.0
"""How often complete seeders are looked for while nobody coordinates."""
API_PAUSE = 2.0
RACE_PAUSE = 0.2
TALK_PAUSE = 1.0
CLOSE_SECONDS = 1.0
"""How often a coordinator looks whether everybody has everything: the last member's report wakes only its desk."""
AVOID_SECONDS = 60.0
"""How long a seeder from which nothing came is not asked again."""

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
        self._fetched_before: int | None = None
        self._trouble: Trouble | None = None
        """Of the Lease, the coordinator or the seeders, since something last worked."""
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
        self._unanswered_at = -1
        """How many answers the member had when the coordinator fell silent."""
        self._avoided: dict[str, float] = {}
        """Seeders, and until when they are not asked: for ever, if what they gave was wrong."""
        self._changed = asyncio.Event()

    # What others ask

    @property
    def readers(self) -> tuple[str, ...]:
        return self._desk.coordinator.readers if self._desk is not None else ()

    @property
    def trouble(self) -> Trouble | None:
        """What stands in the way at the moment, if anything; or who did, for it is over."""
        member = self._member
        if member is not None and member.broken is not None:
            return of_error(member.broken, self._wanted)
        if member is not None and member.trouble is not None:
            return member.trouble
        if member is not None and member.failure is not None:
            return of_failure(member.failure, self._wanted)
        return self._trouble

    @property
    def waits_for(self) -> str:
        """Whom, or what, before the first byte can come; empty when nothing is waited for."""
        if self._talk is not None or self._desk is not None or self._fetched_from or self._done:
            return ""
        record = self._lease.record
        if record is None or not record.holder:
            return "for a coordinator to be elected"
        if record.complete:
            return "for a node that has all of it to answer"
        return f"for {record.holder}, which coordinates, to answer"

    @property
    def is_coordinated_elsewhere(self) -> bool:
        return self._desk is None and not self._done

    @property
    def peers_connected(self) -> int:
        """Members besides this node."""
        return self._member.peers if self._member is not None else self._fetched_from

    @property
    def unmarked(self) -> int:
        """Bytes that came with a whole model, of which the store does not know yet."""
        return self._downloaded() - self._fetched_before if self._fetched_before is not None else 0

    def sources(self) -> Sources:
        """Bytes that came since this began."""
        found = self._counted + Sources(0, self.unmarked)
        return found + self._member.sources if self._member is not None else found

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
            self._changed.clear()
            await self._finish_if_complete()
            wait = await self._step()
            if not self._over:
                with contextlib.suppress(TimeoutError):
                    async with asyncio.timeout(wait):
                        await self._changed.wait()

    async def close(self) -> None:
        await self._stop_talking()
        await self._close_desk()
        await self._close_member()

    async def _run_alone(self) -> None:
        """No peers: this node reads all of it, and coordinates itself."""
        member = await self._become_member(choose_segment_bytes(self._filling.manifest.bytes, 1))
        self._open_desk(member, epoch=1, holds=lambda: True, successor=False)
        await self._talk_to(self._parts.address.url)
        while not self._done:
            self._changed.clear()
            await self._finish_if_complete()
            self._raise_failure()
            if not self._done:
                await self._changed.wait()

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
            self._hinder(of_error(error, self._wanted))
            if self._seeders and not self._done and self._talk is None:
                return await self._fetch()
            return API_PAUSE
        if self._trouble is not None and self._trouble.reason == API_SERVER_UNAVAILABLE:
            self._hinder(None)
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
                return min(decision.after, CLOSE_SECONDS) if isinstance(decision, Hold) else 0.0
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
        now = loop.time()
        self._seeders = {url: metainfo for url, metainfo in found.items() if self._avoided.get(url, 0.0) <= now}
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
            member.stock.holdings.segments,
            segment_bytes=member.segment_bytes,
            epoch=epoch,
            now=loop.time(),
            origin_nodes=parts.settings.origin_nodes,
            own=parts.address.node,
            successor=successor,
        )
        self._desk = Desk(coordinator, holds=holds)
        parts.hosting.open_desk(self._filling.content, self._desk)
        self._desk_task = asyncio.create_task(self._desk.run(), name=f"desk {self._label}")

    async def _close_desk(self) -> None:
        if self._desk_task is not None:
            self._desk_task.cancel()
            await asyncio.gather(self._desk_task, return_exceptions=True)
        self._desk_task = None
        if self._desk is not None:
            self._parts.hosting.close_desk(self._filling.content, self._desk)
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
        await self._close_member()
        parts = self._parts
        member = self._member = Member(
            self._filling,
            segment_bytes,
            address=parts.address,
            store=parts.store,
            windows=parts.sharing.port() if parts.settings.p2p_enabled else NoSwarm(),
            client=parts.client,
            open_reader=self._open_reader,
            meet=parts.discovery.meet,
            changed=self._heard,
            mismatched=lambda: parts.metrics.verification_failed(self._wanted.model_hash),
            rng=self._rng,
        )
        await member.recover()
        return member

    async def _close_member(self) -> None:
        member, self._member = self._member, None
        if member is not None:
            await member.close()
            self._counted = self._counted + member.sources

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
                # Not at once: the Lease may name it for another moment, and would again and again.
                self._joined = False
                await asyncio.sleep(RACE_PAUSE * self._rng.uniform(0.5, 1.5))
                self._talk, self._url = None, ""
                self._changed.set()
                return
            except PeerError as error:
                self._joined = False
                log.warning("P2P %s: the coordinator at %s: %s", self._label, url, error.message)
                self._unanswered_at = member.answers
                self._hinder(of_error(error, self._wanted))
                self._changed.set()
                await asyncio.sleep(TALK_PAUSE * self._rng.uniform(0.5, 1.5))
                self._joined = True
        self._notice()
        if self._desk is None:
            self._over = True
        self._changed.set()

    def _hinder(self, trouble: Trouble | None) -> None:
        if trouble != self._trouble:
            self._trouble = trouble
            self._pulse()

    def _heard(self) -> None:
        """The member has news. Most of it is no reason to look at the Lease again."""
        member = self._member
        if member is None:
            return
        if member.answers > self._unanswered_at >= 0:
            self._unanswered_at = -1
            self._hinder(None)
        final = member.failure is not None and not member.failure.retryable
        if (member.complete.is_set() and not self._done) or member.broken is not None or final:
            self._changed.set()
        self._pulse()

    def _notice(self) -> None:
        self._changed.set()
        self._pulse()

    def _raise_failure(self) -> None:
        """What no node can have, or what this node's disk refuses, ends the attempt."""
        member = self._member
        if member is None or self._done:
            return
        if member.broken is not None:
            raise member.broken
        if member.failure is not None and not member.failure.retryable:
            raise AgentError(member.failure.reason, member.failure.message)

    # Coming late

    async def _fetch(self) -> float:
        """From nodes that have everything, without a coordinator."""
        parts, seeders = self._parts, self._seeders
        await self._stop_talking()
        await self._close_member()
        self._fetched_from, self._fetched_before = len(seeders), self._downloaded()
        present = self._filling.present_bytes()
        self._pulse()
        try:
            fetched = await parts.seeding.fetch(self._filling, seeders, parts.settings.download_timeout)
        finally:
            # The swarm's counters are read now and then, and count what came twice; the disk knows better.
            came = self._filling.present_bytes() - present or self.unmarked
            self._counted, self._fetched_from = self._counted + Sources(0, came), 0
            self._fetched_before = None
        self._seeders = {}
        self._sought_at = float("-inf")
        if not fetched.complete:
            return self._avoid(fetched)
        self._hinder(None)
        await self._finish_if_complete()
        self._over = self._done
        return 0.0

    def _avoid(self, fetched: Fetched) -> float:
        """It did not work with these seeders: with others, or by way of a coordinator."""
        now = asyncio.get_running_loop().time()
        until = float("inf") if fetched.wrong else now + AVOID_SECONDS
        self._avoided.update((url, until) for url in fetched.seeders)
        self._unseeded_since = now
        if fetched.trouble is not None:
            self._hinder(fetched.trouble)
        return TALK_PAUSE * self._rng.uniform(0.5, 1.5)

    def _downloaded(self) -> int:
        traffic = self._parts.swarm.counters.contents.get(self._filling.content)
        return traffic.downloaded if traffic is not None else 0
