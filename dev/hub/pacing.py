"""Bandwidth limits."""

import asyncio
from collections.abc import Sequence

MAX_CHUNK = 256 << 10
_MIN_CHUNK = 1 << 10
_TICK = 0.05


class Pace:
    """A rate in bytes per second, shared by everyone who takes from it.

    Takers queue up in the order they come, so connections that send in pieces share the rate evenly.
    """

    def __init__(self, rate: float) -> None:
        if rate <= 0:
            raise ValueError("a rate is above zero")
        self.rate = rate
        self._free_at = 0.0

    @property
    def chunk(self) -> int:
        """A piece worth about a twentieth of a second, so that a slow body still flows evenly."""
        return max(_MIN_CHUNK, min(MAX_CHUNK, int(self.rate * _TICK)))

    async def take(self, count: int) -> None:
        """Return when `count` bytes have been paid for."""
        now = asyncio.get_running_loop().time()
        self._free_at = max(now, self._free_at) + count / self.rate
        await asyncio.sleep(self._free_at - now)


async def take_all(paces: Sequence[Pace], count: int) -> None:
    """Wait for every pace: the slowest decides."""
    for pace in paces:
        await pace.take(count)
