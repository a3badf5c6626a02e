"""The pod: the engine's container, a loader per model that has to be loaded, and where the models lie."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import PurePosixPath

from modelswarm.api import labels
from modelswarm.api.backendruntime import BackendRuntimeSpec
from modelswarm.api.meta import JsonObject
from modelswarm.content.manifest import SHARD_KEY
from modelswarm.content.source import HostSource, HubSource, StoreSource, is_distributable
from modelswarm.errors import RenderError, RenderReason
from modelswarm.workload.authorities import Authorities
from modelswarm.workload.choice import ServedModel
from modelswarm.workload.environment import MANIFEST_DIRECTORY, loader_envs, merge_envs, with_credentials
from modelswarm.workload.nodemodel import VOLUME as NODE_VOLUME
from modelswarm.workload.nodemodel import NodeModel, prefer_warm_nodes
from modelswarm.workload.resources import Resources

GRACE_SECONDS = 130
SHARED_MEMORY_VOLUME = "dshm"
MANIFEST_VOLUME = "model-manifest"
DFDAEMON_SOCKET = "/var/run/dragonfly/dfdaemon.sock"
"""Where Dragonfly's chart has the daemon listen, on the node."""
DFDAEMON_VOLUME = "dragonfly"


@dataclass(frozen=True, slots=True)
class PinnedModel:
    """What resolution found for one model of the Playground.

    ``revision`` is the commit (hub sources); ``manifests`` are the ConfigMaps in the Playground's namespace that hold
    the list of files, in shards. Either may be missing: the loader then resolves by itself. ``public``: the files can
    be read without credentials.
    """

    revision: str | None
    manifests: tuple[str, ...]
    public: bool = False
    node: NodeModel | None = None
    """Where the nodes' agents keep it; None where they do not."""
    spread: bool = False
    """Whether an engine is to bring it: whoever reads the origin then does it in the engine's place."""


@dataclass(frozen=True, slots=True)
class Dfdaemon:
    """The nodes' Dragonfly daemon. ``tag`` and ``application`` are those with which files of models are preheated."""

    socket: str
    tag: str = ""
    application: str = ""
    allow_gated: bool = False
    """Whether files that need a token may come from it."""

    @property
    def directory(self) -> str:
        return str(PurePosixPath(self.socket).parent)

    def envs(self) -> list[JsonObject]:
        """For a loader."""
        values = {
            "MODELSWARM_DFDAEMON_SOCKET": self.socket,
            "MODELSWARM_DRAGONFLY_TAG": self.tag,
            "MODELSWARM_DRAGONFLY_APPLICATION": self.application,
            "MODELSWARM_DRAGONFLY_ALLOW_GATED": "true" if self.allow_gated else "",
        }
        return [{"name": name, "value": value} for name, value in values.items() if value]

    def volume(self) -> JsonObject:
        """The directory and not the socket, which is another one after the daemon's restart.

        Made where it is missing, so that the pod also starts on a node without Dragonfly.
        """
        return {"name": DFDAEMON_VOLUME, "hostPath": {"path": self.directory, "type": "DirectoryOrCreate"}}

    def mount(self) -> JsonObject:
        """Read-only: that does not keep anybody from connecting."""
        return {"name": DFDAEMON_VOLUME, "mountPath": self.directory, "readOnly": True}


@dataclass(frozen=True, slots=True)
class Engine:
    """The engine's container, with everything decided."""

    image: str
    arguments: Sequence[str]
    envs: Sequence[JsonObject]
    resources: Resources
    shared_memory: str | None


@dataclass(frozen=True, slots=True)
class _Storage:
    """Volumes of the pod and their mounts in the engine's container."""

    volumes: tuple[JsonObject, ...]
    mounts: tuple[JsonObject, ...]


def pod_spec(
    runtime: BackendRuntimeSpec,
    engine: Engine,
    models: Sequence[ServedModel],
    pinned: Sequence[PinnedModel | None],
    *,
    skip_loader: bool,
    loader_image: str,
    scheduler_name: str | None,
    dfdaemon: Dfdaemon | None = None,
    turnstile: str | None = None,
    authorities: Authorities | None = None,
) -> JsonObject:
    """The pod's spec. The shared memory volume comes first (llmaz's tests look for it there).

    ``turnstile`` is the URL of who says when a loader may read the origin in an engine's place.
    """
    storage = _storage(models, engine.shared_memory, skip_loader=skip_loader)
    loaders: list[JsonObject] = []
    manifests: list[JsonObject] = []
    sockets: list[JsonObject] = []
    kept = {} if skip_loader else _node_volumes(pinned)
    for index, (model, pin) in enumerate(zip(models, pinned, strict=True)):
        if skip_loader or not isinstance(model.source, HubSource | StoreSource):
            continue
        # Dragonfly has files of hubs only.
        daemon = dfdaemon if isinstance(model.source, HubSource) else None
        volume = next((name for name, node in kept.items() if pin is not None and node == pin.node), "")
        loaders.append(_loader(index, model.source, pin, engine.envs, loader_image, daemon, volume, turnstile))
        if authorities is not None:
            loaders[-1] = _believing(loaders[-1], authorities)
        if daemon is not None:
            sockets = [daemon.volume()]
        if pin is not None and pin.manifests:
            manifests.append(_manifest_volume(index, pin.manifests))
    spec: JsonObject = {}
    if scheduler_name:
        spec["schedulerName"] = scheduler_name
    spec["terminationGracePeriodSeconds"] = GRACE_SECONDS
    if loaders:
        spec["initContainers"] = [*loaders]
    mounts = (*storage.mounts, *(model.mount(name) for name, model in kept.items()))
    spec["containers"] = [_runner(runtime, engine, models, mounts, skip_loader=skip_loader)]
    if kept:
        spec["affinity"] = prefer_warm_nodes([*kept.values()])
    if storage.volumes or manifests:
        nodes = [model.volume(name) for name, model in kept.items()]
        own = [authorities.volume()] if authorities is not None and loaders else []
        spec["volumes"] = [*storage.volumes, *manifests, *sockets, *nodes, *own]
    return spec


def contents(pinned: Sequence[PinnedModel | None], *, skip_loader: bool) -> tuple[str, ...]:
    """Digests (``sha256:<hex>``) of the models that the pod looks for on its node."""
    return () if skip_loader else tuple(f"sha256:{model.content}" for model in _node_volumes(pinned).values())


def _node_volumes(pinned: Sequence[PinnedModel | None]) -> dict[str, NodeModel]:
    """By name of the volume; two OpenModels with the same content share one."""
    models = dict.fromkeys(pin.node for pin in pinned if pin is not None and pin.node is not None)
    return {_numbered(NODE_VOLUME, index): model for index, model in enumerate(models)}


def needs_loader(models: Sequence[ServedModel], *, skip_loader: bool) -> bool:
    """Whether the pod has an init container that loads a model."""
    return not skip_loader and any(is_distributable(model.source) for model in models)


def _runner(
    runtime: BackendRuntimeSpec,
    engine: Engine,
    models: Sequence[ServedModel],
    mounts: Sequence[JsonObject],
    *,
    skip_loader: bool,
) -> JsonObject:
    envs = tuple(engine.envs)
    if skip_loader:
        for model in models:
            envs = with_credentials(envs, model.source)
    container: JsonObject = {"name": labels.RUNNER_CONTAINER, "image": engine.image}
    if runtime.command:
        container["command"] = [*runtime.command]
    if engine.arguments:
        container["args"] = [*engine.arguments]
    container["ports"] = [{"name": "http", "protocol": "TCP", "containerPort": labels.SERVING_PORT}]
    if envs:
        container["env"] = [*envs]
    if resources := engine.resources.to_json():
        container["resources"] = resources
    hooks = {
        "lifecycle": runtime.lifecycle,
        "startupProbe": runtime.startup_probe,
        "livenessProbe": runtime.liveness_probe,
        "readinessProbe": runtime.readiness_probe,
    }
    container.update({name: hook for name, hook in hooks.items() if hook is not None})
    if mounts:
        container["volumeMounts"] = [*mounts]
    return container


def _loader(
    index: int,
    source: HubSource | StoreSource,
    pin: PinnedModel | None,
    runner_envs: Sequence[JsonObject],
    image: str,
    dfdaemon: Dfdaemon | None,
    node_volume: str,
    turnstile: str | None,
) -> JsonObject:
    """No command: the image's entry point is the loader, ours or llmaz's."""
    manifest = pin is not None and bool(pin.manifests)
    envs = loader_envs(
        source,
        runner_envs,
        revision=pin.revision if pin is not None else None,
        manifest=manifest,
        public=pin is not None and pin.public,
    )
    mounts: list[JsonObject] = [{"name": labels.MODEL_VOLUME, "mountPath": labels.MODEL_PATH}]
    if manifest:
        mounts.append({"name": _numbered(MANIFEST_VOLUME, index), "mountPath": MANIFEST_DIRECTORY, "readOnly": True})
    if dfdaemon is not None:
        envs = merge_envs(envs, dfdaemon.envs())
        mounts.append(dfdaemon.mount())
    if pin is not None and pin.node is not None:
        envs = merge_envs(envs, [pin.node.env()])
        mounts.append(pin.node.mount(node_volume))
    if turnstile is not None and pin is not None and pin.spread:
        envs = merge_envs(envs, [{"name": "MODELSWARM_ORIGIN_TURNSTILE", "value": turnstile}])
    return {
        "name": _numbered(labels.LOADER_CONTAINER, index),
        "image": image,
        "env": [*envs],
        "volumeMounts": [*mounts],
    }


def _believing(loader: JsonObject, authorities: Authorities) -> JsonObject:
    """The loader with these authorities, unless its user names others."""
    envs, mounts = loader["env"], loader["volumeMounts"]
    assert isinstance(envs, list)
    assert isinstance(mounts, list)
    # What is set already wins: it was copied from the engine's.
    return {
        **loader,
        "env": [*merge_envs([authorities.env()], [env for env in envs if isinstance(env, dict)])],
        "volumeMounts": [*mounts, authorities.mount()],
    }


def _storage(models: Sequence[ServedModel], shared_memory: str | None, *, skip_loader: bool) -> _Storage:
    """Where the engine finds its models: one scratch volume that all loaders fill, and directories of the host.

    The scratch volume is ``model-volume``, and so is the first host directory where nothing has to be loaded; further
    ones are numbered, so that a Playground with models of both kinds has volumes with different names.
    """
    volumes: list[JsonObject] = []
    mounts: list[JsonObject] = []
    if shared_memory is not None:
        volumes.append({"name": SHARED_MEMORY_VOLUME, "emptyDir": {"medium": "Memory", "sizeLimit": shared_memory}})
        mounts.append({"name": SHARED_MEMORY_VOLUME, "mountPath": "/dev/shm"})
    scratch = not skip_loader and any(not isinstance(model.source, HostSource) for model in models)
    if scratch:
        volumes.append({"name": labels.MODEL_VOLUME, "emptyDir": {}})
        mounts.append({"name": labels.MODEL_VOLUME, "mountPath": labels.MODEL_PATH, "readOnly": True})
    paths = dict.fromkeys(model.source.path for model in models if isinstance(model.source, HostSource))
    for index, path in enumerate(paths, start=1 if scratch else 0):
        if scratch and f"{path.rstrip('/')}/".startswith(labels.MODEL_PATH):
            raise RenderError(
                RenderReason.UNSUPPORTED_SOURCE,
                f"the source host://{path} lies in {labels.MODEL_PATH}, where the Playground's other model is loaded",
            )
        name = _numbered(labels.MODEL_VOLUME, index)
        volumes.append({"name": name, "hostPath": {"path": path}})
        mounts.append({"name": name, "mountPath": path, "readOnly": True})
    return _Storage(tuple(volumes), tuple(mounts))


def _manifest_volume(index: int, manifests: Sequence[str]) -> JsonObject:
    """The list of files, one file per shard. Optional: without it the loader resolves by itself."""
    return {
        "name": _numbered(MANIFEST_VOLUME, index),
        "projected": {
            "sources": [
                {
                    "configMap": {
                        "name": name,
                        "optional": True,
                        "items": [{"key": SHARD_KEY, "path": f"manifest-{shard}.json.gz"}],
                    }
                }
                for shard, name in enumerate(manifests)
            ]
        },
    }


def _numbered(name: str, index: int) -> str:
    return f"{name}-{index}" if index else name
