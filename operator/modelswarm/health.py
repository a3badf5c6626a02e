"""``/healthz`` and ``/readyz``: about this process alone, never about other systems.

Alive: the event loop answers and no reconcile has been stuck for minutes. Ready: leading and watching, or standing by.
(kopf's own liveness server starts only with its watches, so a standby could not answer; hence this one.)
"""

from collections.abc import Callable

from aiohttp import web

STUCK_SECONDS = 300.0


class Health:
    """``oldest`` gives the age in seconds of the oldest reconcile that is in flight (0 when idle)."""

    def __init__(self, oldest: Callable[[], float]) -> None:
        self._oldest = oldest
        self._runner: web.AppRunner | None = None
        self.ready = False
        self.state = "starting"

    async def start(self, port: int, host: str | None = None) -> int:
        """Serve on all addresses (or ``host``'s); returns the port (of interest when asked for 0)."""
        app = web.Application()
        app.router.add_get("/healthz", self._healthz)
        app.router.add_get("/readyz", self._readyz)
        self._runner = web.AppRunner(app, access_log=None)
        await self._runner.setup()
        site = web.TCPSite(self._runner, host, port)
        await site.start()
        return int(self._runner.addresses[0][1])

    async def stop(self) -> None:
        if self._runner is not None:
            await self._runner.cleanup()

    async def _healthz(self, _: web.Request) -> web.Response:
        age = self._oldest()
        if age > STUCK_SECONDS:
            return web.Response(status=500, text=f"a reconcile has been running for {age:.0f} s\n")
        return web.Response(text="ok\n")

    async def _readyz(self, _: web.Request) -> web.Response:
        return web.Response(status=200 if self.ready else 503, text=f"{self.state}\n")
