"""The turnstile over HTTP, for loaders: they have no access to Kubernetes, but they can reach a Service.

::

    POST   /permits/NAME   {"holding": false, "waited": 12.5}   -> 200 {"granted": true, "lease": 30.0} or
                           {"granted": false, "position": 3, "waiting": 7, "askAgain": 1.5, "lease": 30.0}
    DELETE /permits/NAME   -> 204

Only the leader has a turnstile. A standby answers 503, and closes the connection so that the next request through the
Service may reach the leader.
"""

import time
from typing import Annotated

from aiohttp import web
from pydantic import BaseModel, ConfigDict, Field, ValidationError

from modelswarm.turnstile import LEASE_SECONDS, Answer, Turnstile

_MOST_BYTES = 4096
_NAME = "{name:[A-Za-z0-9-]{8,64}}"
_Seconds = Annotated[float, Field(ge=0, allow_inf_nan=False)]


class _Ask(BaseModel):
    model_config = ConfigDict(extra="ignore")

    holding: bool = False
    waited: _Seconds = 0.0


class TurnstileServer:
    """Serves as a standby until ``lead``."""

    def __init__(self, limit: int, *, lease: float = LEASE_SECONDS) -> None:
        self._limit = limit
        self._lease = lease
        self._turnstile: Turnstile | None = None
        self._runner: web.AppRunner | None = None

    def lead(self) -> None:
        """From now on this process is the one that knows."""
        self._turnstile = Turnstile(self._limit, time.monotonic(), lease=self._lease)

    def counts(self) -> tuple[int, int]:
        """How many loaders read, and how many wait; from any thread."""
        turnstile = self._turnstile
        return turnstile.counts(time.monotonic()) if turnstile is not None else (0, 0)

    async def start(self, port: int, host: str | None = None) -> int:
        """Serve on all addresses (or ``host``'s); returns the port (of interest when asked for 0)."""
        app = web.Application(client_max_size=_MOST_BYTES)
        app.router.add_post(f"/permits/{_NAME}", self._ask)
        app.router.add_delete(f"/permits/{_NAME}", self._leave)
        self._runner = web.AppRunner(app, access_log=None)
        await self._runner.setup()
        await web.TCPSite(self._runner, host, port).start()
        return int(self._runner.addresses[0][1])

    async def stop(self) -> None:
        if self._runner is not None:
            await self._runner.cleanup()

    async def _ask(self, request: web.Request) -> web.Response:
        if self._turnstile is None:
            return _standby()
        try:
            ask = _Ask.model_validate_json(await request.read())
        except ValidationError:
            return web.Response(status=422, text="holding and waited are a boolean and seconds\n")
        name = request.match_info["name"]
        return _answer(self._turnstile.ask(name, time.monotonic(), holding=ask.holding, waited=ask.waited))

    async def _leave(self, request: web.Request) -> web.Response:
        if self._turnstile is None:
            return _standby()
        self._turnstile.leave(request.match_info["name"])
        return web.Response(status=204)


def _answer(answer: Answer) -> web.Response:
    body: dict[str, object] = {"granted": answer.granted, "lease": answer.lease}
    if not answer.granted:
        body |= {"position": answer.position, "waiting": answer.waiting, "askAgain": answer.ask_again}
    return web.json_response(body)


def _standby() -> web.Response:
    response = web.Response(status=503, text="standing by\n")
    response.force_close()
    return response
