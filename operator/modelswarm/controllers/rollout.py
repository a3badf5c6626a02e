"""Putting a rendered workload into the cluster: manifest copies, Deployment, Service, autoscaler; only what differs."""

import asyncio
from collections.abc import Collection, Sequence
from dataclasses import dataclass

from modelswarm.api.conditions import PlaygroundReason
from modelswarm.api.labels import MANAGED_BY, MANAGER, PLAYGROUND, TASKS, TEMPLATE_HASH
from modelswarm.api.meta import JsonObject
from modelswarm.api.p2ptask import Engine, P2PTask
from modelswarm.api.playground import Playground
from modelswarm.content.manifest import from_binary_data, shard_name
from modelswarm.controllers.drift import Ownership, is_applied, ownership, stamped
from modelswarm.controllers.pinning import shard_object
from modelswarm.controllers.playground_status import Aborted, serving
from modelswarm.controllers.world import World
from modelswarm.errors import Conflict, Forbidden, Invalid, InvalidReference, NotFound
from modelswarm.kube.kinds import AUTOSCALER, CONFIGMAP, DEPLOYMENT, SERVICE, Kind
from modelswarm.kube.objects import metadata
from modelswarm.workload.nodemodel import NodeModel
from modelswarm.workload.pod import PinnedModel
from modelswarm.workload.render import Workload, service_name


@dataclass(frozen=True, slots=True)
class Children:
    """The live objects that stand where the Playground's should stand."""

    deployment: JsonObject | None
    service: JsonObject | None
    autoscaler: JsonObject | None

    def clash(self, playground: Playground) -> Aborted | None:
        """The first that belongs to somebody else, in llmaz's words; or to a predecessor that is being collected."""
        for obj in (self.deployment, self.service, self.autoscaler):
            if obj is None:
                continue
            match ownership(obj, playground):
                case Ownership.FOREIGN:
                    return Aborted(
                        PlaygroundReason.NAME_CLASH,
                        f"Playground owns the same name with an existing {obj['kind']}: "
                        f"{metadata(obj)['name']} belongs to somebody else; remove it or rename the Playground",
                    )
                case Ownership.STALE:
                    return Aborted(
                        PlaygroundReason.NAME_CLASH,
                        f"Playground owns the same name with an existing {obj['kind']}: "
                        f"{metadata(obj)['name']} of a deleted Playground is still being collected",
                    )
                case Ownership.OURS:
                    pass
        return None


class Rollout:
    def __init__(self, world: World) -> None:
        self._world = world

    def children(self, playground: Playground) -> Children:
        store, name, namespace = self._world.store, playground.metadata.name, playground.metadata.namespace
        return Children(
            store.get(DEPLOYMENT, name, namespace),
            store.get(SERVICE, service_name(playground), namespace),
            store.get(AUTOSCALER, name, namespace),
        )

    async def with_strangers(self, playground: Playground, known: Children, *, autoscaler: bool) -> Children:
        """The children, with what stands in the place of those that we do not know: only our own are watched."""
        name, namespace = playground.metadata.name, playground.metadata.namespace
        return Children(
            *await asyncio.gather(
                self._get(known.deployment, DEPLOYMENT, name, namespace),
                self._get(known.service, SERVICE, service_name(playground), namespace),
                self._get(known.autoscaler, AUTOSCALER if autoscaler else None, name, namespace),
            )
        )

    async def _get(self, known: JsonObject | None, kind: Kind | None, name: str, namespace: str) -> JsonObject | None:
        return known if known is not None or kind is None else await self._world.find(kind, name, namespace)

    @staticmethod
    def is_current(live: JsonObject | None, workload: Workload) -> bool:
        """Whether the Deployment runs what the user wants now (our own part may be older, see ``render``)."""
        return live is not None and _annotations(live).get(TEMPLATE_HASH) == workload.template_hash

    async def deploy(self, playground: Playground, workload: Workload, tasks: Sequence[P2PTask]) -> JsonObject:
        """Write the Deployment with its new template; the manifests that it mounts come first."""
        for task in tasks:
            await self._copy_manifest(playground, task)
        deployment = dict(workload.deployment)
        annotations = {**_annotations(deployment), TASKS: ",".join(task.metadata.name for task in tasks)}
        deployment["metadata"] = {**metadata(deployment), "annotations": annotations}
        return await self._world.apply(deployment)

    async def follow(self, playground: Playground, workload: Workload, children: Children) -> None:
        """What follows the Playground at once, whatever the template waits for: replicas, Service, autoscaler."""
        if children.deployment is not None:
            await self._correct(playground, children.deployment)
        await self._keep(workload.service, children.service)
        if workload.autoscaler is not None:
            await self._keep(workload.autoscaler, children.autoscaler)
        elif children.autoscaler is not None:
            uid = str(metadata(children.autoscaler)["uid"])
            name, namespace = playground.metadata.name, playground.metadata.namespace
            await self._world.delete(AUTOSCALER, name, namespace, uid=uid)

    async def _keep(self, wanted: JsonObject, live: JsonObject | None) -> None:
        wanted = stamped(wanted)
        if live is None or not is_applied(wanted, live):
            await self._world.apply(wanted)

    async def _correct(self, playground: Playground, live: JsonObject) -> None:
        """Replicas, and the label by which we watch it, are put right without touching the template."""
        operations: list[JsonObject] = []
        spec = live.get("spec")
        if not isinstance(spec, dict) or spec.get("replicas") != playground.spec.replicas:
            operations.append({"op": "add", "path": "/spec/replicas", "value": playground.spec.replicas})
        labels = metadata(live).get("labels") or {}
        if labels.get(MANAGED_BY) != MANAGER:
            operations.append({"op": "add", "path": "/metadata/labels", "value": {**labels, MANAGED_BY: MANAGER}})
        if operations:
            name, namespace = playground.metadata.name, playground.metadata.namespace
            self._world.took(await self._world.kube.json_patch(DEPLOYMENT, name, namespace, operations))

    async def restore_copies(self, playground: Playground, live: JsonObject, tasks: Sequence[P2PTask]) -> bool:
        """Write manifest copies again that the Deployment's template mounts; False if one cannot be had just now."""
        mounted = _mounted_config_maps(live)
        return all([await self._copy_manifest(playground, task, mounted) for task in tasks])

    async def _copy_manifest(self, playground: Playground, task: P2PTask, only: Collection[str] | None = None) -> bool:
        """Pods can mount ConfigMaps of their own namespace only. A loader without the copy resolves by itself.

        ``only``: names of copies; others are left alone. False if the manifest itself is not there; it may be on its
        way back.
        """
        reference = task.status.manifest
        if reference is None:
            return True
        for index, name in enumerate(copy_names(playground, task)):
            if only is not None and name not in only:
                continue
            there = self._world.store.get(CONFIGMAP, name, playground.metadata.namespace)
            if there is not None and ownership(there, playground) is not Ownership.STALE:
                continue
            try:
                source = await self._world.kube.get(
                    CONFIGMAP, shard_name(reference.name, index), task.metadata.namespace
                )
                data = source.get("binaryData")
                shard = from_binary_data({str(k): str(v) for k, v in data.items()} if isinstance(data, dict) else {})
            except (NotFound, InvalidReference):
                return False
            labels: JsonObject = {PLAYGROUND: playground.metadata.name, MANAGED_BY: MANAGER}
            try:
                if there is not None:  # a deleted Playground's: it would be collected under the pods that mount it
                    uid = str(metadata(there)["uid"])
                    await self._world.delete(CONFIGMAP, name, playground.metadata.namespace, uid=uid)
                await self._world.create(shard_object(name, playground.metadata.namespace, labels, shard, playground))
            except (Conflict, Forbidden, Invalid):
                continue  # there already; or refused, and then the loader resolves the pinned commit by itself
        return True

    async def collect_copies(self, playground: Playground, live: JsonObject) -> None:
        """Remove manifest copies that the Deployment's template no longer mounts, once its rollout is complete."""
        state = serving(live)
        if state is None or not state.available:
            return
        mounted = _mounted_config_maps(live)
        for copy in self._world.store.list(CONFIGMAP, index=("playground", _key(playground))):
            name = str(metadata(copy)["name"])
            if name not in mounted and ownership(copy, playground) is Ownership.OURS:
                uid = str(metadata(copy)["uid"])
                await self._world.delete(CONFIGMAP, name, playground.metadata.namespace, uid=uid)


def copy_names(playground: Playground, task: P2PTask) -> tuple[str, ...]:
    """Names of a manifest's copies in the Playground's namespace; another content is another name."""
    reference, resolved = task.status.manifest, task.status.resolved
    if reference is None or resolved is None:
        return ()
    base = f"{playground.metadata.name}-manifest-{resolved.digest.removeprefix('sha256:')[:12]}"
    return tuple(shard_name(base, index) for index in range(reference.shards))


def pinned_model(playground: Playground, task: P2PTask | None, agent_root: str | None) -> PinnedModel | None:
    """What the pod is told of a task's pin. ``agent_root`` is where node agents keep their models, if there are any."""
    if task is None:
        return None
    spread = task.status.engine is not Engine.DIRECT
    resolved = task.status.resolved
    if resolved is None:
        return PinnedModel(None, (), spread=spread)
    kept = agent_root is not None and task.status.engine is Engine.BITTORRENT
    return PinnedModel(
        resolved.revision,
        copy_names(playground, task),
        public=resolved.public is True,
        node=NodeModel(agent_root, resolved.digest.removeprefix("sha256:")) if kept and agent_root else None,
        spread=spread,
    )


def _mounted_config_maps(deployment: JsonObject) -> set[str]:
    """Names of the ConfigMaps in projected volumes of the template."""
    found: set[str] = set()

    def walk(value: object) -> None:
        if isinstance(value, dict):
            config_map = value.get("configMap")
            if isinstance(config_map, dict) and "name" in config_map:
                found.add(str(config_map["name"]))
            for part in value.values():
                walk(part)
        elif isinstance(value, list):
            for part in value:
                walk(part)

    walk(deployment.get("spec"))
    return found


def _key(playground: Playground) -> str:
    return f"{playground.metadata.namespace}/{playground.metadata.name}"


def _annotations(obj: JsonObject) -> JsonObject:
    return metadata(obj).get("annotations") or {}
