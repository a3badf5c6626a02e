"""Leader election on a ``coordination.k8s.io/v1`` Lease: of several operators, one works.

Clocks of different machines are never compared: a candidate watches the record and counts the time since it last saw it
change on its own clock. The holder gives up (``renew``) well before a candidate may take over (``duration``).
"""

import asyncio
import logging
import random
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from datetime import UTC, datetime

from modelswarm.api.meta import JsonObject
from modelswarm.errors import Conflict, KubeError, NotFound
from modelswarm.kube.kinds import LEASE
from modelswarm.kube.objects import metadata
from modelswarm.kube.port import KubePort

logger = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class _Record:
    """What a Lease says."""

    holder: str = ""
    duration: float = 0.0
    renewed: str = ""
    transitions: int = 0
    acquired: str = ""


class LeaderElection:
    """One candidate, known by ``identity`` (the pod's name: a restarted container gets its own Lease back at once).

    ``run`` it as a task; ``wait_leadership``; work; and when ``lost`` is set, end the process: another one leads then.
    At the end, and only after the work has stopped, ``release``: the next one takes over within ``retry`` seconds.
    """

    def __init__(
        self,
        kube: KubePort,
        *,
        namespace: str,
        name: str,
        identity: str,
        duration: float = 15.0,
        renew: float = 10.0,
        retry: float = 2.0,
        clock: Callable[[], float] | None = None,
        now: Callable[[], datetime] | None = None,
        on_lost: Callable[[], None] | None = None,
        rng: random.Random | None = None,
    ) -> None:
        if not 0 < retry < renew < duration:
            raise ValueError(f"retry {retry} < renew {renew} < duration {duration} does not hold")
        self.identity = identity
        self.lost = asyncio.Event()
        self._kube = kube
        self._namespace = namespace
        self._name = name
        self._duration = duration
        self._renew = renew
        self._retry = retry
        self._clock = clock
        self._now = now or (lambda: datetime.now(UTC))
        self._on_lost = on_lost
        self._rng = rng or random.Random()
        self._leading = asyncio.Event()
        self._stop = asyncio.Event()
        self._ended = asyncio.Event()
        self._ended.set()
        self._lease: JsonObject | None = None
        self._seen = _Record()
        self._seen_at = 0.0
        self._renewed = 0.0

    @property
    def is_leader(self) -> bool:
        return self._leading.is_set() and not self.lost.is_set()

    @property
    def holder(self) -> str:
        """Who held the Lease when it was last looked at; empty if nobody did."""
        return self._seen.holder

    def may_write(self) -> bool:
        """Whether nobody else can have taken the Lease yet, so that what is sent now is sent as the leader.

        True until a moment before a candidate may take over, also when this process has been frozen and does not know
        yet that it has lost.
        """
        return self.is_leader and self._time() < self._renewed + self._duration

    async def wait_leadership(self) -> None:
        await self._leading.wait()

    async def run(self) -> None:
        """Try to become the leader, then stay it. Returns when the Lease is lost, or given back by ``release``."""
        self._ended.clear()
        try:
            self._renewed = self._time()
            while not self._stop.is_set() and not await self._try():
                await self._sleep(self._retry * self._rng.uniform(1.0, 1.2))
                self._renewed = self._time()
            if not self._stop.is_set():
                logger.info("leading: %s holds lease %s/%s", self.identity, self._namespace, self._name)
                self._leading.set()
                await self._hold()
        finally:
            self._ended.set()

    async def release(self) -> None:
        """Stop, and if we lead, let the next candidate begin at once. Does not fail."""
        self._stop.set()
        await self._ended.wait()
        if not self.is_leader or self._lease is None:
            return
        self._leading.clear()
        with suppress(KubeError, TimeoutError):
            async with asyncio.timeout(self._renew / 2):
                await self._give_back()

    async def _give_back(self) -> None:
        try:
            await self._kube.replace(self._nobodys())
        except Conflict:
            # Perhaps our own renewal, whose answer was lost.
            self._observe(await self._kube.get(LEASE, self._name, self._namespace))
            if self._seen.holder != self.identity:
                return
            await self._kube.replace(self._nobodys())
        logger.info("gave lease %s/%s back", self._namespace, self._name)

    def _nobodys(self) -> JsonObject:
        return self._written(_Record(duration=1, transitions=self._seen.transitions))

    async def _hold(self) -> None:
        while not self._stop.is_set():
            await self._sleep(self._retry)
            if self._stop.is_set():
                return
            started = self._time()
            # After a stall (a blocked loop, a suspended machine) there is still one try, but only while nobody else can
            # have taken the Lease.
            renew_until, held_until = self._renewed + self._renew, self._renewed + self._duration
            left = max(renew_until - started, min(self._retry, held_until - started))
            if left > 0 and await self._try(left):
                self._renewed = started
            elif self._seen.holder != self.identity or self._time() >= renew_until:
                self._lose()
                return

    def _lose(self) -> None:
        logger.error("lost lease %s/%s (holder now: %s)", self._namespace, self._name, self._seen.holder or "not known")
        self.lost.set()
        if self._on_lost is not None:
            self._on_lost()

    async def _try(self, seconds: float | None = None) -> bool:
        """Acquire or renew once; says whether we hold the Lease now."""
        limit = min(self._renew / 2, seconds) if seconds is not None else self._renew / 2
        try:
            async with asyncio.timeout(limit):
                return await self._acquire_or_renew()
        except (KubeError, TimeoutError) as error:
            logger.warning("lease %s/%s: %s", self._namespace, self._name, str(error) or "no answer in time")
            return False

    async def _acquire_or_renew(self) -> bool:
        if self._leading.is_set() and self._lease is not None:
            try:
                return await self._write(replace=True)  # nobody else has written since: no need to look first
            except (Conflict, NotFound):
                self._lease = None
        try:
            self._observe(await self._kube.get(LEASE, self._name, self._namespace))
        except NotFound:
            self._lease, self._seen = None, _Record()
            with suppress(Conflict):
                return await self._write(replace=False)
            return False
        if not self._may_take():
            return False
        with suppress(Conflict):
            return await self._write(replace=True)
        return False

    def _may_take(self) -> bool:
        seen = self._seen
        if seen.holder in ("", self.identity):
            return True
        return self._time() >= self._seen_at + (seen.duration or self._duration)

    def _observe(self, lease: JsonObject) -> None:
        self._lease = lease
        record = _read(lease)
        if record != self._seen or not self._seen_at:
            self._seen, self._seen_at = record, self._time()

    async def _write(self, *, replace: bool) -> bool:
        now, seen = _micro_time(self._now()), self._seen
        ours = seen.holder == self.identity
        record = _Record(
            holder=self.identity,
            duration=self._duration,
            renewed=now,
            acquired=seen.acquired if ours and seen.acquired else now,
            transitions=seen.transitions if ours or not replace else seen.transitions + 1,
        )
        body = self._written(record)
        self._observe(await (self._kube.replace(body) if replace else self._kube.create(body)))
        return True

    def _written(self, record: _Record) -> JsonObject:
        meta: JsonObject = {"name": self._name, "namespace": self._namespace}
        if self._lease is not None:
            meta = dict(metadata(self._lease))
            meta.pop("managedFields", None)
        return {
            "apiVersion": LEASE.api_version,
            "kind": LEASE.kind,
            "metadata": meta,
            "spec": {
                "holderIdentity": record.holder,
                "leaseDurationSeconds": max(1, round(record.duration)),
                "acquireTime": record.acquired or _micro_time(self._now()),
                "renewTime": record.renewed or _micro_time(self._now()),
                "leaseTransitions": record.transitions,
            },
        }

    async def _sleep(self, seconds: float) -> None:
        with suppress(TimeoutError):
            async with asyncio.timeout(seconds):
                await self._stop.wait()

    def _time(self) -> float:
        return self._clock() if self._clock is not None else asyncio.get_running_loop().time()


def _micro_time(moment: datetime) -> str:
    """``metav1.MicroTime``, in UTC whatever the zone of the machine."""
    return moment.astimezone(UTC).strftime("%Y-%m-%dT%H:%M:%S.%fZ")


def _read(lease: JsonObject) -> _Record:
    spec = lease.get("spec")
    if not isinstance(spec, dict):
        return _Record()
    duration, transitions = spec.get("leaseDurationSeconds"), spec.get("leaseTransitions")
    return _Record(
        holder=str(spec.get("holderIdentity") or ""),
        duration=float(duration) if isinstance(duration, int) else 0.0,
        renewed=str(spec.get("renewTime") or ""),
        transitions=transitions if isinstance(transitions, int) else 0,
        acquired=str(spec.get("acquireTime") or ""),
    )
