"""A watch as it comes over the wire: chunks that know nothing of lines, errors in the stream, nonsense, silence."""

import asyncio
import json
from collections.abc import AsyncGenerator, AsyncIterator
from contextlib import aclosing
from typing import Any

import pytest
from aiohttp import web
from hypothesis import given
from hypothesis import strategies as st

from modelswarm.errors import Forbidden, KubeError, Unavailable
from modelswarm.kube import client, stream
from modelswarm.kube.client import KubeClient
from modelswarm.kube.kinds import CONFIGMAP, POD
from modelswarm.kube.port import Change, WatchEvent
from modelswarm.kube.stream import events
from tests.unit.kube.test_client import Answer, failed, serving


def line(change: str, **obj: Any) -> bytes:
    return json.dumps({"type": change, "object": obj}).encode() + b"\n"


def added(name: str, **more: Any) -> bytes:
    return line("ADDED", metadata={"name": name, "resourceVersion": "7"}, **more)


async def chunked(*chunks: bytes) -> AsyncIterator[bytes]:
    for chunk in chunks:
        yield chunk


async def read(*chunks: bytes) -> list[WatchEvent]:
    return [event async for event in events(chunked(*chunks), CONFIGMAP)]


def names(found: list[WatchEvent]) -> list[str]:
    return [event.object["metadata"]["name"] for event in found]  # type: ignore[index,call-overload,misc]


async def test_events_know_their_kind() -> None:
    [event] = await read(added("a", kind="PartialObjectMetadata", apiVersion="meta.k8s.io/v1"))
    assert event.change is Change.ADDED
    assert (event.object["kind"], event.object["apiVersion"]) == ("ConfigMap", "v1")


@given(st.lists(st.integers(1, 400), max_size=40))
def test_lines_may_be_cut_anywhere(sizes: list[int]) -> None:
    wire = b"".join(added(f"n{number}", data={"x": "y" * number}) for number in range(20))
    chunks, at = [], 0
    for size in sizes:
        chunks.append(wire[at : at + size])
        at += size
    chunks.append(wire[at:])
    assert names(asyncio.run(read(*chunks))) == [f"n{number}" for number in range(20)]


async def test_what_is_not_a_whole_line_at_the_end_is_dropped() -> None:
    """The connection broke in the middle of it; it comes again with the next watch."""
    assert names(await read(added("a"), added("b")[:-10])) == ["a"]
    assert names(await read(added("a"), b"\n\n", added("b"))) == ["a", "b"]


@pytest.mark.parametrize(
    ("code", "kind"),
    [
        pytest.param(410, Unavailable, id="too old"),
        pytest.param(403, Forbidden, id="not allowed any more"),
        pytest.param(500, Unavailable, id="a failure of the server"),
    ],
)
async def test_an_error_in_the_stream_is_the_error_that_it_says(code: int, kind: type[KubeError]) -> None:
    with pytest.raises(kind, match="why") as caught:
        await read(line("ERROR", kind="Status", code=code, message="why"))
    assert caught.value.status == code


@pytest.mark.parametrize(
    "wire",
    [
        pytest.param(b"<html>\n", id="no JSON"),
        pytest.param(b"[1]\n", id="no object"),
        pytest.param(b'{"type": "ADDED"}\n', id="nothing in it"),
        pytest.param(b'{"type": "ADDED", "object": 1}\n', id="something else in it"),
        pytest.param(line("SUPPRESSED", metadata={}), id="an unknown change"),
        pytest.param(b"null\n", id="null"),
    ],
)
async def test_nonsense_ends_the_watch(wire: bytes) -> None:
    with pytest.raises(Unavailable, match="nonsense"):
        await read(wire)


async def test_a_line_without_end_is_not_collected_for_ever(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(stream, "LONGEST_LINE", 1000)
    with pytest.raises(Unavailable, match="longer than any object"):
        await read(*[b"x" * 100] * 20)


# Over HTTP


def streaming(*chunks: bytes, hang: bool = False) -> Answer:
    async def answer(request: web.BaseRequest) -> web.StreamResponse:
        response = web.StreamResponse()
        await response.prepare(request)
        for chunk in chunks:
            await response.write(chunk)
        if hang:
            await asyncio.sleep(30)
        return response

    return answer


def watching(kube: KubeClient, **options: Any) -> AsyncGenerator[WatchEvent, None]:
    return kube.watch(CONFIGMAP, "ns", resource_version="5", **options)


async def test_what_is_asked_for() -> None:
    async with serving(streaming(added("a"))) as (kube, server, metrics):
        watch = kube.watch(POD, resource_version="5", field_selector="spec.nodeName=n", metadata_only=True, seconds=9)
        assert names([event async for event in watch]) == ["a"]
        [request] = server.requests
        assert request.path == "/api/v1/pods"
        assert dict(request.query) == {
            "watch": "1",
            "resourceVersion": "5",
            "allowWatchBookmarks": "true",
            "timeoutSeconds": "9",
            "fieldSelector": "spec.nodeName=n",
        }
        assert "as=PartialObjectMetadata;" in request.headers["Accept"]
        assert metrics.registry.get_sample_value(
            "modelswarm_api_requests_total", {"verb": "watch", "kind": "Pod", "code": "200"}
        )


async def test_a_large_object_in_one_line() -> None:
    async with serving(streaming(added("large", data={"x": "y" * 3_000_000}))) as (kube, _, _):
        assert names([event async for event in watching(kube)]) == ["large"]


async def test_a_refusal_is_not_tried_again_here() -> None:
    """Whoever follows the kind decides whether to list anew."""
    async with serving(failed(410)) as (kube, server, _):
        with pytest.raises(Unavailable) as caught:
            async for _ in watching(kube):
                pass
        assert (caught.value.status, len(server.requests)) == (410, 1)


async def test_a_connection_that_breaks() -> None:
    async def drop(request: web.BaseRequest) -> web.StreamResponse:
        response = web.StreamResponse()
        await response.prepare(request)
        await response.write(added("a"))
        assert request.transport is not None
        request.transport.abort()
        return response

    async with serving(drop) as (kube, _, _):
        watch = watching(kube)
        assert names([await anext(watch)]) == ["a"]
        with pytest.raises(Unavailable, match="broke off"):
            await anext(watch)


async def test_silence_is_a_dead_connection(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(client, "SILENCE", 0.2)
    async with serving(streaming(added("a"), hang=True)) as (kube, _, _):
        with pytest.raises(Unavailable, match="broke off"):
            async for _ in watching(kube):
                pass


async def test_a_watch_can_be_closed_at_any_time() -> None:
    async with serving(streaming(added("a"), hang=True)) as (kube, _, _):
        async with aclosing(watching(kube)) as watch:
            assert names([await anext(watch)]) == ["a"]
        assert (await kube.get(CONFIGMAP, "c", "ns"))["kind"] == "ConfigMap"
