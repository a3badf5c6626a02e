"""The agent's port 8080: ``/metrics`` and what the kubelet asks.

``/healthz``: the models' directory can be written to (the seed's meaning). ``/livez``: the process answers.
``/readyz``: the agent takes part, so that the headless Service names it; a node counts only while it does.
"""

import asyncio
import os
from collections.abc import Callable
from pathlib import Path

from aiohttp import web

from modelswarm.agent.metrics import AgentMetrics
from modelswarm.errors import CannotListen

DISK_SECONDS = 4.0
"""For a look at the directory. A file system that hangs is as bad as one that is full of errors."""
CONTENT_TYPE = "text/plain; version=0.0.4; charset=utf-8"


class Probes:
    """``waiting_for`` says what is still missing before the agent takes part; an empty text: nothing."""

    def __init__(self, root: Path, metrics: AgentMetrics, waiting_for: Callable[[], str]) -> None:
        self._root = root
        self._metrics = metrics
        self._waiting_for = waiting_for
        self._runner: web.AppRunner | None = None
        self._look: asyncio.Task[str] | None = None

    async def start(self, port: int, host: str | None = None) -> int:
        """Serve on all addresses (or ``host``'s); returns the port (of interest when asked for 0).

        Raises CannotListen.
        """
        app = web.Application()
        app.router.add_get("/metrics", self._metrics_page)
        app.router.add_get("/healthz", self._healthz)
        app.router.add_get("/livez", self._livez)
        app.router.add_get("/readyz", self._readyz)
        self._runner = web.AppRunner(app, access_log=None, shutdown_timeout=1.0)
        await self._runner.setup()
        try:
            await web.TCPSite(self._runner, host or None, port).start()
        except OSError as error:
            await self.stop()
            where = f"{host or 'all addresses'}, port {port}"
            raise CannotListen(f"metrics and health cannot listen on {where}: {error.strerror or error}") from None
        return int(self._runner.addresses[0][1])

    async def stop(self) -> None:
        if self._runner is not None:
            await self._runner.cleanup()
            self._runner = None

    async def _metrics_page(self, _: web.Request) -> web.Response:
        return web.Response(body=self._metrics.page(), headers={"Content-Type": CONTENT_TYPE})

    async def _livez(self, _: web.Request) -> web.Response:
        return web.Response(text="ok\n")

    async def _healthz(self, _: web.Request) -> web.Response:
        problem = await self._disk_problem()
        return web.Response(status=503 if problem else 200, text=f"{problem or 'ok'}\n")

    async def _readyz(self, _: web.Request) -> web.Response:
        problem = self._waiting_for() or await self._disk_problem()
        return web.Response(status=503 if problem else 200, text=f"{problem or 'ok'}\n")

    async def _disk_problem(self) -> str:
        # One look at a time: with a file system that hangs, each question would take another thread for ever.
        if self._look is None or self._look.done():
            self._look = asyncio.create_task(asyncio.to_thread(_look, self._root))
        look = self._look  # who asks later begins another one as soon as this one has ended
        done, _ = await asyncio.wait([look], timeout=DISK_SECONDS)
        return look.result() if done else f"{self._root} does not answer"


def _look(root: Path) -> str:
    if not root.is_dir():
        return f"{root} is not a directory"
    if not os.access(root, os.W_OK | os.X_OK):
        return f"{root} cannot be written to"
    return ""
