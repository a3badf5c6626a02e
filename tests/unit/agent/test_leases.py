"""Candidates on one API server, on a clock that only moves when everyone waits."""

import asyncio
import random
from collections.abc import Callable, Sequence
from dataclasses import replace
from datetime import UTC, datetime, timedelta

import pytest

from modelswarm.agent.election import Acquire, Complete, Decision, Join, Release, Renew, StandDown, Wait
from modelswarm.agent.leaserecord import lease_name, read, render
from modelswarm.agent.leases import ModelLease, Plan, Situation
from modelswarm.api.meta import JsonObject
from modelswarm.errors import Unavailable
from modelswarm.kube.key import Key
from modelswarm.kube.kinds import LEASE
from tests.unit.kube.fake import FakeKube, FakeServer, Interruption

pytestmark = pytest.mark.looptime

HASH = "5237ac215d377e74ed8d5d5403214de4e307cf0c1f4248ee65c19cef875de721"
NAME = "ome-model-5237ac215d377e74"
START = datetime(2026, 1, 1, tzinfo=UTC)
LACKS = Situation()
PINNED = Plan("http://n1:8081", segment_bytes=8 << 20, repo="org/model", commit="c" * 40, manifest="sha256:ab")


def time() -> float:
    return asyncio.get_running_loop().time()


class Node:
    """Steps as a session does."""

    def __init__(
        self,
        server: FakeServer,
        name: str,
        *,
        skew: float = 0.0,
        readers: Callable[[], Sequence[str]] = tuple,
        models: Callable[[], Sequence[str]] = tuple,
        interruption: Interruption = lambda verb: None,
    ) -> None:
        self.lease = ModelLease(
            server.client(interruption),
            namespace="ome",
            model_hash=HASH,
            me=name,
            plan=Plan(f"http://{name}:8081", segment_bytes=4 << 20, repo="org/model", commit=name * 3),
            readers=readers,
            models=models,
            now=lambda: START + timedelta(seconds=time() + skew),
            rng=random.Random(name),
        )
        self.situation = LACKS
        self.decisions: list[Decision] = []

    async def step(self) -> Decision:
        decision = await self.lease.step(self.situation)
        self.decisions.append(decision)
        return decision

    async def run_until_it_holds(self) -> None:
        running = asyncio.create_task(self.run())
        async with asyncio.timeout(300):
            while not self.lease.holds:  # noqa: ASYNC110  (nothing tells of it)
                await asyncio.sleep(1)
        running.cancel()

    async def run(self) -> None:
        while True:
            try:
                pause = self.lease.pause(await self.step())
            except Unavailable:
                pause = 1.0
            await asyncio.sleep(pause)


def stored(server: FakeServer) -> JsonObject:
    return server.objects[LEASE, Key("ome", NAME)]


def writes(server: FakeServer) -> int:
    return len([verb for verb in server.requests if verb != "get"])


async def test_the_lease_looks_as_the_seed_says() -> None:
    server = FakeServer()
    node = Node(server, "n1", readers=lambda: ["n1", "n2"])
    assert isinstance(await node.step(), Acquire)
    lease = stored(server)
    assert lease["metadata"] == {
        "name": NAME,
        "namespace": "ome",
        "labels": {"ome.io/type": "model-download", "ome.io/model-hash": HASH[:63]},
        "annotations": {
            "modelswarm.io/coordinator": "http://n1:8081",
            "modelswarm.io/segment-bytes": "4194304",
            "modelswarm.io/repo": "org/model",
            "modelswarm.io/commit": "n1n1n1",
            "modelswarm.io/epoch": str(node.lease.term and node.lease.term.epoch),
        },
        "resourceVersion": "1",
    }
    assert lease["spec"] == {
        "holderIdentity": "n1",
        "leaseDurationSeconds": 120,
        "acquireTime": "2026-01-01T00:00:00.001000Z",
        "renewTime": "2026-01-01T00:00:00.001000Z",
        "leaseTransitions": 0,
    }
    await asyncio.sleep(30)
    await node.step()
    renewed = read(stored(server))
    assert renewed.readers == ("n1", "n2")
    assert renewed.renewed > renewed.acquired
    node.situation = Situation(have=True, finished=True)
    assert isinstance(await node.step(), Complete)
    done = read(stored(server))
    assert (done.complete, done.holder, done.readers) == (True, "n1", ())
    assert not node.lease.holds


async def test_of_many_that_start_at_once_one_coordinates() -> None:
    server = FakeServer()
    nodes = [Node(server, f"n{number}") for number in range(8)]
    tasks = [asyncio.create_task(node.run()) for node in nodes]
    for _ in range(400):
        await asyncio.sleep(1)
        assert sum(node.lease.holds for node in nodes) == 1
    assert read(stored(server)).transitions == 0
    # One write to acquire, those of the seven who came too late, and a renewal every 30 s: nothing else.
    assert writes(server) <= 8 + 400 / 30 + 1
    for task in tasks:
        task.cancel()


async def test_one_waiter_takes_over_from_a_dead_holder_and_keeps_its_plan() -> None:
    server = FakeServer()
    first = Node(server, "n0", readers=lambda: ["n0", "n3"])
    await first.step()
    await asyncio.sleep(30)
    await first.step()
    waiters = [Node(server, f"n{number}") for number in range(1, 6)]
    tasks = [asyncio.create_task(node.run()) for node in waiters]
    died = time()
    while not any(node.lease.holds for node in waiters):  # noqa: ASYNC110
        await asyncio.sleep(0.5)
    assert 115 < time() - died < 130
    await asyncio.sleep(60)
    (successor,) = [node for node in waiters if node.lease.holds]
    assert successor.lease.predecessor is not None
    assert successor.lease.predecessor.readers == ("n0", "n3")
    record = read(stored(server))
    assert (record.transitions, record.commit, record.coordinator) == (1, "n0n0n0", f"http://{record.holder}:8081")
    others = [node for node in waiters if node is not successor]
    assert all(isinstance(node.decisions[-1], Join) for node in others)
    for task in tasks:
        task.cancel()


async def test_a_restarted_holder_begins_a_new_term_at_once() -> None:
    server = FakeServer()
    before = Node(server, "n1")
    await before.step()
    await asyncio.sleep(5)
    after = Node(server, "n1")
    await after.step()
    assert after.lease.holds
    record = read(stored(server))
    assert record.transitions == 1
    assert before.lease.term is not None
    assert record.epoch != before.lease.term.epoch
    await asyncio.sleep(30)
    assert isinstance(await before.step(), StandDown)


async def test_a_released_lease_is_taken_within_seconds() -> None:
    server = FakeServer()
    first, second = Node(server, "n1"), Node(server, "n2")
    await first.step()
    task = asyncio.create_task(second.run())
    await asyncio.sleep(20)
    first.situation = Situation(failed=True)
    assert isinstance(await first.step(), Release)
    record = read(stored(server))
    assert (record.holder, record.coordinator) == ("", "")
    await asyncio.sleep(5)
    assert second.lease.holds
    task.cancel()


async def test_a_lease_whose_last_renewal_was_cut_off_is_released_all_the_same() -> None:
    server = FakeServer()
    first = Node(server, "n1")
    await first.step()
    server.store(stored(server))
    await first.lease.release()
    assert read(stored(server)).holder == ""


async def test_a_lease_that_another_has_taken_is_not_released() -> None:
    server = FakeServer()
    first, second = Node(server, "n1"), Node(server, "n2")
    await first.step()
    await asyncio.sleep(200)
    await second.run_until_it_holds()
    await first.lease.release()
    assert read(stored(server)).holder == "n2"


@pytest.mark.parametrize("arrives", [False, True])
async def test_an_end_that_was_cut_off_is_written_by_the_release(
    arrives: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Everybody has everything, and the node is stopped in the moment in which it says so."""
    server = FakeServer()
    first = Node(server, "n1")
    await first.step()

    async def replace(obj: JsonObject) -> JsonObject:
        if arrives:
            server.store(obj)
        await asyncio.Event().wait()
        return obj

    with monkeypatch.context() as cut_off:
        cut_off.setattr(FakeKube, "replace", lambda _, obj: replace(obj))
        first.situation = Situation(have=True, finished=True)
        ending = asyncio.create_task(first.step())
        await asyncio.sleep(1)
        ending.cancel()
        await asyncio.gather(ending, return_exceptions=True)
    assert read(stored(server)).complete == arrives
    await first.lease.release()
    assert read(stored(server)).complete
    assert not first.lease.holds


async def test_a_complete_lease_opens_again_when_nobody_has_the_content() -> None:
    server = FakeServer()
    first, second = Node(server, "n1"), Node(server, "n2")
    await first.step()
    first.situation = Situation(have=True, finished=True)
    await first.step()
    second.situation = Situation(unseeded_since=time())
    assert isinstance(await second.step(), Wait)
    await asyncio.sleep(30)
    assert isinstance(await second.step(), Acquire)
    record = read(stored(server))
    assert (record.holder, record.complete, record.transitions) == ("n2", False, 1)


async def test_a_deleted_lease_is_made_again_by_its_holder_and_the_term_goes_on() -> None:
    """A new term would be a new coordinator, under which what is in flight may be read again."""
    server = FakeServer()
    node = Node(server, "n1")
    await node.step()
    await node.lease.pin(PINNED)
    before = read(stored(server))
    server.objects.clear()
    await asyncio.sleep(30)
    assert isinstance(await node.step(), Renew)
    assert node.lease.holds
    assert replace(read(stored(server)), renewed="") == replace(before, renewed="")


async def test_who_has_joined_waits_for_the_holder_to_make_it_again_but_not_for_ever() -> None:
    server = FakeServer()
    first, second = Node(server, "n1"), Node(server, "n2")
    await first.step()
    second.situation = Situation(joined=True)
    await second.step()
    server.objects.clear()
    await asyncio.sleep(30)
    assert isinstance(await second.step(), Wait)
    await first.step()
    assert isinstance(await second.step(), Join)
    server.objects.clear()
    task = asyncio.create_task(second.run())
    await asyncio.sleep(150)
    assert second.lease.holds
    assert second.lease.predecessor is not None, "others may be reading what it shares out"
    assert read(stored(server)).segment_bytes == 4 << 20
    task.cancel()


async def test_who_reads_the_origin_is_shown_soon_and_not_too_often() -> None:
    server = FakeServer()
    readers = ["n2", "n1"]
    node = Node(server, "n1", readers=lambda: readers)

    async def coordinate() -> None:
        while True:
            await node.step()
            await asyncio.sleep(1)

    task = asyncio.create_task(coordinate())
    await asyncio.sleep(3)
    assert read(stored(server)).readers == ("n1", "n2")
    readers.append("n3")
    await asyncio.sleep(11)
    assert read(stored(server)).readers == ("n1", "n2", "n3")
    began, before = time(), writes(server)
    while time() < began + 300:
        # As often as can be, with every node that comes and goes.
        readers[:] = [f"n{number}" for number in range(1 + int(time() * 7) % 5)]
        await asyncio.sleep(0.5)
    assert writes(server) - before <= 300 / 10 + 1
    readers.clear()
    await asyncio.sleep(31)
    assert read(stored(server)).readers == ()
    before = writes(server)
    await asyncio.sleep(300)
    assert writes(server) - before <= 300 / 30 + 1
    task.cancel()


async def test_for_whom_a_branch_is_pinned_is_written_with_the_pin_and_stays_when_it_is_complete() -> None:
    server = FakeServer()
    models = ["uid-2", "uid-1"]
    node = Node(server, "n1", models=lambda: models)
    assert await node.lease.look() is None
    assert await node.lease.take("a test")
    assert read(stored(server)).models == ("uid-1", "uid-2")
    models.append("uid-3")
    await asyncio.sleep(30)
    await node.step()
    assert read(stored(server)).models == ("uid-1", "uid-2", "uid-3")
    models.remove("uid-1")
    node.situation = Situation(have=True, finished=True)
    await node.step()
    assert (read(stored(server)).models, read(stored(server)).complete) == (("uid-2", "uid-3"), True)


async def test_taken_anew_nothing_of_an_earlier_pin_counts() -> None:
    server = FakeServer()
    first, second = Node(server, "n1"), Node(server, "n2")
    await first.step()
    await first.lease.pin(PINNED)
    first.situation = Situation(have=True, finished=True)
    await first.step()
    await second.lease.look()
    second.lease.plan = Plan("http://n2:8081", repo="org/model")
    assert await second.lease.take("a test", anew=True)
    record = read(stored(server))
    assert (record.holder, record.commit, record.manifest, record.complete) == ("n2", "", "", False)


async def test_of_two_who_take_it_one_has_it() -> None:
    server = FakeServer()
    nodes = [Node(server, "n1"), Node(server, "n2")]
    for node in nodes:
        await node.lease.look()
    assert sorted([await node.lease.take("a test") for node in nodes]) == [False, True]


async def test_a_deleted_lease_that_another_took_is_lost() -> None:
    server = FakeServer()
    first, second = Node(server, "n1"), Node(server, "n2")
    await first.step()
    server.objects.clear()
    await second.step()
    assert second.lease.holds
    await asyncio.sleep(30)
    assert isinstance(await first.step(), StandDown)
    assert not first.lease.holds


async def test_a_holder_without_an_api_server_stops_before_anybody_may_take_over() -> None:
    server = FakeServer()
    down = False
    node = Node(server, "n1", interruption=lambda verb: Unavailable("no answer") if down else None)
    await node.step()
    task = asyncio.create_task(node.run())
    down = True
    await asyncio.sleep(99)
    assert node.lease.holds
    await asyncio.sleep(1.1)
    assert not node.lease.holds
    down = False
    await asyncio.sleep(10)
    assert node.lease.holds
    assert read(stored(server)).transitions == 1
    task.cancel()


async def test_a_renewal_whose_answer_gets_lost_is_not_a_loss() -> None:
    server = FakeServer()
    node = Node(server, "n1")
    await node.step()
    record = read(stored(server))
    await asyncio.sleep(31)
    # Somebody (we) wrote, and nobody told us.
    late = render(record, name=NAME, namespace="ome", model_hash=HASH, onto=stored(server))
    await server.client().replace(late)
    await node.step()
    assert node.lease.holds


async def test_clocks_that_differ_by_an_hour_change_nothing() -> None:
    server = FakeServer()
    first, second = Node(server, "n1", skew=-3600), Node(server, "n2", skew=3600)
    tasks = [asyncio.create_task(node.run()) for node in (first, second)]
    await asyncio.sleep(600)
    assert [first.lease.holds, second.lease.holds].count(True) == 1
    assert read(stored(server)).transitions == 0
    for task in tasks:
        task.cancel()


async def test_what_the_holder_finds_out_is_written_with_a_renewal() -> None:
    server = FakeServer()
    node = Node(server, "n1")
    await node.step()
    await node.lease.pin(PINNED)
    record = read(stored(server))
    assert (record.segment_bytes, record.commit, record.manifest) == (8 << 20, "c" * 40, "sha256:ab")
    await asyncio.sleep(30)
    await node.step()
    assert read(stored(server)).manifest == "sha256:ab"


async def test_what_others_put_on_the_lease_stays() -> None:
    server = FakeServer()
    await Node(server, "n1").step()
    lease = stored(server)
    assert isinstance(lease["metadata"], dict)
    lease["metadata"]["labels"] = {"team": "x"}
    lease["metadata"]["annotations"] = {"note": "y"}
    await Node(server, "n1").step()
    meta = stored(server)["metadata"]
    assert isinstance(meta, dict)
    assert isinstance(meta["labels"], dict)
    assert isinstance(meta["annotations"], dict)
    assert meta["labels"]["team"] == "x"
    assert meta["annotations"]["note"] == "y"


@pytest.mark.parametrize(
    "lease",
    [
        pytest.param({}, id="nothing"),
        pytest.param({"metadata": {"annotations": None, "labels": None}, "spec": None}, id="nulls"),
        pytest.param({"spec": {"leaseDurationSeconds": "x", "leaseTransitions": None}}, id="other types"),
        pytest.param({"metadata": {"annotations": {"modelswarm.io/epoch": "9" * 30}}}, id="a number too large"),
    ],
)
def test_a_lease_that_makes_no_sense_is_as_one_that_nobody_holds(lease: JsonObject) -> None:
    assert read(lease) == read({})


def test_names() -> None:
    assert lease_name(HASH) == NAME
