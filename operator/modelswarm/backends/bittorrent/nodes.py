"""What the agents have told: their NodeCaches, each read once per version, and which of them are alive."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from modelswarm.api.meta import JsonObject
from modelswarm.api.nodecache import ModelState, NodeCache
from modelswarm.backends.bittorrent.presence import Presence
from modelswarm.kube.kinds import NODECACHE
from modelswarm.kube.store import Store
from modelswarm.placement import Place


@dataclass(frozen=True, slots=True)
class Copy:
    """How far a node is with a content."""

    state: ModelState
    done_bytes: int = 0
    origin_bytes: int = 0
    peer_bytes: int = 0
    reason: str | None = None
    message: str = ""


@dataclass(frozen=True, slots=True)
class AgentNode:
    """A node that has, or had, an agent. ``copies`` by content (``sha256:<hex>``)."""

    name: str
    live: bool
    labels: Mapping[str, str] = field(default_factory=dict)
    copies: Mapping[str, Copy] = field(default_factory=dict)
    awaited: bool = False
    """Not live, but for so short a time that its agent may only be restarting."""
    closed_by: str | None = None
    """The taint for which no pod comes to the node at present."""


def copies_of(cache: NodeCache) -> dict[str, Copy]:
    """The contents of a NodeCache whose digest is known."""
    return {
        model.content: Copy(
            model.state,
            model.done_bytes,
            model.origin_bytes,
            model.peer_bytes,
            model.reason,
            model.message or "",
        )
        for model in cache.status.models
        if model.content.startswith("sha256:")
    }


def contents_of(obj: JsonObject) -> list[str]:
    """The contents that a NodeCache speaks of: the index by which a change of it finds the tasks that it is about."""
    status = obj.get("status")
    models = status.get("models") if isinstance(status, dict) else None
    return [
        str(model["content"])
        for model in (models if isinstance(models, list) else [])
        if isinstance(model, dict) and "content" in model
    ]


def ready_nodes(slices: Sequence[JsonObject]) -> frozenset[str]:
    """Names of the nodes with a ready endpoint in EndpointSlices."""
    found: set[str] = set()
    for each in slices:
        endpoints = each.get("endpoints")
        for endpoint in endpoints if isinstance(endpoints, list) else []:
            if not isinstance(endpoint, dict):
                continue
            conditions = endpoint.get("conditions")
            # Absent means ready, says the API.
            ready = conditions.get("ready", True) if isinstance(conditions, dict) else True
            if ready is not False and endpoint.get("nodeName"):
                found.add(str(endpoint["nodeName"]))
    return frozenset(found)


class Nodes:
    """All nodes with a NodeCache, which goes with its Node. ``presence`` is set from outside, by whoever follows the
    agents' endpoints.
    """

    def __init__(self, store: Store) -> None:
        self._store = store
        self._read: dict[str, tuple[str, Place, Mapping[str, Copy]]] = {}
        self.presence = Presence()

    def all(self) -> tuple[AgentNode, ...]:
        """By name."""
        self._catch_up()
        return tuple(
            AgentNode(
                name,
                name in self.presence.live,
                place.labels,
                copies,
                self.presence.is_awaited(name),
                place.closed_by,
            )
            for name, (_, place, copies) in sorted(self._read.items())
        )

    def places(self) -> dict[str, Place]:
        """What decides where copies go, by node."""
        self._catch_up()
        return {name: place for name, (_, place, _) in self._read.items()}

    def _catch_up(self) -> None:
        """A NodeCache is read again only if it has changed."""
        versions = {key.name: version for key, version in self._store.versions(NODECACHE).items()}
        for name in self._read.keys() - versions.keys():
            del self._read[name]
        for name, version in versions.items():
            known = self._read.get(name)
            if known is None or known[0] != version:
                cache = NodeCache.model_validate(self._store.get(NODECACHE, name))
                place = Place(cache.status.labels, cache.status.closed_by)
                self._read[name] = (version, place, copies_of(cache))
