"""Leader election between candidates on one server, on a clock that only moves when everyone waits."""

import asyncio
import random
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from datetime import UTC, datetime, timedelta

import pytest

from modelswarm.api.meta import JsonObject
from modelswarm.errors import Unavailable
from modelswarm.kube.key import Key
from modelswarm.kube.kinds import LEASE
from modelswarm.kube.lease import LeaderElection
from tests.unit.kube.fake import FakeKube, FakeServer, Interruption

pytestmark = pytest.mark.looptime

DOWN = Unavailable("no answer")


def now() -> float:
    return asyncio.get_running_loop().time()


def candidate(kube: FakeKube, identity: str, *, skew: float = 0.0) -> LeaderElection:
    start = datetime(2026, 1, 1, tzinfo=UTC) + timedelta(seconds=skew)
    return LeaderElection(
        kube,
        namespace="ns",
        name="lease",
        identity=identity,
        now=lambda: start + timedelta(seconds=now()),
        rng=random.Random(1),
    )


@asynccontextmanager
async def running(*elections: LeaderElection) -> AsyncIterator[list[asyncio.Task[None]]]:
    tasks = [asyncio.create_task(election.run()) for election in elections]
    try:
        yield tasks
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)


def spec(server: FakeServer) -> JsonObject:
    found = server.objects[LEASE, Key("ns", "lease")]["spec"]
    assert isinstance(found, dict)
    return found


async def seconds_until(election: LeaderElection, limit: float = 100) -> float:
    started = now()
    await asyncio.wait_for(election.wait_leadership(), limit)
    return now() - started


async def test_of_two_that_start_at_once_one_leads() -> None:
    server = FakeServer()
    first, second = candidate(server.client(), "a"), candidate(server.client(), "b")
    async with running(first, second):
        await asyncio.sleep(300)
        assert [first.is_leader, second.is_leader].count(True) == 1
        assert not first.lost.is_set()
        assert not second.lost.is_set()


async def test_the_record_is_in_utc_and_counts_transitions() -> None:
    server = FakeServer()
    first = candidate(server.client(), "a")
    async with running(first):
        await seconds_until(first)
        assert spec(server) == {
            "holderIdentity": "a",
            "leaseDurationSeconds": 15,
            "acquireTime": "2026-01-01T00:00:00.001000Z",
            "renewTime": "2026-01-01T00:00:00.001000Z",
            "leaseTransitions": 0,
        }
        await asyncio.sleep(10)
        assert spec(server)["acquireTime"] == "2026-01-01T00:00:00.001000Z"
        assert str(spec(server)["renewTime"]) > "2026-01-01T00:00:08"
    second = candidate(server.client(), "b")
    async with running(second):
        await seconds_until(second)
        assert spec(server)["leaseTransitions"] == 1


@pytest.mark.parametrize("skew", [-3600, 0, 3600])
async def test_a_dead_leader_is_followed_after_its_lease_whatever_the_clocks_say(skew: float) -> None:
    server = FakeServer()
    first, second = candidate(server.client(), "a"), candidate(server.client(), "b", skew=skew)
    async with running(first) as (leading,):
        await seconds_until(first)
        async with running(second):
            await asyncio.sleep(60)
            assert not second.is_leader
            leading.cancel()
            died = now()
            await seconds_until(second)
            assert 15 - 2 <= now() - died <= 15 + 2.5


async def test_a_candidate_that_starts_after_the_death_waits_a_whole_lease() -> None:
    server = FakeServer()
    first = candidate(server.client(), "a")
    async with running(first):
        await seconds_until(first)
    await asyncio.sleep(14)
    second = candidate(server.client(), "b")
    async with running(second):
        assert 15 <= await seconds_until(second) <= 18


async def test_the_same_identity_gets_its_lease_back_at_once() -> None:
    server = FakeServer()
    first = candidate(server.client(), "a")
    async with running(first):
        await seconds_until(first)
    again = candidate(server.client(), "a")
    async with running(again):
        assert await seconds_until(again) < 0.1
        assert spec(server)["leaseTransitions"] == 0


async def test_a_released_lease_is_taken_within_the_retry_time() -> None:
    server = FakeServer()
    first, second = candidate(server.client(), "a"), candidate(server.client(), "b")
    async with running(first) as (task,):
        await seconds_until(first)
        async with running(second):
            await asyncio.sleep(30)
            await first.release()
            assert not first.is_leader
            assert not first.lost.is_set()
            assert task.done()
            assert spec(server)["holderIdentity"] == ""
            assert await seconds_until(second) <= 2.5


async def test_a_slow_server_is_given_time_to_take_the_lease_back() -> None:
    server = FakeServer()
    kube = server.client()
    first = candidate(kube, "a")
    async with running(first):
        await seconds_until(first)
        kube.interruption = lambda verb: 4.0
        await first.release()
    assert spec(server)["holderIdentity"] == ""


async def test_a_lease_whose_last_renewal_was_not_answered_is_given_back() -> None:
    server = FakeServer()
    first = candidate(server.client(), "a")
    async with running(first):
        await seconds_until(first)
        server.store(server.objects[LEASE, Key("ns", "lease")])
        await first.release()
    assert spec(server)["holderIdentity"] == ""


async def test_a_lease_that_somebody_has_taken_is_not_given_back() -> None:
    server = FakeServer()
    first = candidate(server.client(), "a")
    async with running(first):
        await seconds_until(first)
        taken = server.objects[LEASE, Key("ns", "lease")]
        server.store({**taken, "spec": {**spec(server), "holderIdentity": "b"}})
        await first.release()
    assert spec(server)["holderIdentity"] == "b"


async def test_release_by_one_that_does_not_lead_touches_nothing() -> None:
    server = FakeServer()
    first, second = candidate(server.client(), "a"), candidate(server.client(), "b")
    async with running(first):
        await seconds_until(first)
        async with running(second):
            await asyncio.sleep(5)
            await second.release()
        assert spec(server)["holderIdentity"] == "a"
    never_ran = candidate(server.client(), "c")
    await never_ran.release()


async def test_release_does_not_fail_when_the_server_is_away() -> None:
    server = FakeServer()
    kube = server.client()
    first = candidate(kube, "a")
    async with running(first):
        await seconds_until(first)
        kube.interruption = lambda verb: 1000.0
        started = now()
        await first.release()
        assert now() - started <= 5


@pytest.mark.parametrize(
    "interruption",
    [pytest.param(lambda verb: DOWN, id="refused"), pytest.param(lambda verb: 1000.0, id="hangs")],
)
async def test_a_leader_without_a_server_gives_up_before_another_may_begin(interruption: Interruption) -> None:
    server = FakeServer()
    cut_off = server.client()
    told: list[float] = []
    first = LeaderElection(
        cut_off, namespace="ns", name="lease", identity="a", on_lost=lambda: told.append(now()), rng=random.Random(1)
    )
    second = candidate(server.client(), "b")
    async with running(first, second):
        await seconds_until(first)
        await asyncio.sleep(60)
        cut_off.interruption = interruption
        started = now()
        await asyncio.wait_for(first.lost.wait(), 60)
        assert 8 <= now() - started <= 10.1
        assert not first.is_leader
        assert not second.is_leader
        await seconds_until(second)
        assert told
        assert now() - told[0] >= 2


async def test_a_leader_that_was_frozen_may_not_write_before_it_knows_its_fate() -> None:
    server = FakeServer()
    jump = [0.0]
    first = LeaderElection(
        server.client(), namespace="ns", name="lease", identity="a", clock=lambda: now() + jump[0], rng=random.Random(1)
    )
    assert not first.may_write()
    async with running(first):
        await seconds_until(first)
        await asyncio.sleep(30)
        assert first.may_write()
        jump[0] = 14.0 - 2.0  # a stall, seen by its own clock
        assert first.may_write()
        jump[0] = 15.0
        assert first.is_leader
        assert not first.may_write()
        await asyncio.wait_for(first.lost.wait(), 3)
        assert not first.may_write()


async def test_a_short_outage_is_survived() -> None:
    server = FakeServer()
    kube = server.client()
    first = candidate(kube, "a")
    async with running(first):
        await seconds_until(first)
        for _ in range(10):
            kube.interruption = lambda verb: DOWN
            await asyncio.sleep(5)
            kube.interruption = lambda verb: None
            await asyncio.sleep(5)
        assert first.is_leader


async def test_a_leader_whose_lease_was_taken_by_hand_stops_leading() -> None:
    server = FakeServer()
    first = candidate(server.client(), "a")
    async with running(first) as (task,):
        await seconds_until(first)
        await asyncio.sleep(10)
        admin = server.client()
        lease = await admin.get(LEASE, "lease", "ns")
        lease["spec"] = {**spec(server), "holderIdentity": "somebody"}
        await admin.replace(lease)
        await asyncio.wait_for(first.lost.wait(), 3)
        await asyncio.wait_for(task, 1)
        assert first.holder == "somebody"


async def test_a_deleted_lease_is_made_again_by_its_holder() -> None:
    server = FakeServer()
    first = candidate(server.client(), "a")
    async with running(first):
        await seconds_until(first)
        del server.objects[LEASE, Key("ns", "lease")]
        await asyncio.sleep(5)
        assert first.is_leader
        assert spec(server)["holderIdentity"] == "a"


async def test_holding_costs_one_request_per_renewal() -> None:
    server = FakeServer()
    first = candidate(server.client(), "a")
    async with running(first):
        await seconds_until(first)
        server.requests.clear()
        await asyncio.sleep(60)
    assert set(server.requests) == {"replace"}
    assert 28 <= len(server.requests) <= 31


async def test_many_candidates_that_die_at_random_never_lead_together() -> None:
    server, rng = FakeServer(), random.Random(7)
    leading: list[LeaderElection] = []

    async def life(number: int) -> None:
        for _ in range(6):
            election = candidate(
                server.client(lambda verb: rng.choice([None, None, None, DOWN, 0.5, 20.0])), f"{number}-{_}"
            )
            task = asyncio.create_task(election.run())
            if await _leads(election, rng.uniform(5, 60)):
                leading.append(election)
                assert len([one for one in leading if one.is_leader]) <= 1
                await asyncio.wait([asyncio.create_task(election.lost.wait())], timeout=rng.uniform(5, 60))
                leading.remove(election)
            task.cancel()
            await asyncio.gather(task, return_exceptions=True)

    await asyncio.gather(*(life(number) for number in range(4)))


async def _leads(election: LeaderElection, seconds: float) -> bool:
    try:
        await asyncio.wait_for(election.wait_leadership(), seconds)
    except TimeoutError:
        return False
    return True


def test_times_that_do_not_fit_together_are_refused() -> None:
    with pytest.raises(ValueError, match="does not hold"):
        LeaderElection(FakeServer().client(), namespace="n", name="l", identity="a", renew=20)
