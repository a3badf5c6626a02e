"""Many who ask the same at the same time get one answer, and for a few seconds more the same one."""

import asyncio
from collections import OrderedDict
from collections.abc import Awaitable, Callable, Hashable
from typing import Generic, TypeVar

K = TypeVar("K", bound=Hashable)
V = TypeVar("V")


class SingleFlight(Generic[K, V]):
    """Joins concurrent questions by key and remembers answers for ``ttl`` seconds, at most ``size`` of them.

    Failures reach everybody who waits and are not remembered. A question goes on while anybody waits for it: one that
    is cancelled does not take the others along, the last one cancels the work. For use within one event loop.
    """

    def __init__(self, *, ttl: float, size: int) -> None:
        self._ttl = ttl
        self._size = size
        self._answers: OrderedDict[K, V] = OrderedDict()
        self._flights: dict[K, _Flight[V]] = {}

    async def get(self, key: K, ask: Callable[[], Awaitable[V]]) -> V:
        """The answer that is remembered or under way, else that of ``ask``."""
        if key in self._answers:
            return self._answers[key]
        flight = self._flights.get(key)
        if flight is None:
            flight = self._flights[key] = _Flight(asyncio.ensure_future(self._fly(key, ask)))
        flight.waiting += 1
        try:
            return await asyncio.shield(flight.task)
        finally:
            flight.waiting -= 1
            if not flight.waiting and not flight.task.done():
                # Nobody may join a flight that is about to end.
                if self._flights.get(key) is flight:
                    del self._flights[key]
                flight.task.cancel()

    async def _fly(self, key: K, ask: Callable[[], Awaitable[V]]) -> V:
        this = asyncio.current_task()
        try:
            answer = await ask()
        finally:
            flight = self._flights.get(key)
            if flight is not None and flight.task is this:
                del self._flights[key]
        self._remember(key, answer)
        return answer

    def _remember(self, key: K, answer: V) -> None:
        if self._ttl <= 0:
            return
        self._answers[key] = answer
        while len(self._answers) > self._size:
            self._answers.popitem(last=False)
        asyncio.get_running_loop().call_later(self._ttl, self._forget, key, answer)

    def _forget(self, key: K, answer: V) -> None:
        if self._answers.get(key) is answer:
            del self._answers[key]


class _Flight(Generic[V]):
    __slots__ = ("task", "waiting")

    def __init__(self, task: "asyncio.Future[V]") -> None:
        self.task = task
        self.waiting = 0
