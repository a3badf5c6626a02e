"""NodeCache (llmaz.io/v1alpha1, cluster-scoped): what a node has of which models. Written by that node's agent."""

from enum import StrEnum
from typing import Annotated, ClassVar, Literal

from pydantic import Field

from modelswarm.api.markers import AGE, Bounds, Column, ListMap, ShortText
from modelswarm.api.meta import ApiModel, Resource, Time

MOST_MODELS = 1000
"""With every text at its longest, so many entries and their field ownership stay below what etcd takes (1.5 MiB)."""
LONGEST_MESSAGE = 256
LONGEST_TAINT = 317
"""A DNS name of 253 characters, a slash, and 63 more."""

ContentKey = Annotated[str, Bounds(max_length=71, pattern="^(sha256|model):[0-9a-f]{64}$")]


class ModelState(StrEnum):
    """How far a node is with a model."""

    ABSENT = "Absent"
    """It is wanted, and nothing was done for it yet."""
    WAITING = "Waiting"
    """For the coordinator, for space, for the origin, or because its tasks are suspended; ``reason`` says which."""
    FETCHING = "Fetching"
    VERIFYING = "Verifying"
    READY = "Ready"
    """Every file is there and its digest was checked."""
    FAILED = "Failed"
    EVICTED = "Evicted"
    """It was here, and its space was needed for something else."""


class CachedModel(ApiModel):
    """What the node has of one model."""

    content: ContentKey
    """Digest of the content as in a P2PTask's status.resolved.digest (sha256:...); or model: and the hash of what was
    asked for, as long as that was not resolved."""
    name: ShortText
    """What users know it by: the model id, or the address in an object store."""
    revision: Annotated[str, Bounds(max_length=128)] | None = None
    """The commit, or the branch until that is pinned."""
    state: ModelState
    """How far it is."""
    fetching_from: Literal["Origin", "Peers"] | None = None
    """While it is being fetched: where most of the bytes come from at present."""
    bytes: int = 0
    """Size of the content; 0 until it is known."""
    done_bytes: int = 0
    """How much of it is on the node."""
    origin_bytes: int = 0
    """Bytes that this node read from the origin for it."""
    peer_bytes: int = 0
    """Bytes that this node got from other nodes for it."""
    bytes_per_second: int = 0
    """Speed at present."""
    reason: Annotated[str, Bounds(max_length=64)] | None = None
    """A fixed word for why it waits or failed, for example InsufficientCapacity."""
    message: Annotated[str, Bounds(max_length=LONGEST_MESSAGE)] | None = None
    """What is wrong, with numbers."""
    ready_time: Time | None = None
    """When it became complete."""


class AgentStatus(ApiModel):
    """Where the node's agent is reached by the others."""

    metainfo_url: ShortText = Field(alias="metainfoURL")
    """Base URL of its metainfo server, for example http://10.0.3.7:8081."""
    torrent_address: ShortText
    """Where it speaks BitTorrent, for example 10.0.3.7:6881."""
    version: Annotated[str, Bounds(max_length=64)]
    """Version of modelswarm."""


class CacheDisplay(ApiModel):
    """The short strings that 'kubectl get' prints (printer columns can only read plain fields)."""

    models: Annotated[str, Bounds(max_length=32)] = "-"
    """Complete models of all models, for example 3/4."""
    size: Annotated[str, Bounds(max_length=32)] = "-"
    """What the models take, for example 131.0Gi."""
    free: Annotated[str, Bounds(max_length=32)] = "-"
    """Space that is left, for example 412.3Gi."""


class NodeCacheStatus(ApiModel):
    """What the node has. Zeros are written."""

    agent: AgentStatus | None = None
    """Where the node's agent is reached by the others."""
    labels: dict[str, str] = Field(default_factory=dict)
    """The Node's labels, by which the placement of tasks chooses."""
    closed_by: Annotated[str, Bounds(max_length=LONGEST_TAINT)] | None = None
    """Key of the taint for which no pod comes to the node at present (node.kubernetes.io/unschedulable: it is
    cordoned). Tasks with a number of copies give it nothing new; what it has begun it keeps, and that counts."""
    models: Annotated[tuple[CachedModel, ...], ListMap("content"), Bounds(max_items=MOST_MODELS)] = ()
    """The models that are on the node or should be, at most 1,000 of them."""
    capacity_bytes: int = 0
    """Space for models: the agent's quota, or the size of the file system."""
    used_bytes: int = 0
    """Space that models and what was begun of them take. Files that models share count once."""
    free_bytes: int = 0
    """Space that is left for models."""
    display: CacheDisplay = CacheDisplay()


class NodeCache(Resource):
    """What a node has of which models, and how far it is with the others. There is one for each node with an agent,
    with the node's name; only that node's agent writes it, and it goes with the Node."""

    GROUP: ClassVar[str] = "llmaz.io"
    VERSION: ClassVar[str] = "v1alpha1"
    KIND: ClassVar[str] = "NodeCache"
    PLURAL: ClassVar[str] = "nodecaches"
    NAMESPACED: ClassVar[bool] = False
    SHORT_NAMES: ClassVar[tuple[str, ...]] = ("nc",)
    CATEGORIES: ClassVar[tuple[str, ...]] = ("llmaz", "modelswarm")
    COLUMNS: ClassVar[tuple[Column, ...]] = (
        Column("Models", ".status.display.models"),
        Column("Size", ".status.display.size"),
        Column("Free", ".status.display.free"),
        AGE,
        Column("Metainfo", ".status.agent.metainfoURL", priority=1),
        Column("Version", ".status.agent.version", priority=1),
        Column("Closed By", ".status.closedBy", priority=1),
    )

    status: NodeCacheStatus = NodeCacheStatus()
