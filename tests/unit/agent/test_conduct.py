"""Coordinators and members of whole agents: who takes over, who waits for whom, and that nothing is read again."""

import asyncio
from pathlib import Path

import pytest

from modelswarm.agent.election import DURATION, RENEW
from modelswarm.agent.leaserecord import SEGMENT_BYTES
from modelswarm.agent.member import Member
from modelswarm.agent.troubles import API_SERVER_UNAVAILABLE, PEER_SHUNNED, PEER_UNAVAILABLE
from modelswarm.agent.trust import Trust
from modelswarm.api.nodecache import ModelState
from modelswarm.kube.key import Key
from modelswarm.kube.kinds import LEASE
from modelswarm.kube.objects import metadata
from tests.unit.agent.company import NAMESPACE, Agent, Company, company_of, hash_of, wanted_of
from tests.unit.agent.store.conftest import MIB, content, noise, tree

pytestmark = pytest.mark.looptime

FILES = {
    "model.bin": noise("model", 9 * MIB + 123),
    "other.bin": noise("other", 3 * MIB),
    "config.json": b"{}",
    "empty": b"",
}
MODEL = content(FILES)
IN_FLIGHT = 2 * 2 * MIB
"""What one node may have been reading: two segments."""


def whole(agent: Agent) -> bool:
    return tree(agent.parts.store.directory(hash_of(MODEL))) == FILES


async def half_way(company: Company, *names: str, seconds: float = 1.0) -> list[Agent]:
    """Agents that have read half of the model, at half a MiB in so many seconds each."""
    agents = company.add(*names)
    for agent in agents:
        agent.leg.pause = seconds
        await agent.start(MODEL)
    await company.until(lambda: company.origin.total >= MODEL.bytes / 2)
    return agents


def holder(company: Company) -> Agent:
    return company.agents[company.lease(MODEL).holder]


async def test_every_byte_leaves_the_origin_once_and_the_lease_says_so_at_the_end(tmp_path: Path) -> None:
    async with company_of(tmp_path, FILES, MODEL) as company:
        agents = company.add("a", "b", "c")
        for agent in agents:
            await agent.start(MODEL)
        await company.until_ready(MODEL)
        assert all(map(whole, agents))
        assert company.origin.given == {path: len(data) for path, data in FILES.items() if data}
        await company.until(lambda: company.lease(MODEL).complete)
        for agent in agents:
            standing = agent.standing(MODEL)
            assert standing.origin_bytes + standing.peer_bytes == standing.done_bytes == MODEL.bytes
        assert sum(agent.standing(MODEL).origin_bytes for agent in agents) == MODEL.bytes


async def test_what_came_is_never_told_to_be_less_than_before(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Also while a member that is not needed any more takes its time to end."""
    told: dict[str, list[int]] = {}

    async def slowly(member: Member) -> None:
        await asyncio.sleep(1.0)
        await close(member)
        await asyncio.sleep(1.0)

    async def watch(agent: Agent) -> None:
        while True:
            standing = agent.standing(MODEL)
            told.setdefault(agent.name, []).append(standing.origin_bytes + standing.peer_bytes)
            await asyncio.sleep(0.1)

    close = Member.close
    monkeypatch.setattr(Member, "close", slowly)
    async with company_of(tmp_path, FILES, MODEL) as company:
        agents = [await agent.start(MODEL) for agent in company.add("a", "b", "c")]
        watching = [asyncio.create_task(watch(agent)) for agent in agents]
        await company.until_ready(MODEL)
        await company.until(lambda: company.lease(MODEL).complete)
        await asyncio.sleep(10)
        for task in watching:
            task.cancel()
    for numbers in told.values():
        assert numbers == sorted(numbers)
        assert numbers[-1] == MODEL.bytes


@pytest.mark.parametrize("seed", range(3))
async def test_the_coordinator_is_killed_and_a_successor_goes_on_with_what_exists(tmp_path: Path, seed: int) -> None:
    async with company_of(tmp_path, FILES, MODEL, seed=seed) as company:
        await half_way(company, "a", "b", "c")
        dead, before = holder(company), company.lease(MODEL)
        killed_at = asyncio.get_running_loop().time()
        await dead.kill()
        left = [agent for agent in company.agents.values() if agent is not dead]
        await company.until_ready(MODEL, left)
        assert all(map(whole, left))
        after = company.lease(MODEL)
        assert after.holder != dead.name
        assert after.epoch > before.epoch
        assert asyncio.get_running_loop().time() - killed_at < DURATION + 60
        # What only the dead node had is read again, and what it was reading.
        lost = sum(each.parts.store.partial_progress(key) for each in [dead] for key in dead.parts.store._partials)
        assert company.origin.total <= MODEL.bytes + IN_FLIGHT + lost + MODEL.bytes / 2


async def test_a_coordinator_that_is_asked_to_stop_is_not_waited_for(tmp_path: Path) -> None:
    async with company_of(tmp_path, FILES, MODEL) as company:
        await half_way(company, "a", "b")
        stopped = holder(company)
        [left] = [agent for agent in company.agents.values() if agent is not stopped]
        before = asyncio.get_running_loop().time()
        await stopped.stop()
        await company.until(lambda: company.lease(MODEL).holder == left.name)
        assert asyncio.get_running_loop().time() - before < RENEW
        await company.until_ready(MODEL, [left])
        assert whole(left)


async def test_a_coordinator_that_is_restarted_at_once_takes_its_lease_again_and_nothing_is_read_twice(
    tmp_path: Path,
) -> None:
    async with company_of(tmp_path, FILES, MODEL) as company:
        agents = await half_way(company, "a", "b", "c")
        restarted = holder(company)
        before = company.lease(MODEL)
        await restarted.kill()
        await restarted.start()
        await company.until_ready(MODEL)
        assert all(map(whole, agents))
        assert company.lease(MODEL).epoch > before.epoch
        assert company.origin.total <= MODEL.bytes + IN_FLIGHT


async def test_members_whose_coordinator_cannot_be_reached_say_so_and_go_on_when_it_can(tmp_path: Path) -> None:
    async with company_of(tmp_path, FILES, MODEL) as company:
        await half_way(company, "a", "b", "c", seconds=2.0)
        lonely = holder(company)
        others = [agent for agent in company.agents.values() if agent is not lonely]
        lonely.cut_off = True
        await company.until(lambda: all(each.standing(MODEL).reason == PEER_UNAVAILABLE for each in others))
        assert lonely.url in others[0].standing(MODEL).message
        assert company.lease(MODEL).holder == lonely.name, "it renews its Lease: nobody takes it"
        lonely.cut_off = False
        await company.until_ready(MODEL)
        assert all(map(whole, company.agents.values()))
        await company.until(lambda: all(agent.standing(MODEL).reason is None for agent in others))


async def test_with_a_dead_coordinator_it_says_who_does_not_answer_and_takes_over_in_time(tmp_path: Path) -> None:
    async with company_of(tmp_path, FILES, MODEL) as company:
        first, second = company.add("a", "b")
        first.leg.pause = 1.0
        await first.start(MODEL)
        await company.until(lambda: company.origin.total > 0)
        await first.kill()
        await second.start(MODEL)
        await company.until(lambda: second.standing(MODEL).reason == PEER_UNAVAILABLE)
        assert first.url in second.standing(MODEL).message
        await company.until_ready(MODEL, [second])
        assert asyncio.get_running_loop().time() < DURATION + 60


async def test_without_the_api_server_what_is_under_way_goes_on(tmp_path: Path) -> None:
    async with company_of(tmp_path, FILES, MODEL) as company:
        await half_way(company, "a", "b")
        company.api_is_away = True
        await company.until_ready(MODEL)
        assert company.origin.total == MODEL.bytes
        company.api_is_away = False
        [late] = company.add("c")
        await late.start(MODEL)
        await company.until_ready(MODEL)
        assert company.origin.total == MODEL.bytes


async def test_without_the_api_server_nothing_begins_and_it_says_why(tmp_path: Path) -> None:
    async with company_of(tmp_path, FILES, MODEL) as company:
        [agent] = company.add("a")
        company.api_is_away = True
        await agent.start(MODEL)
        await company.until(lambda: agent.standing(MODEL).reason == API_SERVER_UNAVAILABLE)
        assert agent.standing(MODEL).state is ModelState.WAITING
        assert company.origin.total == 0
        company.api_is_away = False
        await company.until_ready(MODEL)
        assert agent.standing(MODEL).reason is None


async def test_without_the_api_server_for_longer_than_the_lease_nobody_reads_anything_twice(tmp_path: Path) -> None:
    async with company_of(tmp_path, FILES, MODEL) as company:
        await half_way(company, "a", "b", seconds=20.0)
        company.api_is_away = True
        await asyncio.sleep(2 * DURATION)
        stopped_at = company.origin.total
        await asyncio.sleep(DURATION)
        assert company.origin.total == stopped_at, "who may not be the coordinator any more hands nothing out"
        company.api_is_away = False
        await company.until_ready(MODEL)
        assert company.origin.total <= MODEL.bytes + 2 * IN_FLIGHT


async def test_a_lease_that_somebody_deletes_costs_no_byte(tmp_path: Path) -> None:
    async with company_of(tmp_path, FILES, MODEL) as company:
        await half_way(company, "a", "b", "c", seconds=5.0)
        company.server.remove(LEASE, metadata(lease_of(company))["name"], NAMESPACE)  # type: ignore[arg-type]
        await company.until_ready(MODEL)
        assert company.origin.total <= MODEL.bytes + IN_FLIGHT


def lease_of(company: Company) -> dict[str, object]:
    [name] = [key for kind, key in company.server.objects if kind == LEASE]
    return company.server.objects[LEASE, name]  # type: ignore[return-value]


async def test_a_lease_that_makes_no_sense_is_said_and_followed_again_when_it_does(tmp_path: Path) -> None:
    async with company_of(tmp_path, FILES, MODEL) as company:
        first, second = company.add("a", "b")
        first.leg.pause = 5.0
        await first.start(MODEL)
        await company.until(lambda: company.origin.total > 0)
        [key] = [key for kind, key in company.server.objects if kind == LEASE]
        lease = company.server.objects[LEASE, key]
        right = metadata(lease)["annotations"][SEGMENT_BYTES]  # type: ignore[index, call-overload]
        _annotate(company, key, "17")
        await second.start(MODEL)
        await company.until(lambda: second.standing(MODEL).reason == "InvalidPlan")
        assert second.standing(MODEL).state is ModelState.FAILED
        _annotate(company, key, str(right))
        await company.until_ready(MODEL)


def _annotate(company: Company, key: Key, segment_bytes: str) -> None:
    lease = company.server.objects[LEASE, key]
    metadata(lease)["annotations"][SEGMENT_BYTES] = segment_bytes  # type: ignore[index, call-overload]
    company.server.store(lease)


async def test_with_one_origin_node_one_node_reads_at_a_time_and_another_when_it_dies(tmp_path: Path) -> None:
    async with company_of(tmp_path, FILES, MODEL) as company:
        agents = company.add("a", "b", "c")
        for agent in agents:
            agent.leg.pause = 1.0
            await agent.start(MODEL, origin_nodes=1)
        await company.until(lambda: company.origin.total >= MODEL.bytes / 3)
        assert [agent.standing(MODEL).origin_bytes > 0 for agent in agents].count(True) == 1
        dead = holder(company)
        await dead.kill()
        left = [agent for agent in agents if agent is not dead]
        await company.until_ready(MODEL, left)
        assert [agent.standing(MODEL).origin_bytes > 0 for agent in left].count(True) == 1


async def test_without_peers_a_node_needs_nobody_and_asks_no_lease(tmp_path: Path) -> None:
    async with company_of(tmp_path, FILES, MODEL) as company:
        agents = company.add("a", "b")
        for agent in agents:
            await agent.start(MODEL, p2p=False)
        await company.until_ready(MODEL)
        assert company.origin.total == 2 * MODEL.bytes
        assert not [key for kind, key in company.server.objects if kind == LEASE]


async def test_a_node_whose_origin_lies_is_found_and_the_others_say_who_it_was(tmp_path: Path) -> None:
    async with company_of(tmp_path, FILES, MODEL) as company:
        liar, *honest = company.add("liar", "a", "b")
        liar.leg.flips["model.bin"] = 99
        for agent in (liar, *honest):
            agent.leg.pause = 0.5
            await agent.start(MODEL)
        await company.until_ready(MODEL, honest)
        assert all(map(whole, honest))
        blamed = [agent for agent in honest if agent.standing(MODEL).reason == PEER_SHUNNED]
        assert all("liar published bytes of model.bin" in agent.standing(MODEL).message for agent in blamed)
        assert blamed


async def test_who_is_ready_goes_on_to_help_until_nobody_lacks_anything(tmp_path: Path) -> None:
    async with company_of(tmp_path, FILES, MODEL) as company:
        first, second = company.add("a", "b")
        first.leg.pause = second.leg.pause = 0.2
        second.leg.open.clear()
        await first.start(MODEL)
        await second.start(MODEL)
        await company.until_ready(MODEL, [first])
        await company.until_ready(MODEL, [second])
        assert whole(second)
        assert company.origin.total <= MODEL.bytes + IN_FLIGHT
        sessions = first.residents.sessions
        await company.until(lambda: all(session.conduct is None for session in sessions.values()))
        assert wanted_of(MODEL).model_hash in first.parts.seeding.hashes


async def test_a_node_that_is_shunned_without_fault_gets_there_by_itself(tmp_path: Path) -> None:
    """Two nodes, and the one that lies has the last word."""
    async with company_of(tmp_path, FILES, MODEL) as company:
        honest, liar = company.add("honest", "liar")
        liar.leg.flips["model.bin"] = 99
        for agent in (honest, liar):
            agent.leg.pause = 0.5
            await agent.start(MODEL)
        await company.until_ready(MODEL, [honest])
        assert whole(honest)
        assert not liar.is_ready(MODEL)
        assert company.origin.given["model.bin"] <= 6 * len(FILES["model.bin"]), "nobody reads for ever"


async def test_who_is_shunned_reads_by_itself_what_it_lacks_and_each_segment_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(Trust, "liars", lambda trust: {"outcast"})
    async with company_of(tmp_path, FILES, MODEL) as company:
        member, outcast = company.add("member", "outcast")
        for agent in (member, outcast):
            agent.leg.pause = 0.2
            await agent.start(MODEL)
        await company.until_ready(MODEL)
        assert whole(member)
        assert whole(outcast)
        assert company.origin.total <= 2 * MODEL.bytes


async def test_a_report_is_said_once_and_not_again_and_again(tmp_path: Path) -> None:
    async with company_of(tmp_path, FILES, MODEL) as company:
        await half_way(company, "a", "b", "c", seconds=30.0)
        reports, began = len(company.reports), asyncio.get_running_loop().time()
        await asyncio.sleep(60.0)
        seconds = asyncio.get_running_loop().time() - began
        assert len(company.reports) - reports < 2 * 3 * seconds, "what every node reads is told every few seconds"
