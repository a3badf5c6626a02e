"""The server in a thread of its own, for tests and programs that have no event loop."""

import asyncio
import threading
from types import TracebackType
from typing import Self

from dev.hub.server import Hub


class HubThread:
    """Runs a `Hub` while the block lasts.

        with HubThread(Hub(repository)) as running:
            httpx.get(running.url)

    Everything of the hub that does not start or stop it may be used from outside: `running.hub.fail(...)`.
    """

    def __init__(self, hub: Hub) -> None:
        self.hub = hub
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, name="hub", daemon=True)

    @property
    def url(self) -> str:
        return self.hub.url

    @property
    def cdn_url(self) -> str:
        return self.hub.cdn_url

    def start(self) -> None:
        """Open the sockets, on the ports of the last time if there was one."""
        asyncio.run_coroutine_threadsafe(self.hub.start(), self._loop).result()

    def stop(self) -> None:
        """Close the sockets; the thread stays for the next `start`."""
        asyncio.run_coroutine_threadsafe(self.hub.stop(), self._loop).result()

    def __enter__(self) -> Self:
        self._thread.start()
        try:
            self.start()
        except BaseException:
            self._end()
            raise
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.stop()
        self._end()

    def _end(self) -> None:
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join()
        self._loop.close()
