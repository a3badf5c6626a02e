"""What the parts of an agent tell its residents, which are made last: events of the swarm, and that there is news."""

import asyncio

from modelswarm.agent.standing import Capacity
from modelswarm.agent.swarm import Event


class Signals:
    """For one event loop. ``low_watermark``: a fraction of the capacity."""

    def __init__(self, low_watermark: float) -> None:
        self.events: asyncio.Queue[Event] = asyncio.Queue()
        self.dirty = asyncio.Event()
        self.capacity = Capacity()
        """As of the last look at the disk."""
        self._low_watermark = low_watermark

    def hear(self, event: Event) -> None:
        """For the swarm: takes an event and returns at once."""
        self.events.put_nowait(event)

    def notice(self) -> None:
        """The standing of some content may be another one."""
        self.dirty.set()

    def has_room(self, count: int) -> bool:
        """Whether so many bytes fit without anything having to go, and without coming near the high watermark."""
        found = self.capacity
        return count <= found.free and found.used + count <= int(found.total * self._low_watermark)
