"""The short way to learn what seed peers have: ask them, instead of waiting until the manager looks at its own job.

A scheduler lists its cluster's seed peers, and each of these says whether it has every byte of a task, by the task's
id. (``StatFile`` of the scheduler says the same of files, but asks every host of the cluster each time, does not tell
seed peers from others, and v2.5.1 knows no ids of digests.) Whatever does not answer leaves it at the manager's pace.
"""

import asyncio
import logging
from collections.abc import Callable, Mapping
from dataclasses import dataclass

from modelswarm.backends.dragonfly.wire import Unanswered, Wire

logger = logging.getLogger(__name__)

RATE = 10.0
"""Questions a second for each scheduler cluster, over all tasks; one question is a request to each seed peer of it."""
BURST = 50.0
LIST_SECONDS = 30.0
"""How long a list of seed peers is good for; the scheduler itself looks for new ones as often."""
FIRST_REST, LONGEST_REST = 2.0, 30.0
"""Seconds that a cluster is left alone after no answer, twice as long each time: one that was only busy is asked again
soon, and one that is not there costs little."""


@dataclass(slots=True)
class _Cluster:
    scheduler: str
    seeds: tuple[str, ...] = ()
    listed_until: float = 0.0
    rests_until: float = 0.0
    tokens: float = BURST
    counted_at: float = 0.0
    silences: int = 0
    """Questions without an answer since the last answer."""


class Seeds:
    """``schedulers``: cluster → ``host:port``. For use within one event loop."""

    def __init__(
        self,
        schedulers: Mapping[int, str],
        wire: Wire,
        *,
        clock: Callable[[], float] = lambda: asyncio.get_running_loop().time(),
    ) -> None:
        self._clock = clock
        self._clusters = {number: _Cluster(address) for number, address in schedulers.items()}
        self._wire = wire

    def rest(self, cluster: int) -> float | None:
        """Seconds until the cluster may be asked: 0 if its last question was answered, or it is time to try again.

        None: there is nobody to ask.
        """
        known = self._clusters.get(cluster)
        return None if known is None else max(0.0, known.rests_until - self._clock())

    async def holds(self, cluster: int, task_id: str) -> bool | None:
        """Whether a seed peer of the cluster has every byte of the task.

        None: nobody can say now (no answer from one that might have it, or too many questions; a scheduler that has
        just been started names no seed peer).
        """
        known = self._clusters.get(cluster)
        if known is None or self._clock() < known.rests_until or not _take(known, self._clock()):
            return None
        try:
            if self._clock() >= known.listed_until:
                known.seeds = tuple(await self._wire.seeds(known.scheduler))
                known.listed_until = self._clock() + LIST_SECONDS
            answers = await asyncio.gather(
                *(self._wire.holds(seed, task_id) for seed in known.seeds), return_exceptions=True
            )
            for answer in answers:
                if isinstance(answer, BaseException) and not isinstance(answer, Unanswered):
                    raise answer
            failed = [answer for answer in answers if isinstance(answer, Unanswered)]
            if failed and len(failed) == len(answers):
                raise failed[0]
        except Unanswered as error:
            rest = min(LONGEST_REST, FIRST_REST * 2.0 ** min(known.silences, 10))
            known.rests_until, known.listed_until = self._clock() + rest, 0.0
            if not known.silences:
                logger.warning("scheduler cluster %d: seed peers cannot be asked (%s)", cluster, error)
            known.silences += 1
            return None
        known.silences = 0
        if not answers:
            known.listed_until = 0.0
            return None
        return True if True in answers else None if failed else False


def _take(cluster: _Cluster, now: float) -> bool:
    cluster.tokens = min(BURST, cluster.tokens + (now - cluster.counted_at) * RATE)
    cluster.counted_at = now
    if cluster.tokens < 1:
        return False
    cluster.tokens -= 1
    return True
