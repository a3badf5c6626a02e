"""The server and its client, over real sockets."""

import asyncio
import json
import os
from pathlib import Path

import aiohttp
import pytest

from modelswarm.agent.coordinator import Coordinator
from modelswarm.agent.metainfo.desk import Desk
from modelswarm.agent.metainfo.routes import BLOB_BYTES
from modelswarm.agent.metainfo.server import MetainfoServer
from modelswarm.agent.metainfo.signing import HEADER, Request, Signer, no_secrets
from modelswarm.agent.segments import plan
from modelswarm.errors import CannotListen, NotCoordinator, PeerRefused, PeerUnavailable
from tests.unit.agent.coordination import MIB, manifest, report
from tests.unit.agent.metainfo.conftest import SECRET, Connect, Serve, Shelf, signer

HASH = "5237ac215d377e74ed8d5d5403214de4e307cf0c1f4248ee65c19cef875de721"


async def ask(
    url: str, path: str, method: str = "GET", *, body: bytes = b"", sign: bool = True
) -> tuple[int, bytes, aiohttp.ClientResponse]:
    """As a peer that knows the Secret would, but with any path."""
    host = url.removeprefix("http://")
    headers, _ = signer(SECRET).sign(Request(method, host, path, body)) if sign else ({}, "")
    async with (
        aiohttp.ClientSession() as session,
        session.request(
            method, aiohttp.client.URL(url + path, encoded=True), headers=headers, data=body or None
        ) as response,
    ):
        return response.status, await response.read(), response


@pytest.mark.parametrize(
    ("method", "path", "status"),
    [
        pytest.param("GET", f"/metainfo/{HASH}", 200, id="a model that is here"),
        pytest.param("GET", f"/metainfo/{'0' * 64}", 404, id="a model that is not"),
        pytest.param("GET", "/metainfo/", 400, id="no hash"),
        pytest.param("GET", f"/metainfo/{HASH[:-1]}", 400, id="too short"),
        pytest.param("GET", f"/metainfo/{HASH.upper()}", 400, id="capitals"),
        pytest.param("GET", "/metainfo/..%2f..%2fetc%2fpasswd", 400, id="a path"),
        pytest.param("GET", "/metainfo/../stats", 400, id="dots"),
        pytest.param("GET", f"/metainfo/{HASH}%00", 400, id="a NUL"),
        pytest.param("POST", f"/metainfo/{HASH}", 405, id="another method"),
        pytest.param("HEAD", f"/metainfo/{HASH}", 405, id="HEAD"),
        pytest.param("GET", "/stats", 200, id="stats"),
        pytest.param("DELETE", "/stats", 405, id="stats are for reading"),
        pytest.param("GET", "/models", 200, id="models"),
        pytest.param("PUT", "/models", 405, id="models are for reading"),
        pytest.param("GET", "/", 404, id="nothing here"),
        pytest.param("GET", f"/v1/manifests/{HASH}", 404, id="a manifest that is not known"),
        pytest.param("GET", "/v1/manifests/x", 400, id="no digest"),
        pytest.param("POST", "/v1/contents/x/report", 400, id="no content id"),
        pytest.param("POST", f"/v1/contents/{HASH}/report", 400, id="no report"),
        pytest.param("GET", f"/v1/contents/{HASH}/report", 405, id="reports are posted"),
        pytest.param("POST", "/v1/blobs", 400, id="no blobs named"),
    ],
)
async def test_routes(serve: Serve, shelf: Shelf, method: str, path: str, status: int) -> None:
    shelf.torrents[HASH] = b"d4:infode"
    assert (await ask(await serve(), path, method))[0] == status


async def test_the_seeds_answers(serve: Serve, shelf: Shelf) -> None:
    shelf.torrents[HASH] = b"d4:infode"
    url = await serve()
    _, body, response = await ask(url, f"/metainfo/{HASH}")
    assert body == b"d4:infode"
    assert response.headers["Content-Type"] == "application/x-bittorrent"
    assert response.headers["Content-Disposition"] == f'attachment; filename="{HASH}.torrent"'
    _, body, response = await ask(url, "/stats")
    assert response.headers["Content-Type"].startswith("application/json")
    assert sorted(await _json(body)) == [
        "active_peers", "active_torrents", "total_bytes_downloaded", "total_bytes_uploaded",
    ]  # fmt: skip
    assert await _json((await ask(url, "/models"))[1]) == [{"hash": HASH, "seeding": True}]
    status, body, response = await ask(url, "/health", sign=False)
    assert (status, body, response.content_type) == (200, b"ok", "text/plain")


async def _json(body: bytes) -> object:
    return json.loads(body)


@pytest.mark.parametrize("path", [f"/metainfo/{HASH}", "/stats", "/models", f"/v1/manifests/{HASH}"])
async def test_without_the_secret_nothing_is_told(serve: Serve, connect: Connect, shelf: Shelf, path: str) -> None:
    shelf.torrents[HASH] = b"d4:infode"
    url = await serve()
    assert (await ask(url, path, sign=False))[0] == 401
    with pytest.raises(PeerRefused):
        await connect(b"another secret, long").metainfo(url, HASH)
    assert await connect(b"another secret, long").is_alive(url)


async def test_a_client_with_the_secret_does_not_believe_who_has_it_not(connect: Connect, shelf: Shelf) -> None:
    shelf.torrents[HASH] = b"d4:infode"
    server = MetainfoServer(shelf, Signer(no_secrets, lambda: 0.0), host="127.0.0.1", port=0)
    url = f"http://127.0.0.1:{await server.start()}"
    try:
        with pytest.raises(PeerRefused, match="not signed"):
            await connect().metainfo(url, HASH)
        unsigned = connect()
        unsigned._signer = Signer(no_secrets, lambda: 0.0)
        assert await unsigned.metainfo(url, HASH) == b"d4:infode"
    finally:
        await server.stop()


async def test_clocks_that_differ(serve: Serve, connect: Connect, shelf: Shelf) -> None:
    shelf.torrents[HASH] = b"d"
    url = await serve()
    assert await connect(ahead=200).metainfo(url, HASH) == b"d"
    with pytest.raises(PeerRefused, match="clocks"):
        await connect(ahead=400).metainfo(url, HASH)


async def test_a_report_that_is_sent_again_by_somebody_is_refused(serve: Serve) -> None:
    url = await serve()
    body, path = report("a").model_dump_json().encode(), f"/v1/contents/{HASH}/report"
    headers, _ = signer(SECRET).sign(Request("POST", url.removeprefix("http://"), path, body))
    async with aiohttp.ClientSession() as session:
        statuses = []
        for _ in range(2):
            async with session.post(url + path, data=body, headers=headers) as response:
                statuses.append(response.status)
    assert statuses == [404, 401]


async def test_reports_and_answers(serve: Serve, connect: Connect, shelf: Shelf) -> None:
    content = manifest(a=8 * MIB, b=10)
    content_id = content.digest.removeprefix("sha256:")
    coordinator = Coordinator(content, plan(content, 2 * MIB), segment_bytes=2 * MIB, epoch=5, now=0.0)
    shelf.desks[content_id] = Desk(coordinator, holds=lambda: True)
    url, client = await serve(), connect()
    answer = await client.report(url, content_id, report("a", have=(0,), wants=2))
    assert (answer.epoch, answer.assign, answer.segment_bytes) == (5, (1, 2), 2 * MIB)
    again = await client.report(url, content_id, report("b", wants=0))
    assert again.holders == {0: ("http://a.example:8081",)}
    assert [peer.node for peer in again.peers] == ["a"]
    with pytest.raises(NotCoordinator) as unknown:
        await client.report(url, HASH, report("a"))
    assert unknown.value.holder is None
    shelf.holder = "http://10.0.0.9:8081"
    with pytest.raises(NotCoordinator) as known:
        await client.report(url, HASH, report("a"))
    assert known.value.holder == "http://10.0.0.9:8081"


async def test_two_nodes_share_the_work_over_the_wire(serve: Serve, connect: Connect, shelf: Shelf) -> None:
    content = manifest(a=8 * MIB)
    content_id = content.digest.removeprefix("sha256:")
    coordinator = Coordinator(content, plan(content, 2 * MIB), segment_bytes=2 * MIB, epoch=5, now=0.0)
    shelf.desks[content_id] = Desk(coordinator, holds=lambda: True)
    url, client = await serve(), connect()
    first, second = await asyncio.gather(
        client.report(url, content_id, report("a", wants=1)), client.report(url, content_id, report("b", wants=1))
    )
    assert sorted(first.assign + second.assign) == [0, 1]


async def test_blobs(serve: Serve, connect: Connect, shelf: Shelf, tmp_path: Path) -> None:
    keys = [f"sha256-{number:064x}" for number in range(5)]
    contents = [os.urandom(size) for size in (0, 1, 5000, BLOB_BYTES, BLOB_BYTES + 1)]
    for key, data in zip(keys, contents, strict=True):
        shelf.paths[key] = tmp_path / key
        shelf.paths[key].write_bytes(data)
    missing, gone = "git-sha1-" + "a" * 40, "object-" + "b" * 64
    shelf.paths[gone] = tmp_path / "gone"
    found = await connect().blobs(await serve(), [*keys, missing, gone])
    assert found == dict(zip(keys[:4], contents[:4], strict=True))
    assert shelf.uploaded == sum(map(len, contents[:4]))


async def test_the_manifest(serve: Serve, connect: Connect, shelf: Shelf) -> None:
    content = manifest(**{f"f{number}": number for number in range(2000)})
    shelf.manifests[content.digest.removeprefix("sha256:")] = content
    url, client = await serve(), connect()
    found = await client.manifest(url, content.digest)
    assert found is not None
    assert found.digest == content.digest
    assert await client.manifest(url, "sha256:" + "0" * 64) is None


async def test_seeders_are_found_among_the_dead(serve: Serve, connect: Connect, shelf: Shelf) -> None:
    shelf.torrents[HASH] = b"d4:infode"
    url = await serve()
    dead = [f"http://127.0.0.1:{port}" for port in (1, 2, 3)]
    assert await connect().find_seeders([*dead, url], HASH) == {url: b"d4:infode"}
    assert await connect().find_seeders(dead, HASH) == {}


@pytest.mark.parametrize("host", ["127.0.0.1", "127.0.1.7", "::1"])
async def test_addresses(serve: Serve, connect: Connect, shelf: Shelf, host: str) -> None:
    shelf.torrents[HASH] = b"d"
    url = await serve(host=host)
    assert await connect(host=host).metainfo(url, HASH) == b"d"


async def test_a_port_that_is_taken_is_said(serve: Serve, shelf: Shelf) -> None:
    url = await serve()
    with pytest.raises(CannotListen, match=r"127\.0\.0\.1, port"):
        await MetainfoServer(shelf, signer(SECRET), host="127.0.0.1", port=int(url.rpartition(":")[2])).start()


async def test_a_body_that_is_too_large_is_refused(serve: Serve) -> None:
    status, _, _ = await ask(await serve(), "/v1/blobs", "POST", body=b"x" * (5 << 20))
    assert status == 413


async def test_a_client_that_does_not_send_its_body_is_left(serve: Serve, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("modelswarm.agent.metainfo.server.BODY_SECONDS", 0.1)
    url = await serve()
    host, _, port = url.removeprefix("http://").rpartition(":")
    reader, writer = await asyncio.open_connection(host, int(port))
    writer.write(b"POST /v1/blobs HTTP/1.1\r\nHost: x\r\nContent-Length: 100\r\n\r\nabc")
    async with asyncio.timeout(10):
        assert b" 408 " in await reader.readline()
    writer.close()


async def test_a_client_that_does_not_read_is_left(serve: Serve, shelf: Shelf, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("modelswarm.agent.metainfo.server.PART_SECONDS", 0.1)
    shelf.torrents[HASH] = b"x" * (48 << 20)
    url = await serve()
    host, _, port = url.removeprefix("http://").rpartition(":")
    path = f"/metainfo/{HASH}"
    headers, _ = signer(SECRET).sign(Request("GET", f"{host}:{port}", path))
    reader, writer = await asyncio.open_connection(host, int(port), limit=1024)
    writer.write(f"GET {path} HTTP/1.1\r\nHost: {host}:{port}\r\n{HEADER}: {headers[HEADER]}\r\n\r\n".encode())
    await asyncio.sleep(1.5)  # not a synchronization: the client that is too slow
    got = 0
    async with asyncio.timeout(120):
        try:
            while chunk := await reader.read(1 << 20):
                got += len(chunk)
        except ConnectionError:
            pass
    assert got < 48 << 20
    writer.close()


async def test_too_many_at_once_are_sent_away(serve: Serve, connect: Connect, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("modelswarm.agent.metainfo.server.MAX_REQUESTS", 0)
    with pytest.raises(PeerUnavailable, match="503"):
        await connect().metainfo(await serve(), HASH)
