"""One gate for all connections to an origin: told to wait by one answer, nobody asks again before the time is up."""

import asyncio
import time
from collections.abc import Callable

LONGEST_WAIT = 3600.0
UNSPECIFIED_WAIT = 5.0


class Gate:
    """Open unless an origin has asked for patience."""

    def __init__(self, say: Callable[[str], None], *, now: Callable[[], float] = time.monotonic) -> None:
        self._say = say
        self._now = now
        self._until = 0.0

    def close(self, seconds: float | None, host: str) -> None:
        """Let nobody through for ``seconds``; never makes an earlier wait shorter."""
        seconds = UNSPECIFIED_WAIT if seconds is None else min(max(seconds, 0.0), LONGEST_WAIT)
        until = self._now() + seconds
        # Several connections meet the same limit within moments of each other; one line is enough.
        if until > self._until + 1:
            self._say(f"{host} asks for patience; continuing in {seconds:.0f} s")
        self._until = max(self._until, until)

    async def wait(self) -> None:
        """Return when the gate is open."""
        while (remaining := self._until - self._now()) > 0:  # noqa: ASYNC110  (the end is moved by ``close``)
            await asyncio.sleep(remaining)
