"""Kubernetes Events: told once, never in the way."""

import asyncio
import logging
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import pytest

from modelswarm.api.meta import JsonObject
from modelswarm.api.openmodel import OpenModel
from modelswarm.errors import Forbidden
from modelswarm.kube.events import LONGEST_NOTE, QUEUE_SIZE, EventRecorder
from modelswarm.kube.kinds import EVENT, PLAYGROUND
from modelswarm.metrics import Metrics
from tests.unit.kube.fake import FakeKube, FakeServer

pytestmark = pytest.mark.looptime

THING: JsonObject = {
    "apiVersion": PLAYGROUND.api_version,
    "kind": "Playground",
    "metadata": {"name": "pl", "namespace": "ns", "uid": "u-1", "resourceVersion": "7"},
}


def recorder(kube: FakeKube, metrics: Metrics | None = None) -> EventRecorder:
    return EventRecorder(
        kube,
        instance="pod-1",
        metrics=metrics,
        clock=lambda: 1_800_000_000 + asyncio.get_running_loop().time(),
    )


@asynccontextmanager
async def running(events: EventRecorder) -> AsyncIterator[EventRecorder]:
    task = asyncio.create_task(events.run())
    try:
        yield events
    finally:
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)


def written(server: FakeServer) -> list[JsonObject]:
    return [obj for (kind, _), obj in server.objects.items() if kind == EVENT]


async def test_an_event_says_what_the_api_wants_to_know() -> None:
    server = FakeServer()
    async with running(recorder(server.client())) as events:
        events.emit(THING, "Warning", "NameClash", "Deployment ns/pl belongs to somebody else")
        assert await events.drain()
    (event,) = written(server)
    metadata = event.pop("metadata")
    assert isinstance(metadata, dict)
    assert metadata["namespace"] == "ns"
    assert str(metadata["name"]).startswith("pl.")
    assert event == {
        "apiVersion": "events.k8s.io/v1",
        "kind": "Event",
        "eventTime": "2027-01-15T08:00:00.000000Z",
        "reportingController": "modelswarm",
        "reportingInstance": "pod-1",
        "action": "Reconcile",
        "reason": "NameClash",
        "type": "Warning",
        "note": "Deployment ns/pl belongs to somebody else",
        "regarding": {
            "apiVersion": "inference.llmaz.io/v1alpha1",
            "kind": "Playground",
            "name": "pl",
            "namespace": "ns",
            "uid": "u-1",
            "resourceVersion": "7",
        },
    }


async def test_news_is_logged_once_with_its_reason(caplog: pytest.LogCaptureFixture) -> None:
    events = recorder(FakeServer().client())
    with caplog.at_level(logging.INFO):
        for _ in range(2):
            events.emit(THING, "Warning", "NameClash", "Deployment ns/pl belongs to somebody else")
        events.emit(THING, "Normal", "PlaygroundReady", "All pods are ready")
    assert {(vars(record)["controller"], vars(record)["object"]) for record in caplog.records} == {
        ("playground", "ns/pl")
    }
    assert [(record.levelname, vars(record)["reason"], record.getMessage()) for record in caplog.records] == [
        ("WARNING", "NameClash", "Playground ns/pl: NameClash: Deployment ns/pl belongs to somebody else"),
        ("INFO", "PlaygroundReady", "Playground ns/pl: PlaygroundReady: All pods are ready"),
    ]


async def test_an_event_about_a_cluster_scoped_object_lives_in_default() -> None:
    server = FakeServer()
    model = OpenModel.model_validate(
        {
            "metadata": {"name": "m", "uid": "u-2"},
            "spec": {"familyName": "f", "source": {"modelHub": {"modelID": "a/b"}}},
        }
    )
    async with running(recorder(server.client())) as events:
        events.emit(model, "Normal", "Ready", "there")
        await events.drain()
    (event,) = written(server)
    assert isinstance(event["metadata"], dict)
    assert event["metadata"]["namespace"] == "default"
    assert event["regarding"] == {"apiVersion": "llmaz.io/v1alpha1", "kind": "OpenModel", "name": "m", "uid": "u-2"}


async def test_the_same_news_is_told_once_in_ten_minutes_by_all_operators_together() -> None:
    server = FakeServer()
    for _restart in range(2):
        async with running(recorder(server.client())) as events:
            for _ in range(3):
                events.emit(THING, "Normal", "Ready", "there")
                events.emit(THING, "Normal", "Ready", "there again")
            await events.drain()
    assert len(written(server)) == 2
    await asyncio.sleep(601)
    async with running(recorder(server.client())) as events:
        events.emit(THING, "Normal", "Ready", "there")
        await events.drain()
    assert len(written(server)) == 3


async def test_what_is_refused_is_counted_and_may_be_told_again() -> None:
    server, metrics = FakeServer(), Metrics()
    kube = server.client(lambda verb: Forbidden("namespace is being terminated", status=403))
    async with running(recorder(kube, metrics)) as events:
        events.emit(THING, "Normal", "Ready", "there")
        await events.drain()
        assert not written(server)
        assert metrics.registry.get_sample_value("modelswarm_events_dropped_total", {"cause": "Forbidden"}) == 1
        kube.interruption = lambda verb: None
        events.emit(THING, "Normal", "Ready", "there")
        await events.drain()
    assert len(written(server)) == 1


async def test_emit_never_waits_even_if_nobody_writes() -> None:
    server, metrics = FakeServer(), Metrics()
    events = recorder(server.client(), metrics)
    for number in range(QUEUE_SIZE + 5):
        events.emit(THING, "Normal", "Ready", str(number))
    assert metrics.registry.get_sample_value("modelswarm_events_dropped_total", {"cause": "queue_full"}) == 5
    assert not await events.drain(seconds=1)


async def test_notes_are_cut_where_the_api_wants_it_and_names_stay_valid() -> None:
    server = FakeServer()
    long: JsonObject = {**THING, "metadata": {"name": "n" * 235 + "." + "x" * 17, "namespace": "ns", "uid": "u"}}
    async with running(recorder(server.client())) as events:
        events.emit(long, "Normal", "Ready", "ü" * 2000)
        await events.drain()
    (event,) = written(server)
    assert len(str(event["note"]).encode()) <= LONGEST_NOTE
    assert isinstance(event["metadata"], dict)
    name = str(event["metadata"]["name"])
    assert len(name) <= 253
    assert ".." not in name
