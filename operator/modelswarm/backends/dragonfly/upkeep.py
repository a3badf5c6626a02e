"""After Ready: are the bytes still there, and can a manager that could not do digests do them now?

Seed peers evict (``taskTTL``, full disks) without telling anybody. Now and then one of a task's largest files is looked
for, in turn; if it is missing twice in a row, its cluster is begun anew. What is remembered here only spaces the
questions: a new process asks again, spread over one period.
"""

import contextlib
import random
from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import datetime, timedelta

from modelswarm.api.p2ptask import DragonflyStatus
from modelswarm.backends.dragonfly import pace
from modelswarm.backends.dragonfly.client import ManagerClient
from modelswarm.backends.dragonfly.coverage import is_held
from modelswarm.backends.dragonfly.marker import PROBE
from modelswarm.backends.dragonfly.reasons import DragonflyError
from modelswarm.backends.dragonfly.requests import SECOND, GetTask, Preheat, PreheatArgs
from modelswarm.backends.dragonfly.seeds import Seeds

AGAIN = 120.0
"""Seconds from the first time that a file is missing to the second: a seed peer that restarts has lost nothing."""
_NOBODY = "192.0.2.1"
"""An address that no host has (RFC 5737)."""
_REMEMBERED = 20_000


@dataclass(slots=True)
class _Watch:
    due: datetime
    turn: int = 0
    missed: frozenset[int] = frozenset()
    """Clusters that did not have the file at the last look."""
    questions: dict[int, int] = field(default_factory=dict)
    """Cluster → number of the ``get_task`` that is under way."""
    asked_at: datetime | None = None
    absent: set[int] = field(default_factory=set)
    """Clusters that do not have the file, as far as this look has come."""


class Upkeep:
    """``period`` in seconds; 0: what is complete stays so. For use within one event loop."""

    def __init__(self, client: ManagerClient, seeds: Seeds, period: float, rng: random.Random) -> None:
        self._client = client
        self._seeds = seeds
        self._period = period
        self._rng = rng
        self._watches: dict[str, _Watch] = {}
        self._digests = False
        self._digests_due: datetime | None = None

    async def lost(
        self, uid: str, status: DragonflyStatus, clusters: Sequence[int], now: datetime
    ) -> tuple[frozenset[int], float | None]:
        """The clusters of a complete task that certainly lost a file, and seconds until the next look at it.

        Whoever cannot be asked has lost nothing.
        """
        if not self._period or not status.examples:
            return frozenset(), None
        watch = self._watch(uid, now)
        if now >= watch.due:
            try:
                missing = await self._missing(watch, status, clusters, now)
            except DragonflyError:
                missing = frozenset()
                watch.questions.clear()
                watch.absent.clear()
            if missing is None:
                return frozenset(), max(1.0, (watch.due - now).total_seconds())
            if certain := missing & watch.missed:
                del self._watches[uid]
                return certain, None
            watch.missed = missing
            if missing:
                watch.due = now + timedelta(seconds=min(AGAIN, self._period))
            else:
                watch.turn += 1
                watch.due = now + timedelta(seconds=self._period * self._rng.uniform(0.9, 1.1))
        return frozenset(), max(1.0, (watch.due - now).total_seconds())

    async def knows_digests(self, cluster: int, now: datetime) -> tuple[bool, float | None]:
        """Whether the manager knows the option for digest ids by now, and seconds until that can be known anew.

        Once in a period for all tasks. The question is a job that nobody can work on (no seed peer has the address it
        names), so nothing is downloaded; whether the answer repeats the option is all that counts.
        """
        if self._digests or not self._period:
            return self._digests, None
        if self._digests_due is None or now >= self._digests_due:
            self._digests_due = now + timedelta(seconds=self._period * self._rng.uniform(0.9, 1.1))
            with contextlib.suppress(DragonflyError):
                self._digests = await self._ask_digests(cluster)
        return self._digests, max(1.0, (self._digests_due - now).total_seconds())

    def cannot_do_digests(self, now: datetime) -> None:
        """The answer to a real job said so."""
        self._digests = False
        if self._digests_due is None or self._digests_due < now:
            self._digests_due = now + timedelta(seconds=self._period)

    def _watch(self, uid: str, now: datetime) -> _Watch:
        if (watch := self._watches.get(uid)) is None:
            if len(self._watches) >= _REMEMBERED:
                self._watches.clear()
            first = timedelta(seconds=self._period * self._rng.uniform(0.1, 1.0))
            watch = self._watches[uid] = _Watch(now + first)
        return watch

    async def _missing(
        self, watch: _Watch, status: DragonflyStatus, clusters: Sequence[int], now: datetime
    ) -> frozenset[int] | None:
        """The clusters that do not have the file whose turn it is; None while answers are outstanding."""
        if watch.questions:
            await self._hear(watch, now)
        else:
            await self._ask(watch, status.examples[watch.turn % len(status.examples)].id, clusters, now)
        if watch.questions:
            watch.due = now + timedelta(seconds=pace.PROBE_SECONDS)
            return None
        missing, watch.absent = frozenset(watch.absent), set()
        return missing

    async def _ask(self, watch: _Watch, task_id: str, clusters: Sequence[int], now: datetime) -> None:
        for cluster in clusters:
            held = await self._seeds.holds(cluster, task_id)
            if held is None:
                question = GetTask(bio=f"{PROBE}/upkeep", scheduler_cluster_ids=(cluster,), task_id=task_id)
                watch.questions[cluster] = (await self._client.submit(question)).id
            elif not held:
                watch.absent.add(cluster)
        watch.asked_at = now

    async def _hear(self, watch: _Watch, now: datetime) -> None:
        waited = (now - (watch.asked_at or now)).total_seconds()
        for cluster, number in list(watch.questions.items()):
            answer = await self._client.job(number)
            if answer is not None and not answer.is_over and waited < pace.PROBE_LOST:
                continue
            del watch.questions[cluster]
            await self._client.delete(number)
            if answer is not None and answer.is_over and not answer.error and not is_held(answer):
                watch.absent.add(cluster)

    async def _ask_digests(self, cluster: int) -> bool:
        args = PreheatArgs(
            type="file",
            urls=(f"http://{_NOBODY}/",),
            ips=(_NOBODY,),
            timeout=60 * SECOND,
            enable_task_id_based_blob_digest=True,
        )
        answer = await self._client.submit(Preheat(bio=f"{PROBE}/digests", scheduler_cluster_ids=(cluster,), args=args))
        await self._client.delete(answer.id)
        return answer.args.get("enable_task_id_based_blob_digest") is True


def begun_anew(status: DragonflyStatus, clusters: frozenset[int]) -> DragonflyStatus:
    """A complete status of which these clusters have to be brought everything again.

    Everything, not the one file that was missed: who evicts one evicts others, and what is still there costs nothing.
    """
    return status.model_copy(
        update={
            "complete": False,
            "ineffective": False,
            "renewals": status.renewals + 1,
            "failed_attempts": 0,
            "jobs": (),
            "probes": (),
            "clusters": tuple(
                each.model_copy(update={"confirmed": ""}) if each.cluster in clusters else each
                for each in status.clusters
            ),
        }
    )
