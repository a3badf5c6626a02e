"""What becomes of the Lease of a model that nobody wants any more, or that others want than before."""

import asyncio
import random
from collections.abc import AsyncIterator, Iterable
from contextlib import asynccontextmanager
from dataclasses import replace

import pytest

from modelswarm.agent.custody import ROUNDS, SOON_SECONDS, Custody, Fate, fate_after_end, fate_going_on
from modelswarm.agent.election import Record
from modelswarm.agent.leaserecord import lease_name, read, render
from modelswarm.agent.wanted import Needs, Wanted
from modelswarm.api.openmodel import HubName
from modelswarm.content.source import HubSource
from modelswarm.kube.key import Key
from modelswarm.kube.kinds import LEASE
from tests.unit.kube.fake import FakeServer

pytestmark = pytest.mark.looptime

HASH, OTHER_HASH = "ab" * 32, "cd" * 32
A, B = frozenset({"a"}), frozenset({"b"})
NOBODY: frozenset[str] = frozenset()
DONE = Record(holder="n1", complete=True, commit="c1", manifest="sha256:m1", models=("a",))
TASK = replace(DONE, models=())


@pytest.mark.parametrize(
    ("record", "owners", "unchanged", "expected"),
    [
        pytest.param(DONE, NOBODY, False, Fate.DELETE, id="this node held it last: delete"),
        pytest.param(replace(DONE, holder=""), NOBODY, False, Fate.DELETE, id="nobody holds it: delete"),
        pytest.param(replace(DONE, holder="n2"), NOBODY, False, Fate.WATCH, id="another did: let it"),
        pytest.param(replace(DONE, holder="n2"), NOBODY, True, Fate.DELETE, id="another did, and does nothing: delete"),
        pytest.param(DONE, B, False, Fate.DELETE, id="made anew, pinned for the one before: delete"),
        pytest.param(replace(DONE, models=("b",)), B, False, Fate.KEEP, id="made anew, and pinned anew: keep"),
        pytest.param(TASK, B, False, Fate.KEEP, id="another task of the same commit: keep"),
        pytest.param(TASK, NOBODY, False, Fate.DELETE, id="a task that is gone: delete"),
    ],
)
def test_fate_after_the_end(record: Record, owners: frozenset[str], unchanged: bool, expected: Fate) -> None:
    assert fate_after_end(record, owners, me="n1", unchanged=unchanged) is expected


@pytest.mark.parametrize(
    ("record", "owners", "expected"),
    [
        pytest.param(DONE, A, Fate.KEEP, id="it names them"),
        pytest.param(DONE, A | B, Fate.ADOPT, id="one has come: name it too"),
        pytest.param(replace(DONE, models=("a", "b")), B, Fate.KEEP, id="one of two has gone: the other is named"),
        pytest.param(replace(DONE, complete=False), A | B, Fate.KEEP, id="its holder will name it"),
        pytest.param(replace(DONE, complete=False, holder=""), A | B, Fate.ADOPT, id="nobody holds it"),
        pytest.param(TASK, A | B, Fate.KEEP, id="nothing is pinned for anybody"),
    ],
)
def test_fate_while_it_goes_on(record: Record, owners: frozenset[str], expected: Fate) -> None:
    assert fate_going_on(record, owners) is expected


# On an API server


def needs(owners: Iterable[str], *, here: bool = True) -> Needs:
    uids = frozenset(owners)
    source = HubSource(HubName.HUGGINGFACE, "org/m")
    wanted = Wanted(f"model:{HASH}", None, HASH, "org/m", "main", source, (), models=uids)
    return Needs(wanted={wanted.key: wanted} if here and uids else {}, owners={HASH: uids} if uids else {})


class Scene:
    def __init__(self, record: Record) -> None:
        self.server = FakeServer()
        self.put(record)
        self.nodes: dict[str, Custody] = {}

    def put(self, record: Record) -> None:
        self.server.store(render(record, name=lease_name(HASH), namespace="ome", model_hash=HASH, onto=None))

    @property
    def record(self) -> Record | None:
        found = self.server.objects.get((LEASE, Key("ome", lease_name(HASH))))
        return read(found) if found is not None else None

    def notice(self, owners: Iterable[str], *, here: bool = True) -> None:
        for node in self.nodes.values():
            node.notice(needs(owners, here=here))


@asynccontextmanager
async def scene(*names: str, record: Record = DONE) -> AsyncIterator[Scene]:
    found = Scene(record)
    for name in names:
        found.nodes[name] = Custody(found.server.client(), namespace="ome", me=name, rng=random.Random(name))
    tasks = [asyncio.create_task(node.run()) for node in found.nodes.values()]
    found.notice("a")
    yield found
    for task in tasks:
        task.cancel()
    assert all(
        isinstance(each, asyncio.CancelledError) for each in await asyncio.gather(*tasks, return_exceptions=True)
    )


async def test_the_node_that_held_it_last_deletes_it_at_once() -> None:
    async with scene("n1", "n2", "n3") as found:
        found.notice("")
        await asyncio.sleep(SOON_SECONDS + 0.1)
        assert found.record is None
        assert found.server.requests.count("delete") == 1
        await asyncio.sleep(600)
        assert found.server.requests.count("get") <= 2 * len(found.nodes)


async def test_if_that_node_is_gone_another_one_does_after_a_while() -> None:
    async with scene("n2", "n3") as found:
        found.notice("")
        await asyncio.sleep(30)
        assert found.record is not None
        await asyncio.sleep(90)
        assert found.record is None


async def test_somebody_who_took_it_meanwhile_keeps_it() -> None:
    async with scene("n2", "n3") as found:
        found.notice("")
        for number in range(ROUNDS * 40):
            await asyncio.sleep(5)
            found.put(replace(DONE, complete=False, holder="n9", renewed=str(number), models=()))
        assert found.record is not None
        assert "delete" not in found.server.requests


async def test_a_model_that_is_deleted_and_made_at_once_has_no_lease_left_of_its_first_life() -> None:
    async with scene("n1", "n2") as found:
        found.notice("")
        await asyncio.sleep(0.2)
        found.notice("b")
        await asyncio.sleep(SOON_SECONDS)
        assert found.record is None
        found.put(replace(DONE, models=("b",), commit="c2"))
        await asyncio.sleep(600)
        assert found.record is not None
        assert found.record.commit == "c2"


async def test_both_in_one_look() -> None:
    async with scene("n1") as found:
        found.notice("b")
        await asyncio.sleep(SOON_SECONDS + 0.1)
        assert found.record is None


async def test_a_second_model_is_named_before_the_first_one_goes() -> None:
    async with scene("n2", "n3") as found:
        found.notice("ab")
        await asyncio.sleep(10)
        assert found.record is not None
        assert found.record.models == ("a", "b")
        assert found.server.requests.count("replace") <= 2
        found.notice("b")
        await asyncio.sleep(600)
        assert found.record is not None
        assert (found.record.commit, found.record.complete) == ("c1", True)


async def test_a_model_that_leaves_this_node_only_is_no_business_of_it() -> None:
    async with scene("n1") as found:
        found.notice("a", here=False)
        await asyncio.sleep(600)
        assert found.record is not None
        assert found.server.requests == []


async def test_one_that_left_this_node_and_then_the_cluster_still_is() -> None:
    async with scene("n1") as found:
        found.notice("a", here=False)
        found.notice("", here=False)
        await asyncio.sleep(SOON_SECONDS + 0.1)
        assert found.record is None


async def test_at_the_start_nothing_looks_gone() -> None:
    async with scene() as found:
        custody = found.nodes["n1"] = Custody(found.server.client(), namespace="ome", me="n1")
        task = asyncio.create_task(custody.run())
        custody.notice(Needs(owners={OTHER_HASH: A}))
        await asyncio.sleep(600)
        task.cancel()
        assert found.server.requests == []
