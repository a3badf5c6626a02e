"""Room for contents: who may begin, and what leaves for it."""

import asyncio
import time
from collections.abc import Callable, Collection, Iterable, Mapping

from modelswarm.agent.store import sweep
from modelswarm.agent.store.capacity import Capacity, human, measure, outstanding, surplus
from modelswarm.agent.store.eviction import Candidate, Choice, Protection, choose
from modelswarm.agent.store.filling import Filling
from modelswarm.agent.store.partial import Partial
from modelswarm.agent.store.shelf import Shelf
from modelswarm.agent.store.threads import Threads
from modelswarm.errors import DiskFull, InsufficientCapacity


class Room:
    """``fillings``, ``partials`` and ``complete`` are the store's own, and live."""

    def __init__(
        self,
        shelf: Shelf,
        threads: Threads,
        fillings: Mapping[str, Filling],
        partials: Mapping[str, Partial],
        complete: set[str],
        *,
        now: Callable[[], float] = time.time,
    ) -> None:
        self.protection: Protection | None = None
        self.evicted: Callable[[str], None] = lambda content: None
        """Called, in a thread, with each content that has made room."""
        self._shelf = shelf
        self._threads = threads
        self._fillings = fillings
        self._partials = partials
        self._complete = complete
        self._now = now
        self._lock = asyncio.Lock()

    async def capacity(self) -> Capacity:
        """Bytes used, reserved and available, with everything that is under way."""
        return await self._measure([it.missing_keys() for it in self._fillings.values()])

    async def reserve(self, filling: Filling) -> None:
        """Hold what ``filling`` still needs; evict for it. Raises ``InsufficientCapacity`` and nothing was evicted."""
        async with self._lock:
            need, others = await self._need(filling)
            capacity = await self._measure(others)
            if need > capacity.available:
                short = need - capacity.balance
                choice = await self._threads.run(self._choose, short)
                if choice.freed >= short:
                    await self._evict(choice.contents)
                    capacity = await self._measure(others)
            if need > capacity.available:
                free = capacity.available
                raise InsufficientCapacity(_numbers(need, free), need=need, free=free)

    async def count(self, filling: Filling, error: DiskFull) -> None:
        """Tell the error what ``filling`` needs, and what is free."""
        async with self._lock:
            need, others = await self._need(filling)
            free = (await self._measure(others)).available
            error.tell(need, free, _numbers(need, free))

    async def keep_watermark(self) -> None:
        """Above the high watermark, evict down to the low one."""
        async with self._lock:
            capacity = await self._measure([])
            over = surplus(self._shelf.settings, capacity.disk, capacity.used)
            if over:
                choice = await self._threads.run(self._choose, over, spare_wanted=True)
                await self._evict(choice.contents)

    async def sweep(self) -> int:
        """Remove what nothing refers to and is old enough; returns bytes freed."""
        if self.protection is None:
            return 0
        async with self._lock:
            kept = self.protection.always | self.protection.wanted | self._fillings.keys()
            keys = frozenset(self._partials) | self._held()
            deadline = self._now() - self._shelf.settings.orphan_seconds
            return await self._threads.run(sweep.sweep, self._shelf, kept, keys, frozenset(self._complete), deadline)

    async def purge(self, content: str) -> int:
        """The content goes now, with what nobody else needs; returns bytes freed."""
        async with self._lock:
            return await self._remove(content, self._shelf.remove)

    async def _need(self, filling: Filling) -> tuple[int, list[dict[str, int]]]:
        """What it still has to write, and what the others have, by blob."""
        occupied = await self._threads.run(self._shelf.partial_bytes)
        others = [it.missing_keys() for it in self._fillings.values() if it is not filling]
        # What it shares with another download is reserved already.
        return outstanding([filling.missing_keys(), *others], occupied) - outstanding(others, occupied), others

    async def _measure(self, wanted: Iterable[Mapping[str, int]]) -> Capacity:
        occupied = await self._threads.run(self._shelf.partial_bytes)
        sizes = await self._threads.run(self._shelf.blob_sizes)
        disk = await self._threads.run(self._shelf.disk)
        used = sum(sizes.values()) + sum(occupied.values())
        return measure(self._shelf.settings, disk, used, outstanding(wanted, occupied))

    def _choose(self, wanted_bytes: int, *, spare_wanted: bool = False) -> Choice:
        if self.protection is None:
            return Choice((), 0)
        candidates = [
            Candidate(record.content, frozenset(record.sizes), self._shelf.usage.last_used(record.content))
            for record in list(self._shelf.records.values())
            # One that is wanted and not complete is in progress, even if nobody works on it at this moment.
            if record.content not in self._fillings
            and (record.content in self._complete or record.content not in self.protection.wanted)
        ]
        sizes = self._shelf.freeable()
        return choose(candidates, sizes, self._held(), self.protection, wanted_bytes, spare_wanted=spare_wanted)

    def _held(self) -> set[str]:
        return set().union(*(it.record.sizes for it in list(self._fillings.values())))

    async def _evict(self, contents: Iterable[str]) -> None:
        for content in contents:
            await self._remove(content, self._remove_and_tell)

    async def _remove(self, content: str, remove: Callable[..., int]) -> int:
        if content in self._fillings:
            # Begun while another was being removed: it stays.
            return 0
        self._complete.discard(content)
        return await self._threads.run(remove, content, held=self._held())

    def _remove_and_tell(self, content: str, *, held: Collection[str]) -> int:
        # In one go: when who waits for it is cancelled, what is gone is told all the same.
        freed = self._shelf.remove(content, held=held)
        self.evicted(content)
        return freed


def _numbers(need: int, free: int) -> str:
    return f"need {human(need)}, free {human(free)}"
