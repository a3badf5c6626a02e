"""The server: two origins on real sockets, one for the hubs' APIs and one for large files."""

import asyncio
import time
from collections.abc import Callable, Mapping, Sequence
from types import TracebackType
from typing import Self
from urllib.parse import unquote

from aiohttp import web

from dev.hub.access import Tokens
from dev.hub.admin import Admin
from dev.hub.answers import Answer, Call, Kind
from dev.hub.counters import Counters
from dev.hub.delivery import Delivery
from dev.hub.faults import Fault, Faults, Rule
from dev.hub.huggingface import HuggingFace
from dev.hub.links import Links
from dev.hub.modelscope import LIST_LIMIT, ModelScope
from dev.hub.repository import Repository


class Hub:
    """A stand-in for the Hugging Face Hub and ModelScope.

        async with Hub(Repository.from_folder(folder, id="org/model")) as hub:
            HfApi(endpoint=hub.url).model_info("org/model")

    `url` is the endpoint of both hubs, `cdn_url` the other origin. Ports are chosen at the first start and
    kept, so `stop` and `start` are an outage. `advertise` is the host name put in links when clients do not
    reach the server under `host`. `rate` (bytes per second) is shared by all responses, `connection_rate`
    applies to each; `first_byte_delay` (seconds) to every request. `now` is the clock links expire by.
    """

    def __init__(
        self,
        *repositories: Repository,
        host: str = "127.0.0.1",
        port: int = 0,
        cdn_port: int = 0,
        advertise: str | None = None,
        page_size: int = 1000,
        list_limit: int = LIST_LIMIT,
        resolve_cache: bool = False,
        rate: float | None = None,
        connection_rate: float | None = None,
        first_byte_delay: float = 0.0,
        link_seconds: float = 3600.0,
        now: Callable[[], float] = time.time,
    ) -> None:
        self.repositories: dict[str, Repository] = {}
        self.tokens = Tokens()
        self.faults = Faults()
        self.counters = Counters()
        self.leaked_tokens: list[str] = []
        self._links = Links(seconds=link_seconds, now=now)
        self._huggingface = HuggingFace(
            self.repositories, self.tokens, self._links, page_size=page_size, resolve_cache=resolve_cache
        )
        self._modelscope = ModelScope(self.repositories, self.tokens, self._links, list_limit=list_limit)
        self._admin = Admin(self)
        self._host, self._advertise = host, advertise or host
        self._ports = [port, cdn_port]
        self._rate, self._connection_rate = rate, connection_rate
        self._first_byte_delay = first_byte_delay
        self._runners: list[web.ServerRunner] = []
        self._delivery: Delivery | None = None
        for repository in repositories:
            self.add(repository)

    @property
    def url(self) -> str:
        return f"http://{self._advertise}:{self._ports[0]}"

    @property
    def cdn_url(self) -> str:
        return f"http://{self._advertise}:{self._ports[1]}"

    def add(self, repository: Repository) -> Repository:
        """Serve `repository`, in place of the one that had its id."""
        self.repositories[repository.id] = repository
        return repository

    def allow(self, token: str, *repositories: str) -> None:
        """Make `token` a valid one that may read the gated and private repositories of these patterns."""
        self.tokens.allow(token, repositories)

    def fail(
        self,
        path: str,
        fault: Fault,
        *,
        times: int | None = None,
        skip: int = 0,
        on: Kind | None = None,
        method: str | None = None,
    ) -> Rule:
        """Let requests for `path` go wrong; see `Rule` for what the arguments select."""
        return self.faults.add(Rule(path, fault, times, skip, on, method))

    def revoke_links(self) -> None:
        """Make the CDN refuse every link handed out so far."""
        self._links.revoke()

    def reset(self) -> None:
        """Forget faults, counts and leaks; repositories, tokens and links stay."""
        self.faults.clear()
        self.counters.reset()
        self.leaked_tokens.clear()

    async def start(self) -> None:
        """Open both origins."""
        self._delivery = Delivery(self.counters, rate=self._rate, connection_rate=self._connection_rate)
        for index, handle in enumerate((self._hub, self._cdn)):
            server = web.Server(handle, handler_cancellation=True, access_log=None)
            runner = web.ServerRunner(server, shutdown_timeout=0.1)
            await runner.setup()
            self._runners.append(runner)
            site = web.TCPSite(runner, self._host, self._ports[index], reuse_address=True)
            await site.start()
            self._ports[index] = runner.addresses[0][1]
        self._huggingface.origin, self._links.origin = self.url, self.cdn_url

    async def stop(self) -> None:
        """Close both origins and every connection."""
        if self._delivery is not None:
            self._delivery.release()
        await asyncio.gather(*(runner.cleanup() for runner in self._runners))
        self._runners.clear()

    async def __aenter__(self) -> Self:
        await self.start()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.stop()

    async def _hub(self, request: web.BaseRequest) -> web.StreamResponse:
        if request.path.startswith("/_"):
            return await self._admin.respond(request)
        call = await _call(request)
        answer = self._modelscope.answer(call) or self._huggingface.answer(call)
        return await self._respond(request, call, answer)

    async def _cdn(self, request: web.BaseRequest) -> web.StreamResponse:
        if leaked := request.headers.get("Authorization"):
            self.leaked_tokens.append(leaked)
        call = await _call(request)
        return await self._respond(request, call, self._links.answer(call))

    async def _respond(self, request: web.BaseRequest, call: Call, answer: Answer) -> web.StreamResponse:
        assert self._delivery is not None
        if self._first_byte_delay:
            await asyncio.sleep(self._first_byte_delay)
        client = request.headers.get("X-Client") or request.remote or "unknown"
        return await self._delivery.send(request, self.faults.course(call, answer), client)


async def _call(request: web.BaseRequest) -> Call:
    # A revision may hold a slash, sent as %2F: the path is split before it is decoded.
    segments = tuple(unquote(part) for part in request.rel_url.raw_path.strip("/").split("/"))
    scheme, _, token = request.headers.get("Authorization", "").partition(" ")
    bearer = token.strip() if scheme.lower() == "bearer" and token.strip() else None
    form: Mapping[str, Sequence[str]] = {}
    if request.method == "POST":
        posted = await request.post()
        form = {key: [value for value in posted.getall(key) if isinstance(value, str)] for key in posted}
    bearer = bearer or request.cookies.get("m_session_id")
    return Call(request.method, segments, dict(request.query), bearer, form)
