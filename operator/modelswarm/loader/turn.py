"""Waiting for one's turn at the origin: when an engine fails, all its loaders would come there at once.

The operator's turnstile lets so many through (``modelswarm.turnstile``; the protocol is in ``turnstile_server``). One
permit is for the whole process. It is renewed while bytes come in, and given back when nothing has been read for a
while. Everything that can go wrong with this opens the way: no answer that can be understood for ``PATIENCE`` seconds
means that there is nobody to wait for.
"""

import asyncio
import secrets
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from types import TracebackType

import httpx
from pydantic import BaseModel, ConfigDict, Field, ValidationError

from modelswarm.content.manifest import ManifestFile
from modelswarm.loader.leg import Leg, Sink

PATIENCE = 30.0
"""Seconds without an answer, after which the origin is read without one."""
WORTH_ASKING = 1 << 20
"""Smaller files are read at any time: asking would take as long."""
_IDLE = 60.0
"""A reader that has got no byte for so long does not renew its permit: another one may have more luck."""
_ANSWER_SECONDS = 5.0
_LEAVE_SECONDS = 0.5
_RETRY_SECONDS = 1.0
_RENEWALS = 3
"""So many in the time of a lease."""
_TELL_SECONDS = 5.0
_REPEAT_SECONDS = 30.0


class _Answer(BaseModel):
    model_config = ConfigDict(extra="ignore", strict=True)

    granted: bool
    lease: float = Field(ge=1, le=3600)
    position: int = Field(default=0, ge=0)
    ask_again: float = Field(default=1.0, alias="askAgain", ge=0.1, le=60)


@dataclass(frozen=True, slots=True)
class Pace:
    """Times of ``Turn``, in seconds."""

    patience: float = PATIENCE
    retry: float = _RETRY_SECONDS
    idle: float = _IDLE


class Turn:
    """``async with turn:`` around reading the origin, from as many tasks as there are.

    ``moved`` counts bytes that have come from there. ``opened`` is told why, if the turnstile is left aside.
    """

    name = "turnstile"

    def __init__(
        self,
        url: str,
        moved: Callable[[], int],
        say: Callable[[str], None],
        opened: Callable[[str], None],
        *,
        pace: Pace | None = None,
        http: httpx.AsyncClient | None = None,
    ) -> None:
        self.waited = 0.0
        self._permit = f"{url}/permits/{secrets.token_hex(16)}"
        self._moved = moved
        self._say = say
        self._opened = opened
        self._pace = pace or Pace()
        # No proxy: it is a Service of this cluster. A connection of its own for each request: the next one may reach
        # the replica that leads.
        limits = httpx.Limits(max_keepalive_connections=0)
        self._http = http or httpx.AsyncClient(timeout=_ANSWER_SECONDS, trust_env=False, limits=limits)
        self._lock = asyncio.Lock()
        self._reading = 0
        self._held = False
        self._open = False
        self._known = False
        self._lease = 30.0
        self._keeper: asyncio.Task[None] | None = None
        self._problem = ""

    async def __aenter__(self) -> None:
        async with self._lock:
            if not (self._held or self._open):
                await self._wait()
            self._reading += 1
            if self._keeper is None:
                self._keeper = asyncio.create_task(self._keep())

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._reading -= 1

    async def leave(self) -> None:
        """Nothing more will be read. Never fails, and takes no longer than half a second."""
        if (keeper := self._keeper) is not None:
            keeper.cancel()
            await asyncio.wait([keeper])
        with suppress(TimeoutError):
            async with asyncio.timeout(_LEAVE_SECONDS):
                await self._give_back()
                await self._http.aclose()

    async def _wait(self) -> None:
        """Return when it is our turn, or when nobody is there who could say."""
        began = heard = told_at = _now()
        told = 0
        try:
            while True:
                answer = await self._ask(holding=False, waited=_now() - began)
                now = _now()
                if answer is None:
                    if now - heard >= self._pace.patience:
                        self._go_without()
                        return
                    await asyncio.sleep(min(self._pace.retry, self._pace.patience))
                    continue
                heard = now
                if answer.granted:
                    self._held = True
                    return
                if not told or now - told_at >= (_TELL_SECONDS if answer.position != told else _REPEAT_SECONDS):
                    self._say(f"waiting for its turn at the origin, position {answer.position}")
                    told, told_at = answer.position, now
                await asyncio.sleep(answer.ask_again)
        finally:
            # Not what one round trip takes: that is no wait.
            if (waited := _now() - began) >= self._pace.retry:
                self.waited += waited

    def _go_without(self) -> None:
        self._open = True
        why = f"no answer for {self._pace.patience:.0f} s ({self._problem}); the origin is read without waiting"
        self._say(f"{self.name}: {why}")
        self._opened(why)

    async def _keep(self) -> None:
        """Renew while bytes come in, also without a permit: whoever counts the readers next must know of us."""
        seen, since = self._moved(), _now()
        unused = 0
        while True:
            await asyncio.sleep(self._lease / _RENEWALS)
            unused = 0 if self._reading else unused + 1
            # Between two files there is a moment without a reader; twice in a row is more than that.
            if unused > 1 and await self._retire():
                return
            moved, now = self._moved(), _now()
            if moved != seen:
                seen, since = moved, now
            if now - since >= self._pace.idle:
                self._held = False
            elif self._reading:
                self._held = self._held or not self._open
                await self._renew()

    async def _retire(self) -> bool:
        """Give the permit back until the origin is read again, unless that is now."""
        async with self._lock:
            if self._reading:
                return False
            self._held = False
            self._keeper = None
            await self._give_back()
            return True

    async def _renew(self) -> None:
        for _ in range(_RENEWALS):
            if await self._ask(holding=True) is not None:
                return
            await asyncio.sleep(self._pace.retry)

    async def _ask(self, *, holding: bool, waited: float = 0.0) -> _Answer | None:
        """None where there was no answer that can be understood; ``_problem`` says why."""
        self._known = True
        try:
            response = await self._http.post(self._permit, json={"holding": holding, "waited": round(waited, 1)})
            if response.status_code != httpx.codes.OK:
                self._problem = f"status {response.status_code}"
                return None
            answer = _Answer.model_validate_json(response.content)
        except httpx.HTTPError as error:
            self._problem = type(error).__name__
            return None
        except ValidationError:
            self._problem = "an answer that makes no sense"
            return None
        self._lease = answer.lease
        return answer

    async def _give_back(self) -> None:
        if self._known:
            self._known = False
            with suppress(httpx.HTTPError):
                await self._http.delete(self._permit)


def _now() -> float:
    return asyncio.get_running_loop().time()


class Behind:
    """A leg behind a turnstile; small files go round it."""

    def __init__(self, turn: Turn, leg: Leg) -> None:
        self.name = leg.name
        self.splittable = leg.splittable
        self._turn = turn
        self._leg = leg

    def serves(self, file: ManifestFile) -> bool:
        return self._leg.serves(file)

    async def fetch(self, file: ManifestFile, sink: Sink, start: int, end: int) -> None:
        if file.size < WORTH_ASKING:
            await self._leg.fetch(file, sink, start, end)
            return
        async with self._turn:
            await self._leg.fetch(file, sink, start, end)
