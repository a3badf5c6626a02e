"""P2PTask (llmaz.io/v1alpha1): these bytes, on those nodes, by this engine; and how far that is."""

from enum import StrEnum
from typing import Annotated, ClassVar, Literal

from pydantic import Field

from modelswarm.api import rules
from modelswarm.api.conditions import Condition
from modelswarm.api.markers import AGE, Bounds, Column, ListMap
from modelswarm.api.meta import ApiModel, Resource, SecretKeyReference, Time
from modelswarm.api.openmodel import ModelSource
from modelswarm.api.rules import Rule

Platform = Annotated[str, Bounds(max_length=64, pattern=r"^[a-z0-9]+/[a-z0-9_]+(/[a-z0-9.]+)?$")]


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
    """The files of a model."""

    source: ModelSource
    """Where the files come from, as in an OpenModel."""


class ImageTask(ApiModel):
    """A container image."""

    reference: str = Field(min_length=1, max_length=1024)
    """The image as a pod would name it, such as docker.io/vllm/vllm-openai:v0.7.3. A tag is pinned to its digest."""
    platforms: Annotated[tuple[Platform, ...], Bounds(max_items=16)] = ()
    """OS/ARCH or OS/ARCH/VARIANT, for example linux/amd64. Without it: the platforms of the cluster's nodes."""
    pull_secrets: Annotated[tuple[SecretKeyReference, ...], Bounds(max_items=16)] = ()
    """Secrets in the task's namespace with credentials for the registry, as a pod's imagePullSecrets."""


class Placement(ApiModel):
    """On which nodes, and on how many. Engines that bring their own storage (Dragonfly, Direct) do not look at it."""

    RULES: ClassVar[tuple[Rule, ...]] = rules.PLACEMENT

    node_selector: dict[str, str] = Field(default_factory=dict)
    """Labels that a node must have to get a copy; empty: any node with an agent."""
    copies: Annotated[int | Literal["All"], *rules.COPIES] = 2
    """On how many nodes the bytes are wanted: a number, or All."""
    min_ready: int = Field(default=1, ge=1)
    """How many complete nodes make the task Ready."""


class P2PTaskSpec(ApiModel):
    """What to distribute, where to and how. Exactly one of 'model' and 'image'; neither can be changed later (but an
    image's pull secrets)."""

    RULES: ClassVar[tuple[Rule, ...]] = rules.TASK

    model: ModelTask | None = None
    """The files of a model. Excludes image; cannot be changed."""
    image: ImageTask | None = None
    """A container image. Excludes model; cannot be changed, but for its pull secrets."""
    engine: Engine = Engine.AUTO
    """How bytes are spread. Auto: as the operator is configured, chosen once. Direct: not at all, each consumer
    downloads from the origin. What an engine cannot serve goes to the next one."""
    placement: Placement | None = None
    """On which nodes, and on how many."""
    pin: bool = False
    """Keep the bytes on the nodes as long as this task exists, whatever else needs the space."""
    credentials_secret_ref: SecretKeyReference | None = None
    """Secret in the task's namespace with what the origin asks for: HF_TOKEN, or the keys of an object store."""
    fallback: Fallback = Fallback.DIRECT
    """What happens when the engine fails. Direct: consumers go to the origin, Ready becomes True with reason
    FellBackToOrigin. Fail: Ready stays False and whoever waits for the task goes on waiting."""
    suspend: bool = False
    """Stop the work until this is false again. What was downloaded stays."""
    backoff_limit: int = Field(default=6, ge=0)
    """Failed attempts before the first Ready after which the task falls back or fails."""
    active_deadline_seconds: int | None = Field(default=None, ge=1)
    """Seconds until the first Ready after which the task falls back or fails, whatever the progress. Without it only
    time without progress counts."""
    ttl_seconds_after_finished: int | None = Field(default=None, ge=0)
    """Seconds after which a finished task is deleted. Ignored on tasks that belong to an OpenModel or a Playground."""


class Resolved(ApiModel):
    """What the source was pinned to."""

    revision: str | None = None
    """The commit of a repository, or the digest of an image's manifest."""
    digest: str
    """Digest of the whole content; equal content has equal digests."""
    digest_source: Literal["Hub", "Registry", "Store", "FirstRead"]
    """Who vouches for the files' digests: the origin, or (FirstRead) whoever read the files first."""
    files: int
    """Number of files or layers."""
    bytes: int
    """Sum of their sizes."""
    public: bool | None = None
    """For a model of a hub: whether its files can be read without credentials. Asked once, when it was pinned. Absent
    where the origin did not say, and such files are treated as if they could not."""


class ManifestReference(ApiModel):
    """The ConfigMaps that hold the list of files: 'name' and, from the second shard on, name-1, name-2..."""

    name: str
    """Name of the first ConfigMap."""
    shards: int
    """Number of ConfigMaps."""


class Progress(ApiModel):
    """How far the distribution is. It moves in steps and never backwards."""

    percent: int = 0
    """Part of the wanted bytes that is in place, 0 to 100."""
    done_bytes: int = 0
    """Bytes that are in place, over all nodes."""
    total_bytes: int = 0
    """Bytes that are wanted, over all nodes."""
    origin_bytes: int = 0
    """Bytes that were read from the origin."""
    peer_bytes: int = 0
    """Bytes that came from other nodes."""
    bytes_per_second: int = 0
    """Speed at present."""
    eta_seconds: int | None = None
    """Estimated seconds until the end; absent while nothing moves."""


class DragonflyJob(ApiModel):
    """A preheat job of the Dragonfly manager."""

    id: int
    """The job's number at the manager; 0 if the manager refused to make it."""
    cluster: int
    """The scheduler cluster that it runs on."""
    state: str
    """The manager's own word for its state, or REFUSED, LOST (not to be waited for), GONE (lost and removed), CONFIRMED
    (seed peers have all of its files, whatever the manager says of it)."""
    attempt: int
    """1 for the first job with these files on this cluster."""
    submitted_at: Time
    """When it was submitted."""
    files: int
    """Number of files in it."""
    serial: int = 0
    """Counts the jobs of this task on this cluster; part of the marker in the job's description."""
    items: str = ""
    """Which files it still has to bring: their numbers in the order of the manifest, as in 0-3,7."""
    suspects: str = ""
    """Of these, the ones that it failed for."""
    reason: str | None = None
    """Why it did not bring them, or while it runs: why the job before it did not."""
    message: str | None = None
    """What the manager said about it."""
    retry_at: Time | None = None
    """When they are tried again."""
    credentials: bool = False
    """The manager's record of it holds credentials, so it is deleted as soon as the job is over."""


class DragonflyCluster(ApiModel):
    """How far a scheduler cluster is."""

    cluster: int
    """Its number at the manager."""
    submitted: int = 0
    """Number of jobs that were submitted to it for this task."""
    confirmed: str = ""
    """Files of which a seed peer is known to have every byte: their numbers in the order of the manifest."""


class DragonflyProbe(ApiModel):
    """A question about one file, while the job that brings it only says PENDING. It is a job at the manager too."""

    id: int
    """The question's number at the manager; 0 once it was answered."""
    cluster: int
    """The scheduler cluster that is asked."""
    item: int
    """The file's number in the order of the manifest."""
    asked_at: Time
    """When it was asked."""


class DragonflyTaskID(ApiModel):
    """Under which id Dragonfly keeps a file, to look it up on a node."""

    name: str
    """Path of the file, or digest of the layer."""
    id: str
    """Dragonfly's task id, computed from what nodes ask for."""


class DragonflyStatus(ApiModel):
    """What the engine Dragonfly needs to remember."""

    plan: str = ""
    """Digest of what is asked for: content, URLs and everything else that makes the ids of the files."""
    platforms: Annotated[tuple[Platform, ...], Bounds(max_items=16)] = ()
    """For an image: the platforms whose layers are brought."""
    files: int = 0
    """Number of files that are asked for, in each cluster."""
    bytes: int = 0
    """Sum of their sizes."""
    clusters: Annotated[tuple[DragonflyCluster, ...], Bounds(max_items=64)] = ()
    """How far each scheduler cluster is."""
    jobs: tuple[DragonflyJob, ...] = ()
    """Jobs that run, or that wait to be tried again, and the last ones that ended well."""
    probes: Annotated[tuple[DragonflyProbe, ...], Bounds(max_items=64)] = ()
    """Questions that are under way, at most one for each cluster."""
    failed_attempts: int = 0
    """The highest attempt of which a job has failed."""
    complete: bool = False
    """Every file is confirmed in every cluster, and nothing is left at the manager that has to go."""
    renewals: int = 0
    """How often it was begun anew after it had been complete, because seed peers had lost files."""
    ineffective: bool = False
    """For an image: the manager cannot bring layers under the ids that the nodes ask for, so it is left alone."""
    examples: Annotated[tuple[DragonflyTaskID, ...], Bounds(max_items=3)] = ()
    """The ids of the largest files."""


class NodeFailure(ApiModel):
    """Why a node does not get on."""

    node: str
    """Name of the node."""
    reason: str
    """A fixed word, for example InsufficientCapacity."""
    message: str
    """What is wrong, with numbers."""


class TaskDisplay(ApiModel):
    """The short strings that 'kubectl get' prints (printer columns can only read plain fields)."""

    ready: str = "-"
    """Complete nodes of wanted nodes, for example 1/2."""
    progress: str = "-"
    """For example 71%."""
    eta: str = "-"
    """For example 1m14s."""
    origin: str = "-"
    """Bytes read from the origin, for example 1.2GiB."""
    peer: str = "-"
    """Bytes that came from other nodes."""
    message: str = ""
    """What the task waits for or why it failed."""


class P2PTaskStatus(ApiModel):
    """How far it is. Zeros are written, so that 'kubectl wait --for=jsonpath' works."""

    observed_generation: int = 0
    """The generation of the spec that this status is about."""
    phase: Phase = Phase.PENDING
    """One word for people; programs should read the conditions."""
    engine: Engine | None = None
    """The engine at work; what Auto chose."""
    resolved: Resolved | None = None
    """What the source was pinned to. It does not change as long as the task exists."""
    manifest: ManifestReference | None = None
    """Where the list of files is."""
    desired: int = 0
    """Number of nodes that should hold the bytes."""
    ready: int = 0
    """Number of nodes that hold all of them, verified."""
    failed: int = 0
    """Number of nodes that cannot go on by themselves; see 'failures'."""
    attempts: int = 0
    """Failed attempts before the first Ready; compared with 'backoffLimit'."""
    progress: Progress = Progress()
    display: TaskDisplay = TaskDisplay()
    nodes: Annotated[tuple[str, ...], Bounds(max_items=5000)] = ()
    """Engine BitTorrent: the nodes that were chosen to hold the copies; absent while all matching nodes are."""
    dragonfly: DragonflyStatus | None = None
    """Jobs at the Dragonfly manager, while that engine is at work."""
    failures: Annotated[tuple[NodeFailure, ...], Bounds(max_items=20)] = ()
    """Nodes that cannot go on by themselves, at most 20 of them."""
    conditions: Annotated[tuple[Condition, ...], ListMap("type")] = ()
    """Accepted, Resolved, Ready (the gate of whoever waits for the bytes) and Degraded (it works, but not as asked)."""
    start_time: Time | None = None
    """When work began."""
    completion_time: Time | None = None
    """When the task was Ready for the first time (also by fallback)."""
    last_progress_time: Time | None = None
    """When the last newly verified byte was seen: what stall timeouts are measured from."""


class P2PTask(Resource):
    """These bytes, on those nodes, by this engine; and how far that is. Made by the controllers for models and images
    that Playgrounds need, or by hand to place something ahead of time. It stands for a wish, not for one run: what is
    lost on a node is restored as long as the task exists."""

    GROUP: ClassVar[str] = "llmaz.io"
    VERSION: ClassVar[str] = "v1alpha1"
    KIND: ClassVar[str] = "P2PTask"
    PLURAL: ClassVar[str] = "p2ptasks"
    NAMESPACED: ClassVar[bool] = True
    SHORT_NAMES: ClassVar[tuple[str, ...]] = ("p2pt",)
    CATEGORIES: ClassVar[tuple[str, ...]] = ("llmaz", "modelswarm")
    COLUMNS: ClassVar[tuple[Column, ...]] = (
        Column("Engine", ".status.engine"),
        Column("Ready", ".status.display.ready"),
        Column("Progress", ".status.display.progress"),
        Column("ETA", ".status.display.eta"),
        Column("Phase", ".status.phase"),
        AGE,
        Column("Origin", ".status.display.origin", priority=1),
        Column("Peer", ".status.display.peer", priority=1),
        Column("Revision", ".status.resolved.revision", priority=1),
        Column("Message", ".status.display.message", priority=1),
    )
    SELECTABLE: ClassVar[tuple[str, ...]] = (".spec.engine", ".status.phase", ".status.engine")
    RULES: ClassVar[tuple[Rule, ...]] = (rules.NAME_FITS_LABEL,)

    spec: P2PTaskSpec
    status: P2PTaskStatus = P2PTaskStatus()
