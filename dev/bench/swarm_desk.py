"""The coordinator of the benchmark's data plane: gives out segments, and tells everybody what is published.

What different nodes publish at about the same time becomes one window, so that each of its nodes has some of it to
give from the start, and there are fewer torrents. How much is collected first grows with what is done and shrinks with
what is left: the swarm begins at once, and little is outstanding at the end.
"""

import asyncio
import base64
from collections import deque
from dataclasses import dataclass, field

from aiohttp import web

from dev.bench.swarm_plan import Plan

COALESCE = 0.05
LONGEST_WAIT = 2.0
SHARE = 5
"""A window is cut when it has this part (one in so many) of what was published before, or of what is left."""


@dataclass(frozen=True, slots=True)
class Range:
    """A segment."""

    file: str
    offset: int
    length: int


def ranges(plan: Plan) -> list[Range]:
    """The same on every node."""
    return [
        Range(name, offset, min(plan.segment, size - offset))
        for name, size in plan.files.items()
        for offset in range(0, size, plan.segment)
    ]


@dataclass(slots=True)
class Desk:
    plan: Plan
    segments: list[Range]
    todo: deque[int] = field(init=False)
    waiting: list[tuple[int, str, str]] = field(default_factory=list)
    windows: list[list[tuple[int, str, str]]] = field(default_factory=list)
    published: int = 0
    present: set[str] = field(default_factory=set)
    finished: set[str] = field(default_factory=set)
    began: float = 0.0
    _news: asyncio.Condition = field(default_factory=asyncio.Condition)
    _timer: asyncio.TimerHandle | None = None
    _due: float = 0.0
    _tasks: set[asyncio.Task[None]] = field(default_factory=set)

    def __post_init__(self) -> None:
        self.todo = deque(range(len(self.segments)))

    async def serve(self, address: str, port: int) -> web.AppRunner:
        app = web.Application()
        app.router.add_post("/enter", self._enter)
        app.router.add_post("/publish", self._publish)
        app.router.add_get("/news", self._answer)
        app.router.add_post("/leave", self._leave)
        runner = web.AppRunner(app, access_log=None, shutdown_timeout=1.0)
        await runner.setup()
        await web.TCPSite(runner, address, port).start()
        return runner

    async def _enter(self, request: web.Request) -> web.Response:
        """Answered when everybody is there."""
        self.present.add((await request.json())["node"])
        async with self._news:
            if len(self.present) == len(self.plan.nodes) and not self.began:
                self.began = asyncio.get_running_loop().time()
            self._news.notify_all()
            await self._news.wait_for(lambda: self.began > 0)
        return web.json_response({"began": self.began})

    async def _publish(self, request: web.Request) -> web.Response:
        """What a node has read; answered with what it may read next."""
        told = await request.json()
        self.waiting.extend((segment, hashes, told["node"]) for segment, hashes in told["published"])
        if self.waiting:
            self._schedule()
        segments = [self.todo.popleft() for _ in range(min(told["wants"], len(self.todo)))]
        return web.json_response({"segments": segments})

    def _schedule(self) -> None:
        loop = asyncio.get_running_loop()
        pending = sum(self.segments[segment].length for segment, _, _ in self.waiting)
        left = self.plan.total - self.published - pending
        soon = pending * SHARE >= min(self.published, left)
        due = loop.time() + (COALESCE if soon else LONGEST_WAIT)
        if self._timer is None or due < self._due:
            if self._timer is not None:
                self._timer.cancel()
            self._due = due
            self._timer = loop.call_at(due, self._cut)

    def _cut(self) -> None:
        self._timer = None
        by_file: dict[str, list[tuple[int, str, str]]] = {}
        for entry in self.waiting:
            by_file.setdefault(self.segments[entry[0]].file, []).append(entry)
            self.published += self.segments[entry[0]].length
        self.waiting.clear()
        self.windows += map(sorted, by_file.values())
        task = asyncio.get_running_loop().create_task(self._tell())
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def _tell(self) -> None:
        async with self._news:
            self._news.notify_all()

    async def _answer(self, request: web.Request) -> web.Response:
        cursor = int(request.query["cursor"])
        async with self._news:
            await self._news.wait_for(lambda: len(self.windows) > cursor)
        return web.json_response({"windows": self.windows[cursor:], "cursor": len(self.windows)})

    async def _leave(self, request: web.Request) -> web.Response:
        """Answered when everybody is through: until then others may need what this node has."""
        self.finished.add((await request.json())["node"])
        async with self._news:
            self._news.notify_all()
            await self._news.wait_for(lambda: len(self.finished) == len(self.plan.nodes))
        return web.json_response({})


def encode(hashes: bytes) -> str:
    return base64.b64encode(hashes).decode()


def decode(text: str) -> bytes:
    return base64.b64decode(text)
