"""One question to an origin: how long it may take, what is tried again, where tokens do not go."""

import asyncio
from collections.abc import AsyncIterator
from datetime import UTC, datetime

import httpx
import pytest

from modelswarm.content import fetch as fetching
from modelswarm.content.fetch import ATTEMPTS, Reply, fetch, retry_after
from modelswarm.errors import RateLimited, SourceUnavailable

NOW = datetime(2026, 1, 1, 12, 0, 0, tzinfo=UTC)


@pytest.mark.parametrize(
    ("headers", "seconds"),
    [
        pytest.param({}, None, id="nothing said"),
        pytest.param({"Retry-After": "120"}, 120, id="seconds"),
        pytest.param({"Retry-After": "Thu, 01 Jan 2026 12:01:30 GMT"}, 90, id="a date"),
        pytest.param({"Retry-After": "Thu, 01 Jan 2026 11:00:00 GMT"}, 0, id="a date in the past"),
        pytest.param({"Retry-After": "soon"}, None, id="nonsense"),
        pytest.param({"Retry-After": "-5"}, None, id="a negative number"),
        pytest.param({"Retry-After": "٣"}, None, id="digits of another script"),
        pytest.param({"RateLimit": '"resolvers";r=0;t=55'}, 55, id="the Hub's header"),
        pytest.param({"RateLimit": '"api";r=12;t=55'}, None, id="quota left"),
        pytest.param({"RateLimit": '"api";r=12;t=55, "resolvers"; r=0; t=7'}, 7, id="one of two is used up"),
        pytest.param({"Retry-After": "3", "RateLimit": '"api";r=0;t=55'}, 55, id="both: the longer"),
        pytest.param({"Retry-After": "86400"}, 3600, id="a day: an hour"),
        pytest.param({"Retry-After": "9" * 400}, 3600, id="for ever: an hour"),
        pytest.param({"Retry-After": "Fri, 01 Jan 2027 12:00:00 GMT"}, 3600, id="next year: an hour"),
        pytest.param({"RateLimit": '"api";r=0;t=7200'}, 3600, id="the Hub's header: an hour, too"),
    ],
)
def test_when_to_come_back(headers: dict[str, str], seconds: float | None) -> None:
    assert retry_after(httpx.Headers([(k.encode(), v.encode()) for k, v in headers.items()]), NOW) == seconds


def client(*answers: httpx.Response | Exception) -> tuple[httpx.AsyncClient, list[httpx.Request]]:
    """A client whose origin gives these answers, the last one for ever; and the requests it gets."""
    seen: list[httpx.Request] = []

    def answer(request: httpx.Request) -> httpx.Response:
        seen.append(request)
        found = answers[min(len(seen), len(answers)) - 1]
        if isinstance(found, Exception):
            raise found
        return found

    return httpx.AsyncClient(transport=httpx.MockTransport(answer)), seen


@pytest.mark.parametrize(
    "answers",
    [
        pytest.param([httpx.ConnectError("refused")] * 2 + [httpx.Response(200)], id="connections refused"),
        pytest.param([httpx.ReadTimeout("slow"), httpx.Response(200)], id="a time-out"),
        pytest.param([httpx.Response(503), httpx.Response(500), httpx.Response(200)], id="5xx"),
    ],
)
async def test_passing_failures_are_tried_again(answers: list[httpx.Response | Exception]) -> None:
    http, seen = client(*answers)
    assert (await fetch(http, "GET", "https://hub/x")).is_success
    assert len(seen) == len(answers)


@pytest.mark.parametrize(
    ("answer", "says"),
    [
        (httpx.ConnectError("refused"), r"hub cannot be reached \(ConnectError\)"),
        (httpx.ReadTimeout("slow"), "hub does not answer in time"),
        (httpx.RemoteProtocolError("cut"), "hub cannot be reached"),
        (httpx.Response(502), "hub answers with HTTP 502"),
    ],
)
async def test_lasting_failures_are_unavailable(answer: httpx.Response | Exception, says: str) -> None:
    http, seen = client(answer)
    with pytest.raises(SourceUnavailable, match=says) as raised:
        await fetch(http, "GET", "https://hub/x")
    assert len(seen) == ATTEMPTS
    assert raised.value.retryable


async def test_a_503_may_say_when_to_come_back() -> None:
    http, _ = client(httpx.Response(503, headers={"Retry-After": "30"}))
    with pytest.raises(SourceUnavailable) as raised:
        await fetch(http, "GET", "https://hub/x")
    assert raised.value.retry_after == 30


async def test_429_is_told_at_once() -> None:
    http, seen = client(httpx.Response(429, headers={"RateLimit": '"api";r=0;t=55'}))
    with pytest.raises(RateLimited) as raised:
        await fetch(http, "GET", "https://hub/x")
    assert (raised.value.retry_after, len(seen)) == (55, 1)
    assert "55" not in raised.value.message


async def test_other_refusals_are_answers() -> None:
    http, seen = client(httpx.Response(404))
    assert (await fetch(http, "GET", "https://hub/x")).status == 404
    assert len(seen) == 1


async def test_a_url_that_is_none_is_unavailable() -> None:
    http, _ = client(httpx.Response(200))
    with pytest.raises(SourceUnavailable):
        await fetch(http, "GET", "http://hub:port/")


async def test_redirects_without_end_are_unavailable() -> None:
    http, _ = client(httpx.Response(302, headers={"Location": "https://hub/x"}))
    with pytest.raises(SourceUnavailable):
        await fetch(http, "GET", "https://hub/x")


@pytest.mark.parametrize(
    ("location", "goes_along"),
    [
        ("https://hub/other", True),
        ("/other", True),
        ("https://cdn/other", False),
        ("http://hub/other", False),
        ("https://hub:8443/other", False),
        ("https://hub.evil/other", False),
    ],
)
async def test_a_token_stays_with_its_origin(location: str, goes_along: bool) -> None:
    http, seen = client(httpx.Response(302, headers={"Location": location}), httpx.Response(200))
    await fetch(http, "GET", "https://hub/x", headers={"Authorization": "Bearer t"})
    assert ["authorization" in request.headers for request in seen] == [True, goes_along]


async def test_an_answer_without_end_is_cut_off() -> None:
    async def endless() -> AsyncIterator[bytes]:
        while True:
            yield b"x" * 65536

    http, _ = client(httpx.Response(200, content=endless()))
    with pytest.raises(SourceUnavailable, match="more than 1 MiB"):
        await fetch(http, "GET", "https://hub/x", max_bytes=1 << 20)


async def test_an_answer_that_trickles_is_cut_off(monkeypatch: pytest.MonkeyPatch) -> None:
    async def trickle() -> AsyncIterator[bytes]:
        while True:
            yield b"x"
            await asyncio.sleep(0.01)

    monkeypatch.setattr(fetching, "TOTAL_SECONDS", 0.05)
    http = httpx.AsyncClient(transport=httpx.MockTransport(lambda _: httpx.Response(200, content=trickle())))
    with pytest.raises(SourceUnavailable, match="in time"):
        await fetch(http, "GET", "https://hub/x")


async def test_every_request_has_time_outs_also_if_the_client_has_none() -> None:
    seen: list[httpx.Request] = []

    def answer(request: httpx.Request) -> httpx.Response:
        seen.append(request)
        return httpx.Response(200)

    http = httpx.AsyncClient(transport=httpx.MockTransport(answer), timeout=None)
    await fetch(http, "GET", "https://hub/x")
    assert all(seen[0].extensions["timeout"].values())


@pytest.mark.parametrize("body", [b"<html>", b"\xff", b""])
def test_what_is_not_json_is_unavailable(body: bytes) -> None:
    reply = Reply(200, httpx.Headers(), body, httpx.URL("https://hub/x"))
    with pytest.raises(SourceUnavailable, match="not JSON"):
        reply.json()
    with pytest.raises(SourceUnavailable, match="unexpected form"):
        Reply(200, httpx.Headers(), b"[]", reply.url).json_object()
