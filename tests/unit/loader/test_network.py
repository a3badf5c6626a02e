"""The bottom layer under httpx: errors by their right names, TLS with verification, connections used again."""

import asyncio
import contextlib
import datetime
import ipaddress
import socket
import ssl
from collections.abc import AsyncIterator, Awaitable, Callable
from dataclasses import dataclass
from pathlib import Path

import httpx
import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec

from modelswarm.loader.network import LargeReads, open_client
from modelswarm.loader.wire import FIRST_PAUSE, GATHERED, LONGEST_PAUSE, next_pause

BODY = bytes(range(256)) * 8192
"""2 MiB: more than one read."""
Handler = Callable[[asyncio.StreamReader, asyncio.StreamWriter], Awaitable[None]]


@contextlib.asynccontextmanager
async def serving(handler: Handler, context: ssl.SSLContext | None = None) -> AsyncIterator[int]:
    async def handle(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with contextlib.suppress(ConnectionError, asyncio.IncompleteReadError):
            await handler(reader, writer)
        writer.transport.abort()

    server = await asyncio.start_server(handle, "127.0.0.1", 0, ssl=context)
    async with server:
        yield server.sockets[0].getsockname()[1]


async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    while True:
        await reader.readuntil(b"\r\n\r\n")
        writer.write(f"HTTP/1.1 200 OK\r\nContent-Length: {len(BODY)}\r\n\r\n".encode() + BODY)
        await writer.drain()


async def cut(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    await reader.readuntil(b"\r\n\r\n")
    writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: 100\r\n\r\nshort")
    await writer.drain()
    writer.write_eof()
    await reader.read()


async def stall(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    await reader.readuntil(b"\r\n\r\n")
    await reader.read()


async def chatter(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    await reader.readuntil(b"\r\n\r\n")
    writer.write(b"SSH-2.0-OpenSSH\r\n\r\n")
    await reader.read()


@pytest.fixture(scope="module")
def certificate(tmp_path_factory: pytest.TempPathFactory) -> Path:
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, "test")])
    now = datetime.datetime.now(datetime.UTC)
    certificate = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.public_key())
        .serial_number(1)
        .not_valid_before(now - datetime.timedelta(hours=1))
        .not_valid_after(now + datetime.timedelta(days=1))
        .add_extension(x509.SubjectAlternativeName([x509.IPAddress(ipaddress.ip_address("127.0.0.1"))]), False)
        .sign(key, hashes.SHA256())
    )
    path = tmp_path_factory.mktemp("tls") / "pair.pem"
    private = key.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    )
    path.write_bytes(certificate.public_bytes(serialization.Encoding.PEM) + private)
    return path


def server_context(certificate: Path) -> ssl.SSLContext:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(certificate)
    return context


@dataclass(frozen=True)
class Way:
    """To a server of the test's own: with TLS or without it."""

    client: httpx.AsyncClient
    scheme: str
    context: ssl.SSLContext | None

    @contextlib.asynccontextmanager
    async def get(self, handler: Handler, *, read: float = 10) -> AsyncIterator[httpx.Response]:
        """``read``: seconds in which something must arrive."""
        timeout = httpx.Timeout(10, read=read)
        async with (
            serving(handler, self.context) as port,
            self.client.stream("GET", f"{self.scheme}://127.0.0.1:{port}/", timeout=timeout) as response,
        ):
            yield response


@pytest.fixture(params=["http", "https"])
async def way(request: pytest.FixtureRequest, certificate: Path) -> AsyncIterator[Way]:
    ours = ssl.create_default_context(cafile=str(certificate))
    async with httpx.AsyncClient(transport=LargeReads(ours)) as client:
        yield Way(client, request.param, server_context(certificate) if request.param == "https" else None)


@pytest.fixture
async def client() -> AsyncIterator[httpx.AsyncClient]:
    async with httpx.AsyncClient(transport=LargeReads(ssl.create_default_context()), timeout=10) as client:
        yield client


async def test_a_body_arrives_and_the_connection_is_used_again(client: httpx.AsyncClient) -> None:
    connections = 0

    async def counted(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        nonlocal connections
        connections += 1
        await answer(reader, writer)

    async with serving(counted) as port:
        for _ in range(3):
            assert (await client.get(f"http://127.0.0.1:{port}/")).content == BODY
    assert connections == 1


async def test_what_trickles_in_is_gathered_and_nothing_of_it_is_lost(way: Way) -> None:
    pieces = 400

    async def trickle(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        writer.write(f"HTTP/1.1 200 OK\r\nContent-Length: {len(BODY)}\r\n\r\n".encode())
        size = len(BODY) // pieces + 1
        for at in range(0, len(BODY), size):
            writer.write(BODY[at : at + size])
            await writer.drain()
            await asyncio.sleep(0.0005)
        await reader.read()

    async with way.get(trickle, read=5) as response:
        got = [data async for data in response.aiter_raw()]
    assert b"".join(got) == BODY
    assert len(got) < pieces / 2


@pytest.mark.parametrize(
    ("last", "size", "next_one"),
    [
        pytest.param(0.0, 300, FIRST_PAUSE, id="the first is short"),
        pytest.param(0.004, 1500, 0.008, id="little came: twice as long"),
        pytest.param(0.010, GATHERED, 0.010, id="just right"),
        pytest.param(0.020, 4 * GATHERED, 0.005, id="faster than thought"),
        pytest.param(LONGEST_PAUSE, 100, LONGEST_PAUSE, id="never too long"),
        pytest.param(FIRST_PAUSE, 10 * GATHERED, FIRST_PAUSE, id="never none at all"),
    ],
)
def test_pauses_follow_the_rate(last: float, size: int, next_one: float) -> None:
    assert next_pause(last, size) == pytest.approx(next_one)


async def test_a_reader_that_takes_its_time_holds_the_sender_back(way: Way) -> None:
    sent = 0
    total = 64 << 20

    async def flood(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        nonlocal sent
        await reader.readuntil(b"\r\n\r\n")
        writer.write(f"HTTP/1.1 200 OK\r\nContent-Length: {total}\r\n\r\n".encode())
        for _ in range(total >> 18):
            writer.write(bytes(1 << 18))
            await writer.drain()
            sent += 1 << 18
        await reader.read()

    async with way.get(flood) as response:
        parts = response.aiter_raw()
        await anext(parts)
        before = -1
        while sent != before:
            before = sent
            await asyncio.sleep(0.1)
        assert sent < total, "what nobody reads is not taken in"
        async for _ in parts:
            pass
    assert sent == total


@pytest.mark.parametrize(
    ("handler", "error"),
    [
        pytest.param(cut, httpx.RemoteProtocolError, id="an answer that ends early"),
        pytest.param(stall, httpx.ReadTimeout, id="silence"),
        pytest.param(chatter, httpx.RemoteProtocolError, id="something that is not HTTP"),
    ],
)
async def test_it_fails_with(client: httpx.AsyncClient, handler: Handler, error: type[httpx.TransportError]) -> None:
    async with serving(handler) as port:
        with pytest.raises(error) as caught:
            await client.get(f"http://127.0.0.1:{port}/", timeout=httpx.Timeout(10, read=2))
        assert caught.value.request.url.port == port


async def test_nobody_there(client: httpx.AsyncClient) -> None:
    with socket.socket() as closed:
        closed.bind(("127.0.0.1", 0))
        with pytest.raises(httpx.ConnectError):
            await client.get(f"http://127.0.0.1:{closed.getsockname()[1]}/")


async def test_a_scheme_that_is_not_http(client: httpx.AsyncClient) -> None:
    with pytest.raises(httpx.UnsupportedProtocol):
        await client.get("ftp://127.0.0.1/")


class TestTLS:
    @pytest.fixture
    def context(self, certificate: Path) -> ssl.SSLContext:
        return server_context(certificate)

    async def test_a_body_arrives_from_a_host_whose_ca_the_environment_names(
        self, certificate: Path, context: ssl.SSLContext, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setenv("SSL_CERT_FILE", str(certificate))
        async with serving(answer, context) as port, open_client(stall=5, connect=5, user_agent="test") as client:
            assert (await client.get(f"https://127.0.0.1:{port}/")).content == BODY
            assert (await client.get(f"https://127.0.0.1:{port}/")).content == BODY

    async def test_an_unknown_ca_is_refused(self, client: httpx.AsyncClient, context: ssl.SSLContext) -> None:
        async with serving(answer, context) as port:
            with pytest.raises(httpx.ConnectError, match="CERTIFICATE_VERIFY_FAILED"):
                await client.get(f"https://127.0.0.1:{port}/")

    async def test_so_is_another_host_name(
        self, certificate: Path, context: ssl.SSLContext, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setenv("SSL_CERT_FILE", str(certificate))
        async with serving(answer, context) as port, open_client(stall=5, connect=5, user_agent="test") as client:
            with pytest.raises(httpx.ConnectError):
                await client.get(f"https://localhost:{port}/")


async def test_a_proxy_from_the_environment_is_used(monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[bytes] = []

    async def proxy(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        asked.append(await reader.readuntil(b"\r\n\r\n"))
        writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nproxy")
        await reader.read()

    async with serving(proxy) as port:
        monkeypatch.setenv("HTTP_PROXY", f"http://127.0.0.1:{port}")
        monkeypatch.setenv("http_proxy", f"http://127.0.0.1:{port}")
        async with open_client(stall=5, connect=5, user_agent="test") as client:
            assert (await client.get("http://hub.invalid/file")).content == b"proxy"
    assert asked[0].startswith(b"GET http://hub.invalid/file HTTP/1.1\r\n")
