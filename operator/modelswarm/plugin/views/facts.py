"""What ``kubectl swarm doctor`` looks at, gathered before it judges. Data only."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime

from modelswarm.api.meta import JsonObject
from modelswarm.plugin.installation import Installation
from modelswarm.plugin.snapshot import Snapshot


@dataclass(frozen=True, slots=True)
class Right:
    """One thing that somebody must be allowed to do. ``allowed`` None: it could not be asked."""

    who: str
    verb: str
    resource: str
    group: str = ""
    namespace: str = ""
    name: str = ""
    allowed: bool | None = None


@dataclass(frozen=True, slots=True)
class Asked:
    """An answer of a pod's own port, by way of the API server; ``problem`` where there was none."""

    pod: str
    node: str
    status: int = 0
    text: str = ""
    peers: int | None = None
    """Other agents that this one finds by DNS."""
    problem: str = ""


@dataclass(frozen=True, slots=True)
class Facts:
    """``served`` has the plurals by ``group/version``; times are UTC, ``server_time`` by the API server's clock."""

    snapshot: Snapshot
    installation: Installation
    version: str
    here: datetime
    server_time: datetime | None = None
    served: Mapping[str, frozenset[str]] = field(default_factory=dict)
    operator_lease: JsonObject | None = None
    service: JsonObject | None = None
    slices: tuple[JsonObject, ...] = ()
    peer_secret: bool | None = None
    node_leases: tuple[JsonObject, ...] = ()
    model_leases: tuple[JsonObject, ...] = ()
    operators: tuple[Asked, ...] = ()
    agents: tuple[Asked, ...] = ()
    rights: tuple[Right, ...] = ()
    server_version: str = ""
