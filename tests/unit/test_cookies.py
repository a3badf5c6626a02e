"""Clients that many namespaces share keep no cookies: nobody is recognised by a session that another has begun."""

import asyncio
import contextlib
from collections.abc import AsyncIterator
from typing import Any, cast

import httpx
import pytest

from modelswarm.agent.origin import open_client as open_agents_client
from modelswarm.content.fetch import fetch
from modelswarm.content.resolve import Resolver
from modelswarm.kube.client import KubeClient
from modelswarm.loader.network import open_client as open_loaders_client
from modelswarm.metrics import Metrics
from modelswarm.operator import _assemble
from modelswarm.settings import OperatorSettings
from tests.unit.controllers.fake_kube import FakeKube


@contextlib.asynccontextmanager
async def site(seen: list[str]) -> AsyncIterator[str]:
    """A site that opens a session for everybody who asks, also on a redirect; it notes the requests' heads."""

    async def handle(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with contextlib.suppress(ConnectionError, asyncio.IncompleteReadError):
            while True:
                head = (await reader.readuntil(b"\r\n\r\n")).decode().lower()
                seen.append(head)
                status = "302 Found\r\nLocation: /there" if "/away" in head else "200 OK"
                writer.write(
                    f"HTTP/1.1 {status}\r\nSet-Cookie: session=of-a; Path=/\r\nContent-Length: 0\r\n\r\n".encode()
                )
                await writer.drain()
        writer.transport.abort()

    async with await asyncio.start_server(handle, "127.0.0.1", 0) as server:
        yield f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}"


@contextlib.asynccontextmanager
async def operators(monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[httpx.AsyncClient]:
    clients: list[httpx.AsyncClient] = []

    def resolver(http: httpx.AsyncClient, *rest: Any) -> Resolver:
        clients.append(http)
        return Resolver(http, *rest)

    monkeypatch.setattr("modelswarm.operator.Resolver", resolver)
    async with _assemble(OperatorSettings(), cast(KubeClient, FakeKube()), Metrics()):
        yield clients[0]


@contextlib.asynccontextmanager
async def client(whose: str, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[httpx.AsyncClient]:
    match whose:
        case "operator":
            async with operators(monkeypatch) as http:
                yield http
        case "agent":
            async with open_agents_client() as http:
                yield http
        case _:
            async with open_loaders_client(stall=5, connect=5, user_agent="test") as http:
                yield http


@pytest.mark.parametrize("proxied", [False, True], ids=["direct", "through a proxy"])
@pytest.mark.parametrize("whose", ["operator", "agent", "loader"])
async def test_a_session_of_one_asker_is_not_shown_by_the_next(
    monkeypatch: pytest.MonkeyPatch, whose: str, proxied: bool
) -> None:
    seen: list[str] = []
    for name in ("http_proxy", "https_proxy", "all_proxy", "no_proxy"):
        monkeypatch.delenv(name, raising=False)
        monkeypatch.delenv(name.upper(), raising=False)
    async with site(seen) as url:
        if proxied:
            monkeypatch.setenv("http_proxy", url)
        async with client(whose, monkeypatch) as http:
            await fetch(http, "GET", f"{url}/private", headers={"Authorization": "Bearer of-a"})
            await fetch(http, "GET", f"{url}/away", headers={"Authorization": "Bearer of-a"})
            await fetch(http, "HEAD", f"{url}/as-a-stranger")
    assert len(seen) == 4
    assert not [head for head in seen if "cookie" in head]
    assert ("get http://" in seen[0]) is proxied
