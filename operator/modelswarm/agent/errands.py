"""What is under way for one content: tasks by kind and number, each at most once, all ended together."""

import asyncio
import logging
from collections.abc import Callable, Coroutine

from modelswarm.errors import StoreError

Key = tuple[str, int]
Work = Callable[[], Coroutine[None, None, None]]

log = logging.getLogger(__name__)


class Errands:
    """``ended`` is called after each, ``refused`` with what the disk says. ``label`` names the content in the log."""

    def __init__(self, label: str, *, ended: Callable[[str], None], refused: Callable[[StoreError], None]) -> None:
        self._label = label
        self._ended = ended
        self._refused = refused
        self._tasks: dict[Key, asyncio.Task[None]] = {}
        self._again: dict[Key, Work] = {}
        self._closed = False

    def start(self, kind: str, number: int, work: Work, *, again: bool = False) -> None:
        """Begin, unless that very errand is under way. ``again``: once more after it, then, for it may have seen
        things as they were before."""
        known = self._tasks.get((kind, number))
        if self._closed:
            return
        if known is not None and not known.done():
            if again:
                self._again[kind, number] = work
            return
        task = asyncio.create_task(self._run(work()), name=f"{kind} {self._label}/{number}")
        self._tasks[kind, number] = task
        task.add_done_callback(lambda done: self._end(kind, number, done))

    def has(self, kind: str, number: int) -> bool:
        return (kind, number) in self._tasks

    def of(self, kind: str) -> list[int]:
        """The numbers that are under way."""
        return [number for each, number in self._tasks if each == kind]

    def cancel(self, kind: str, number: int) -> None:
        if (task := self._tasks.get((kind, number))) is not None:
            task.cancel()

    async def close(self) -> None:
        """Cancel everything and wait for its end; nothing begins afterwards."""
        self._closed = True
        tasks = list(self._tasks.values())
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    async def _run(self, work: Coroutine[None, None, None]) -> None:
        """The disk may refuse at any step, and then this node stops to help; anything else is a defect, and is told."""
        try:
            await work
        except StoreError as error:
            self._refused(error)
        except Exception:
            log.exception("P2P %s: a step failed", self._label)

    def _end(self, kind: str, number: int, task: asyncio.Task[None]) -> None:
        if self._tasks.get((kind, number)) is task:
            del self._tasks[kind, number]
        if not self._closed:
            if (work := self._again.pop((kind, number), None)) is not None:
                self.start(kind, number, work)
            self._ended(kind)
