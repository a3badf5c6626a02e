"""Blocking calls off the event loop: few threads, and never one left behind."""

import asyncio
import errno
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from typing import ParamSpec, TypeVar

from modelswarm.agent.store import files
from modelswarm.errors import DiskFull, StorageFailed

P = ParamSpec("P")
T = TypeVar("T")


class Threads:
    """A bounded pool. ``run`` raises cancellation only when the thread is done with it.

    A thread cannot be called back: were it left running, its caller would close the descriptor that it works on.
    """

    def __init__(self, count: int) -> None:
        self._executor = ThreadPoolExecutor(count, thread_name_prefix="store")
        self._closed = False

    async def run(self, call: Callable[P, T], *args: P.args, **kwargs: P.kwargs) -> T:
        """``call(...)`` in a thread; what the file system refuses is raised as a ``StoreError``."""
        return await self._finish(lambda: call(*args, **kwargs), threading.Event())

    async def stoppable(self, call: Callable[..., T], *args: object) -> T:
        """``call(*args, stopped)`` in a thread: on cancellation ``stopped``, an event, is set, and it should return."""
        stopped = threading.Event()
        return await self._finish(lambda: call(*args, stopped), stopped)

    async def _finish(self, call: Callable[[], T], stopped: threading.Event) -> T:
        with storage_errors():
            if self._closed:
                raise StorageFailed("the store is closed")
            future = asyncio.get_running_loop().run_in_executor(self._executor, call)
            try:
                return await asyncio.shield(future)
            except asyncio.CancelledError:
                stopped.set()
                while not future.done():
                    try:
                        await asyncio.wait([future])
                    except asyncio.CancelledError:
                        continue
                if not future.cancelled():
                    future.exception()
                raise

    def close(self) -> None:
        self._closed = True
        self._executor.shutdown(wait=True)


@contextmanager
def storage_errors() -> Iterator[None]:
    """``OSError`` as the store's own errors."""
    try:
        yield
    except OSError as error:
        where = f"{error.filename}: " if error.filename else ""
        if files.is_full(error):
            raise DiskFull(f"{where}the disk is full") from error
        if error.errno == errno.EXDEV:
            raise StorageFailed(
                f"{where}it is on another file system than the store, and a hard link cannot lead there"
            ) from error
        raise StorageFailed(f"{where}{error.strerror or type(error).__name__}") from error
