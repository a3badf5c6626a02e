"""The manager's client: what it sends again and what it never does, and what it makes of odd answers."""

import asyncio
from collections.abc import Callable
from datetime import UTC, datetime, timedelta

import httpx
import pytest

from modelswarm.backends.dragonfly.answers import classify, error_text, shown
from modelswarm.backends.dragonfly.client import ManagerClient
from modelswarm.backends.dragonfly.reasons import DragonflyError, DragonflyReason, OutcomeUnknown
from modelswarm.backends.dragonfly.requests import SECOND, Preheat, PreheatArgs
from tests.unit.backends.fake_manager import TOKEN, URL, FakeManager

pytestmark = pytest.mark.looptime
NOW = datetime(2026, 6, 1, tzinfo=UTC)
REQUEST = Preheat(
    bio="x", scheduler_cluster_ids=(1,), args=PreheatArgs(type="file", urls=("https://hub/f",), timeout=60 * SECOND)
)
Handler = Callable[[httpx.Request], httpx.Response]


class Counting:
    def __init__(self, handler: Handler) -> None:
        self.requests: list[httpx.Request] = []
        self._handler = handler

    def __call__(self, request: httpx.Request) -> httpx.Response:
        self.requests.append(request)
        return self._handler(request)


def client_of(handler: Handler, *, tokens: list[str] | None = None, rest: float = 0) -> ManagerClient:
    left = tokens or [TOKEN]

    async def token() -> str:
        return left.pop(0) if len(left) > 1 else left[0]

    http = httpx.AsyncClient(transport=httpx.MockTransport(handler), follow_redirects=True)
    return ManagerClient(http, f"{URL}/", token, rest_seconds=rest)


def failing(error: type[httpx.TransportError]) -> Handler:
    def handler(request: httpx.Request) -> httpx.Response:
        raise error("planted", request=request)

    return handler


@pytest.mark.parametrize("error", [httpx.ReadTimeout, httpx.ReadError, httpx.RemoteProtocolError, httpx.WriteError])
async def test_a_post_whose_answer_is_lost_is_not_sent_again(error: type[httpx.TransportError]) -> None:
    handler = Counting(failing(error))
    with pytest.raises(OutcomeUnknown) as raised:
        await client_of(handler).submit(REQUEST)
    assert raised.value.reason == DragonflyReason.MANAGER_UNREACHABLE
    assert len(handler.requests) == 1


async def test_a_gateways_error_leaves_it_open_whether_there_is_a_job() -> None:
    handler = Counting(lambda request: httpx.Response(504))
    with pytest.raises(OutcomeUnknown):
        await client_of(handler).submit(REQUEST)
    assert len(handler.requests) == 1


async def test_a_post_that_did_not_arrive_is_sent_again() -> None:
    handler = Counting(failing(httpx.ConnectError))
    with pytest.raises(DragonflyError) as raised:
        await client_of(handler).submit(REQUEST)
    assert not isinstance(raised.value, OutcomeUnknown)
    assert len(handler.requests) == 3


@pytest.mark.parametrize("error", [httpx.ConnectError, httpx.ReadTimeout, httpx.RemoteProtocolError])
async def test_reading_is_tried_three_times(error: type[httpx.TransportError]) -> None:
    handler = Counting(failing(error))
    with pytest.raises(DragonflyError, match="Dragonfly manager"):
        await client_of(handler).job(1)
    assert len(handler.requests) == 3


async def test_redirects_are_never_followed() -> None:
    handler = Counting(lambda request: httpx.Response(301, headers={"Location": "https://elsewhere/"}))
    with pytest.raises(DragonflyError, match="check the manager's URL") as raised:
        await client_of(handler).job(1)
    assert raised.value.reason == DragonflyReason.MANAGER_UNREACHABLE
    assert [str(request.url) for request in handler.requests] == [f"{URL}/oapi/v1/jobs/1"]


async def test_a_refused_token_is_read_again_once_and_only_used_if_it_is_another() -> None:
    refuse = Counting(lambda request: httpx.Response(401, json={"message": "Unauthorized"}))
    with pytest.raises(DragonflyError) as raised:
        await client_of(refuse, tokens=["a", "a"]).job(1)
    assert raised.value.reason == DragonflyReason.UNAUTHORIZED
    assert len(refuse.requests) == 1
    refuse.requests.clear()
    with pytest.raises(DragonflyError):
        await client_of(refuse, tokens=["a", "b"]).job(1)
    assert [request.headers["Authorization"] for request in refuse.requests] == ["Bearer a", "Bearer b"]


async def test_a_manager_that_does_not_answer_is_left_alone_for_a_while() -> None:
    handler = Counting(failing(httpx.ConnectError))
    client = client_of(handler, rest=10)
    for _ in range(50):
        with pytest.raises(DragonflyError, match="cannot be reached"):
            await client.job(1)
    assert len(handler.requests) == 3
    await asyncio.sleep(11)
    with pytest.raises(DragonflyError):
        await client.job(1)
    assert len(handler.requests) == 6


async def test_the_list_is_read_to_its_end_or_to_where_ours_cannot_be_any_more() -> None:
    now = NOW
    manager = FakeManager(lambda: now)
    client = client_of(manager)
    for _ in range(250):
        await client.submit(REQUEST)
        now += timedelta(seconds=1)
    assert len(await client.preheats(since=NOW)) == 250
    before = len(manager.requests)
    assert len(await client.preheats(since=now - timedelta(seconds=20))) == 20
    assert len(manager.requests) - before == 1


async def test_an_answer_with_nulls_and_unknown_fields_is_read() -> None:
    body = {
        "id": 7,
        "created_at": "2026-06-01T00:00:00.123456789+08:00",
        "updated_at": "2026-06-01T00:00:30Z",
        "state": "SUCCESS",
        "args": None,
        "new": 1,
        "result": {"state": "SUCCESS", "job_states": [{"results": [{"success_tasks": None, "failure_tasks": None}]}]},
    }
    job = await client_of(lambda request: httpx.Response(200, json=body)).job(7)
    assert job is not None
    assert job.is_over
    assert job.clusters[0].success_tasks == []


async def test_what_is_sent_and_kept_does_not_show_credentials() -> None:
    args = PreheatArgs(
        type="file", timeout=1, headers={"Authorization": "Bearer planted"}, username="u", password="planted"
    )
    assert "planted" not in repr(args)
    body = {"id": 1, "created_at": "2026-06-01T00:00:00Z", "updated_at": "2026-06-01T00:00:00Z"}
    job = await client_of(lambda r: httpx.Response(200, json={**body, "args": {"headers": {"a": "planted"}}})).job(1)
    assert "planted" not in repr(job)
    assert job is not None
    assert job.carries_credentials


@pytest.mark.parametrize(
    ("body", "expected"),
    [
        (b'{"errors":"bad"}{"errors":"again"}', "bad"),
        (b'{"message":"record not found"}', "record not found"),
        (b"rate limit exceeded", "rate limit exceeded"),
        (b"<html><body>", ""),
        (b"", ""),
        (b'"text"', '"text"'),
    ],
)
def test_error_bodies_are_read_leniently(body: bytes, expected: str) -> None:
    assert error_text(body) == expected


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        (
            "all peers preheat failed: group_6f9619ff-8b86-d011-b42d-00cf4fc964ff "
            "task_6f9619ff-8b86-d011-b42d-00cf4fc964ff 10.0.0.3 seed-404 "
            "task 06408fbf247ddaca478f8cb9565fe5591c28efd0994b8fea80a6a87d3203c5ca failed: "
            "rpc error: code = Internal desc = 403 Forbidden https://cdn/x?Signature=planted",
            "rpc error: code = Internal desc = 403 Forbidden https://cdn/x?…",
        ),
        ("token Bearer abc.def was refused", "token … was refused"),
        ("a\n b", "a b"),
    ],
)
def test_what_is_shown_has_no_secrets_and_nothing_that_varies(text: str, expected: str) -> None:
    assert shown(text) == expected
    assert shown(expected) == expected


def test_the_host_that_failed_is_not_taken_for_the_reason() -> None:
    assert classify("… 10.0.0.3 seed-404 task x failed: rpc error: 403 Forbidden") == DragonflyReason.SOURCE_DENIED
    assert classify("no error message") is None
