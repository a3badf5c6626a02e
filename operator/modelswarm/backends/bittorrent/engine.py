"""The engine itself. It tells the agents where (in the task's status); they do the rest by themselves."""

from modelswarm.api.p2ptask import Engine, P2PTask, Placement
from modelswarm.backends.bittorrent.nodes import Nodes
from modelswarm.backends.bittorrent.observe import Aim, observe
from modelswarm.backends.engine import ManifestReader, Observation
from modelswarm.content.credentials import Credentials


class BitTorrent:
    """Serves models of hubs and object stores. Nothing is held: an agent sees by itself that a task is gone."""

    name = Engine.BITTORRENT

    def __init__(self, nodes: Nodes) -> None:
        self._nodes = nodes

    def serves(self, task: P2PTask) -> bool | None:
        return task.spec.model is not None

    async def ensure(self, task: P2PTask, manifest: ManifestReader, credentials: Credentials | None) -> Observation:
        resolved = task.status.resolved
        assert resolved is not None, "an engine sees pinned tasks only"
        placement = task.spec.placement or Placement()
        before = frozenset(task.status.nodes)
        return observe(Aim(resolved.digest, resolved.bytes, placement, before), self._nodes.all())

    async def release(self, task: P2PTask) -> None:
        """Deleting the task is all."""
