"""The local picture follows the server through gaps, failures, forgotten history and kinds that come and go."""

import asyncio
import random
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager

import pytest

from modelswarm.api.meta import JsonObject
from modelswarm.errors import Forbidden, Unavailable
from modelswarm.kube.informer import Informer, wait_synced
from modelswarm.kube.key import Key
from modelswarm.kube.kinds import CONFIGMAP
from modelswarm.kube.objects import metadata
from tests.unit.kube.fake import FakeServer, Interruption

pytestmark = pytest.mark.looptime


def config_map(name: str, value: str = "1") -> JsonObject:
    return {
        "apiVersion": "v1",
        "kind": "ConfigMap",
        "metadata": {"name": name, "namespace": "ns", "managedFields": [{"manager": "x"}]},
        "data": {"value": value},
    }


class Told:
    """What the listener heard, as ``+name``, ``~name`` and ``-name``."""

    def __init__(self) -> None:
        self.news: list[str] = []

    def __call__(self, key: Key, before: JsonObject | None, after: JsonObject | None) -> None:
        assert before is not None or after is not None
        self.news.append(f"{'+' if before is None else '-' if after is None else '~'}{key.name}")


@asynccontextmanager
async def following(
    server: FakeServer, interruption: Interruption = lambda verb: None
) -> AsyncIterator[tuple[Informer, Told]]:
    told = Told()
    informer = Informer(server.client(interruption), CONFIGMAP, "ns", on_change=told, rng=random.Random(1))
    task = asyncio.create_task(informer.run())
    try:
        yield informer, told
    finally:
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)


async def until(holds: Callable[[], object], seconds: float = 300.0) -> None:
    """In simulated time."""
    async with asyncio.timeout(seconds):
        while not holds():  # noqa: ASYNC110 - the loop is what simulated time needs
            await asyncio.sleep(0.01)


def values(informer: Informer) -> dict[str, object]:
    return {key.name: obj["data"]["value"] for key, obj in informer.objects.items()}  # type: ignore[index,call-overload]


async def test_what_is_there_and_what_happens() -> None:
    server = FakeServer()
    server.store(config_map("a"))
    async with following(server) as (informer, told):
        assert await wait_synced(informer, seconds=10)
        await until(lambda: server.watchers)
        server.store(config_map("b"))
        server.store(config_map("a", "2"))
        server.remove(CONFIGMAP, "b", "ns")
        await until(lambda: len(told.news) == 4)
        assert told.news == ["+a", "+b", "~a", "-b"]
        assert values(informer) == {"a": "2"}
        assert "managedFields" not in metadata(informer.objects[Key("ns", "a")])


async def test_a_watch_that_ends_goes_on_where_it_was() -> None:
    server = FakeServer()
    async with following(server) as (informer, told):
        await until(lambda: server.watchers)
        await asyncio.sleep(60)
        server.break_watches()
        server.store(config_map("meanwhile"))
        await until(lambda: told.news)
        assert values(informer) == {"meanwhile": "1"}
        assert server.requests.count("list") == 1


async def test_the_version_moves_with_bookmarks() -> None:
    """So that a kind in which little happens does not have to be listed again."""
    server = FakeServer()
    async with following(server) as (_, told):
        await until(lambda: server.watchers)
        server.bookmark(CONFIGMAP)
        await asyncio.sleep(1)
        server.forget_history()
        server.break_watches()
        await until(lambda: server.requests.count("watch") == 2)
        server.store(config_map("a"))
        await until(lambda: told.news == ["+a"])
        assert server.requests.count("list") == 1


async def test_a_deletion_in_a_gap_is_seen_by_the_next_list() -> None:
    server = FakeServer()
    for name in ("stays", "goes", "changes"):
        server.store(config_map(name))
    async with following(server) as (informer, told):
        await until(lambda: server.watchers)
        told.news.clear()
        server.break_watches(Unavailable("restart"))
        server.remove(CONFIGMAP, "goes", "ns")
        server.store(config_map("changes", "2"))
        server.store(config_map("comes"))
        server.forget_history()
        await until(lambda: len(told.news) == 3)
        assert sorted(told.news) == ["+comes", "-goes", "~changes"]
        assert values(informer) == {"stays": "1", "changes": "2", "comes": "1"}
        assert server.requests.count("list") == 2


async def test_a_kind_that_does_not_exist_has_no_objects_and_may_come() -> None:
    server = FakeServer()
    server.absent.add(CONFIGMAP)
    async with following(server) as (informer, told):
        assert await wait_synced(informer, seconds=10)
        assert (informer.exists, dict(informer.objects)) == (False, {})
        await asyncio.sleep(300)
        asked = len(server.requests)
        assert asked <= 14
        server.absent.clear()
        server.store(config_map("a"))
        await until(lambda: told.news == ["+a"])
        assert informer.exists


async def test_a_kind_that_goes_takes_its_objects_along() -> None:
    server = FakeServer()
    server.store(config_map("a"))
    async with following(server) as (informer, told):
        await until(lambda: server.watchers)
        server.absent.add(CONFIGMAP)
        server.break_watches()
        await until(lambda: told.news == ["+a", "-a"])
        assert informer.exists is False


async def test_a_server_that_is_away_is_asked_more_and_more_slowly(caplog: pytest.LogCaptureFixture) -> None:
    away = True
    server = FakeServer()
    server.store(config_map("a"))
    async with following(server, lambda verb: Unavailable("no answer") if away else None) as (informer, told):
        await asyncio.sleep(600)
        assert not informer.synced.is_set()
        assert 20 <= len(server.requests) <= 60
        away = False
        await until(lambda: told.news == ["+a"], 40)
    assert [record.message for record in caplog.records].count("cannot follow configmaps: no answer; trying again") == 1


async def test_what_is_known_stays_known_while_the_server_is_away() -> None:
    away = False
    server = FakeServer()
    server.store(config_map("a"))
    async with following(server, lambda verb: Unavailable("no answer") if away else None) as (informer, told):
        await until(lambda: server.watchers)
        away = True
        server.break_watches(Unavailable("reset"))
        await asyncio.sleep(600)
        assert values(informer) == {"a": "1"}
        assert told.news == ["+a"]


async def test_no_right_is_an_error_that_is_told_once(caplog: pytest.LogCaptureFixture) -> None:
    server = FakeServer()
    async with following(server, lambda verb: Forbidden("may not list configmaps", status=403)) as (informer, _):
        await asyncio.sleep(120)
        assert not informer.synced.is_set()
    errors = [record.message for record in caplog.records if record.levelname == "ERROR"]
    assert errors == ["cannot follow configmaps: may not list configmaps; trying again"]


async def test_watches_that_end_at_once_do_not_become_a_busy_loop() -> None:
    server = FakeServer()

    async with following(server) as (informer, _):
        assert await wait_synced(informer, seconds=10)
        for _ in range(6000):
            server.break_watches()
            await asyncio.sleep(0.01)
        assert server.requests.count("watch") < 20


async def test_a_version_that_the_server_does_not_know_is_given_up_after_a_few_failures() -> None:
    """A restored API server answers neither 410 nor anything else that helps."""
    server = FakeServer()
    failing = 0

    def interrupt(verb: str) -> Exception | None:
        nonlocal failing
        if verb == "watch" and failing:
            failing -= 1
            return Unavailable("too large resource version", status=504)
        return None

    async with following(server, interrupt) as (_, told):
        await until(lambda: server.watchers)
        failing = 4
        server.break_watches()
        server.store(config_map("a"))
        await until(lambda: told.news == ["+a"])
        assert server.requests.count("list") == 2


async def test_a_listener_that_fails_does_not_stop_the_watch(caplog: pytest.LogCaptureFixture) -> None:
    server = FakeServer()

    def listener(key: Key, before: JsonObject | None, after: JsonObject | None) -> None:
        raise RuntimeError("bug")

    informer = Informer(server.client(), CONFIGMAP, on_change=listener)
    task = asyncio.create_task(informer.run())
    await until(lambda: server.watchers)
    server.store(config_map("a"))
    server.store(config_map("b"))
    await until(lambda: len(informer.objects) == 2)
    task.cancel()
    await asyncio.gather(task, return_exceptions=True)
    assert "a listener of configmaps failed for ns/a" in caplog.text
