"""The look at the agents' endpoints."""

import logging

import pytest
from pydantic import JsonValue

from modelswarm.api.meta import JsonObject
from modelswarm.backends.bittorrent.nodes import Nodes
from modelswarm.controllers.agents import AgentWatch
from modelswarm.errors import Forbidden, KubeError
from modelswarm.kube.kinds import NODECACHE, Kind
from modelswarm.kube.port import Listing
from modelswarm.kube.store import Store
from tests.unit.controllers.fake_kube import FakeKube


class Endpoints(FakeKube):
    """``live``: nodes with a ready endpoint, or why they cannot be read."""

    live: tuple[str, ...] | KubeError = ()
    asked: tuple[str, str | None, str | None] | None = None

    async def list(
        self,
        kind: Kind,
        namespace: str | None = None,
        *,
        label_selector: str | None = None,
        field_selector: str | None = None,
    ) -> Listing:
        self.asked = (kind.plural, namespace, label_selector)
        if isinstance(self.live, KubeError):
            raise self.live
        endpoints: list[JsonObject] = [{"nodeName": name, "conditions": {"ready": True}} for name in self.live]
        return Listing([{"endpoints": endpoints}], "1")  # type: ignore[dict-item]


class Scene:
    def __init__(self) -> None:
        self.store = Store()
        self.kube, self.nodes, self.now = Endpoints(), Nodes(self.store), 1000.0
        self.watch = AgentWatch(
            self.kube,
            self.nodes,
            namespace="ome",
            service="ome-peers",
            changed=lambda: None,
            grace=60,
            clock=lambda: self.now,
        )

    def cache(self, node: str, version: int, **status: JsonValue) -> None:
        """What the NodeCache of a node says, in this version of it."""
        self.store.put(NODECACHE, {"metadata": {"name": node, "resourceVersion": str(version)}, "status": status})

    async def look(self, live: tuple[str, ...] | KubeError, *, after: float = 5) -> bool:
        self.now += after
        self.kube.live = live
        return await self.watch.look()


async def test_it_tells_that_a_node_came_or_went_and_that_one_was_away_too_long() -> None:
    scene = Scene()
    await scene.look(("a", "b"))
    assert scene.kube.asked == ("endpointslices", "ome", "kubernetes.io/service-name=ome-peers")
    assert await scene.look(("a", "b"), after=60), "the grace of those that were not there at the start is over"
    assert not await scene.look(("b", "a"))
    assert await scene.look(("a",))
    assert scene.nodes.presence.is_awaited("b")
    assert not await scene.look(("a",), after=59)
    assert await scene.look(("a",), after=1)
    assert not scene.nodes.presence.is_awaited("b")
    assert await scene.look(("a", "b"))


async def test_it_tells_that_a_node_is_another_place() -> None:
    scene = Scene()
    scene.cache("a", 1, labels={"gpu": "a100"})
    await scene.look(("a",))
    await scene.look(("a",), after=60)
    assert not await scene.look(("a",))
    scene.cache("a", 2, labels={"gpu": "a100"}, usedBytes=5)
    assert not await scene.look(("a",)), "how full it is changes nothing"
    scene.cache("a", 3, labels={"gpu": "a100"}, closedBy="node.kubernetes.io/unschedulable")
    assert await scene.look(("a",))
    assert not await scene.look(("a",))
    scene.cache("a", 4, labels={"gpu": "t4"}, closedBy="node.kubernetes.io/unschedulable")
    assert await scene.look(("a",))


async def test_endpoints_that_cannot_be_read_change_nothing_and_are_told_of_once(
    caplog: pytest.LogCaptureFixture,
) -> None:
    scene = Scene()
    await scene.look(("a",))
    before = scene.nodes.presence
    with caplog.at_level(logging.WARNING):
        assert not await scene.look(Forbidden("endpointslices is forbidden", status=403), after=500)
        assert not await scene.look(Forbidden("endpointslices is forbidden", status=403))
    assert scene.nodes.presence is before
    assert [record.message for record in caplog.records] == [
        "cannot see which agents are ready: endpointslices is forbidden"
    ]
