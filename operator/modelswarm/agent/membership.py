"""This node as a member: under the plan of whoever coordinates, and in talks with it.

Coordinators come and go. The one that the Lease names is talked to until it says that everybody has everything, or the
Lease names another; a successor may have another plan (other segments), and what is on disk counts in any.
"""

import asyncio
import logging
import random
from collections.abc import Callable

from modelswarm.agent.member import Member
from modelswarm.agent.origin import OriginReader
from modelswarm.agent.parts import Parts
from modelswarm.agent.progress import Sources
from modelswarm.agent.segments import plan
from modelswarm.agent.sharing import NoSwarm
from modelswarm.agent.store import Filling
from modelswarm.agent.troubles import Trouble, of_error, of_failure
from modelswarm.agent.wanted import Wanted
from modelswarm.errors import AgentError, InvalidReference, NotCoordinator, PeerError
from modelswarm.loader.effort import Effort

EFFORT = Effort(attempts=6)
"""About half a minute: then the coordinator is told, and another node may have better luck."""
RACE_PAUSE = 0.2
TALK_PAUSE = 1.0

log = logging.getLogger(__name__)


class Membership:
    """``hinder`` is told what stands in the way of the talks (None: nothing any more), ``wake`` is called when the
    Lease should be looked at, ``pulse`` when something may be new to the eye."""

    def __init__(
        self,
        filling: Filling,
        parts: Parts,
        wanted: Wanted,
        *,
        hinder: Callable[[Trouble | None], None],
        wake: Callable[[], None],
        pulse: Callable[[], None],
        rng: random.Random,
    ) -> None:
        self.member: Member | None = None
        self.joined = False
        """The coordinator has answered, and has not fallen silent since."""
        self.dismissed = False
        """It said that everybody has everything."""
        self._filling = filling
        self._parts = parts
        self._wanted = wanted
        self._hinder = hinder
        self._wake = wake
        self._pulse = pulse
        self._rng = rng
        self._label = filling.content[:16]
        self._counted = Sources()
        """By members of earlier plans."""
        self._leaving: Member | None = None
        """Not ours any more, and not closed yet: what it has brought is counted all the same."""
        self._talk: asyncio.Task[None] | None = None
        self._url = ""
        self._complete = False
        self._answers = 0
        """That the member had when it was last not known whether the coordinator answers."""
        self._hindered = False

    @property
    def is_talking(self) -> bool:
        """Somebody coordinates us, or is about to."""
        return self._talk is not None

    @property
    def trouble(self) -> Trouble | None:
        """What the disk refuses, a file that is wrong, or what the origin says."""
        member = self.member
        if member is None:
            return None
        if member.broken is not None:
            return of_error(member.broken, self._wanted)
        if member.trouble is not None:
            return member.trouble
        return of_failure(member.failure, self._wanted) if member.failure is not None else None

    @property
    def is_hopeless(self) -> bool:
        """No node can have the content, says the coordinator."""
        member = self.member
        return member is not None and member.failure is not None and not member.failure.retryable

    def sources(self) -> Sources:
        """Bytes that came to any of our members; never less than before."""
        members = (each for each in (self.member, self._leaving) if each is not None)
        return sum((each.sources for each in members), self._counted)

    def raise_failure(self) -> None:
        """What no node can have (AgentError), or what this node's disk refuses (StoreError), ends the attempt."""
        member = self.member
        if member is None:
            return
        if member.broken is not None:
            raise member.broken
        if member.failure is not None and not member.failure.retryable:
            raise AgentError(member.failure.reason, member.failure.message)

    async def become(self, segment_bytes: int) -> Member:
        """A member under this plan. Raises AgentError for a plan that makes no sense, and StoreError."""
        if self.member is not None and self.member.segment_bytes == segment_bytes:
            return self.member
        try:
            plan(self._filling.manifest, segment_bytes)
        except InvalidReference as error:
            raise AgentError("InvalidPlan", f"the model's Lease makes no sense: {error.message}; delete it") from None
        await self.leave()
        parts = self._parts
        member = self.member = Member(
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

    async def talk_to(self, url: str) -> None:
        """Talk to the coordinator there from now on, and to no other. There must be a member."""
        if self._talk is not None and self._url == url:
            return
        await self.stop_talking()
        assert self.member is not None
        self._url = url
        self._talk = asyncio.create_task(self._keep_talking(self.member, url), name=f"talk {self._label}")

    async def stop_talking(self) -> None:
        talk, self._talk = self._talk, None
        self._url = ""
        if talk is not None:
            talk.cancel()
            await asyncio.gather(talk, return_exceptions=True)
        self.joined = self.dismissed = False

    async def leave(self) -> None:
        """Be no member any more. What is on disk stays."""
        await self.stop_talking()
        member, self.member = self.member, None
        if member is None:
            return
        self._leaving = member
        try:
            await member.close()
        finally:
            self._counted, self._leaving = self._counted + member.sources, None

    async def _keep_talking(self, member: Member, url: str) -> None:
        """A coordinator that does not answer is asked again, until the Lease names another one."""
        self._answers = member.answers
        while not member.closed.is_set():
            try:
                await member.talk(url)
            except NotCoordinator:
                # Not at once: the Lease may name it for another moment, and would again and again.
                self.joined = False
                await asyncio.sleep(RACE_PAUSE * self._rng.uniform(0.5, 1.5))
                self._talk, self._url = None, ""
                self._wake()
                return
            except PeerError as error:
                self.joined = False
                log.warning("P2P %s: the coordinator at %s: %s", self._label, url, error.message)
                self._answers, self._hindered = member.answers, True
                self._hinder(of_error(error, self._wanted))
                self._wake()
                await asyncio.sleep(TALK_PAUSE * self._rng.uniform(0.5, 1.5))
        self.dismissed = True
        self._pulse()
        self._wake()

    def _heard(self) -> None:
        """The member has news. Most of it is no reason to look at the Lease again."""
        member = self.member
        if member is None:
            return
        if self.is_talking and member.answers > self._answers:
            self.joined = True
            if self._hindered:
                self._hindered = False
                self._hinder(None)
        completed = member.complete.is_set() and not self._complete
        self._complete = member.complete.is_set()
        if completed or member.broken is not None or self.is_hopeless:
            self._wake()
        self._pulse()

    async def _open_reader(self) -> OriginReader:
        parts = self._parts
        credentials = await parts.provisions.credentials(self._wanted)
        leg = await parts.origins.leg(self._filling.manifest, credentials)
        return OriginReader(leg, parts.store.threads, effort=EFFORT)
