"""Sessions of whole agents: several of one content, an API server that hangs or refuses, and the time in which the
torrent of a large model is made."""

import asyncio
import errno
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from modelswarm.agent import seeding
from modelswarm.agent.seeding import Seeding
from modelswarm.agent.store import Filling
from modelswarm.agent.swarm import Whole
from modelswarm.agent.troubles import API_SERVER_FORBIDDEN, API_SERVER_UNAVAILABLE
from modelswarm.agent.wanted import Wanted
from modelswarm.api.nodecache import ModelState
from modelswarm.errors import Forbidden
from tests.unit.agent.company import Agent, Company, company_of, hash_of, wanted_of
from tests.unit.agent.store.conftest import MIB, content, noise, tree

pytestmark = pytest.mark.looptime

FILES = {"model.bin": noise("model", 9 * MIB + 123), "other.bin": noise("other", 3 * MIB), "config.json": b"{}"}
MODEL = content(FILES)
OTHER_HASH = "ab" * 32
HASHING_SECONDS = 80.0


def whole(agent: Agent) -> bool:
    return tree(agent.parts.store.directory(hash_of(MODEL))) == FILES


def by_another_name(**changes: Any) -> Wanted:
    """The same content under another key and Lease, as a task and a BaseModel want it."""
    return replace(wanted_of(MODEL), key="model:other", model_hash=OTHER_HASH, **changes)


def all_ready(agent: Agent, count: int) -> bool:
    states = [each.state for each in agent.residents.standings()]
    return states.count(ModelState.READY) == len(states) == count


# Torrents take their time


@pytest.fixture
def _large(monkeypatch: pytest.MonkeyPatch) -> None:
    """To hash the model for its torrent takes as long as for a large one."""
    make = Seeding._make

    async def slowly(self: Seeding, filling: Filling) -> Whole:
        await asyncio.sleep(HASHING_SECONDS)
        return await make(self, filling)

    monkeypatch.setattr(Seeding, "_make", slowly)


@pytest.mark.usefixtures("_large")
@pytest.mark.parametrize("seconds", [0.0, 15.0, 45.0, 79.0, 81.0, 120.0])
async def test_who_comes_while_the_torrent_is_made_gets_it_from_the_others(tmp_path: Path, seconds: float) -> None:
    async with company_of(tmp_path, FILES, MODEL) as company:
        for agent in company.add("a", "b"):
            await agent.start(MODEL)
        await company.until_ready(MODEL)
        await asyncio.sleep(seconds)
        [late] = company.add("c")
        await late.start(MODEL)
        began = asyncio.get_running_loop().time()
        await company.until_ready(MODEL)
        assert whole(late)
        assert company.origin.total == MODEL.bytes
        assert asyncio.get_running_loop().time() - began < 20
        await company.until(lambda: company.lease(MODEL).complete)


@pytest.mark.usefixtures("_large")
async def test_of_all_who_have_it_one_makes_the_torrent(tmp_path: Path) -> None:
    async with company_of(tmp_path, FILES, MODEL) as company:
        agents = company.add("a", "b", "c")
        for agent in agents:
            await agent.start(MODEL)
        await company.until_ready(MODEL)
        await company.until(lambda: company.lease(MODEL).complete)
        complete_at = asyncio.get_running_loop().time()
        await company.until(lambda: all(agent.parts.seeding.hashes for agent in agents))
        assert asyncio.get_running_loop().time() - complete_at < HASHING_SECONDS / 2


@pytest.mark.usefixtures("_large")
async def test_who_has_it_and_was_making_its_torrent_helps_a_coordinator_that_came_meanwhile(tmp_path: Path) -> None:
    """The disk of the first is taken over as it is; the second finds no Lease, and has begun to read the origin."""
    async with company_of(tmp_path, FILES, MODEL) as company:
        first, second = company.add("a", "b")
        await first.start(MODEL, p2p=False)
        await company.until_ready(MODEL, [first])
        await first.stop()
        await first.start()
        await asyncio.sleep(HASHING_SECONDS / 2)
        second.leg.pause = 10.0  # for half a MiB
        await second.start(MODEL)
        await company.until_ready(MODEL)
        assert whole(second)
        assert company.origin.total < 2 * MODEL.bytes - MODEL.bytes / 3


async def test_a_model_whose_torrent_cannot_be_kept_is_ready_all_the_same(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(path: Path, data: bytes) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(seeding, "_write", full)
    async with company_of(tmp_path, FILES, MODEL) as company:
        [agent] = company.add("a")
        await agent.start(MODEL)
        await company.until_ready(MODEL)
        for _ in range(200):
            await asyncio.sleep(1.0)
            assert agent.is_ready(MODEL)
        assert company.lease(MODEL).complete
        assert not agent.parts.seeding.hashes


# One content, several who want it


async def test_one_content_under_two_names_is_fetched_once_and_both_are_ready(tmp_path: Path) -> None:
    async with company_of(tmp_path, FILES, MODEL) as company:
        agents = company.add("a", "b", "c")
        for agent in agents:
            agent.leg.pause = 0.5
            await agent.start()
            agent.want(wanted_of(MODEL), by_another_name())
        await company.until(lambda: all(all_ready(agent, 2) for agent in agents))
        seconds = asyncio.get_running_loop().time()
        assert all(map(whole, agents))
        assert company.origin.total == MODEL.bytes
        assert len(company.reports) < 30 * 3 * seconds
        await company.until(lambda: all(len(agent.parts.seeding.hashes) == 2 for agent in agents))
        assert not any(agent.parts.turns.is_taken(hash_of(MODEL)) for agent in agents)


async def test_when_the_first_of_two_names_goes_the_second_goes_on_with_what_is_there(tmp_path: Path) -> None:
    async with company_of(tmp_path, FILES, MODEL) as company:
        agents = company.add("a", "b")
        for agent in agents:
            agent.leg.pause = 1.0
            await agent.start()
            agent.want(wanted_of(MODEL), by_another_name())
        await company.until(lambda: company.origin.total >= MODEL.bytes / 2)
        [first] = {key for key, each in agents[0].residents.sessions.items() if each.conduct is not None}
        left = by_another_name() if first == MODEL.digest else wanted_of(MODEL)
        for agent in agents:
            agent.want(left)
        await company.until(lambda: all(all_ready(agent, 1) for agent in agents))
        assert all(map(whole, agents))
        assert company.origin.total <= MODEL.bytes + 4 * MIB, "what was being read"


async def test_without_one_of_two_names_it_is_still_served_under_the_other(tmp_path: Path) -> None:
    async with company_of(tmp_path, FILES, MODEL) as company:
        first, late = company.add("a", "b")
        await first.start()
        first.want(wanted_of(MODEL), by_another_name())
        await company.until(lambda: len(first.parts.seeding.hashes) == 2)
        first.want(wanted_of(MODEL))
        await company.until(lambda: first.parts.seeding.hashes == {hash_of(MODEL)})
        await late.start(MODEL)
        await company.until_ready(MODEL, [late], 30)
        assert whole(late)
        assert company.origin.total == MODEL.bytes


async def test_a_content_that_gets_another_hash_is_served_under_that_one(tmp_path: Path) -> None:
    async with company_of(tmp_path, FILES, MODEL) as company:
        first, late = company.add("a", "b")
        await first.start(MODEL)
        await company.until(lambda: first.parts.seeding.hashes == {hash_of(MODEL)})
        renamed = replace(wanted_of(MODEL), model_hash=OTHER_HASH)
        first.want(renamed)
        await company.until(lambda: first.parts.seeding.hashes == {OTHER_HASH}, 30)
        await late.start()
        late.want(renamed)
        await company.until_ready(MODEL, [late], 30)
        assert company.origin.total == MODEL.bytes


async def test_what_a_node_has_under_one_name_it_gives_to_who_wants_it_under_another(tmp_path: Path) -> None:
    """The node that lacks it is first to find out that it is wanted, finds nobody, and coordinates."""
    async with company_of(tmp_path, FILES, MODEL) as company:
        first, second = company.add("a", "b")
        await first.start()
        first.want(by_another_name())
        await company.until(lambda: first.parts.seeding.hashes == {OTHER_HASH})
        second.leg.pause = 30.0  # for half a MiB
        await second.start(MODEL)
        await asyncio.sleep(2.0)
        first.want(by_another_name(), wanted_of(MODEL))
        await company.until_ready(MODEL, [second])
        assert whole(second)
        assert company.origin.total < 2 * MODEL.bytes - MODEL.bytes / 2
        await company.until(lambda: company.lease(MODEL).complete)


# The mark on the Lease


@pytest.mark.usefixtures("_large")
@pytest.mark.parametrize("count", [1, 3])
@pytest.mark.parametrize("how", ["stop", "kill"])
async def test_a_coordinator_that_ends_while_it_makes_the_torrent_costs_nothing_and_the_mark_is_set(
    tmp_path: Path, how: str, count: int
) -> None:
    async with company_of(tmp_path, FILES, MODEL) as company:
        agents = company.add(*"abc"[:count])
        for agent in agents:
            await agent.start(MODEL)
        await company.until_ready(MODEL)
        await asyncio.sleep(HASHING_SECONDS / 4)
        ended = company.agents[company.lease(MODEL).holder]
        assert not company.lease(MODEL).complete
        await (ended.stop() if how == "stop" else ended.kill())
        if count == 1:
            await ended.start()
        [late] = company.add("late")
        await late.start(MODEL)
        await company.until_ready(MODEL, [late])
        await company.until(lambda: company.lease(MODEL).complete)
        assert company.origin.total <= MODEL.bytes * (1 if count > 1 else 2)


async def test_members_go_when_they_are_told_so_and_need_not_ask_for_the_mark(tmp_path: Path) -> None:
    async with company_of(tmp_path, FILES, MODEL) as company:
        agents = company.add("a", "b", "c")
        for agent in agents:
            await agent.start(MODEL)
        await company.until_ready(MODEL)
        for agent in agents:
            agent.api = lambda verb: 8.0 if verb == "replace" else None  # the mark takes its time
        before = len(company.server.requests)
        await company.until(lambda: company.lease(MODEL).complete)
        assert len(company.server.requests) - before < 15


# The API server


async def test_an_api_server_that_hangs_stops_nothing_that_is_under_way(tmp_path: Path) -> None:
    """As one whose machine is gone: packets are lost, and nobody refuses a connection."""
    async with company_of(tmp_path, FILES, MODEL) as company:
        agents = company.add("a", "b")
        for agent in agents:
            agent.leg.pause = 5.0
            await agent.start(MODEL)
        await company.until(lambda: company.origin.total >= MODEL.bytes / 4)
        for agent in agents:
            agent.api = lambda verb: 3600.0
        while not all(agent.is_ready(MODEL) for agent in agents):
            await asyncio.sleep(1.0)
            assert all(agent.standing(MODEL).state is not ModelState.FAILED for agent in agents)
        assert company.origin.total == MODEL.bytes


async def test_an_api_server_that_hangs_is_named(tmp_path: Path) -> None:
    async with company_of(tmp_path, FILES, MODEL) as company:
        [agent] = company.add("a")
        await agent.start(MODEL)
        agent.api = lambda verb: 3600.0 if verb != "get" else None
        await company.until(lambda: agent.standing(MODEL).reason == API_SERVER_UNAVAILABLE)
        agent.api = lambda verb: None
        await company.until_ready(MODEL)


async def test_a_lease_that_may_not_be_written_is_said_and_not_tried_all_the_time(tmp_path: Path) -> None:
    async with company_of(tmp_path, FILES, MODEL) as company:
        [agent] = company.add("a")
        agent.api = lambda verb: None if verb == "get" else Forbidden("leases is forbidden", status=403)
        await agent.start(MODEL)
        await company.until(lambda: agent.standing(MODEL).reason == API_SERVER_FORBIDDEN)
        before = len(company.server.requests)
        await asyncio.sleep(100)
        assert agent.standing(MODEL).reason == API_SERVER_FORBIDDEN
        assert len(company.server.requests) - before <= 2 * 100, "two in two seconds"
        agent.api = lambda verb: None
        await company.until_ready(MODEL)
        assert agent.standing(MODEL).reason is None


# Coordinators that go


@pytest.mark.usefixtures("_large")
async def test_who_has_everything_stays_until_somebody_follows_a_coordinator_that_was_asked_to_stop(
    tmp_path: Path,
) -> None:
    async with company_of(tmp_path, FILES, MODEL) as company:
        agents = await _two_complete_and_one_not(company)
        coordinator = company.agents[company.lease(MODEL).holder]
        [other] = [agent for agent in agents[:2] if agent is not coordinator]
        late = agents[2]
        late.api = lambda verb: 5.0  # so the one that has everything is the first to see that the Lease is free
        await coordinator.stop()
        company.air.pause = 0.0
        await company.until_ready(MODEL, [other, late])
        assert whole(late)
        assert company.origin.total == MODEL.bytes
        await company.until(lambda: company.lease(MODEL).complete)


async def _two_complete_and_one_not(company: Company) -> list[Agent]:
    first, second, late = company.add("a", "b", "c")
    late.leg.open.clear()
    for agent in (first, second):
        await agent.start(MODEL)
    await company.until_ready(MODEL, [first, second])
    company.air.pause = 5.0
    await late.start(MODEL)
    await company.until(lambda: late.standing(MODEL).peer_bytes > 0)
    late.leg.open.set()
    assert not company.lease(MODEL).complete
    assert not late.is_ready(MODEL)
    return [first, second, late]
