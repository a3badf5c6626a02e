"""Looking at seed peers while a job runs: a file is confirmed seconds after it is there, not at the next look of the
manager.

One question at a time per task and cluster, round and round the files that are still missing, each pass up to the first
one that is not there yet. What is remembered only spaces the questions; a new process starts with the next file.
"""

import random
from dataclasses import dataclass
from datetime import datetime, timedelta

from modelswarm.backends.dragonfly import pace
from modelswarm.backends.dragonfly.ledger import Ledger
from modelswarm.backends.dragonfly.seeds import Seeds

REMEMBERED = 20_000


@dataclass(slots=True)
class _Round:
    due: datetime
    after: int = -1
    """The file that was not there at the last look."""
    told: bool = False


class Glances:
    """For use within one event loop."""

    def __init__(self, seeds: Seeds, rng: random.Random) -> None:
        self._seeds = seeds
        self._rng = rng
        self._rounds: dict[tuple[str, int], _Round] = {}

    async def look(self, ledger: Ledger, uid: str) -> None:
        """Confirm in the ledger what the seed peers have of the running jobs' files, where it is time to ask."""
        for cluster in ledger.clusters:
            missing = sorted(ledger.under_way(cluster))
            if not missing or self._seeds.rest(cluster) != 0:
                self._rounds.pop((uid, cluster), None)
                continue
            at = self._round(ledger, uid, cluster)
            if at.due <= ledger.now:
                await self._go_on(ledger, cluster, missing, at)

    def tells(self, uid: str, cluster: int) -> bool:
        """Whether the last question was answered, so that the manager need not be asked about single files."""
        at = self._rounds.get((uid, cluster))
        return at is not None and at.told

    def next_in(self, ledger: Ledger, uid: str) -> float | None:
        """Seconds until the next question; None where there is nobody, or nothing, to ask."""
        waits = [
            rest or (self._round(ledger, uid, cluster).due - ledger.now).total_seconds()
            for cluster in ledger.clusters
            if ledger.under_way(cluster) and (rest := self._seeds.rest(cluster)) is not None
        ]
        return max(0.0, min(waits)) if waits else None

    def forget(self, uid: str) -> None:
        for key in [key for key in self._rounds if key[0] == uid]:
            del self._rounds[key]

    def _round(self, ledger: Ledger, uid: str, cluster: int) -> _Round:
        if (at := self._rounds.get((uid, cluster))) is None:
            if len(self._rounds) >= REMEMBERED:
                self._rounds.clear()
            first = max(0.0, pace.GLANCE_AT_LEAST - self._age(ledger, cluster))
            at = self._rounds[uid, cluster] = _Round(ledger.now + timedelta(seconds=first))
        return at

    async def _go_on(self, ledger: Ledger, cluster: int, missing: list[int], at: _Round) -> None:
        wait = pace.glance_in(self._age(ledger, cluster), self._rng)
        for item in sorted(missing, key=lambda number: (number <= at.after, number)):
            held = await self._seeds.holds(cluster, ledger.plan.entries[item].task_id)
            at.told = held is not None
            if not held:
                at.after = item if held is False else at.after
                break
            ledger.confirm(cluster, frozenset({item}))
        at.due = ledger.now + timedelta(seconds=wait)

    @staticmethod
    def _age(ledger: Ledger, cluster: int) -> float:
        return min((ledger.age(job) for job in ledger.live if job.cluster == cluster), default=0.0)
