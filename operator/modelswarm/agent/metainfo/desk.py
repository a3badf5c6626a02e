"""The coordinator's desk: members hand their reports in here, and wait until there is something to tell them.

Only orders (start, stop, publish) are told at once. News waits a moment for more news, the longer the more members
there are, or ten thousand segments times five hundred members would be as many answers.
"""

import asyncio
import contextlib
from collections.abc import Callable
from dataclasses import dataclass, field

from modelswarm.agent.coordinator import Coordinator
from modelswarm.agent.messages import Answer, Report
from modelswarm.errors import NotCoordinator

TICK = 1.0


@dataclass(slots=True)
class _Visit:
    """A report that waits."""

    report: Report
    until: float
    done: asyncio.Event = field(default_factory=asyncio.Event)
    news_since: float | None = None


class Desk:
    """``holds``: whether we are the coordinator still; asked before every answer."""

    def __init__(
        self, coordinator: Coordinator, *, holds: Callable[[], bool], clock: Callable[[], float] | None = None
    ) -> None:
        self.coordinator = coordinator
        self._holds = holds
        self._clock = clock or (lambda: asyncio.get_running_loop().time())
        self._visits: dict[str, _Visit] = {}
        self._bell: asyncio.TimerHandle | None = None

    async def run(self) -> None:
        """Let time pass for the coordinator; to be cancelled when it stands down (``close`` is called then)."""
        try:
            while self._holds():
                self.coordinator.tick(self._clock())
                self.ring()
                await asyncio.sleep(TICK)
        finally:
            self.close()

    def close(self) -> None:
        """Send everybody who waits away."""
        if self._bell is not None:
            self._bell.cancel()
            self._bell = None
        for visit in self._visits.values():
            visit.done.set()

    async def report(self, report: Report) -> Answer:
        """Take the report, and answer when there is something to say, or after a while. Raises NotCoordinator.

        A later report of the same node sends the earlier one home at once, whichever of them was here first.
        """
        self._check()
        now = self._clock()
        if self.coordinator.is_overtaken(report):
            return self.coordinator.answer(report, now)
        self.coordinator.take(report, now)
        visit = _Visit(report, now + self.coordinator.patience(report.node))
        earlier = self._visits.get(report.node)
        if earlier is not None:
            earlier.done.set()
        self._visits[report.node] = visit
        try:
            self._look_at(visit, now)
            self._ring_later()
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(max(0.0, visit.until - now)):
                    await visit.done.wait()
            self._check()
            return self.coordinator.answer(report, self._clock())
        finally:
            if self._visits.get(report.node) is visit:
                del self._visits[report.node]

    def _check(self) -> None:
        if not self._holds():
            raise NotCoordinator("this node does not coordinate the content any more")

    def _look_at(self, visit: _Visit, now: float) -> None:
        report, coordinator = visit.report, self.coordinator
        if report.epoch != coordinator.epoch or coordinator.has_orders(report.node, now):
            visit.done.set()
        elif coordinator.has_news(report.cursor):
            if visit.news_since is None:
                visit.news_since = now
            if now - visit.news_since >= coordinator.calm():
                visit.done.set()

    def _ring_later(self) -> None:
        """Something has changed: see soon for whom that is of interest."""
        if self._bell is None:
            delay = min(0.02 + self.coordinator.calm() / 4, 1.0)
            self._bell = asyncio.get_running_loop().call_later(delay, self.ring)

    def ring(self) -> None:
        """Answer those for whom there is something to say now."""
        if self._bell is not None:
            self._bell.cancel()
            self._bell = None
        now = self._clock()
        waiting = [visit for visit in self._visits.values() if not visit.done.is_set()]
        for visit in waiting:
            self._look_at(visit, now)
        if any(visit.news_since is not None and not visit.done.is_set() for visit in waiting):
            self._ring_later()
