"""The Lease of a model at the API server: read it, write it, and hold it.

API writes per model do not grow with its size: one to acquire, one every 30 s while it is under way (every 10 s at
most, while the nodes change that read the origin, which it lists), one to complete or to release. A conflict costs one
more. Everybody else reads.
"""

import asyncio
import contextlib
import logging
import random
from collections.abc import AsyncIterator, Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime

from modelswarm.agent.election import (
    DURATION,
    RENEW,
    Acquire,
    Complete,
    Decision,
    Fetch,
    Hold,
    Join,
    Record,
    Release,
    Renew,
    StandDown,
    Term,
    View,
    Wait,
    decide,
    renewal_due,
    still_holds,
)
from modelswarm.agent.leaserecord import MOST_MODELS, lease_name, read, render
from modelswarm.api.meta import JsonObject
from modelswarm.errors import Conflict, KubeError, NotFound, Unavailable
from modelswarm.kube.kinds import LEASE
from modelswarm.kube.port import KubePort

TIMEOUT = 10.0
"""Of one request. A release gets its own, whatever happened before."""
RETRY = 1.0
UNMARKED = 30.0
"""Seconds for which a Lease that nobody holds (any more) is left to those who lack something."""
_SHOWN_READERS = 100

log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Plan:
    """What the holder writes for its successors and for people."""

    coordinator: str
    segment_bytes: int = 0
    repo: str = ""
    commit: str = ""
    manifest: str = ""


@dataclass(frozen=True, slots=True)
class Situation:
    """What the session knows; see ``election.View``."""

    have: bool = False
    seeders: int = 0
    unseeded_since: float | None = None
    wanted: bool = True
    finished: bool = False
    failed: bool = False
    joined: bool = False


class ModelLease:
    """One node's dealings with one model's Lease.

    ``step`` looks, decides and writes; its result says what the caller has to do, and ``term`` whether we hold the
    Lease. ``plan`` is what an acquisition writes; where the Lease has values of a predecessor (commit, manifest,
    segment size), those stay, so that a successor has the same plan. ``readers`` and ``models`` (UIDs of the BaseModels
    whose branch it pins) are asked at every renewal.
    """

    def __init__(
        self,
        kube: KubePort,
        *,
        namespace: str,
        model_hash: str,
        me: str,
        plan: Plan,
        readers: Callable[[], Sequence[str]] = tuple,
        models: Callable[[], Sequence[str]] = tuple,
        duration: float = DURATION,
        renew_every: float = RENEW,
        clock: Callable[[], float] | None = None,
        now: Callable[[], datetime] | None = None,
        rng: random.Random | None = None,
    ) -> None:
        if not 0 < renew_every < duration / 2:
            raise ValueError(f"renewals every {renew_every} s are too rare for a lease of {duration} s")
        self.name = lease_name(model_hash)
        self.plan = plan
        self.term: Term | None = None
        self.record: Record | None = None
        self.predecessor: Record | None = None
        """The Lease as it was when we took it, or before somebody deleted it: there was a coordinator before us."""
        self._kube = kube
        self._namespace = namespace
        self._hash = model_hash
        self._me = me
        self._readers = readers
        self._models = models
        self._duration = duration
        self._renew_every = renew_every
        self._clock = clock or (lambda: asyncio.get_running_loop().time())
        self._now = now or (lambda: datetime.now(UTC))
        self._rng = rng or random.Random()
        self._object: JsonObject | None = None
        self._seen: Record | None = None
        """The latest that there was."""
        self._changed_at = 0.0
        self._ending: tuple[Term, bool] | None = None
        """An end whose write was cut off (the term, and whether it is complete)."""

    @property
    def holds(self) -> bool:
        """Whether we are the coordinator at this moment, also if the process was frozen and does not know better."""
        return self.term is not None and still_holds(self.term, self._duration, self._clock())

    async def step(self, situation: Situation) -> Decision:
        """One look and at most one write. Raises KubeError when the API server cannot be asked, or refuses, and we do
        not hold.

        After ``Acquire`` see ``term``: None means that somebody was faster; step again after a moment. After
        ``StandDown``, ``Complete`` and ``Release`` we do not hold the Lease any more.
        """
        if self._is_due():
            await self._look()
        decision = decide(self._view(situation))
        match decision:
            case Acquire(why):
                await self._acquire(why)
            case Renew():
                await self._renew()
            case Complete():
                await self._end(complete=True)
            case Release():
                log.info("P2P lease %s: released, %s", self.name, decision.why)
                await self._end(complete=False)
            case StandDown():
                log.warning("P2P lease %s: not the coordinator any more, %s", self.name, decision.why)
                self.term = None
        return decision

    def pause(self, decision: Decision) -> float:
        """Seconds after which to ``step`` again (sooner, if the situation changes)."""
        match decision:
            case Hold(after) | Wait(after) | Fetch(after) | Join(after=after):
                return after
            case Renew() if self.term is not None and not self._is_due():
                return 0.0
            case Acquire() if self.term is not None:
                return 0.0
        return RETRY * (0.5 + self._rng.random())

    async def look(self) -> Record | None:
        """The Lease as it is now, without a decision. Raises KubeError."""
        await self._look()
        return self.record

    def is_fresh(self) -> bool:
        """Whether somebody else holds the Lease, and renews it."""
        record = self.record
        if record is None or record.complete or record.holder in ("", self._me):
            return False
        return self._clock() < self._changed_at + record.duration

    @property
    def is_abandoned(self) -> bool:
        """Nobody holds it, and nobody has taken it, as one would at once who lacks something: nobody does."""
        record = self.record
        if record is None or record.complete or record.holder == self._me:
            return False
        return self._clock() - self._changed_at >= (record.duration if record.holder else 0.0) + UNMARKED

    async def mark(self) -> None:
        """Say on a Lease that ``is_abandoned`` that everybody has everything. Does not fail."""
        if self.record is not None:
            marked = replace(self.record, holder=self._me, renewed=_micro_time(self._now()), complete=True, readers=())
            with self._survived():
                await self._write(marked)

    async def take(self, why: str, *, anew: bool = False) -> bool:
        """Become the holder, if since the last look nobody else has written; whether we are. Not while ``is_fresh``.
        Raises KubeError.

        ``anew``: what was pinned before does not count.
        """
        await self._acquire(why, anew=anew)
        return self.term is not None

    async def pin(self, plan: Plan) -> bool:
        """Write what was found out as the holder (commit, manifest, segment size); False if we are not any more."""
        self.plan = plan
        if self.term is None or not await self._renew(overwrite=True):
            self.term = None
            return False
        return True

    async def release(self) -> None:
        """Let the next one begin at once, if we hold the Lease. Does not fail; takes ``TIMEOUT`` seconds or so."""
        if self.term is not None:
            await self._end(complete=False)
        elif self._ending is not None:
            await self._write_end(*self._ending)

    def _is_due(self) -> bool:
        """Whether it is time to look at the Lease again; a holder looks when it is about to renew it."""
        if self.term is None:
            return True
        due = renewal_due(self.record, self._has_news(), self._renew_every)
        return self._clock() >= self.term.renewed_at + due

    def _has_news(self) -> bool:
        """Whether others read the origin than the Lease says. That none does any more can wait."""
        readers = self._shown_readers()
        return bool(readers) and self.record is not None and readers != self.record.readers

    def _shown_readers(self) -> tuple[str, ...]:
        return tuple(sorted(self._readers()))[:_SHOWN_READERS]

    def _view(self, situation: Situation) -> View:
        return View(
            me=self._me,
            now=self._clock(),
            record=self.record,
            changed_at=self._changed_at,
            term=self.term,
            have=situation.have,
            seeders=situation.seeders,
            unseeded_since=situation.unseeded_since,
            wanted=situation.wanted,
            finished=situation.finished,
            failed=situation.failed,
            joined=situation.joined,
            news=self.term is not None and self._has_news(),
            jitter=self._rng.random(),
            renew_every=self._renew_every,
        )

    async def _look(self) -> None:
        try:
            async with _answered():
                found: JsonObject | None = await self._kube.get(LEASE, self.name, self._namespace)
        except NotFound:
            found = None
        except KubeError as error:
            if self.term is None:
                raise
            log.warning("P2P lease %s: %s", self.name, error.message)
            return
        self._observe(found)

    def _observe(self, found: JsonObject | None) -> None:
        record = read(found) if found is not None else None
        if record != self.record or not self._changed_at:
            self._changed_at = self._clock()
        self._object, self.record = found, record
        self._seen = record or self._seen

    async def _acquire(self, why: str, *, anew: bool = False) -> None:
        known, seen = self.record, self.record or self._seen
        moment = self._now()
        planned = self._planned(known if known is not None else self._forgotten(), anew=anew)
        record = replace(
            planned,
            holder=self._me,
            duration=self._duration,
            acquired=_micro_time(moment),
            renewed=_micro_time(moment),
            transitions=known.transitions + 1 if known is not None else 0,
            complete=False,
            readers=(),
            epoch=max(int(moment.timestamp() * 1_000_000), seen.epoch + 1 if seen is not None else 1),
        )
        sent = self._clock()
        self.term = self._ending = None
        written = await self._write(record)
        if written:
            self.term = Term(record.epoch, sent)
            self.predecessor = seen
            log.info("P2P lease %s: %s coordinates, %s", self.name, self._me, why)

    async def _renew(self, *, overwrite: bool = False) -> bool:
        """False: certainly not, somebody else has written."""
        known = self.record or self._seen
        if self.term is None or known is None:
            return False
        if self.record is None:
            log.warning("P2P lease %s: somebody has deleted it; %s makes it again", self.name, self._me)
        sent, term = self._clock(), self.term
        record = replace(
            self._planned(known, anew=overwrite),
            holder=self._me,
            duration=self._duration,
            acquired=known.acquired,
            renewed=_micro_time(self._now()),
            transitions=known.transitions,
            complete=False,
            epoch=term.epoch,
            readers=self._shown_readers(),
        )
        with self._survived():
            if not await self._write(record):
                return False
            self.term = Term(term.epoch, sent)
        return True

    def _planned(self, known: Record, *, anew: bool = False) -> Record:
        """What a predecessor has pinned stays, unless it is pinned ``anew``."""
        kept = Record() if anew else known
        return replace(
            known,
            coordinator=self.plan.coordinator,
            segment_bytes=kept.segment_bytes or self.plan.segment_bytes,
            repo=kept.repo or self.plan.repo,
            commit=kept.commit or self.plan.commit,
            manifest=kept.manifest or self.plan.manifest,
            models=self._shown_models() or known.models,
        )

    def _forgotten(self) -> Record:
        """What a Lease that was deleted has left behind: with other segments, what is in flight would be lost."""
        return Record(segment_bytes=self._seen.segment_bytes) if self._seen is not None else Record()

    def _shown_models(self) -> tuple[str, ...]:
        return tuple(sorted(self._models()))[:MOST_MODELS]

    async def _end(self, *, complete: bool) -> None:
        """Stop holding. If the write fails, the Lease runs out, or we find it ours and take it again."""
        term, self.term = self.term, None
        if term is not None:
            self._ending = term, complete
            await self._write_end(term, complete)

    async def _write_end(self, term: Term, complete: bool) -> None:
        with self._survived():
            while self.record is not None and (self.record.holder, self.record.epoch) == (self._me, term.epoch):
                record = replace(
                    self.record,
                    holder=self._me if complete else "",
                    coordinator=self.record.coordinator if complete else "",
                    renewed=_micro_time(self._now()),
                    complete=complete,
                    readers=(),
                    models=self._shown_models() or self.record.models,
                )
                if await self._write(record):
                    break
                await self.look()  # perhaps our own renewal was written, which was cut off before its answer
        self._ending = None

    @contextlib.contextmanager
    def _survived(self) -> Iterator[None]:
        """What the API server refuses, or does not answer, is logged. The next look tells."""
        try:
            yield
        except KubeError as error:
            log.warning("P2P lease %s: %s", self.name, error.message)

    async def _write(self, record: Record) -> bool:
        """False: somebody was faster. Raises KubeError when it is not known whether it was written, or was refused."""
        body = render(record, name=self.name, namespace=self._namespace, model_hash=self._hash, onto=self._object)
        try:
            async with _answered():
                found = await (self._kube.create(body) if self._object is None else self._kube.replace(body))
        except (Conflict, NotFound):
            return False
        self._observe(found)
        return True


@contextlib.asynccontextmanager
async def _answered() -> AsyncIterator[None]:
    """A server that does not answer in time is away, as one that refuses connections is."""
    try:
        async with asyncio.timeout(TIMEOUT):
            yield
    except TimeoutError:
        raise Unavailable("no answer in time") from None


def _micro_time(moment: datetime) -> str:
    """``metav1.MicroTime``, in UTC whatever the zone of the machine."""
    return moment.astimezone(UTC).strftime("%Y-%m-%dT%H:%M:%S.%fZ")
