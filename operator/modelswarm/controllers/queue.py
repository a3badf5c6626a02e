"""The work queue: keys wait, each at most once, and no key is ever in the hands of two workers."""

import asyncio
import random
from collections import deque
from typing import Protocol

from modelswarm.kube.key import Key

__all__ = ["Key", "QueueObserver", "WorkQueue"]

RETRY_BASE = 0.2
RETRY_CAP = 300.0


class QueueObserver(Protocol):
    """Hears what happens in a queue (metrics)."""

    def added(self) -> None: ...

    def retried(self) -> None: ...

    def started(self, waited: float) -> None:
        """A worker took a key that was due ``waited`` seconds ago."""
        ...

    def finished(self, worked: float) -> None: ...


class WorkQueue:
    """client-go's work queue for one event loop.

    ``add`` of a key that waits already does nothing; ``add`` of a key that is being worked on brings it back after
    ``done``. ``add_after`` keeps the earliest of several moments. ``retry`` spaces the attempts of a failing key
    exponentially with full jitter until ``forget``. Needs a running event loop from the first call on; only ``len`` and
    ``unfinished_seconds`` may be called from another thread.
    """

    def __init__(
        self,
        *,
        retry_base: float = RETRY_BASE,
        retry_cap: float = RETRY_CAP,
        rng: random.Random | None = None,
        observer: QueueObserver | None = None,
    ) -> None:
        self._retry_base = retry_base
        self._retry_cap = retry_cap
        self._rng = rng or random.Random()
        self._observer = observer
        self._ready: deque[Key] = deque()
        self._dirty: dict[Key, float] = {}  # keys that must be worked on, with the moment at which they became due
        self._processing: dict[Key, float] = {}
        self._timers: dict[Key, asyncio.TimerHandle] = {}
        self._failures: dict[Key, int] = {}
        self._getters: deque[asyncio.Future[None]] = deque()
        self._closed = False
        self._loop: asyncio.AbstractEventLoop | None = None

    def __len__(self) -> int:
        """How many keys are due and not yet taken."""
        return len(self._ready)

    @property
    def pending(self) -> int:
        """How many keys are due, being worked on, or waiting for their time."""
        return len(self._dirty.keys() | self._processing.keys() | self._timers.keys())

    @property
    def closed(self) -> bool:
        return self._closed

    def add(self, key: Key) -> None:
        """Have ``key`` worked on as soon as possible."""
        if self._closed or key in self._dirty:
            return
        self._dirty[key] = self._now()
        if self._observer:
            self._observer.added()
        if key not in self._processing:
            self._offer(key)

    def add_after(self, key: Key, seconds: float) -> None:
        """Have ``key`` worked on in ``seconds``, unless an earlier moment is set already."""
        if self._closed:
            return
        if seconds <= 0:
            self.add(key)
            return
        when = self._now() + seconds
        timer = self._timers.get(key)
        if timer is not None:
            if timer.when() <= when:
                return
            timer.cancel()
        self._timers[key] = self._running_loop().call_at(when, self._due, key)

    def settle(self, key: Key, seconds: float | None) -> None:
        """The key succeeded: it is due again in ``seconds`` (None: not by itself), whatever was set before."""
        self.forget(key)
        if (timer := self._timers.pop(key, None)) is not None:
            timer.cancel()
        if seconds is not None:
            self.add_after(key, seconds)

    def retry(self, key: Key, *, at_least: float = 0.0) -> float:
        """Have ``key`` worked on after its back-off, not before ``at_least``; returns the delay that was chosen."""
        failures = self._failures.get(key, 0)
        self._failures[key] = failures + 1
        ceiling = min(self._retry_cap, self._retry_base * 2 ** min(failures, 32))
        delay = at_least + self._rng.uniform(0, ceiling)
        if self._observer:
            self._observer.retried()
        self.add_after(key, delay)
        return delay

    def failures(self, key: Key) -> int:
        """How often ``key`` was retried since it was last forgotten."""
        return self._failures.get(key, 0)

    def forget(self, key: Key) -> None:
        """The key succeeded: its next retry starts at the shortest back-off again."""
        self._failures.pop(key, None)

    async def get(self) -> Key | None:
        """The next key, to be given back with ``done``; None once the queue is shut down."""
        while not self._closed:
            if self._ready:
                return self._take()
            getter = self._running_loop().create_future()
            self._getters.append(getter)
            try:
                await getter
            except asyncio.CancelledError:
                if getter.done() and not getter.cancelled():
                    self._wake()  # we were woken for a key that we will not take
                raise
            finally:
                if getter in self._getters:
                    self._getters.remove(getter)
        return None

    def done(self, key: Key) -> None:
        """The worker has finished with ``key``, whether well or not."""
        started = self._processing.pop(key, None)
        if started is None:
            return
        if self._observer:
            self._observer.finished(self._now() - started)
        if key in self._dirty and not self._closed:
            self._offer(key)

    def shutdown(self) -> None:
        """Take no more keys and give out none; what is being worked on stays with its worker (``drain`` waits)."""
        self._closed = True
        for timer in self._timers.values():
            timer.cancel()
        self._timers.clear()
        self._ready.clear()
        self._dirty.clear()
        for getter in self._getters:
            if not getter.done():
                getter.set_result(None)

    def unfinished_seconds(self) -> list[float]:
        """For each key in work, since how long."""
        started = list(self._processing.values())
        return [self._now() - moment for moment in started] if started else []

    def _take(self) -> Key:
        key = self._ready.popleft()
        now = self._now()
        due = self._dirty.pop(key)
        self._processing[key] = now
        if self._observer:
            self._observer.started(now - due)
        return key

    def _due(self, key: Key) -> None:
        self._timers.pop(key, None)
        self.add(key)

    def _offer(self, key: Key) -> None:
        self._ready.append(key)
        self._wake()

    def _wake(self) -> None:
        while self._getters and self._ready:
            getter = self._getters.popleft()
            if not getter.done():
                getter.set_result(None)
                return

    def _running_loop(self) -> asyncio.AbstractEventLoop:
        if self._loop is None:
            self._loop = asyncio.get_running_loop()
        return self._loop

    def _now(self) -> float:
        return self._running_loop().time()
