"""P2PTask (llmaz.io/v1alpha1): these bytes, on those nodes, by this engine; and how far that is (design 2.1)."""

from enum import StrEnum
from typing import ClassVar, Literal

from pydantic import Field

from modelswarm.api.conditions import Condition
from modelswarm.api.meta import ApiModel, Resource, SecretKeyReference, Time
from modelswarm.api.openmodel import ModelSource


class Engine(StrEnum):
    """How bytes are spread. ``AUTO`` lets the operator's configuration choose, once."""

    AUTO = "Auto"
    DRAGONFLY = "Dragonfly"
    BITTORRENT = "BitTorrent"
    DIRECT = "Direct"


class Fallback(StrEnum):
    DIRECT = "Direct"
    FAIL = "Fail"


class Phase(StrEnum):
    """One word for people; the conditions decide."""

    PENDING = "Pending"
    RESOLVING = "Resolving"
    RUNNING = "Running"
    SUSPENDED = "Suspended"
    SUCCEEDED = "Succeeded"
    FELL_BACK = "FellBack"
    FAILED = "Failed"


class ModelTask(ApiModel):
    source: ModelSource


class ImageTask(ApiModel):
    reference: str = Field(min_length=1, max_length=1024)
    platforms: tuple[str, ...] = ()
    """``os/arch[/variant]``; empty: the platforms of the cluster's nodes."""
    pull_secrets: tuple[SecretKeyReference, ...] = ()


class Placement(ApiModel):
    node_selector: dict[str, str] = Field(default_factory=dict)
    copies: int | Literal["All"] = 2
    min_ready: int = Field(default=1, ge=1)


class P2PTaskSpec(ApiModel):
    model: ModelTask | None = None
    image: ImageTask | None = None
    engine: Engine = Engine.AUTO
    placement: Placement | None = None
    pin: bool = False
    credentials_secret_ref: SecretKeyReference | None = None
    fallback: Fallback = Fallback.DIRECT
    suspend: bool = False
    backoff_limit: int = Field(default=6, ge=0)
    active_deadline_seconds: int | None = Field(default=None, ge=1)
    ttl_seconds_after_finished: int | None = Field(default=None, ge=0)


class Resolved(ApiModel):
    """What the source was pinned to."""

    revision: str | None = None
    digest: str
    digest_source: Literal["Hub", "Registry", "Store", "FirstRead"]
    files: int
    bytes: int


class ManifestReference(ApiModel):
    """The ConfigMaps that hold the list of files: ``name`` and, from the second shard on, ``name-1``, ``name-2``..."""

    name: str
    shards: int


class Progress(ApiModel):
    percent: int = 0
    done_bytes: int = 0
    total_bytes: int = 0
    origin_bytes: int = 0
    peer_bytes: int = 0
    bytes_per_second: int = 0
    eta_seconds: int | None = None


class DragonflyJob(ApiModel):
    id: int
    cluster: int
    state: str
    attempt: int
    submitted_at: Time
    files: int


class DragonflyStatus(ApiModel):
    jobs: tuple[DragonflyJob, ...] = ()


class NodeFailure(ApiModel):
    node: str
    reason: str
    message: str


class TaskDisplay(ApiModel):
    """The short strings that ``kubectl get`` prints (printer columns can only read plain fields)."""

    ready: str = "-"
    progress: str = "-"
    eta: str = "-"
    origin: str = "-"
    peer: str = "-"
    message: str = ""


class P2PTaskStatus(ApiModel):
    """Zeros are written, so that ``kubectl wait --for=jsonpath`` works."""

    observed_generation: int = 0
    phase: Phase = Phase.PENDING
    engine: Engine | None = None
    resolved: Resolved | None = None
    manifest: ManifestReference | None = None
    desired: int = 0
    ready: int = 0
    failed: int = 0
    attempts: int = 0
    """Failed attempts before the first Ready; compared with ``backoffLimit``."""
    progress: Progress = Progress()
    display: TaskDisplay = TaskDisplay()
    dragonfly: DragonflyStatus | None = None
    failures: tuple[NodeFailure, ...] = ()
    conditions: tuple[Condition, ...] = ()
    start_time: Time | None = None
    completion_time: Time | None = None
    last_progress_time: Time | None = None
    """When the last newly verified byte was seen: what stall timeouts are measured from."""


class P2PTask(Resource):
    GROUP: ClassVar[str] = "llmaz.io"
    VERSION: ClassVar[str] = "v1alpha1"
    KIND: ClassVar[str] = "P2PTask"
    PLURAL: ClassVar[str] = "p2ptasks"
    NAMESPACED: ClassVar[bool] = True

    spec: P2PTaskSpec
    status: P2PTaskStatus = P2PTaskStatus()
