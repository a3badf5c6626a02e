"""Blocking calls off the event loop, in a way that keeps file descriptors safe."""

import asyncio
from collections.abc import Callable
from typing import ParamSpec, TypeVar

P = ParamSpec("P")
T = TypeVar("T")


async def in_thread(call: Callable[P, T], *args: P.args, **kwargs: P.kwargs) -> T:
    """``call(...)`` in a thread; cancellation is raised only when the thread is done with it.

    A thread cannot be called back. Were it left behind, its caller would close the descriptor that it works on, and
    the number would soon belong to another file.
    """
    loop = asyncio.get_running_loop()
    future = loop.run_in_executor(None, lambda: call(*args, **kwargs))
    try:
        return await asyncio.shield(future)
    except asyncio.CancelledError:
        await asyncio.wait([future])
        if not future.cancelled():
            future.exception()
        raise
