"""Peers that answer anything but what was asked. Each costs bounded time and memory, and an error that names it."""

import asyncio
import gzip
import json
from collections.abc import Awaitable, Callable

import pytest

from modelswarm.agent.messages import Answer, Report
from modelswarm.agent.metainfo import client as module
from modelswarm.agent.metainfo.client import MetainfoClient
from modelswarm.agent.metainfo.signing import Signer, no_secrets
from modelswarm.errors import PeerError, PeerMisbehaved, PeerUnavailable
from tests.unit.agent.coordination import manifest, report
from tests.unit.agent.metainfo.conftest import Handler

HASH = "ab" * 32
REDIRECT = b"HTTP/1.1 302 Found\r\nLocation: http://127.0.0.1:1/\r\nContent-Length: 0"
KEY = "sha256-" + "1" * 64
Peer = Callable[[Handler], Awaitable[str]]


@pytest.fixture
async def trusting() -> MetainfoClient:
    """Without a Secret, so that nothing but its own care protects it."""
    return MetainfoClient(Signer(no_secrets, lambda: 0.0))


@pytest.fixture(autouse=True)
def _impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "SILENCE_SECONDS", 2.0)
    monkeypatch.setattr(module, "TRANSFER_SECONDS", 4.0)
    monkeypatch.setattr(module, "REPORT_SECONDS", 4.0)
    monkeypatch.setattr(module, "METAINFO_BYTES", 1 << 20)


def saying(head: bytes, body: bytes = b"") -> Handler:
    async def handle(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        writer.write(head + b"\r\n\r\n" + body)
        await writer.drain()

    return handle


def ok(body: bytes, *headers: bytes) -> Handler:
    return saying(b"\r\n".join((b"HTTP/1.1 200 OK", b"Content-Length: %d" % len(body), *headers)), body)


async def endless(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    await reader.readuntil(b"\r\n\r\n")
    writer.write(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n")
    while True:
        writer.write(b"10000\r\n" + b"x" * 0x10000 + b"\r\n")
        await writer.drain()


async def dripping(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    await reader.readuntil(b"\r\n\r\n")
    writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: 100000\r\n\r\n")
    while True:
        writer.write(b"x")
        await writer.drain()
        await asyncio.sleep(0.05)


async def silent(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    await asyncio.sleep(60)


async def endless_headers(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    writer.write(b"HTTP/1.1 200 OK\r\n")
    while True:
        writer.write(b"X-A: " + b"a" * 1000 + b"\r\n")
        await writer.drain()


@pytest.mark.parametrize(
    ("handler", "error"),
    [
        pytest.param(endless, PeerMisbehaved, id="an answer without end"),
        pytest.param(dripping, PeerUnavailable, id="byte by byte"),
        pytest.param(silent, PeerUnavailable, id="nothing at all"),
        pytest.param(endless_headers, PeerError, id="headers without end"),
        pytest.param(saying(b"HTTP/1.1 200 OK\r\nContent-Length: 9999999999"), PeerMisbehaved, id="a huge length"),
        pytest.param(saying(b"HTTP/1.1 200 OK\r\nContent-Length: 50", b"short"), PeerUnavailable, id="cut short"),
        pytest.param(saying(b"garbage"), PeerError, id="no HTTP"),
        pytest.param(saying(REDIRECT), PeerMisbehaved, id="a redirect"),
        pytest.param(saying(b"HTTP/1.1 500 Oops\r\nContent-Length: 0"), PeerUnavailable, id="a failure"),
        pytest.param(saying(b"HTTP/1.1 204 No Content"), PeerMisbehaved, id="an odd status"),
    ],
)  # fmt: skip
async def test_answers_that_are_none(
    peer: Peer, trusting: MetainfoClient, handler: Handler, error: type[PeerError]
) -> None:
    url = await peer(handler)
    try:
        async with asyncio.timeout(15):
            with pytest.raises(error) as caught:
                await trusting.metainfo(url, HASH)
        assert caught.value.url == url
    finally:
        await trusting.close()


async def test_who_never_ends_does_not_hide_who_has_it(
    peer: Peer, trusting: MetainfoClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A look for seeders is bounded as a whole, whatever one answer may take."""
    monkeypatch.setattr(module, "TRANSFER_SECONDS", 60.0)
    monkeypatch.setattr(module, "PROBE_SECONDS", 5.0)
    monkeypatch.setattr(module, "MORE_SECONDS", 0.1)
    seeder, drip = await peer(ok(b"d4:infode")), await peer(dripping)
    async with asyncio.timeout(30):
        assert await trusting.find_seeders([drip, seeder], HASH) == {seeder: b"d4:infode"}
        assert await trusting.find_seeders([drip], HASH) == {}


async def test_a_bomb_stays_folded(peer: Peer, trusting: MetainfoClient) -> None:
    bomb = gzip.compress(bytes(50 << 20))
    url = await peer(ok(bomb, b"Content-Encoding: gzip"))
    try:
        assert await trusting.metainfo(url, HASH) == bomb
    finally:
        await trusting.close()


@pytest.mark.parametrize(
    "body",
    [
        pytest.param(b"", id="nothing"),
        pytest.param(b"[]", id="a list"),
        pytest.param(b'{"epoch": -1, "segment_bytes": 1}', id="a negative epoch"),
        pytest.param(b'{"epoch": 1, "segment_bytes": 1, "assign": [99999999]}', id="no such segment"),
        pytest.param(b'{"epoch": 1, "segment_bytes": 1, "pause": 1e300}', id="a pause for ever"),
        pytest.param(b'{"epoch": 1, "segment_bytes": 1, "holders": {"0": ["file:///etc/passwd"]}}', id="a file as URL"),
        pytest.param(b'{"epoch": 1, "segment_bytes": 1, "holders": {"0": ["http://a/../b"]}}', id="a path in a URL"),
        pytest.param(b'{"epoch": 1, "segment_bytes": 1, "shunned": ["../x"]}', id="no node's name"),
        pytest.param(b"[" * 100_000, id="deep nesting"),
    ],
)
async def test_answers_to_reports_that_are_none(peer: Peer, trusting: MetainfoClient, body: bytes) -> None:
    url = await peer(ok(body))
    try:
        with pytest.raises(PeerMisbehaved):
            await trusting.report(url, HASH, report("a"))
    finally:
        await trusting.close()


@pytest.mark.parametrize(
    "body",
    [
        pytest.param(b"x" * 10_000, id="no head"),
        pytest.param(json.dumps({"key": KEY, "size": 10}).encode() + b"\nabc", id="cut short"),
        pytest.param(json.dumps({"key": "sha256-" + "2" * 64, "size": 3}).encode() + b"\nabc", id="not asked for"),
        pytest.param(json.dumps({"key": KEY, "size": -3}).encode() + b"\nabc", id="a negative size"),
        pytest.param(json.dumps({"key": "../../etc", "size": 3}).encode() + b"\nabc", id="a path"),
    ],
)
async def test_blobs_that_are_none(peer: Peer, trusting: MetainfoClient, body: bytes) -> None:
    url = await peer(ok(body))
    try:
        with pytest.raises(PeerMisbehaved):
            await trusting.blobs(url, [KEY])
    finally:
        await trusting.close()


async def test_a_manifest_of_something_else(peer: Peer, trusting: MetainfoClient) -> None:
    from modelswarm.content.manifest import encode

    (shard,) = encode(manifest(a=1))
    url = await peer(ok(shard))
    try:
        with pytest.raises(PeerMisbehaved, match="another digest"):
            await trusting.manifest(url, "sha256:" + HASH)
        other = await peer(ok(b"rubbish"))
        with pytest.raises(PeerMisbehaved, match="cannot be read"):
            await trusting.manifest(other, "sha256:" + HASH)
    finally:
        await trusting.close()


@pytest.mark.parametrize("url", ["ftp://x", "http://", "http://a:1/path", "/etc", "http://a b/"])
async def test_addresses_that_are_none(trusting: MetainfoClient, url: str) -> None:
    with pytest.raises(PeerError):
        await trusting.metainfo(url, HASH)
    await trusting.close()


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("node", "../x"),
        ("node", "a" * 300),
        ("url", "http://h:1/path"),
        ("host", "example.org"),
        ("port", 0),
        ("working", {str(number): 0 for number in range(65)}),
        ("cursor", -1),
        ("have", "not base64 !"),
        ("busy", [{"file": 0, "content": "x"}]),
    ],
)
def test_reports_that_are_none(field: str, value: object) -> None:
    wire = json.loads(report("a").model_dump_json())
    wire[field] = value
    with pytest.raises(ValueError):
        Report.model_validate_json(json.dumps(wire))


def test_bytes_survive_the_wire() -> None:
    sent = report("a", have=tuple(range(0, 3000, 7)))
    assert Report.model_validate_json(sent.model_dump_json()) == sent
    answer = Answer(epoch=1, segment_bytes=1)
    assert Answer.model_validate_json(answer.model_dump_json(exclude_defaults=True)) == answer
