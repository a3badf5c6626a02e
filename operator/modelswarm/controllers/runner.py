"""Runs one kind's reconcile function: workers, time-outs, retries, resync, and a clean stop."""

import asyncio
import inspect
import itertools
import logging
import random
import uuid
from collections.abc import Awaitable, Callable, Iterable
from contextvars import ContextVar
from dataclasses import dataclass

from modelswarm import logs
from modelswarm.controllers.queue import Key, WorkQueue
from modelswarm.errors import Conflict, KubeError, Unavailable
from modelswarm.metrics import Metrics, ReconcileResult

logger = logging.getLogger(__name__)

DRAIN_SECONDS = 15.0
RESYNC_JITTER = 0.2
NOISY_CONFLICTS = 5
"""From so many conflicts in a row on, somebody really fights with us over a field, and it is logged."""


@dataclass(frozen=True, slots=True)
class Result:
    """What a reconcile leaves to do: look again after so many seconds, or None to wait for the next event."""

    requeue_after: float | None = None


@dataclass(frozen=True, slots=True)
class ReconcileContext:
    """Which reconcile this is."""

    controller: str
    key: Key
    reconcile_id: str


current_reconcile: ContextVar[ReconcileContext | None] = ContextVar("current_reconcile", default=None)


Reconcile = Callable[[Key], Awaitable[Result | None]]
Resync = Callable[[], Iterable[Key] | Awaitable[Iterable[Key]]]


class Controller:
    """The workers of one kind. ``add`` keys to ``queue``; ``run`` until ``stop``.

    ``reconcile`` must be safe to cut off anywhere. ``resync`` names every key that there is, for a pass over all of
    them now and then (a missed event must not stay missed); it may be a coroutine function that lists them.
    """

    def __init__(
        self,
        name: str,
        reconcile: Reconcile,
        *,
        workers: int = 4,
        timeout: float = 60.0,
        metrics: Metrics | None = None,
        resync: Resync | None = None,
        resync_seconds: float = 600.0,
        drain_seconds: float = DRAIN_SECONDS,
        rng: random.Random | None = None,
    ) -> None:
        self.name = name
        self._reconcile = reconcile
        self._workers = workers
        self._timeout = timeout
        self._resync = resync
        self._resync_seconds = resync_seconds
        self._drain_seconds = drain_seconds
        self._rng = rng or random.Random()
        self._metrics = metrics or Metrics()
        self.queue = WorkQueue(rng=self._rng, observer=self._metrics.queue_observer(name))
        self._metrics.watch_queue(name, self.queue)
        self._stopping = asyncio.Event()
        self._process = uuid.uuid4().hex[:8]
        self._serial = itertools.count(1)
        self._logged: dict[Key, str] = {}

    def oldest_in_flight(self) -> float:
        """For how many seconds the longest running reconcile has been going; 0 when idle. For the liveness probe."""
        return max(self.queue.unfinished_seconds(), default=0.0)

    def stop(self) -> None:
        """Let ``run`` finish what is in flight and return."""
        self._stopping.set()

    async def run(self) -> None:
        """Work until ``stop`` or cancellation. Either way the reconciles in flight may end within the drain time.

        Raises if a worker dies, which is a defect: the process should then end.
        """
        workers = {asyncio.create_task(self._work(), name=f"{self.name}-{i}") for i in range(self._workers)}
        others: set[asyncio.Task[bool] | asyncio.Task[None]] = {
            asyncio.create_task(self._stopping.wait(), name=f"{self.name}-stop")
        }
        if self._resync is not None:
            others.add(asyncio.create_task(self._resync_forever(self._resync), name=f"{self.name}-resync"))
        try:
            done, _ = await asyncio.wait(workers | others, return_when=asyncio.FIRST_COMPLETED)
            for task in done:
                task.result()
        finally:
            for task in others:
                task.cancel()
            await self._drain(workers)

    async def _drain(self, workers: set[asyncio.Task[None]]) -> None:
        self.queue.shutdown()
        _, late = await asyncio.wait(workers, timeout=self._drain_seconds)
        for task in late:
            task.cancel()
        if late:
            logger.warning("%s: cut off %d reconciles that did not end in time", self.name, len(late))
            await asyncio.wait(late)

    async def _work(self) -> None:
        while (key := await self.queue.get()) is not None:
            try:
                await self._one(key)
            finally:
                self.queue.done(key)

    async def _one(self, key: Key) -> None:
        context = ReconcileContext(self.name, key, f"{self._process}-{next(self._serial)}")
        token = current_reconcile.set(context)
        try:
            with (
                logs.about(controller=self.name, object=str(key), reconcile_id=context.reconcile_id),
                self._metrics.reconcile(self.name) as outcome,
            ):
                outcome.result = await self._attempt(key)
        finally:
            current_reconcile.reset(token)

    async def _attempt(self, key: Key) -> ReconcileResult:
        try:
            async with asyncio.timeout(self._timeout) as limit:
                result = await self._reconcile(key)
        except Conflict as error:
            # Our view was old. The next attempt reads again; the first one comes within a fraction of a second.
            level = logging.DEBUG if self.queue.failures(key) < NOISY_CONFLICTS else logging.WARNING
            logger.log(level, "%s %s: conflict, trying again: %s", self.name, key, error.message)
            self.queue.retry(key)
            return ReconcileResult.CONFLICT
        except Unavailable as error:
            delay = self.queue.retry(key, at_least=error.retry_after or 0.0)
            logger.warning("%s %s: %s; trying again in %.1f s", self.name, key, error.message, delay)
            return ReconcileResult.ERROR
        except Exception as error:  # noqa: BLE001  # whatever it is, it is logged and only this key waits
            timed_out = isinstance(error, TimeoutError) and limit.expired()
            self._report(key, error, f"took longer than {self._timeout:g} s" if timed_out else None)
            self.queue.retry(key)
            return ReconcileResult.TIMEOUT if timed_out else ReconcileResult.ERROR
        after = result.requeue_after if result is not None else None
        self.queue.settle(key, after)
        self._logged.pop(key, None)
        return ReconcileResult.SUCCESS if after is None else ReconcileResult.REQUEUE_AFTER

    def _report(self, key: Key, error: Exception, message: str | None) -> None:
        """With the traceback the first time; while the same key fails in the same way, one line is enough."""
        known = isinstance(error, KubeError)
        signature = f"{type(error).__qualname__}: {error}"
        first = self._logged.get(key) != signature
        self._logged[key] = signature
        logger.error(
            "%s %s: reconcile failed: %s",
            self.name,
            key,
            message or signature,
            exc_info=error if first and not known and message is None else None,
        )

    async def _resync_forever(self, resync: Resync) -> None:
        while True:
            await asyncio.sleep(self._resync_seconds * self._rng.uniform(1 - RESYNC_JITTER, 1 + RESYNC_JITTER))
            try:
                keys = resync()
                for key in await keys if inspect.isawaitable(keys) else keys:
                    self.queue.add(key)
            except KubeError as error:
                logger.warning("%s: no resync this time: %s", self.name, error.message)
