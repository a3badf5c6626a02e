"""Each fault of the stand-in, as a client meets it."""

import asyncio
from collections.abc import AsyncIterator

import httpx
import pytest

from dev.hub import (
    Fault,
    Hang,
    Hub,
    IgnoreRange,
    Kind,
    RateLimit,
    Refuse,
    Repository,
    Rule,
    ServerError,
    Slow,
    Truncate,
    WrongBytes,
)
from dev.hub.faults import FAULTS, Faults

CONFIG = b'{"hidden_size": 64}'
WEIGHTS = bytes(range(256)) * 400
BRIEF = httpx.Timeout(5, read=2)
"""To connect takes as long as it takes; then silence is noticed soon."""


@pytest.fixture
async def hub() -> AsyncIterator[Hub]:
    repository = Repository("org/model", lfs_threshold=1000)
    repository.move("main", repository.commit({"config.json": CONFIG, "sub/w.bin": WEIGHTS}))
    async with Hub(repository) as hub:
        yield hub


@pytest.fixture
async def client(hub: Hub) -> AsyncIterator[httpx.AsyncClient]:
    base = f"{hub.url}/org/model/resolve/main"
    async with httpx.AsyncClient(base_url=base, follow_redirects=True, timeout=5) as client:
        yield client


@pytest.mark.parametrize(
    ("header", "present"),
    [("retry-after", {"retry-after"}), ("ratelimit", {"ratelimit"}), ("both", {"retry-after", "ratelimit"})],
)
async def test_a_rate_limit_says_how_long(hub: Hub, client: httpx.AsyncClient, header: str, present: set[str]) -> None:
    hub.fail("config.json", RateLimit(7, header=header), times=1)  # type: ignore[arg-type]
    response = await client.get("/config.json")
    assert response.status_code == 429
    assert {name for name in ("retry-after", "ratelimit") if name in response.headers} == present
    assert response.headers.get("retry-after", "7") == "7"
    assert response.headers.get("ratelimit", '"resolve";r=0;t=7') == '"resolve";r=0;t=7'
    assert (await client.get("/config.json")).content == CONFIG


async def test_server_errors_strike_as_often_as_told(hub: Hub, client: httpx.AsyncClient) -> None:
    rule = hub.fail("/api/models/*", ServerError(502), skip=1, times=2)
    statuses = [(await client.get(f"{hub.url}/api/models/org/model")).status_code for _ in range(4)]
    assert statuses == [200, 502, 502, 200]
    assert (rule.hits, rule.seen) == (2, 4)


async def test_a_late_first_byte_and_a_slow_body(hub: Hub, client: httpx.AsyncClient) -> None:
    loop = asyncio.get_running_loop()
    hub.fail("config.json", Slow(first_byte_delay=0.15))
    start = loop.time()
    assert (await client.get("/config.json")).content == CONFIG
    assert loop.time() - start >= 0.15
    hub.fail("*.bin", Slow(bytes_per_second=len(WEIGHTS) * 5), on=Kind.CDN)
    start = loop.time()
    assert (await client.get("/sub/w.bin")).content == WEIGHTS
    assert loop.time() - start >= 0.2


@pytest.mark.parametrize("after", [0, 1000])
async def test_a_truncated_body_ends_early(hub: Hub, client: httpx.AsyncClient, after: int) -> None:
    hub.fail("sub/w.bin", Truncate(after), on=Kind.CDN, times=1)
    got = bytearray()

    async def read() -> None:
        async with client.stream("GET", "/sub/w.bin") as response:
            assert response.headers["content-length"] == str(len(WEIGHTS))
            async for piece in response.aiter_raw():
                got.extend(piece)

    with pytest.raises(httpx.RemoteProtocolError):
        await read()
    assert got == WEIGHTS[:after]
    assert hub.counters.total(Kind.CDN).bytes == after
    rest = await client.get("/sub/w.bin", headers={"Range": f"bytes={after}-"})
    assert bytes(got) + rest.content == WEIGHTS


async def test_a_wrong_byte_has_its_place_in_the_file(hub: Hub, client: httpx.AsyncClient) -> None:
    hub.fail("sub/w.bin", WrongBytes(offset=50_000), on=Kind.CDN)
    whole = (await client.get("/sub/w.bin")).content
    assert [at for at, (good, bad) in enumerate(zip(WEIGHTS, whole, strict=True)) if good != bad] == [50_000]
    rest = (await client.get("/sub/w.bin", headers={"Range": "bytes=49999-"})).content
    assert rest[1] == WEIGHTS[50_000] ^ 0xFF
    assert (await client.get("/sub/w.bin", headers={"Range": "bytes=50001-"})).content == WEIGHTS[50_001:]


async def test_a_refused_connection_is_reset(hub: Hub, client: httpx.AsyncClient) -> None:
    hub.fail("config.json", Refuse(), times=1)
    with pytest.raises((httpx.ReadError, httpx.RemoteProtocolError)):
        await client.get("/config.json")
    assert (await client.get("/config.json")).content == CONFIG


async def test_hanging_before_the_answer(hub: Hub, client: httpx.AsyncClient) -> None:
    hub.fail("config.json", Hang(), times=1)
    with pytest.raises(httpx.ReadTimeout):
        await client.get("/config.json", timeout=BRIEF)
    assert (await client.get("/config.json")).content == CONFIG


async def test_hanging_in_the_body(hub: Hub, client: httpx.AsyncClient) -> None:
    hub.fail("sub/w.bin", Hang(after=10), on=Kind.CDN)
    got = bytearray()

    async def read() -> None:
        async with client.stream("GET", "/sub/w.bin", timeout=BRIEF) as response:
            async for piece in response.aiter_raw():
                got.extend(piece)

    with pytest.raises(httpx.ReadTimeout):
        await read()
    assert got == WEIGHTS[:10]


async def test_a_hanging_client_does_not_keep_the_hub_from_stopping(hub: Hub, client: httpx.AsyncClient) -> None:
    hub.fail("sub/w.bin", Hang(after=1), on=Kind.CDN)
    async with client.stream("GET", "/sub/w.bin") as response, asyncio.timeout(5):
        await hub.stop()
        with pytest.raises(httpx.TransportError):
            await response.aread()


async def test_an_ignored_range_gives_the_whole(hub: Hub, client: httpx.AsyncClient) -> None:
    hub.fail("sub/w.bin", IgnoreRange(), on=Kind.CDN)
    response = await client.get("/sub/w.bin", headers={"Range": "bytes=5-"})
    assert (response.status_code, response.content) == (200, WEIGHTS)


async def test_faults_add_up(hub: Hub, client: httpx.AsyncClient) -> None:
    hub.fail("config.json", WrongBytes(0))
    hub.fail("*.json", Truncate(3))
    with pytest.raises(httpx.RemoteProtocolError):
        await client.get("/config.json")
    hub.faults.clear()
    assert (await client.get("/config.json")).content == CONFIG


async def test_an_outage_and_the_same_ports_after_it(hub: Hub, client: httpx.AsyncClient) -> None:
    urls = (hub.url, hub.cdn_url)
    await hub.stop()
    with pytest.raises(httpx.ConnectError):
        await client.get("/config.json")
    await hub.start()
    assert (hub.url, hub.cdn_url) == urls
    assert (await client.get("/config.json")).content == CONFIG


@pytest.mark.parametrize(
    ("path", "on", "method", "struck"),
    [
        pytest.param("sub/w.bin", None, None, {"resolve", "cdn"}, id="a path in the repository"),
        pytest.param("w.bin", None, None, {"resolve", "cdn"}, id="a file's name"),
        pytest.param("org/model/*", None, None, {"resolve", "cdn"}, id="a repository"),
        pytest.param("*.bin", Kind.CDN, None, {"cdn"}, id="one kind"),
        pytest.param("/repos/*", None, None, {"cdn"}, id="a path of the CDN"),
        pytest.param("*", None, "HEAD", set(), id="another method"),
        pytest.param("other/*", None, None, set(), id="another repository"),
    ],
)
async def test_which_requests_a_rule_fits(
    hub: Hub, client: httpx.AsyncClient, path: str, on: Kind | None, method: str | None, struck: set[str]
) -> None:
    rule = hub.fail(path, Slow(), on=on, method=method)
    await client.get("/sub/w.bin")
    assert rule.hits == len(struck)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        pytest.param(
            '{"fault": "truncate", "after": 9, "path": "*.gguf", "times": 2, "on": "cdn"}',
            Rule("*.gguf", Truncate(9), 2, 0, Kind.CDN),
            id="all of a rule",
        ),
        pytest.param('{"fault": "hang"}', Rule("*", Hang()), id="the least"),
        pytest.param('{"fault": "slow", "bytes_per_second": 5e6}', Rule("*", Slow(5e6)), id="a number"),
    ],
)
def test_rules_as_json(text: str, expected: Rule) -> None:
    assert Faults().add_json(text) == expected


@pytest.mark.parametrize(
    "text",
    ['{"fault": "gremlin"}', '{"fault": "truncate"}', '{"fault": "hang", "before": 3}', '{"fault": "hang", "on": "x"}'],
)
def test_wrong_rules_are_refused(text: str) -> None:
    with pytest.raises(ValueError, match=r"."):
        Faults().add_json(text)


def test_every_fault_has_a_name() -> None:
    assert {name: fault.__name__ for name, fault in FAULTS.items()} == {
        name: "".join(part.capitalize() for part in name.split("-")) for name in FAULTS
    }
    faults: list[type[Fault]] = [Hang, IgnoreRange, RateLimit, Refuse, ServerError, Slow, Truncate, WrongBytes]
    assert set(faults) <= set(FAULTS.values())
