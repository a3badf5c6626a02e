"""What the client does with answers that a healthy API server does not give; the rest is in tests/integration."""

import asyncio
from asyncio import selector_events
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Any

import pytest
from aiohttp import web
from kubernetes_asyncio.client import ApiClient, Configuration

from modelswarm.api.meta import JsonObject
from modelswarm.errors import Conflict, Forbidden, Invalid, KubeError, NotFound, Unavailable
from modelswarm.kube.answers import error_for
from modelswarm.kube.client import KubeClient
from modelswarm.kube.kinds import CONFIGMAP, P2PTASK
from modelswarm.metrics import Metrics

OBJECT: JsonObject = {"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "c", "namespace": "ns"}}
TURNS = 40
Answer = Callable[[web.BaseRequest], Awaitable[web.StreamResponse]]


@dataclass
class Server:
    """Gives the scripted answers in turn, then 200 with the object."""

    answers: list[web.Response | Answer] = field(default_factory=list)
    requests: list[web.BaseRequest] = field(default_factory=list)

    async def handle(self, request: web.BaseRequest) -> web.StreamResponse:
        await request.read()
        self.requests.append(request)
        answer = self.answers.pop(0) if self.answers else web.json_response(OBJECT)
        return answer if isinstance(answer, web.Response) else await answer(request)


@asynccontextmanager
async def serving(
    *answers: web.Response | Answer, timeout: float = 10, token: str | None = None
) -> AsyncIterator[tuple[KubeClient, Server, Metrics]]:
    server, metrics = Server(list(answers)), Metrics()
    runner = web.ServerRunner(web.Server(server.handle), shutdown_timeout=0.1)
    await runner.setup()
    site = web.TCPSite(runner, "127.0.0.1", 0)
    await site.start()
    configuration = Configuration()
    configuration.host = f"http://127.0.0.1:{runner.addresses[0][1]}"
    if token:
        configuration.api_key["BearerToken"] = f"Bearer {token}"
    async with ApiClient(configuration) as api_client:
        yield KubeClient(api_client, metrics=metrics, timeout=timeout), server, metrics
    await runner.cleanup()


def failed(status: int, message: str = "why", headers: dict[str, str] | None = None) -> web.Response:
    return web.json_response({"kind": "Status", "message": message}, status=status, headers=headers)


async def drop(request: web.BaseRequest) -> web.StreamResponse:
    assert request.transport is not None
    request.transport.abort()
    return web.Response()


async def hang(request: web.BaseRequest) -> web.StreamResponse:
    await asyncio.sleep(30)
    return web.Response()


CALLS: dict[str, Callable[[KubeClient], Awaitable[object]]] = {
    "get": lambda kube: kube.get(CONFIGMAP, "c", "ns"),
    "list": lambda kube: kube.list(CONFIGMAP),
    "apply": lambda kube: kube.apply(OBJECT),
    "apply_status": lambda kube: kube.apply_status(OBJECT),
    "delete": lambda kube: kube.delete(CONFIGMAP, "c", "ns"),
    "create": lambda kube: kube.create(OBJECT),
    "replace": lambda kube: kube.replace(OBJECT),
    "json_patch": lambda kube: kube.json_patch(CONFIGMAP, "c", "ns", []),
}
REPEATABLE = ("get", "list", "apply", "apply_status", "delete")
NOT_REPEATABLE = ("create", "replace", "json_patch")


@pytest.mark.parametrize(
    ("status", "kind"),
    [
        (400, Invalid),
        (401, Forbidden),
        (403, Forbidden),
        (404, NotFound),
        (405, Invalid),
        (409, Conflict),
        (410, Unavailable),
        (422, Invalid),
        (429, Unavailable),
        (500, Unavailable),
        (503, Unavailable),
        (599, Unavailable),
    ],
)
def test_each_status_is_one_error_with_the_servers_message(status: int, kind: type[KubeError]) -> None:
    error = error_for(status, {}, b'{"kind": "Status", "message": "the server says"}')
    assert type(error) is kind
    assert (error.message, error.status, error.retry_after) == ("the server says", status, None)


@pytest.mark.parametrize("body", [b"", b"<html>bad gateway</html>", b"[1]", b'{"kind": "Pod", "message": "no"}'])
def test_what_is_not_a_status_object_is_not_repeated(body: bytes) -> None:
    assert error_for(502, {}, body).message == "HTTP 502"


@pytest.mark.parametrize(
    ("headers", "body", "seconds"),
    [
        ({"Retry-After": "7"}, b"", 7),
        ({}, b'{"kind": "Status", "details": {"retryAfterSeconds": 3}}', 3),
        ({"Retry-After": "Wed, 21 Oct 2026 07:28:00 GMT"}, b"", None),
        ({"Retry-After": "0"}, b"", None),
    ],
)
def test_retry_after(headers: dict[str, str], body: bytes, seconds: float | None) -> None:
    assert error_for(429, headers, body).retry_after == seconds


@pytest.mark.parametrize("call", REPEATABLE)
@pytest.mark.parametrize("failure", [pytest.param(failed(503), id="503"), pytest.param(drop, id="dropped")])
async def test_what_may_be_repeated_is_tried_again(call: str, failure: web.Response | Answer) -> None:
    if isinstance(failure, web.Response):
        failure = failed(503)
    async with serving(failure) as (kube, server, _):
        await CALLS[call](kube)
        assert len(server.requests) == 2


@pytest.mark.parametrize(
    ("call", "failure", "status"),
    [*((call, "503", 503) for call in NOT_REPEATABLE), ("create", "dropped", 0), ("json_patch", "dropped", 0)],
)
async def test_what_may_not_be_repeated_is_reported_at_once(call: str, failure: str, status: int) -> None:
    """(A PUT whose connection breaks is sent again by aiohttp itself; its resourceVersion makes that harmless.)"""
    async with serving(failed(503) if failure == "503" else drop) as (kube, server, _):
        with pytest.raises(Unavailable) as caught:
            await CALLS[call](kube)
        assert len(server.requests) == 1
        assert caught.value.status == status


@pytest.mark.parametrize("call", CALLS)
async def test_429_was_not_acted_upon_and_is_always_tried_again(call: str) -> None:
    async with serving(failed(429, headers={"Retry-After": "1"})) as (kube, server, _):
        started = asyncio.get_running_loop().time()
        await CALLS[call](kube)
        assert len(server.requests) == 2
        assert asyncio.get_running_loop().time() - started >= 1


async def test_a_long_retry_after_is_left_to_the_queue() -> None:
    async with serving(failed(429, "slow down", headers={"Retry-After": "60"})) as (kube, server, _):
        with pytest.raises(Unavailable, match="slow down") as caught:
            await kube.apply(OBJECT)
        assert caught.value.retry_after == 60
        assert len(server.requests) == 1


async def test_it_gives_up_after_a_few_attempts() -> None:
    async with serving(*[failed(500, "etcd is away") for _ in range(10)]) as (kube, server, metrics):
        with pytest.raises(Unavailable, match="etcd is away"):
            await kube.get(CONFIGMAP, "c", "ns")
        assert len(server.requests) == 4
        labels = {"verb": "get", "kind": "ConfigMap", "code": "500"}
        assert metrics.registry.get_sample_value("modelswarm_api_requests_total", labels) == 4
        assert (
            metrics.registry.get_sample_value("modelswarm_api_retries_total", {"verb": "get", "kind": "ConfigMap"}) == 3
        )


async def test_a_status_replaces_the_whole_of_the_very_object_that_was_meant() -> None:
    meant: JsonObject = {**OBJECT, "metadata": {"name": "c", "namespace": "ns", "uid": "u1"}, "status": {"a": 1}}
    successor = web.json_response({"metadata": {"uid": "u2"}})
    async with serving(web.json_response(OBJECT), failed(422), successor) as (kube, server, _):
        await kube.apply_status(meant)
        assert server.requests[0].path == "/api/v1/namespaces/ns/configmaps/c/status"
        assert await server.requests[0].json() == [
            {"op": "test", "path": "/metadata/uid", "value": "u1"},
            {"op": "add", "path": "/status", "value": {"a": 1}},
        ]
        with pytest.raises(Conflict, match="made anew meanwhile"):
            await kube.apply_status(meant)


@pytest.mark.parametrize("status", [400, 403, 404, 409, 422])
async def test_a_refusal_is_not_tried_again(status: int) -> None:
    async with serving(failed(status)) as (kube, server, _):
        with pytest.raises(KubeError, match="why"):
            await kube.apply(OBJECT)
        assert len(server.requests) == 1


async def test_a_server_that_does_not_answer_is_unavailable_in_time() -> None:
    async with serving(hang, timeout=0.2) as (kube, _, metrics):
        with pytest.raises(Unavailable, match=r"no answer from the API server within 0\.2 s"):
            await kube.get(CONFIGMAP, "c", "ns")
        labels = {"verb": "get", "kind": "ConfigMap", "code": "0"}
        assert metrics.registry.get_sample_value("modelswarm_api_requests_total", labels) == 1


async def test_no_connection_is_unavailable_and_says_nothing_of_address_or_token() -> None:
    configuration = Configuration()
    configuration.host = "http://127.0.0.1:1"
    configuration.api_key["BearerToken"] = "Bearer secret-token"
    async with ApiClient(configuration) as api_client:
        with pytest.raises(Unavailable) as caught:
            await KubeClient(api_client).create(OBJECT)
    assert caught.value.message == "no answer from the API server (ClientConnectorError)"


async def test_the_token_is_sent_and_renewed_and_redirects_are_not_followed() -> None:
    async with serving(
        web.json_response(OBJECT), web.Response(status=302, headers={"Location": "http://elsewhere/"}), token="one"
    ) as (kube, server, _):
        await kube.get(CONFIGMAP, "c", "ns")

        def renew(configuration: Configuration) -> None:
            configuration.api_key["BearerToken"] = "Bearer two"

        kube._configuration.refresh_api_key_hook = renew
        with pytest.raises(Invalid, match="HTTP 302"):
            await kube.get(CONFIGMAP, "c", "ns")
        assert [request.headers["Authorization"] for request in server.requests] == ["Bearer one", "Bearer two"]


async def test_what_is_sent_for_an_apply() -> None:
    async with serving() as (kube, server, _):
        await kube.apply(
            {"apiVersion": "llmaz.io/v1alpha1", "kind": P2PTASK.kind, "metadata": {"name": "t", "namespace": "ns"}}
        )
        await kube.apply(OBJECT, force=False)
        first, second = server.requests
        assert (first.method, first.path) == ("PATCH", "/apis/llmaz.io/v1alpha1/namespaces/ns/p2ptasks/t")
        assert first.query == {"fieldManager": "modelswarm", "force": "true", "fieldValidation": "Ignore"}
        assert first.headers["Content-Type"] == "application/apply-patch+yaml"
        assert "force" not in second.query


async def test_who_may_not_write_still_reads() -> None:
    async with serving() as (kube, server, _):
        leading = [True]
        kube._may_write = lambda: leading[0]
        await kube.apply(OBJECT)
        leading[0] = False
        await kube.get(CONFIGMAP, "c", "ns")
        for call in ("apply", "apply_status", "create", "replace", "json_patch", "delete"):
            with pytest.raises(Unavailable, match="not the leader any more"):
                await CALLS[call](kube)
        assert [request.method for request in server.requests] == ["PATCH", "GET"]


@pytest.mark.parametrize("used", [False, True], ids=["new connection", "used connection"])
async def test_who_loses_the_lease_at_any_turn_of_its_loop_sends_no_write_from_then_on(
    used: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As a process does that was frozen there: what it had not handed to the socket yet stays unsent."""
    leading, sent = [True], []
    write = selector_events._SelectorSocketTransport.write

    def recorded(self: Any, data: bytes) -> None:
        if data.startswith(b"PATCH"):
            sent.append(leading[0])
        write(self, data)

    monkeypatch.setattr(selector_events._SelectorSocketTransport, "write", recorded)
    monkeypatch.setattr("modelswarm.kube.client.RETRY_BASE", 0)
    outcomes = set()
    for turn in range(TURNS):
        async with serving() as (kube, server, _):
            kube._may_write = lambda: leading[0]
            leading[0] = True
            if used:
                await kube.get(CONFIGMAP, "c", "ns")
            call = asyncio.ensure_future(kube.apply(OBJECT))
            for _ in range(turn):
                await asyncio.sleep(0)
            leading[0] = False
            (answer,) = await asyncio.gather(call, return_exceptions=True)
            outcomes.add((len(server.requests) - used, type(answer)))
            if isinstance(answer, Exception):
                assert str(answer).startswith("not the leader any more")
    assert all(sent)
    # The turns cover a request from before its first byte to after its answer.
    assert outcomes == {(0, Unavailable), (1, dict)}


def page(names: str, continue_: str = "", version: str = "9") -> web.Response:
    return web.json_response(
        {
            "metadata": {"resourceVersion": version, "continue": continue_},
            "items": [{"metadata": {"name": name}} for name in names],
        }
    )


async def test_a_list_that_expires_between_two_pages_begins_anew() -> None:
    async with serving(page("ab", "more"), failed(410), page("ab", "more", "12"), page("c", "", "12")) as (
        kube,
        server,
        _,
    ):
        found = await kube.list(CONFIGMAP, "ns", label_selector="a=b")
        assert [obj["metadata"] for obj in found] == [{"name": "a"}, {"name": "b"}, {"name": "c"}]
        assert found.resource_version == "12"
        assert {str(obj["kind"]) for obj in found} == {"ConfigMap"}
        assert [request.query.get("continue") for request in server.requests] == [None, "more", None, "more"]
        assert {request.query["labelSelector"] for request in server.requests} == {"a=b"}


async def test_a_list_that_always_expires_is_unavailable() -> None:
    async with serving(*[page("a", "more") if number % 2 == 0 else failed(410) for number in range(8)]) as (
        kube,
        _,
        _m,
    ):
        with pytest.raises(Unavailable, match="faster than it could be read"):
            await kube.list(CONFIGMAP)
