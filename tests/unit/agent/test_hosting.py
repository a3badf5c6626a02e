"""What a node answers over the metainfo server, and what it asks itself without it."""

import asyncio
import random
from pathlib import Path
from types import SimpleNamespace
from typing import cast

import pytest

from modelswarm.agent.coordinator import Coordinator
from modelswarm.agent.hosting import Hosting, LocalFirst
from modelswarm.agent.metainfo.desk import Desk
from modelswarm.agent.metainfo.signing import Signer, no_secrets
from modelswarm.agent.seeding import Seeding
from modelswarm.agent.segments import plan
from modelswarm.agent.store import Store
from modelswarm.agent.swarm import Counters, Swarm
from modelswarm.errors import NotCoordinator, PeerError
from tests.unit.agent.coordination import MIB, manifest, report

CONTENT = manifest(a_bin=4 * MIB)
CONTENT_ID = CONTENT.digest.removeprefix("sha256:")


def hosting(*seeded: str) -> Hosting:
    counters = Counters(connections=3, torrents=2)
    counters.add("content", uploaded=7, downloaded=5)
    store = SimpleNamespace(manifest=lambda digest: None, blob=lambda key: Path("/blobs") / key)
    return Hosting(
        cast(Store, store),
        cast(Swarm, SimpleNamespace(counters=counters)),
        cast(Seeding, SimpleNamespace(hashes=frozenset(seeded))),
    )


def desk(epoch: int) -> Desk:
    coordinator = Coordinator(CONTENT, plan(CONTENT, 2 * MIB), segment_bytes=2 * MIB, epoch=epoch, now=0.0)
    return Desk(coordinator, holds=lambda: True)


async def test_nothing_is_known_of_the_content() -> None:
    assert await hosting().report(CONTENT_ID, report("a")) is None


@pytest.mark.parametrize("holder", ["http://10.0.0.2:8081", None])
async def test_somebody_else_coordinates_or_nobody(holder: str | None) -> None:
    node = hosting()
    node.manifests[CONTENT_ID] = CONTENT
    if holder is not None:
        node.holders[CONTENT_ID] = holder
    with pytest.raises(NotCoordinator) as caught:
        await node.report(CONTENT_ID, report("a"))
    assert caught.value.holder == holder


async def test_the_latest_desk_answers_and_the_one_before_when_it_is_closed() -> None:
    node, first, second = hosting(), desk(1), desk(2)
    node.open_desk(CONTENT_ID, first)
    node.open_desk(CONTENT_ID, second)
    answers = [await node.report(CONTENT_ID, report("a"))]
    node.close_desk(CONTENT_ID, second)
    answers.append(await node.report(CONTENT_ID, report("a")))
    node.close_desk(CONTENT_ID, first)
    node.close_desk(CONTENT_ID, first)
    assert [answer.epoch for answer in answers if answer is not None] == [2, 1]
    assert await node.report(CONTENT_ID, report("a")) is None


async def test_who_waits_at_a_desk_is_sent_away_when_it_is_closed() -> None:
    node, waiting = hosting(), desk(1)
    node.open_desk(CONTENT_ID, waiting)
    visit = asyncio.create_task(node.report(CONTENT_ID, report("a", epoch=1, wants=0)))
    while not waiting._visits:  # noqa: ASYNC110
        await asyncio.sleep(0)
    node.close_desk(CONTENT_ID, waiting)
    async with asyncio.timeout(5):
        assert await visit is not None


async def test_what_is_forgotten_is_not_known_any_more() -> None:
    node = hosting()
    node.manifests[CONTENT_ID], node.holders[CONTENT_ID] = CONTENT, "http://10.0.0.2:8081"
    assert await node.manifest(CONTENT_ID) is CONTENT
    node.forget(CONTENT_ID)
    assert await node.manifest(CONTENT_ID) is None
    assert await node.report(CONTENT_ID, report("a")) is None


async def test_numbers_and_models() -> None:
    node = hosting("b" * 64)
    node.wanted = {"a" * 64: "", "b" * 64: CONTENT_ID}
    node.sent(100)
    stats = node.stats()
    assert (stats.active_torrents, stats.active_peers) == (2, 3)
    assert (stats.total_bytes_uploaded, stats.total_bytes_downloaded) == (107, 5)
    assert [(model.hash[0], model.seeding) for model in node.models()] == [("a", False), ("b", True)]
    assert await node.blob("sha256-x") == Path("/blobs/sha256-x")


async def test_a_node_asks_itself_without_a_socket_and_others_with_one() -> None:
    node = hosting()
    client = LocalFirst(Signer(no_secrets, lambda: 0.0), rng=random.Random(1))
    client.own_url, client.hosting = "http://127.0.0.1:1", node
    try:
        with pytest.raises(NotCoordinator):
            await client.report("http://127.0.0.1:1", CONTENT_ID, report("a"))
        node.open_desk(CONTENT_ID, desk(5))
        assert (await client.report("http://127.0.0.1:1", CONTENT_ID, report("a"))).epoch == 5
        with pytest.raises(PeerError):
            await client.report("http://127.0.0.1:2", CONTENT_ID, report("a"))
    finally:
        await client.close()
