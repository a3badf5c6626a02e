"""How a content that is not complete here gets complete: as a member, as the coordinator too, or from complete seeders.

The election decides which (``agent.election``); this carries it out. It goes on after the content is complete here for
as long as others miss something, because this node has what they need.

    Conduct     looks at the Lease, and does what follows
    ├── Office      coordinates
    ├── Membership  is a member, and talks to whoever coordinates
    └── LateComer   takes it from nodes that have everything
"""

import asyncio
import contextlib
import logging
import random
from collections.abc import Awaitable, Callable

from modelswarm.agent.election import Acquire, Complete, Decision, Fetch, Hold, Join, Release, Renew, StandDown, Wait
from modelswarm.agent.latecomer import LateComer
from modelswarm.agent.leases import ModelLease, Situation
from modelswarm.agent.membership import RACE_PAUSE, TALK_PAUSE, Membership
from modelswarm.agent.office import Office
from modelswarm.agent.parts import Parts
from modelswarm.agent.progress import Sources
from modelswarm.agent.segments import choose_segment_bytes
from modelswarm.agent.store import Filling
from modelswarm.agent.swarm import Event
from modelswarm.agent.troubles import API_SERVER_FORBIDDEN, API_SERVER_UNAVAILABLE, Trouble, of_error
from modelswarm.agent.wanted import Wanted
from modelswarm.errors import KubeError

API_PAUSE = 2.0
LOOKUP_SECONDS = 1.0
"""How long the beginning waits for DNS; it is asked again and again anyhow."""
SHORTEST = 0.01
CLOSE_SECONDS = 1.0
"""How often a coordinator looks whether everybody has everything: the last member's report wakes only its desk."""

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
        self._trouble: Trouble | None = None
        """Of the Lease, the coordinator or the seeders, since something last worked."""
        self._done = False
        self._ended = False
        self._preparing: asyncio.Task[object] | None = None
        """The torrent that late comers get, made while the members are still there to give what they have."""
        self._changed = asyncio.Event()
        self._office = Office(parts)
        self._membership = Membership(
            filling, parts, wanted, hinder=self._hinder, wake=self._changed.set, pulse=pulse, rng=rng
        )
        self._late = LateComer(filling, parts, wanted.model_hash, hinder=self._hinder, pulse=pulse, rng=rng)

    # What others ask

    @property
    def readers(self) -> tuple[str, ...]:
        """The nodes that read the origin, as far as we coordinate."""
        return self._office.readers

    @property
    def trouble(self) -> Trouble | None:
        """What stands in the way at the moment, if anything; or who did, for it is over."""
        return self._membership.trouble or self._trouble

    @property
    def waits_for(self) -> str:
        """Whom, or what, before the first byte can come; empty when nothing is waited for."""
        if self._membership.is_talking or self._office.is_open or self._late.asked or self._done:
            return ""
        record = self._lease.record
        if record is None or not record.holder:
            return "for a coordinator to be elected"
        if record.complete:
            return "for a node that has all of it to answer"
        return f"for {record.holder}, which coordinates, to answer"

    @property
    def is_coordinated_elsewhere(self) -> bool:
        return not self._office.is_open and not self._done

    @property
    def peers_connected(self) -> int:
        """Members besides this node."""
        member = self._membership.member
        return member.peers if member is not None else self._late.asked

    @property
    def unmarked(self) -> int:
        """Bytes that came with a whole model, of which the store does not know yet."""
        return self._late.unmarked

    def sources(self) -> Sources:
        """Bytes that came since this began."""
        return self._membership.sources() + self._late.sources()

    async def hear(self, event: Event) -> bool:
        """An event of the swarm; whether it was about a window of this content."""
        member = self._membership.member
        return member is not None and await member.hear(event)

    # Life

    async def run(self) -> None:
        """Until the content is complete here and nobody coordinates it any more. Raises AgentError, StoreError."""
        if not self._parts.settings.p2p_enabled:
            await self._run_alone()
            return
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(LOOKUP_SECONDS):
                await self._parts.discovery.refresh()
        while not self._is_over():
            self._changed.clear()
            await self._finish_if_complete()
            wait = await self._step()
            if not self._is_over():
                with contextlib.suppress(TimeoutError):
                    async with asyncio.timeout(wait):
                        await self._changed.wait()

    async def close(self) -> None:
        if self._preparing is not None:
            self._preparing.cancel()
            await asyncio.gather(self._preparing, return_exceptions=True)
        await self._membership.stop_talking()
        await self._office.close()
        await self._late.close()
        await self._membership.leave()

    async def _run_alone(self) -> None:
        """No peers: this node reads all of it, and coordinates itself."""
        size = choose_segment_bytes(self._filling.manifest.bytes, 1)
        member = await self._membership.become(size)
        await self._office.open(member.stock, size, epoch=1, holds=lambda: True, successor=False)
        await self._membership.talk_to(self._parts.address.url)
        while not self._done:
            self._changed.clear()
            await self._finish_if_complete()
            if not self._done:
                self._membership.raise_failure()
                await self._changed.wait()

    def _is_over(self) -> bool:
        """As a member of somebody else's: it has sent us away. As the coordinator: the Lease says so."""
        return self._ended or (self._membership.dismissed and not self._office.is_open)

    async def _finish_if_complete(self) -> None:
        if not self._done and not self._filling.missing():
            self._done = True
            await self._completed(self._filling)

    # Carrying out

    async def _step(self) -> float:
        """One look at the Lease and what follows; returns the seconds until the next."""
        if not self._done:
            self._membership.raise_failure()
        if self._done and self._office.is_idle:
            await self._prepare_to_seed()
        try:
            if self._done:
                self._late.stop_seeking()
            else:
                await self._late.seek(self._lease)
            decision = await self._lease.step(self._situation())
        except KubeError as error:
            log.warning("P2P %s: the API server: %s", self._label, error.message)
            self._hinder(of_error(error, self._wanted))
            if self._late.seeders and not self._done and not self._membership.is_talking:
                return await self._fetch()
            return API_PAUSE
        if self._trouble is not None and self._trouble.reason in (API_SERVER_UNAVAILABLE, API_SERVER_FORBIDDEN):
            self._hinder(None)
        return await self._do(decision)

    async def _do(self, decision: Decision) -> float:
        match decision:
            case Acquire():
                if self._lease.term is None:
                    return RACE_PAUSE * self._rng.uniform(0.2, 1.0)
                await self._coordinate()
            case Hold() | Renew():
                if self._lease.record is None:
                    return RACE_PAUSE  # somebody has deleted it, and it could not be made again yet
                if not self._office.is_open:
                    await self._coordinate()
                await self._membership.talk_to(self._parts.address.url)
                # A renewal may have failed, and what is left until the next may be less than a clock tells apart.
                return max(min(self._lease.pause(decision), CLOSE_SECONDS), SHORTEST)
            case Join(url=url, after=after):
                await self._office.close()
                await self._join(url)
                return after
            case Fetch():
                await self._office.close()
                return await self._fetch()
            case Wait(after=after):
                return await self._wait(after)
            case Complete():
                log.info("P2P %s: every member has everything", self._label)
                self._ended = True
            case Release():
                await self._office.close()
            case StandDown():
                await self._office.close()
                await self._membership.stop_talking()
        return 0.0

    async def _coordinate(self) -> None:
        """Open the desk for our term, and be its first member."""
        lease = self._lease
        assert lease.term is not None
        assert lease.record is not None
        size = lease.record.segment_bytes or lease.plan.segment_bytes
        if not size:
            size = choose_segment_bytes(self._filling.manifest.bytes, 1 + len(self._parts.discovery.peers()))
        member = await self._membership.become(size)
        before = lease.predecessor
        await self._office.open(
            member.stock,
            size,
            epoch=lease.term.epoch,
            holds=lambda: lease.holds,
            successor=before is not None,
            # Its holder is either this node, which was restarted, or dead.
            readers=set(before.readers) - {before.holder} if before is not None else (),
        )
        self.has_coordinated = True
        self._parts.metrics.lease_acquired()
        await self._membership.talk_to(self._parts.address.url)

    async def _join(self, url: str) -> None:
        self._parts.hosting.holders[self._filling.content] = url
        record = self._lease.record
        if record is not None and record.segment_bytes:
            await self._membership.become(record.segment_bytes)
            await self._membership.talk_to(url)

    async def _fetch(self) -> float:
        """From nodes that have everything, without a coordinator."""
        await self._membership.leave()
        if not await self._late.fetch():
            return TALK_PAUSE * self._rng.uniform(0.5, 1.5)
        await self._finish_if_complete()
        self._ended = self._done
        return 0.0

    async def _wait(self, after: float) -> float:
        """Nothing to do by the election's word; but who has everything helps whoever coordinates."""
        record = self._lease.record
        if not self._done or (record is None and self._membership.joined):
            return after  # its holder is about to make the Lease again that somebody has deleted
        if record is None or record.complete or (self._lease.is_abandoned and not self._membership.joined):
            self._ended = True
            return 0.0
        if record.coordinator:
            await self._join(record.coordinator)
        return after

    async def _prepare_to_seed(self) -> None:
        """Until there is a torrent, the members are what a late comer gets it from."""
        if self._preparing is None:
            work = self._parts.seeding.prepare(self._filling)
            self._preparing = asyncio.create_task(work, name=f"prepare {self._label}")
            self._preparing.add_done_callback(lambda _: self._changed.set())
        elif self._preparing.done():
            self._office.dismiss()
            await asyncio.sleep(0)  # they are told before the Lease is not ours any more

    def _situation(self) -> Situation:
        return Situation(
            have=self._done,
            seeders=len(self._late.seeders),
            unseeded_since=self._late.unseeded_since,
            finished=self._office.is_idle and self._preparing is not None and self._preparing.done(),
            failed=self._membership.is_hopeless,
            joined=self._membership.joined,
        )

    def _hinder(self, trouble: Trouble | None) -> None:
        if trouble != self._trouble:
            self._trouble = trouble
            self._pulse()
