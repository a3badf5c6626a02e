"""Which contents this node should hold, decided from what the cluster says. Pure.

A task names nodes in its status (``copies`` of them, chosen by the operator) or, with ``copies: All``, every node that
its selector matches. A pod on this node that names a content brings it here too, wherever the task wants its copies.
BaseModels go to every node that their selector and affinity let through.
"""

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from enum import StrEnum
from pathlib import Path, PurePosixPath

from modelswarm.agent.basemodel import (
    HubStorage,
    LocalStorage,
    OmeModel,
    OtherStorage,
    Storage,
    VendorStorage,
    model_hash,
    parse_storage,
)
from modelswarm.api.nodecache import ModelState
from modelswarm.api.openmodel import HubName
from modelswarm.api.p2ptask import Engine, P2PTask, Placement
from modelswarm.content.source import HubSource, Source, StoreSource, parse_source
from modelswarm.errors import InvalidReference
from modelswarm.placement import Place, lets_in


class ScoutReason(StrEnum):
    """Why something is not fetched at all; used verbatim in the NodeCache."""

    UNSUPPORTED_STORAGE = "UnsupportedStorage"
    """A scheme that agents do not fetch."""
    INVALID_REFERENCE = "InvalidReference"
    PATH_OUTSIDE_ROOT = "PathOutsideRoot"
    PLAIN_TEXT_TOKEN = "PlainTextToken"
    NO_SUCH_PATH = "NoSuchPath"
    """Of ``local://``."""


@dataclass(frozen=True, slots=True)
class SecretRef:
    """A Secret with credentials. ``key``: where the token is, if the object says so (BaseModels)."""

    namespace: str
    name: str
    key: str | None = None


@dataclass(frozen=True, slots=True)
class ManifestRef:
    """ConfigMaps with the list of files: ``name``, ``name-1``... (``content.manifest.shard_name``)."""

    namespace: str
    name: str
    shards: int


@dataclass(frozen=True, slots=True)
class Claim:
    """Who wants a content on this node. ``kind`` is P2PTask, BaseModel or ClusterBaseModel."""

    kind: str
    namespace: str
    name: str
    uid: str
    pin: bool = False
    suspended: bool = False
    path: Path | None = None
    """``storage.path`` of a BaseModel: where pods look for it, below the agent's directory."""
    secret: SecretRef | None = None
    manifest: ManifestRef | None = None
    described: bool = True
    """OME wants to know what the model's ``config.json`` says."""

    @property
    def is_task(self) -> bool:
        return self.kind == P2PTask.KIND


@dataclass(frozen=True, slots=True)
class Wanted:
    """A content that this node should hold. All nodes that want it come to the same ``model_hash``."""

    key: str
    """``content``, or ``model:<model hash>`` for what is not pinned yet: the key of its entry in the NodeCache."""
    content: str | None
    """Digest of the manifest, ``sha256:<hex>``. None: a branch that the coordinator pins first."""
    model_hash: str
    """64 hex digits: names the Lease and the metainfo."""
    name: str
    """What users know it by."""
    revision: str | None
    """A commit, or (no ``content``) a branch."""
    source: HubSource | StoreSource
    claims: tuple[Claim, ...]
    bytes: int = 0
    """0: not known yet."""
    models: frozenset[str] = frozenset()
    """Of a branch: UIDs of all BaseModels in the cluster that name it, wherever they belong. The commit that was found
    for some of them holds for as long as one of those is there."""
    pods: frozenset[str] = frozenset()
    """Pods on this node that name it, as NAMESPACE/NAME: it must not be evicted meanwhile."""

    @property
    def suspended(self) -> bool:
        """Nobody who wants it wants it now: no byte moves, and nothing is removed."""
        return all(claim.suspended for claim in self.claims)

    @property
    def pin(self) -> bool:
        """Never to be evicted."""
        return any(claim.pin for claim in self.claims)

    def is_anew(self, before: "Wanted") -> bool:
        """Whether the branch was wanted for other models before, which are gone: its commit is looked up again."""
        return bool(before.models) and not before.models & self.models

    @property
    def paths(self) -> tuple[Path, ...]:
        """Where it is to be found besides the store's own directory."""
        return tuple(sorted({claim.path for claim in self.claims if claim.path is not None}))


@dataclass(frozen=True, slots=True)
class Noted:
    """Something that is reported and not fetched: an unsupported scheme, an invalid object, ``vendor://``."""

    key: str
    name: str
    claim: Claim
    state: ModelState
    reason: str | None = None
    message: str = ""


Failing = Callable[[ScoutReason, str], Noted]


@dataclass(frozen=True, slots=True)
class Sight:
    """What the scout sees of the cluster."""

    node: str
    labels: Mapping[str, str]
    root: Path
    """The agent's directory as it is configured: users write their paths below this, not below what it may link to."""
    namespace: str
    """The agent's own: where the Secrets of ClusterBaseModels are."""
    tasks: Sequence[P2PTask] = ()
    models: Sequence[OmeModel] = ()
    pods: Mapping[str, frozenset[str]] = field(default_factory=dict)
    """Pods on this node (NAMESPACE/NAME) and the contents that they name."""
    local_paths: frozenset[str] = frozenset()
    """Those paths of ``local://`` models that exist on this node."""


@dataclass(frozen=True, slots=True)
class Needs:
    """The answer. Equal sights give equal needs."""

    wanted: Mapping[str, Wanted] = field(default_factory=dict)
    """By ``key``."""
    noted: tuple[Noted, ...] = ()
    in_use: frozenset[str] = frozenset()
    """Contents that pods on this node name, wanted or not: they must not be evicted."""
    owners: Mapping[str, frozenset[str]] = field(default_factory=dict)
    """UIDs of all objects in the cluster that want a model, by model hash, whether it belongs on this node or not."""


def decide(sight: Sight) -> Needs:
    """What this node should hold."""
    wanted: dict[str, Wanted] = {}
    noted: list[Noted] = []
    users = _users(sight.pods)
    owners: dict[str, set[str]] = {}
    hashes: dict[str, str] = {}
    for task in _tasks(sight.tasks):
        found = _of_task(task)
        if found is None:
            continue
        # One hash for a content on all nodes, whichever of several tasks has placed it on which of them.
        found = replace(found, model_hash=hashes.setdefault(found.key, found.model_hash))
        owners.setdefault(found.model_hash, set()).add(task.metadata.uid)
        if _is_placed(task, sight) or found.key in users:
            _add(wanted, found)
    for model in sorted(sight.models, key=lambda each: (each.metadata.namespace, each.metadata.name)):
        if model.metadata.deletion_timestamp is not None:
            continue
        result = _of_model(model, sight)
        if isinstance(result, Wanted):
            owners.setdefault(result.model_hash, set()).add(model.metadata.uid)
        if not model.belongs_on(sight.node, sight.labels):
            continue
        if isinstance(result, Wanted):
            _add(wanted, result)
        elif result is not None:
            noted.append(result)
    uids = {name: frozenset(found) for name, found in owners.items()}
    return Needs(
        wanted={key: _finished(each, users, uids) for key, each in sorted(wanted.items())},
        noted=tuple(noted),
        in_use=frozenset(users),
        owners=uids,
    )


def _finished(wanted: Wanted, users: Mapping[str, frozenset[str]], owners: Mapping[str, frozenset[str]]) -> Wanted:
    """With what only all objects together tell."""
    models = owners[wanted.model_hash] if wanted.content is None else frozenset()
    return replace(wanted, models=models, pods=users.get(wanted.key, frozenset()))


def local_paths(models: Iterable[OmeModel]) -> frozenset[str]:
    """The paths of ``local://`` models, for somebody who can look whether they exist."""
    found: set[str] = set()
    for model in models:
        try:
            storage = parse_storage(model.spec.storage or Storage())
        except InvalidReference:
            continue
        if isinstance(storage, LocalStorage):
            found.add(storage.path)
    return frozenset(found)


def _users(pods: Mapping[str, frozenset[str]]) -> dict[str, frozenset[str]]:
    users: dict[str, set[str]] = {}
    for pod, contents in pods.items():
        for content in contents:
            users.setdefault(content, set()).add(pod)
    return {content: frozenset(names) for content, names in users.items()}


def _tasks(tasks: Sequence[P2PTask]) -> list[P2PTask]:
    """Those that agents work on, the oldest first: where two tasks differ, it decides for all nodes alike."""
    mine = [
        task
        for task in tasks
        if task.status.engine is Engine.BITTORRENT
        and task.status.resolved is not None
        and task.spec.model is not None
        and task.metadata.deletion_timestamp is None
    ]
    return sorted(mine, key=lambda task: (str(task.metadata.creation_timestamp), task.metadata.uid))


def _is_placed(task: P2PTask, sight: Sight) -> bool:
    placement = task.spec.placement or Placement()
    if placement.copies == "All":
        return lets_in(Place(sight.labels), placement.node_selector, placement.copies)
    return sight.node in task.status.nodes


def _of_task(task: P2PTask) -> Wanted | None:
    resolved = task.status.resolved
    assert task.spec.model is not None
    assert resolved is not None
    try:
        source = parse_source(task.spec.model.source)
    except InvalidReference:
        return None  # the operator says so, in the task
    if not isinstance(source, HubSource | StoreSource):
        return None
    meta, reference, secret = task.metadata, task.status.manifest, task.spec.credentials_secret_ref
    claim = Claim(
        kind=P2PTask.KIND,
        namespace=meta.namespace,
        name=meta.name,
        uid=meta.uid,
        pin=task.spec.pin,
        suspended=task.spec.suspend,
        secret=SecretRef(meta.namespace, secret.name) if secret is not None else None,
        manifest=ManifestRef(meta.namespace, reference.name, reference.shards) if reference is not None else None,
    )
    return Wanted(
        key=resolved.digest,
        content=resolved.digest,
        model_hash=task_hash(source, resolved.revision, resolved.digest),
        name=_name(source),
        revision=resolved.revision,
        source=source,
        claims=(claim,),
        bytes=resolved.bytes,
    )


def task_hash(source: Source, revision: str | None, digest: str) -> str:
    """The model hash of a pinned content: of ``MODEL@COMMIT``; with a selection of files also of which; for an object
    store, whose contents have no commit, the manifest's digest itself."""
    content = digest.removeprefix("sha256:")
    if not isinstance(source, HubSource) or not revision:
        return content
    chosen = bool(source.filename or source.allow_patterns is not None or source.ignore_patterns is not None)
    hub = "" if source.hub is HubName.HUGGINGFACE else f"{source.hub}/"
    return model_hash(f"{hub}{source.model_id}@{revision}" + (f"#{content}" if chosen else ""))


def _of_model(model: OmeModel, sight: Sight) -> Wanted | Noted | None:
    meta, storage = model.metadata, model.spec.storage
    claim = Claim(kind=model.kind, namespace=meta.namespace, name=meta.name, uid=meta.uid, described=model.is_described)
    if storage is None:
        return None
    key = f"model:{model_hash(storage.storage_uri)}"

    def failed(reason: ScoutReason, message: str) -> Noted:
        return Noted(key, storage.storage_uri, claim, ModelState.FAILED, reason, message)

    try:
        parsed = parse_storage(storage)
    except InvalidReference as error:
        return failed(ScoutReason.INVALID_REFERENCE, error.message)
    match parsed:
        case OtherStorage(by_controller=True):
            return None
        case OtherStorage(scheme=scheme):
            return failed(
                ScoutReason.UNSUPPORTED_STORAGE, f"{scheme}:// is not handled by this agent; it fetches hf:// models"
            )
        case VendorStorage():
            return Noted(key, storage.storage_uri, claim, ModelState.READY)
        case LocalStorage(path=path) if path in sight.local_paths:
            return Noted(key, storage.storage_uri, claim, ModelState.READY)
        case LocalStorage(path=path):
            return failed(ScoutReason.NO_SUCH_PATH, f"{path} does not exist on this node, as far as the agent can see")
        case HubStorage(source=source):
            return _of_hub_storage(model, storage, source, claim, sight, failed)


def _of_hub_storage(
    model: OmeModel,
    storage: Storage,
    source: HubSource,
    claim: Claim,
    sight: Sight,
    failed: Failing,
) -> Wanted | Noted:
    if storage.parameters.get("token"):
        return failed(
            ScoutReason.PLAIN_TEXT_TOKEN,
            "storage.parameters.token shows a token to everybody who may read the model; "
            "put it into a Secret, name that in storage.key, and remove it here",
        )
    path = None
    if storage.path:
        path = inside(sight.root, storage.path)
        if path is None:
            return failed(ScoutReason.PATH_OUTSIDE_ROOT, f"storage.path {storage.path} is not below {sight.root}")
    secret = None
    if storage.key:
        secret = SecretRef(model.metadata.namespace or sight.namespace, storage.key, storage.secret_key)
    name = model_hash(f"{source.model_id}@{source.revision}")
    return Wanted(
        key=f"model:{name}",
        content=None,
        model_hash=name,
        name=source.model_id,
        revision=source.revision,
        source=source,
        claims=(replace(claim, path=path, secret=secret),),
    )


def inside(root: Path, path: str) -> Path | None:
    """The path without ``.`` and double slashes if it is absolute and lies below ``root``, judged by its text alone."""
    pure = PurePosixPath(path)
    if not pure.is_absolute() or ".." in pure.parts or "\0" in path or path.startswith("//"):
        return None
    return Path(pure) if root in Path(pure).parents else None


def _add(wanted: dict[str, Wanted], found: Wanted) -> None:
    """Several may want the same; the first one's hash and name stay."""
    known = wanted.get(found.key)
    wanted[found.key] = found if known is None else replace(known, claims=(*known.claims, *found.claims))


def _name(source: HubSource | StoreSource) -> str:
    return source.model_id if isinstance(source, HubSource) else source.uri
