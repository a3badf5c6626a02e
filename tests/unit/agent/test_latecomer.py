"""A node that comes when others have everything: it takes the whole model from them, or finds another way."""

import asyncio
from pathlib import Path

import pytest

from modelswarm.agent.latecomer import ANSWER_SECONDS
from modelswarm.agent.leaserecord import lease_name
from modelswarm.agent.troubles import PEER_UNAVAILABLE
from modelswarm.errors import StoreReason
from modelswarm.kube.kinds import LEASE
from tests.unit.agent.company import NAMESPACE, Agent, Company, company_of, hash_of
from tests.unit.agent.store.conftest import MIB, content, noise, tree

pytestmark = pytest.mark.looptime

FILES = {"a.bin": noise("a", 2 * MIB), "b.bin": noise("b", 2 * MIB), "c.bin": noise("c", 2 * MIB), "config.json": b"{}"}
MODEL = content(FILES)


def whole(agent: Agent) -> bool:
    return tree(agent.parts.store.directory(hash_of(MODEL))) == FILES


async def seeded(company: Company, *names: str) -> list[Agent]:
    """Nodes that have everything and seed it; nobody coordinates any more."""
    agents = company.add(*names)
    for agent in agents:
        await agent.start(MODEL)
    await company.until_ready(MODEL, agents)
    await company.until(lambda: company.lease(MODEL).complete)
    await company.until(lambda: all(hash_of(MODEL) in agent.parts.seeding.hashes for agent in agents))
    return agents


async def test_it_asks_neither_the_origin_nor_for_the_lease(tmp_path: Path) -> None:
    async with company_of(tmp_path, FILES, MODEL) as company:
        await seeded(company, "a", "b")
        writes = [verb for verb in company.server.requests if verb != "get"]
        [late] = company.add("late")
        await late.start(MODEL)
        await company.until_ready(MODEL)
        assert whole(late)
        assert company.origin.total == MODEL.bytes
        assert [verb for verb in company.server.requests if verb != "get"] == writes
        standing = late.standing(MODEL)
        assert (standing.origin_bytes, standing.peer_bytes) == (0, MODEL.bytes)
        await company.until(lambda: hash_of(MODEL) in late.parts.seeding.hashes)


async def test_stopped_on_the_way_it_goes_on_with_what_came(tmp_path: Path) -> None:
    async with company_of(tmp_path, FILES, MODEL) as company:
        await seeded(company, "a")
        [late] = company.add("late")
        await late.start(MODEL)
        await company.until(lambda: late.swarm.moved >= 2 * MIB)
        await late.stop()
        first = late.swarm.moved
        assert first < MODEL.bytes
        await late.start()
        await company.until_ready(MODEL)
        assert whole(late)
        assert first + late.swarm.moved == MODEL.bytes
        assert company.origin.total == MODEL.bytes


async def test_killed_on_the_way_it_goes_on_with_what_came(tmp_path: Path) -> None:
    async with company_of(tmp_path, FILES, MODEL) as company:
        await seeded(company, "a")
        [late] = company.add("late")
        await late.start(MODEL)
        await company.until(lambda: late.swarm.moved >= 2 * MIB)
        await late.kill()
        first = late.swarm.moved
        await late.start()
        await company.until_ready(MODEL)
        assert whole(late)
        assert first + late.swarm.moved == MODEL.bytes


async def test_what_it_has_from_a_time_as_a_member_does_not_travel_again(tmp_path: Path) -> None:
    async with company_of(tmp_path, FILES, MODEL) as company:
        [member] = company.add("member")
        member.leg.pause = 1.0
        await member.start(MODEL)
        await company.until(lambda: company.origin.given.get("a.bin", 0) == 2 * MIB)
        await asyncio.sleep(0.5)
        await member.kill()
        company.server.remove(LEASE, lease_name(hash_of(MODEL)), NAMESPACE)
        read = company.origin.total
        await seeded(company, "a")
        await member.start()
        await company.until_ready(MODEL)
        assert whole(member)
        assert company.origin.total == read + MODEL.bytes
        assert member.swarm.moved <= MODEL.bytes - 2 * MIB


async def test_its_seeders_leave_and_others_come(tmp_path: Path) -> None:
    async with company_of(tmp_path, FILES, MODEL) as company:
        first, second = await seeded(company, "a", "b")
        await second.stop()
        [late] = company.add("late")
        await late.start(MODEL)
        await company.until(lambda: late.swarm.moved >= 2 * MIB)
        await first.stop()
        await company.until(lambda: late.standing(MODEL).reason == PEER_UNAVAILABLE)
        await second.start()
        await company.until_ready(MODEL, [late, second])
        assert whole(late)
        assert company.origin.total <= 2 * MODEL.bytes


async def test_it_connects_to_those_that_have_the_content(tmp_path: Path) -> None:
    async with company_of(tmp_path, FILES, MODEL) as company:
        [seeder] = await seeded(company, "seeder")
        for stranger in company.add(*(f"stranger-{number}" for number in range(12))):
            await stranger.start()
        [late] = company.add("late")
        await late.start(MODEL)
        await company.until(lambda: late.swarm.moved > 0)
        assert late.swarm.models[hash_of(MODEL)].hosts == {seeder.host}
        await company.until_ready(MODEL, [late])


async def test_standing_still_it_asks_the_others_too(tmp_path: Path) -> None:
    async with company_of(tmp_path, FILES, MODEL) as company:
        first, second = await seeded(company, "first", "second")
        await second.stop()
        first.swarm.models.clear()  # it answers, and sends nothing
        [late] = company.add("late")
        await late.start(MODEL)
        await company.until(lambda: bool(late.swarm.models))
        await second.start()
        await late.parts.discovery.refresh()
        await company.until_ready(MODEL, [late])
        assert company.origin.total == MODEL.bytes
        assert late.standing(MODEL).reason is None


async def test_metainfo_that_is_none_is_not_believed(tmp_path: Path) -> None:
    async with company_of(tmp_path, FILES, MODEL) as company:
        good, bad = await seeded(company, "good", "bad")
        bad.false_metainfo = b"de"
        [late] = company.add("late")
        await late.start(MODEL)
        await company.until_ready(MODEL)
        assert company.origin.total == MODEL.bytes
        assert whole(late)
        await good.stop()
        [later] = company.add("later")
        late.false_metainfo = b"d4:infodee"
        await later.start(MODEL)
        await company.until_ready(MODEL, [later])
        assert whole(later)
        assert company.origin.total == 2 * MODEL.bytes, "nobody is left who tells the truth"


async def test_seeders_that_send_nothing_are_given_up(tmp_path: Path) -> None:
    async with company_of(tmp_path, FILES, MODEL) as company:
        [silent] = await seeded(company, "silent")
        silent.swarm.models.clear()
        [late] = company.add("late")
        await late.start(MODEL)
        await company.until(lambda: late.standing(MODEL).reason == PEER_UNAVAILABLE)
        assert "send nothing" in late.standing(MODEL).message
        await company.until_ready(MODEL, [late])
        assert whole(late)
        assert company.origin.total == 2 * MODEL.bytes
        assert late.standing(MODEL).reason is None


async def test_a_seeder_whose_files_have_rotted_misleads_nobody(tmp_path: Path) -> None:
    async with company_of(tmp_path, FILES, MODEL) as company:
        [rotten] = await seeded(company, "rotten")
        path = rotten.parts.store.directory(hash_of(MODEL)) / "b.bin"
        path.chmod(0o644)
        with path.open("r+b") as file:
            file.write(b"rot")
        [late] = company.add("late")
        await late.start(MODEL)
        await company.until(lambda: late.standing(MODEL).reason == StoreReason.DIGEST_MISMATCH)
        assert "b.bin" in late.standing(MODEL).message
        await company.until_ready(MODEL, [late])
        assert whole(late)
        assert company.origin.total == MODEL.bytes + len(FILES["b.bin"]), "what was right was kept"


async def test_when_all_who_had_it_are_gone_the_lease_opens_again(tmp_path: Path) -> None:
    async with company_of(tmp_path, FILES, MODEL) as company:
        for agent in await seeded(company, "a", "b"):
            await agent.stop()
        before = company.lease(MODEL)
        [late] = company.add("late")
        await late.start(MODEL)
        await company.until_ready(MODEL, [late])
        assert company.lease(MODEL).epoch > before.epoch
        assert company.origin.total == 2 * MODEL.bytes


async def test_the_only_holder_of_small_files_gives_none_and_they_come_from_the_origin(tmp_path: Path) -> None:
    async with company_of(tmp_path, FILES, MODEL) as company:
        mute, other = company.add("mute", "other")
        mute.gives_no_blobs = True
        other.leg.pause = mute.leg.pause = 0.2
        await mute.start(MODEL)
        await company.until(lambda: company.origin.given.get("config.json", 0) > 0)
        await other.start(MODEL)
        await company.until_ready(MODEL)
        assert whole(other)
        assert company.origin.given["config.json"] == 2 * len(FILES["config.json"])


async def test_addresses_where_nobody_answers_delay_the_first_byte_by_a_second_at_most(tmp_path: Path) -> None:
    async with company_of(tmp_path, FILES, MODEL) as company:
        company.silence, company.ghosts = 30.0, ["10.0.9.1", "10.0.9.2"]
        [first] = company.add("first")
        await first.start(MODEL)
        await company.until(lambda: company.origin.total > 0, ANSWER_SECONDS + 0.5)
        await company.until_ready(MODEL)


async def test_a_seeder_that_takes_long_to_answer_is_heard_all_the_same(tmp_path: Path) -> None:
    async with company_of(tmp_path, FILES, MODEL) as company:
        await seeded(company, "a", "b")
        company.silence, company.ghosts = 4.0, ["10.0.9.1"]
        [late] = company.add("late")
        await late.start(MODEL)
        await company.until_ready(MODEL)
        assert whole(late)
        assert company.origin.total == MODEL.bytes
