"""From a branch to a commit: the decision as a table, and several nodes that look one up on one API server."""

import asyncio
import hashlib
import random
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime, timedelta
from typing import Any, cast

import pytest

from modelswarm.agent.election import Record
from modelswarm.agent.leaserecord import lease_name, read
from modelswarm.agent.leases import ModelLease, Plan
from modelswarm.agent.parts import Parts
from modelswarm.agent.peers import PeerAddress
from modelswarm.agent.pinning import (
    ABANDONED_SECONDS,
    ORPHANED_SECONDS,
    PAST_SECONDS,
    Await,
    Move,
    Take,
    Use,
    consider,
    pin,
)
from modelswarm.agent.wanted import Wanted
from modelswarm.api.openmodel import HubName
from modelswarm.content.manifest import Manifest, ManifestFile, Origin, OriginKind
from modelswarm.content.source import HubSource
from modelswarm.errors import PeerUnavailable, SourceNotFound
from modelswarm.kube.key import Key
from modelswarm.kube.kinds import LEASE
from tests.unit.kube.fake import FakeServer

HASH = "ab" * 32
START = datetime(2026, 1, 1, tzinfo=UTC)
PINNED = Record(holder="n1", commit="c1", manifest="sha256:m1", models=("uid-1", "uid-2"), coordinator="http://n1")
DONE = replace(PINNED, complete=True)
ONE, OTHER = frozenset({"uid-1"}), frozenset({"uid-9"})


@pytest.mark.parametrize(
    ("record", "given", "expected"),
    [
        pytest.param(None, {}, Take, id="no Lease: take it"),
        pytest.param(Record(), {}, Take, id="nobody holds it, nothing is pinned: take it"),
        pytest.param(Record(holder="n1"), {"held": True}, Await, id="somebody looks it up: wait"),
        pytest.param(PINNED, {"held": True}, Use("sha256:m1"), id="pinned by a holder: use it"),
        pytest.param(DONE, {}, Use("sha256:m1"), id="pinned long ago: use it"),
        pytest.param(replace(DONE, models=()), {}, Use("sha256:m1"), id="for whom is not written: use it"),
        pytest.param(
            DONE,
            {"missed": ABANDONED_SECONDS},
            Take("c1", "no node has the list of files that is pinned"),
            id="no node has the list of files any more: the same commit again",
        ),
        pytest.param(PINNED, {"missed": ABANDONED_SECONDS}, Use, id="a node may only be away: a little longer"),
        pytest.param(PINNED, {"missed": ORPHANED_SECONDS}, Take, id="but not for ever"),
        pytest.param(PINNED, {"missed": 1e6, "held": True}, Use, id="never over a living holder's head"),
        pytest.param(DONE, {"models": OTHER}, Await, id="pinned for models that are gone: somebody may know better"),
        pytest.param(
            DONE,
            {"models": OTHER, "waited": PAST_SECONDS},
            Take("", "it was pinned for models that are gone"),
            id="nobody did: the branch as it is now",
        ),
        pytest.param(
            PINNED,
            {"models": OTHER, "waited": 1e6, "held": True},
            Await,
            id="the holder of an earlier life ends it",
        ),
    ],
)
def test_consider(record: Record | None, given: dict[str, Any], expected: Move | type[Move]) -> None:
    found = consider(record, **{"held": False, "models": ONE, "waited": 0.0, "missed": 0.0, **given})
    if isinstance(expected, type):
        assert type(found) is expected
    else:
        assert found == expected


# Several nodes


@dataclass
class Hub:
    """The branch, who asked for what, and how long an answer takes."""

    head: str = "c1"
    asked: list[str] = field(default_factory=list)
    failing: bool = False
    seconds: float = 3.0

    def manifest(self, commit: str) -> Manifest:
        digest = f"sha256:{hashlib.sha256(commit.encode()).hexdigest()}"
        return Manifest(Origin(OriginKind.HUGGINGFACE, "org/m"), commit, (ManifestFile("a", 5, digest),))

    async def resolve_model(self, source: HubSource, credentials: object) -> Manifest:
        self.asked.append(source.revision)
        await asyncio.sleep(self.seconds)
        if self.failing:
            raise SourceNotFound("org/m does not exist")
        return self.manifest(self.head if source.revision == "main" else source.revision)


class Node:
    """As much of a node as pinning needs: others get from it the lists of files that it has."""

    def __init__(self, cluster: "Cluster", name: str) -> None:
        self.cluster = cluster
        self.name = name
        self.url = f"http://{name}:8081"
        self.manifests: dict[str, Manifest] = {}
        self.waited: list[str] = []
        self.models = frozenset({"uid-1"})

    def wanted(self) -> Wanted:
        return Wanted(
            key=f"model:{HASH}",
            content=None,
            model_hash=HASH,
            name="org/m",
            revision="main",
            source=HubSource(HubName.HUGGINGFACE, "org/m"),
            claims=(),
            models=self.models,
        )

    def lease(self) -> ModelLease:
        return ModelLease(
            self.cluster.server.client(),
            namespace="ome",
            model_hash=HASH,
            me=self.name,
            plan=Plan(self.url, repo="org/m"),
            models=lambda: tuple(self.models),
            now=lambda: START + timedelta(seconds=asyncio.get_running_loop().time()),
            rng=random.Random(self.name),
        )

    async def pin(self) -> Manifest:
        return await pin(
            self.wanted, self.lease(), cast(Parts, self), waits=self.waited.append, rng=random.Random(self.name)
        )

    # What pinning asks of the parts

    p2p_enabled = True

    @property
    def settings(self) -> "Node":
        return self

    @property
    def address(self) -> "Node":
        return self

    @property
    def resolver(self) -> Hub:
        return self.cluster.hub

    @property
    def provisions(self) -> "Node":
        return self

    async def credentials(self, wanted: Wanted) -> None:
        return None

    @property
    def hosting(self) -> "_Hosting":
        return _Hosting(self.manifests)

    @property
    def discovery(self) -> "Node":
        return self

    def peers(self) -> tuple[PeerAddress, ...]:
        return tuple(PeerAddress(node.url, node.name, 6881) for node in self.cluster.nodes.values() if node is not self)

    @property
    def client(self) -> "Node":
        return self

    async def manifest(self, url: str, digest: str) -> Manifest | None:
        for node in self.cluster.nodes.values():
            if node.url == url:
                await asyncio.sleep(30.0 if node.name in self.cluster.silent else 0.0)
                return node.manifests.get(digest.removeprefix("sha256:"))
        raise PeerUnavailable("nobody is there", url=url)


@dataclass(frozen=True)
class _Hosting:
    manifests: dict[str, Manifest]

    async def manifest(self, digest: str) -> Manifest | None:
        return self.manifests.get(digest)


class Cluster:
    def __init__(self, *names: str) -> None:
        self.server = FakeServer()
        self.hub = Hub()
        self.nodes = {name: Node(self, name) for name in names}
        self.silent: set[str] = set()

    @property
    def record(self) -> Record:
        return read(self.server.objects[LEASE, Key("ome", lease_name(HASH))])

    async def pin(self, *names: str) -> set[str | None]:
        """All of these nodes want the branch at once; the commits that they come to."""
        nodes = [self.nodes[name] for name in names or self.nodes]
        async with asyncio.timeout(200):
            return {manifest.revision for manifest in await asyncio.gather(*(node.pin() for node in nodes))}

    def finish(self, **changes: Any) -> None:
        """As if the model were complete everywhere: nobody holds the Lease any more."""
        [lease] = self.server.objects.values()
        lease["metadata"]["labels"]["ome.io/status"] = "complete"
        for name, value in changes.items():
            lease["metadata"]["annotations"][f"modelswarm.io/{name}"] = value
        self.server.store(lease)

    def forget(self) -> None:
        for node in self.nodes.values():
            node.manifests.clear()


@pytest.fixture
def cluster() -> Cluster:
    return Cluster("n1", "n2", "n3", "n4")


looptime = pytest.mark.looptime


@looptime
async def test_of_many_nodes_one_asks_the_hub(cluster: Cluster) -> None:
    assert await cluster.pin() == {"c1"}
    assert cluster.hub.asked == ["main"]
    record = cluster.record
    assert (record.commit, record.manifest) == ("c1", cluster.hub.manifest("c1").digest)
    assert record.models == ("uid-1",)
    assert record.segment_bytes > 0
    others = [node for node in cluster.nodes.values() if node.name != record.holder]
    assert all(f"{record.holder}, which looks up the branch at its origin" in node.waited for node in others)


@looptime
async def test_who_looked_it_up_for_longer_than_its_lease_uses_what_another_has_pinned(cluster: Cluster) -> None:
    cluster.hub.seconds = 150.0
    first, second = cluster.nodes["n1"], cluster.nodes["n2"]
    begun = asyncio.create_task(first.pin())
    await asyncio.sleep(1)
    cluster.hub.seconds = 3.0
    assert (await second.pin()).revision == "c1"
    cluster.hub.head = "c2"
    assert (await begun).revision == "c1", "what it found out itself by then is not what the others have"
    assert (cluster.record.commit, cluster.record.holder) == ("c1", "n2")


@looptime
async def test_a_branch_that_has_moved_leaves_what_is_pinned(cluster: Cluster) -> None:
    await cluster.pin("n1", "n2")
    cluster.finish()
    cluster.hub.head = "c2"
    assert await cluster.pin("n3", "n4") == {"c1"}
    assert cluster.hub.asked == ["main"]


@looptime
async def test_nodes_that_answer_nothing_delay_the_list_of_files_by_a_second_at_most(cluster: Cluster) -> None:
    await cluster.pin("n1", "n2", "n3")
    cluster.finish()
    holder = cluster.record.holder
    knows = next(node for node in (cluster.nodes["n3"], cluster.nodes["n2"]) if node.name != holder)
    knows.manifests.update(cluster.nodes[holder].manifests)
    cluster.silent = {*cluster.nodes} - {knows.name}
    before = asyncio.get_running_loop().time()
    assert await cluster.pin("n4") == {"c1"}
    assert asyncio.get_running_loop().time() - before < 1.0


@looptime
async def test_an_orphaned_pin_is_resolved_again_by_one_node_and_at_its_commit(cluster: Cluster) -> None:
    await cluster.pin()
    cluster.finish()
    cluster.forget()
    cluster.hub.head = "c2"
    cluster.hub.asked.clear()
    assert await cluster.pin() == {"c1"}
    assert cluster.hub.asked == ["c1"]


@looptime
async def test_a_model_that_was_made_anew_gets_the_branch_as_it_is_now(cluster: Cluster) -> None:
    await cluster.pin()
    cluster.finish()
    cluster.hub.head = "c2"
    cluster.hub.asked.clear()
    for node in cluster.nodes.values():
        node.models = frozenset({"uid-2"})
    # All of them still have the list of files of the first life.
    assert await cluster.pin() == {"c2"}
    assert cluster.hub.asked == ["main"]
    assert cluster.record.models == ("uid-2",)
    assert cluster.record.commit == "c2"


@looptime
async def test_a_model_that_outlives_the_first_one_keeps_its_commit(cluster: Cluster) -> None:
    await cluster.pin()
    cluster.finish()
    cluster.hub.head = "c2"
    for node in cluster.nodes.values():
        node.models = frozenset({"uid-2"})
    late = asyncio.create_task(cluster.nodes["n4"].pin())
    await asyncio.sleep(PAST_SECONDS / 2)
    # Meanwhile somebody who has seen both says so.
    cluster.finish(models="uid-1,uid-2")
    assert (await late).revision == "c1"
    assert cluster.hub.asked == ["main"]


@looptime
async def test_what_the_hub_refuses_is_tried_by_the_next_and_the_lease_is_given_back(cluster: Cluster) -> None:
    cluster.hub.failing = True
    with pytest.raises(SourceNotFound):
        await cluster.nodes["n1"].pin()
    assert cluster.record.holder == ""
    cluster.hub.failing = False
    assert await cluster.pin("n2") == {"c1"}


@looptime
async def test_a_holder_that_dies_while_it_asks_is_succeeded(cluster: Cluster) -> None:
    first = asyncio.create_task(cluster.nodes["n1"].pin())
    await asyncio.sleep(1)
    # As SIGKILL ends it: nothing is given back.
    cluster.hub.seconds = 1e9
    first.cancel()
    lease = cluster.server.objects[LEASE, Key("ome", lease_name(HASH))]
    assert await _cancelled(first)
    cluster.server.objects[LEASE, Key("ome", lease_name(HASH))] = lease
    cluster.hub.seconds = 3.0
    assert await cluster.pin("n2", "n3") == {"c1"}
    assert cluster.hub.asked == ["main", "main"]


async def _cancelled(task: "asyncio.Task[Manifest]") -> bool:
    await asyncio.wait([task])
    return task.cancelled()


@looptime
async def test_without_peers_every_node_asks_for_itself_and_no_lease_is_needed(cluster: Cluster) -> None:
    for node in cluster.nodes.values():
        node.p2p_enabled = False
    assert await cluster.pin() == {"c1"}
    assert cluster.hub.asked == ["main"] * 4
    assert cluster.server.requests == []
