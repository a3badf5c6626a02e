"""Not saying what will be over before anybody could read it: a waiting state is worth a write after a second."""

import asyncio

from modelswarm.controllers.queue import Key

WORTH_SAYING_SECONDS = 1.0


class Patience:
    """Since when each key has been in a state that may pass by itself."""

    def __init__(self, seconds: float = WORTH_SAYING_SECONDS) -> None:
        self._seconds = seconds
        self._since: dict[Key, float] = {}

    def left(self, key: Key) -> float:
        """Seconds until the state is worth saying; 0 once it is."""
        now = asyncio.get_running_loop().time()
        return max(0.0, self._since.setdefault(key, now) + self._seconds - now)

    def forget(self, key: Key) -> None:
        """The state is over, or the object gone."""
        self._since.pop(key, None)
