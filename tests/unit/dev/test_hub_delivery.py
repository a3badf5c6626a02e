"""Ranges, conditions, links and counts of the stand-in, seen through `httpx`."""

import asyncio
import hashlib
from collections.abc import AsyncIterator
from pathlib import Path

import httpx
import pytest
from aiohttp import web

from dev.hub import Hang, Hub, Kind, Repository, Slow
from dev.hub.faults import Course

SIZE = 700_000
WEIGHTS = hashlib.shake_256(b"weights").digest(SIZE)


@pytest.fixture
async def hub(tmp_path: Path) -> AsyncIterator[Hub]:
    (tmp_path / "w.bin").write_bytes(WEIGHTS)
    (tmp_path / "config.json").write_text('{"a": 1}')
    async with Hub(Repository.from_folder(tmp_path, id="org/model", lfs_threshold=1000)) as hub:
        yield hub


@pytest.fixture
async def client(hub: Hub) -> AsyncIterator[httpx.AsyncClient]:
    async with httpx.AsyncClient(base_url=f"{hub.url}/org/model/resolve/main", follow_redirects=True) as client:
        yield client


@pytest.mark.parametrize(
    ("asked", "expected"),
    [
        pytest.param("bytes=0-0", range(1), id="the first byte"),
        pytest.param("bytes=300000-", range(300_000, SIZE), id="from an offset"),
        pytest.param("bytes=100-599999", range(100, 600_000), id="a span over several pieces"),
        pytest.param("bytes=-5", range(SIZE - 5, SIZE), id="the last bytes"),
        pytest.param(f"bytes=10-{SIZE * 2}", range(10, SIZE), id="past the end"),
    ],
)
async def test_a_range_is_served(client: httpx.AsyncClient, asked: str, expected: range) -> None:
    response = await client.get("/w.bin", headers={"Range": asked})
    assert response.status_code == 206
    assert response.headers["content-range"] == f"bytes {expected.start}-{expected.stop - 1}/{SIZE}"
    assert response.content == WEIGHTS[expected.start : expected.stop]


@pytest.mark.parametrize("asked", ["bytes=0-1,5-6", "items=0-1", "bytes=9-2", "bytes=a-b"])
async def test_a_range_that_cannot_be_served_alone_gives_the_whole(client: httpx.AsyncClient, asked: str) -> None:
    response = await client.get("/w.bin", headers={"Range": asked})
    assert (response.status_code, len(response.content)) == (200, SIZE)


@pytest.mark.parametrize("asked", [f"bytes={SIZE}-", "bytes=-0"])
async def test_a_range_outside_is_416(client: httpx.AsyncClient, asked: str) -> None:
    response = await client.get("/w.bin", headers={"Range": asked})
    assert (response.status_code, response.headers["content-range"]) == (416, f"bytes */{SIZE}")
    assert response.content == b""


async def test_if_range_decides_between_the_rest_and_the_whole(client: httpx.AsyncClient) -> None:
    etag = (await client.head("/config.json")).headers["etag"]
    rest = await client.get("/config.json", headers={"Range": "bytes=4-", "If-Range": etag})
    assert (rest.status_code, rest.content) == (206, b": 1}")
    whole = await client.get("/config.json", headers={"Range": "bytes=4-", "If-Range": '"other"'})
    assert (whole.status_code, whole.content) == (200, b'{"a": 1}')


async def test_an_unchanged_small_file_is_304(client: httpx.AsyncClient) -> None:
    etag = (await client.head("/config.json")).headers["etag"]
    response = await client.get("/config.json", headers={"If-None-Match": etag})
    assert (response.status_code, response.content, response.headers["etag"]) == (304, b"", etag)


async def test_a_client_that_leaves_before_its_answer_is_no_error(
    hub: Hub, client: httpx.AsyncClient, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    assert hub._delivery is not None
    send = hub._delivery.send

    async def leaving(request: web.BaseRequest, course: Course, name: str) -> web.StreamResponse:
        assert request.transport is not None
        request.transport.close()
        return await send(request, course, name)

    monkeypatch.setattr(hub._delivery, "send", leaving)
    for path in ("/w.bin", "/config.json"):
        with pytest.raises(httpx.RemoteProtocolError):
            await client.get(path)
    assert [record.getMessage() for record in caplog.records if record.levelname == "ERROR"] == []
    assert hub.counters.active == 0


async def test_head_has_the_headers_of_get_and_no_body(hub: Hub, client: httpx.AsyncClient) -> None:
    for name, size in (("config.json", 8), ("w.bin", SIZE)):
        head, get = await client.head(f"/{name}"), await client.get(f"/{name}")
        assert (head.status_code, head.content) == (200, b"")
        assert head.headers["content-length"] == str(size)
        for field in ("etag", "content-type", "content-disposition"):
            assert head.headers[field] == get.headers[field]


async def test_a_large_file_is_described_by_its_redirect(hub: Hub, client: httpx.AsyncClient) -> None:
    response = await client.get("/w.bin", follow_redirects=False)
    assert response.status_code == 302
    assert response.headers["x-linked-etag"] == f'"{hashlib.sha256(WEIGHTS).hexdigest()}"'
    assert response.headers["x-linked-size"] == str(SIZE)
    assert response.headers["x-repo-commit"] == hub.repositories["org/model"].head
    served = await client.get(response.headers["location"])
    assert served.content == WEIGHTS
    assert served.headers["etag"].strip('"') != hashlib.sha256(WEIGHTS).hexdigest(), "a CDN's tag is not the hash"
    assert "x-repo-commit" not in served.headers


async def test_links_expire_and_cannot_be_altered(tmp_path: Path) -> None:
    (tmp_path / "w.bin").write_bytes(b"x" * 10)
    now = 1_000_000.0
    hub = Hub(Repository.from_folder(tmp_path, id="org/model", lfs_threshold=1), link_seconds=60, now=lambda: now)
    async with hub, httpx.AsyncClient() as client:

        async def link() -> str:
            response = await client.get(f"{hub.url}/org/model/resolve/main/w.bin")
            return str(response.headers["location"])

        first = await link()
        assert (await client.get(first)).status_code == 200
        assert (await client.get(first.replace("Expires=1000060", "Expires=9000060"))).status_code == 403
        assert (await client.get(first.replace("Signature=", "Signature=0"))).status_code == 403
        now += 61
        assert (await client.get(first)).status_code == 403
        second = await link()
        assert (await client.get(second)).status_code == 200
        hub.revoke_links()
        assert (await client.get(second)).status_code == 403
        assert (await client.get(await link())).status_code == 200


async def test_counts_by_kind_file_and_client(hub: Hub, client: httpx.AsyncClient) -> None:
    await client.get("/w.bin", headers={"X-Client": "node-1"})
    await client.get("/w.bin", headers={"X-Client": "node-2", "Range": "bytes=0-99"})
    await client.get("/config.json")
    await client.get("/absent")
    counters = hub.counters
    assert counters.total(Kind.CDN).to_json() == {
        "requests": 2,
        "ranges": 1,
        "bytes": SIZE + 100,
        "content": SIZE + 100,
        "errors": 0,
    }
    assert counters.total("cdn", client="node-2").bytes == 100
    assert counters.total(name="org/model/w.bin").requests == 4, "two redirects and two downloads"
    assert counters.total(Kind.RESOLVE).errors == 1
    assert counters.total(client="127.0.0.1").requests == 2
    assert counters.total().content == SIZE + 100 + 8
    assert counters.total().bytes > counters.total().content, "redirects and errors have bodies too"
    hub.reset()
    assert counters.total().requests == 0


async def test_the_same_bytes_for_two_at_once_are_noticed(hub: Hub, client: httpx.AsyncClient) -> None:
    hub.fail("*", Slow(bytes_per_second=200_000), on=Kind.CDN)
    apart = [client.get("/w.bin", headers={"Range": f"bytes={start}-{start + 99_999}"}) for start in (0, 100_000)]
    await asyncio.gather(*apart)
    await client.get("/w.bin", headers={"Range": "bytes=0-9999"})
    assert hub.counters.twice_at_once(seconds=0) == [], "other bytes, or the same later"
    together = [client.get("/w.bin", headers={"Range": f"bytes={start}-199999"}) for start in (0, 150_000)]
    await asyncio.gather(*together)
    [(one, other)] = hub.counters.twice_at_once(seconds=0.05)
    assert {(one.first, one.stop), (other.first, other.stop)} == {(0, 200_000), (150_000, 200_000)}
    assert hub.counters.twice_at_once("another/*", seconds=0) == []


async def test_a_limit_is_shared_and_another_is_each_connections_own(tmp_path: Path) -> None:
    (tmp_path / "w.bin").write_bytes(b"x" * 200_000)
    repository = Repository.from_folder(tmp_path, id="org/model")
    loop = asyncio.get_running_loop()

    async def seconds(hub: Hub) -> float:
        async with hub, httpx.AsyncClient() as client:
            start = loop.time()
            await asyncio.gather(*(client.get(f"{hub.url}/org/model/resolve/main/w.bin") for _ in range(2)))
            return loop.time() - start

    shared = await seconds(Hub(repository, rate=1_000_000))
    each = min([await seconds(Hub(repository, connection_rate=1_000_000)) for _ in range(3)])
    assert shared >= 0.4, "400 kB at 1 MB/s"
    assert 0.2 <= each < shared


async def test_responses_under_way_are_counted(hub: Hub, client: httpx.AsyncClient) -> None:
    hub.fail("w.bin", Hang(after=1), on=Kind.CDN)
    async with client.stream("GET", "/w.bin"), client.stream("GET", "/w.bin"), client.stream("GET", "/w.bin"):
        assert hub.counters.active == 3
    assert hub.counters.peak == 3


async def test_a_file_changed_under_its_commit_is_not_served(
    hub: Hub, client: httpx.AsyncClient, tmp_path: Path
) -> None:
    (tmp_path / "config.json").write_text('{"a": 22}')
    assert (await client.get("/config.json")).status_code == 500
    assert (await client.get("/w.bin")).content == WEIGHTS
