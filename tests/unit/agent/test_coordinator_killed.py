"""The coordinator is killed half-way: little is lost that it alone had, and whoever lives keeps its own."""

import asyncio
from pathlib import Path

import pytest

from modelswarm.agent.coordinator import SETTLE_SECONDS
from modelswarm.agent.election import DURATION
from modelswarm.agent.leases import ModelLease
from modelswarm.content.manifest import Manifest
from tests.unit.agent.company import Agent, Company, company_of, hash_of
from tests.unit.agent.store.conftest import MIB, content, noise, tree

pytestmark = pytest.mark.looptime

SECONDS = 60.0
"""Well within the time until somebody else takes the Lease."""
FILES = {f"model-{number}.bin": noise(f"killed {number}", 8 * MIB) for number in range(2)}
MODEL = content(FILES)
LARGE_FILES = {f"model-{number}.bin": noise(f"killed {number}", 16 * MIB) for number in range(4)}
LARGE = content(LARGE_FILES)
CONNECTION_SECONDS = 12.0
"""Until a request to an address where nobody is any more fails."""


def whole(agent: Agent) -> bool:
    return tree(agent.parts.store.directory(hash_of(MODEL))) == FILES


async def half_way(company: Company, *names: str, rate: float, model: Manifest = MODEL) -> list[Agent]:
    """Agents that have read half of the model together; ``rate`` in bytes per second and connection."""
    agents = company.add(*names)
    for agent in agents:
        agent.leg.pause = MIB / 2 / rate
        await agent.start(model)
    async with asyncio.timeout(900):
        while company.origin.total < model.bytes / 2:  # noqa: ASYNC110
            await asyncio.sleep(0.01)
    return agents


async def test_it_does_not_come_back_and_the_origin_was_faster_than_the_nodes(tmp_path: Path) -> None:
    async with company_of(tmp_path, LARGE_FILES, LARGE) as company:
        company.air.pause = 1.0
        agents = await half_way(company, "a", "b", rate=100 * MIB, model=LARGE)
        dead = company.agents[company.lease(LARGE).holder]
        await dead.kill()
        left = [agent for agent in agents if agent is not dead]
        await company.until_ready(LARGE, left)
        assert company.origin.total <= 1.2 * LARGE.bytes


@pytest.mark.parametrize(("seed", "seconds"), [(0, 2.0), (0, 4.0), (1, 4.0)])
async def test_it_comes_back_at_another_address_and_nobody_answers_at_the_old_one(
    tmp_path: Path, seed: int, seconds: float
) -> None:
    """Who is connected to the old one must not miss the time in which the new coordinator listens."""
    async with company_of(tmp_path, FILES, MODEL, seed=seed) as company:
        company.silence = CONNECTION_SECONDS
        agents = await half_way(company, "a", "b", "c", rate=MIB / 4)
        restarted = company.agents[company.lease(MODEL).holder]
        await restarted.kill()
        restarted.move("10.0.1.1")
        await asyncio.sleep(seconds)
        await restarted.start()
        await company.until_ready(MODEL)
        assert all(map(whole, agents))
        assert company.origin.total <= MODEL.bytes + MIB


async def test_a_reader_that_is_late_to_find_the_new_coordinator_keeps_what_it_reads(tmp_path: Path) -> None:
    async with company_of(tmp_path, FILES, MODEL) as company:
        agents = await half_way(company, "a", "b", "c", rate=MIB / 2)
        restarted = company.agents[company.lease(MODEL).holder]
        late = next(agent for agent in agents if agent is not restarted)
        assert late.name in company.lease(MODEL).readers
        await restarted.kill()
        late.cut_off = True
        await restarted.start()
        await asyncio.sleep(SETTLE_SECONDS + 2.0)
        late.cut_off = False
        await company.until_ready(MODEL)
        assert all(map(whole, agents))
        assert company.origin.total <= MODEL.bytes + MIB


async def test_complete_and_restarted_it_goes_on_to_coordinate_who_still_lacks_something(tmp_path: Path) -> None:
    async with company_of(tmp_path, FILES, MODEL) as company:
        first, second = company.add("first", "second")
        await first.start(MODEL)
        await company.until(lambda: company.origin.total == MODEL.bytes)
        second.leg.open.clear()
        company.air.pause = 5.0
        await second.start(MODEL)
        await company.until_ready(MODEL, [first])
        assert company.lease(MODEL).holder == first.name
        assert not second.is_ready(MODEL)
        await first.kill()
        await first.start()
        await company.until_ready(MODEL, seconds=SECONDS)
        assert whole(second)
        assert company.origin.total <= MODEL.bytes + MIB
        await company.until(lambda: company.lease(MODEL).complete, SECONDS)


async def test_that_everybody_has_everything_is_written_when_the_api_server_is_back(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with company_of(tmp_path, FILES, MODEL) as company:
        end = ModelLease._end

        async def end_in_vain(lease: ModelLease, *, complete: bool) -> None:
            monkeypatch.undo()
            company.api_is_away = True
            await end(lease, complete=complete)

        monkeypatch.setattr(ModelLease, "_end", end_in_vain)
        agents = company.add("a", "b")
        for agent in agents:
            await agent.start(MODEL)
        await company.until(lambda: company.api_is_away)
        assert not company.lease(MODEL).complete
        await company.until_ready(MODEL)
        await company.until(lambda: any(hash_of(MODEL) in agent.parts.seeding.hashes for agent in agents), SECONDS)
        company.api_is_away = False
        await company.until(lambda: company.lease(MODEL).complete, SECONDS)
        assert all(agent.is_ready(MODEL) for agent in agents)
        await company.until(lambda: all(hash_of(MODEL) in agent.parts.seeding.hashes for agent in agents), SECONDS)


async def test_restarted_without_the_api_server_it_says_later_that_everybody_has_everything(tmp_path: Path) -> None:
    async with company_of(tmp_path, FILES, MODEL) as company:
        agents = company.add("a", "b")
        for agent in agents:
            await agent.start(MODEL)
        await company.until_ready(MODEL)
        company.api_is_away = True
        for agent in agents:
            await agent.kill()
            await agent.start()
        await company.until(lambda: all(hash_of(MODEL) in agent.parts.seeding.hashes for agent in agents), SECONDS)
        company.api_is_away = False
        await company.until(lambda: company.lease(MODEL).complete, SECONDS)


async def test_dead_for_good_when_all_have_everything_the_others_serve_who_comes_late(tmp_path: Path) -> None:
    async with company_of(tmp_path, FILES, MODEL) as company:
        agents = company.add("a", "b", "c")
        for agent in agents:
            await agent.start(MODEL)
        await company.until_ready(MODEL)
        dead = company.agents[company.lease(MODEL).holder]
        await dead.kill()
        left = [agent for agent in agents if agent is not dead]
        await company.until(lambda: all(hash_of(MODEL) in agent.parts.seeding.hashes for agent in left), 2 * DURATION)
