"""httpx, reading in pieces that suit gigabytes.

What httpx reads by default is at most 64 KiB at a time, and 16 KiB (one record) over TLS; every piece passes through
some twenty Python frames. Here a piece is what has arrived, up to 256 KiB (``wire``). Only the bottom layer is
replaced, through the interface that httpcore has for that; connection pool, HTTP and everything above are untouched.
Behind a proxy (``HTTPS_PROXY`` and so on) httpx's own layer is used.
"""

import asyncio
import ssl
from collections.abc import AsyncIterable, AsyncIterator, Iterable, Iterator
from contextlib import contextmanager
from typing import Any
from urllib.request import getproxies

import httpcore
import httpx

from modelswarm.content.fetch import no_cookies
from modelswarm.loader.wire import Wire

_FALLBACK_SECONDS = 0.25
"""After which a second address of the host is tried as well (RFC 8305)."""

_ERRORS: dict[type[Exception], type[httpx.TransportError]] = {
    httpcore.ConnectTimeout: httpx.ConnectTimeout,
    httpcore.ReadTimeout: httpx.ReadTimeout,
    httpcore.WriteTimeout: httpx.WriteTimeout,
    httpcore.PoolTimeout: httpx.PoolTimeout,
    httpcore.ConnectError: httpx.ConnectError,
    httpcore.ReadError: httpx.ReadError,
    httpcore.WriteError: httpx.WriteError,
    httpcore.UnsupportedProtocol: httpx.UnsupportedProtocol,
    httpcore.LocalProtocolError: httpx.LocalProtocolError,
    httpcore.RemoteProtocolError: httpx.RemoteProtocolError,
}


def open_client(*, stall: float, connect: float, user_agent: str) -> httpx.AsyncClient:
    """A client whose reads fail after ``stall`` seconds without a byte; proxies and CAs come from the environment."""
    timeout = httpx.Timeout(stall, connect=connect, pool=None)
    headers = {"User-Agent": user_agent}
    # "no" alone is NO_PROXY without a proxy.
    if getproxies().keys() - {"no"}:
        return httpx.AsyncClient(timeout=timeout, headers=headers, cookies=no_cookies())
    transport = LargeReads(httpx.create_ssl_context())
    return httpx.AsyncClient(timeout=timeout, headers=headers, cookies=no_cookies(), transport=transport)


class LargeReads(httpx.AsyncBaseTransport):
    """Direct connections, HTTP/1.1."""

    def __init__(self, context: ssl.SSLContext) -> None:
        self._pool = httpcore.AsyncConnectionPool(ssl_context=context, network_backend=_Backend())

    async def handle_async_request(self, request: httpx.Request) -> httpx.Response:
        assert isinstance(request.stream, httpx.AsyncByteStream)
        asked = httpcore.Request(
            method=request.method,
            url=httpcore.URL(
                scheme=request.url.raw_scheme,
                host=request.url.raw_host,
                port=request.url.port,
                target=request.url.raw_path,
            ),
            headers=request.headers.raw,
            content=request.stream,
            extensions=request.extensions,
        )
        with _errors(request):
            answer = await self._pool.handle_async_request(asked)
        assert isinstance(answer.stream, AsyncIterable)
        return httpx.Response(
            answer.status,
            headers=answer.headers,
            stream=_Body(answer, request),
            extensions=answer.extensions,
        )

    async def aclose(self) -> None:
        await self._pool.aclose()


class _Body(httpx.AsyncByteStream):
    def __init__(self, answer: httpcore.Response, request: httpx.Request) -> None:
        self._answer = answer
        self._request = request

    async def __aiter__(self) -> AsyncIterator[bytes]:
        with _errors(self._request):
            async for data in self._answer.aiter_stream():
                yield data

    async def aclose(self) -> None:
        await self._answer.aclose()


@contextmanager
def _errors(request: httpx.Request) -> Iterator[None]:
    try:
        yield
    except tuple(_ERRORS) as error:
        raise _ERRORS[type(error)](str(error), request=request) from error


class _Backend(httpcore.AsyncNetworkBackend):
    async def connect_tcp(
        self,
        host: str,
        port: int,
        timeout: float | None = None,
        local_address: str | None = None,
        socket_options: Iterable[Any] | None = None,
    ) -> httpcore.AsyncNetworkStream:
        try:
            async with asyncio.timeout(timeout):
                _, wire = await asyncio.get_running_loop().create_connection(
                    Wire, host, port, happy_eyeballs_delay=_FALLBACK_SECONDS
                )
        except TimeoutError as error:
            raise httpcore.ConnectTimeout from error
        except OSError as error:
            raise httpcore.ConnectError(str(error)) from error
        return _Stream(wire)

    async def sleep(self, seconds: float) -> None:
        await asyncio.sleep(seconds)


class _Stream(httpcore.AsyncNetworkStream):
    def __init__(self, wire: Wire) -> None:
        self._wire = wire

    async def read(self, max_bytes: int, timeout: float | None = None) -> bytes:
        """What has arrived. ``max_bytes`` is httpcore's idea of a piece, not a limit of what it can take."""
        try:
            async with asyncio.timeout(timeout):
                return await self._wire.read()
        except TimeoutError as error:
            raise httpcore.ReadTimeout from error
        except OSError as error:
            raise httpcore.ReadError(type(error).__name__) from error

    async def write(self, buffer: bytes, timeout: float | None = None) -> None:
        try:
            async with asyncio.timeout(timeout):
                await self._wire.write(buffer)
        except TimeoutError as error:
            raise httpcore.WriteTimeout from error
        except OSError as error:
            raise httpcore.WriteError(type(error).__name__) from error

    async def aclose(self) -> None:
        # Not close(): that waits for the other side to end TLS properly, and a stalled one never does.
        self._wire.abort()

    async def start_tls(
        self, ssl_context: ssl.SSLContext, server_hostname: str | None = None, timeout: float | None = None
    ) -> httpcore.AsyncNetworkStream:
        try:
            async with asyncio.timeout(timeout):
                await self._wire.start_tls(ssl_context, server_hostname)
        except TimeoutError as error:
            await self.aclose()
            raise httpcore.ConnectTimeout from error
        except OSError as error:
            # Certificate errors are among them.
            await self.aclose()
            raise httpcore.ConnectError(str(error)) from error
        return self

    def get_extra_info(self, info: str) -> Any:
        match info:
            case "ssl_object":
                return self._wire.get_extra_info("ssl_object")
            case "is_readable":
                # httpcore asks this of an idle connection: bytes that nobody asked for mean that it has ended.
                return self._wire.ended
            case _:
                return None
