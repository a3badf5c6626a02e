"""This node as the coordinator of one content: its desk is open for as long as it holds the model's Lease."""

import asyncio
from collections.abc import Callable, Collection

from modelswarm.agent.coordinator import Coordinator
from modelswarm.agent.metainfo.desk import Desk
from modelswarm.agent.parts import Parts
from modelswarm.agent.stock import Stock


class Office:
    """At most one desk at a time."""

    def __init__(self, parts: Parts) -> None:
        self._parts = parts
        self._desk: Desk | None = None
        self._task: asyncio.Task[None] | None = None

    @property
    def is_open(self) -> bool:
        return self._desk is not None

    @property
    def is_idle(self) -> bool:
        """We coordinate, and every member has everything."""
        return self._desk is not None and self._desk.coordinator.is_complete

    @property
    def readers(self) -> tuple[str, ...]:
        """The nodes that read the origin, if we coordinate."""
        return self._desk.coordinator.readers if self._desk is not None else ()

    async def open(
        self,
        stock: Stock,
        segment_bytes: int,
        *,
        epoch: int,
        holds: Callable[[], bool],
        successor: bool,
        readers: Collection[str] = (),
    ) -> None:
        """Coordinate a new term, by the plan of ``stock``; whatever was open before is closed. Members stay until
        they are dismissed.

        ``successor``, ``readers``: see ``Coordinator``.
        """
        await self.close()
        parts, manifest = self._parts, stock.filling.manifest
        coordinator = Coordinator(
            manifest,
            stock.holdings.segments,
            segment_bytes=segment_bytes,
            epoch=epoch,
            now=asyncio.get_running_loop().time(),
            origin_nodes=parts.settings.origin_nodes,
            own=parts.address.node,
            successor=successor,
            readers=readers,
        )
        coordinator.keeps_members = True
        self._desk = Desk(coordinator, holds=holds)
        parts.hosting.open_desk(stock.filling.content, self._desk)
        self._task = asyncio.create_task(self._desk.run(), name=f"desk {stock.filling.content[:16]}")

    def dismiss(self) -> None:
        """Members that have everything may go, as soon as all have."""
        if self._desk is not None:
            self._desk.coordinator.keeps_members = False
            self._desk.ring()

    async def close(self) -> None:
        """Send everybody who waits away. Harmless twice."""
        task, self._task = self._task, None
        if task is not None:
            task.cancel()
            await asyncio.gather(task, return_exceptions=True)
        desk, self._desk = self._desk, None
        if desk is not None:
            self._parts.hosting.close_desk(desk.coordinator.content_id, desk)
