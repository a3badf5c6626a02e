"""Watches what this node should hold: tasks, OME's models, this node's pods, its labels and taints, and nothing else.

The API server selects: this node's pods by ``spec.nodeName`` (only their metadata), this Node by name, tasks by engine.
So an agent costs the cluster the same whether it has ten nodes or a thousand.
"""

import asyncio
import logging
import os
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TypeVar

from pydantic import ValidationError

from modelswarm.agent.basemodel import OmeModel
from modelswarm.agent.taints import NodeSpec, PodSpec, Toleration, closed_by
from modelswarm.agent.wanted import Needs, Sight, decide, local_paths
from modelswarm.api.labels import CONTENTS
from modelswarm.api.meta import ApiModel, JsonObject
from modelswarm.api.p2ptask import Engine, P2PTask
from modelswarm.errors import KubeError
from modelswarm.kube.informer import Informer, wait_synced
from modelswarm.kube.key import Key
from modelswarm.kube.kinds import BASEMODEL, CLUSTERBASEMODEL, NODE, P2PTASK, POD, Kind
from modelswarm.kube.objects import metadata
from modelswarm.kube.port import KubePort

logger = logging.getLogger(__name__)

SETTLE_SECONDS = 0.2
"""How long changes are collected before they are looked at: what belongs together comes together."""
LOCAL_SECONDS = 60.0
"""How often it is looked whether the paths of ``local://`` models exist."""
COMPLAIN_SECONDS = 30.0

M = TypeVar("M", bound=ApiModel)


@dataclass(frozen=True, slots=True)
class NodeView:
    """This node as the API server has it."""

    name: str
    uid: str
    labels: Mapping[str, str] = field(default_factory=dict)
    closed_by: str | None = None
    """The taint for which no pod comes here at present; None: pods come."""


Listener = Callable[[Needs, NodeView], None]
"""Told when what this node should hold, or the Node, is another. Must not wait, and must not fail."""


class Scout:
    """``run`` it as a task. The first answer comes when everything was listed once, so that nothing looks unwanted only
    because it was not seen yet. ``pod``: the agent's own, whose tolerations say which tainted nodes hold models."""

    def __init__(
        self,
        kube: KubePort,
        *,
        node: str,
        namespace: str,
        root: Path,
        pod: str = "",
        task_namespaces: Iterable[str] = (),
        on_change: Listener = lambda needs, node: None,
        settle_seconds: float = SETTLE_SECONDS,
        local_seconds: float = LOCAL_SECONDS,
        absent_seconds: float = 30.0,
    ) -> None:
        self.needs = Needs()
        self.node: NodeView | None = None
        self.synced = asyncio.Event()
        """Set with the first answer."""
        self._name = node
        self._namespace = namespace
        self._root = root
        self._kube = kube
        self._pod = pod
        self._tolerations: tuple[Toleration, ...] | None = None
        self._on_change = on_change
        self._settle_seconds = settle_seconds
        self._local_seconds = local_seconds
        self._dirty = asyncio.Event()
        self._tasks: dict[Key, P2PTask] = {}
        self._models: dict[tuple[Kind, Key], OmeModel] = {}
        self._pods: dict[str, frozenset[str]] = {}
        self._nodes = Informer(kube, NODE, field_selector=f"metadata.name={node}", on_change=self._node_changed)
        pods = Informer(
            kube,
            POD,
            # A pod that has ended uses nothing.
            field_selector=f"spec.nodeName={node},status.phase!=Succeeded,status.phase!=Failed",
            metadata_only=True,
            on_change=self._pod_changed,
        )
        tasks = [
            Informer(
                kube,
                P2PTASK,
                where or None,
                field_selector=f"status.engine={Engine.BITTORRENT}",
                on_change=self._task_changed,
                absent_pause=absent_seconds,
            )
            for where in (tuple(task_namespaces) or ("",))
        ]
        models = [
            Informer(kube, kind, on_change=self._model_listener(kind), absent_pause=absent_seconds)
            for kind in (BASEMODEL, CLUSTERBASEMODEL)
        ]
        self._informers = (self._nodes, pods, *tasks, *models)

    async def run(self) -> None:
        """Until cancelled."""
        async with asyncio.TaskGroup() as group:
            for informer in self._informers:
                group.create_task(informer.run(), name=f"informer-{informer.kind.plural}")
            group.create_task(self._decide(), name="scout")

    async def _decide(self) -> None:
        while not await wait_synced(*self._informers, seconds=COMPLAIN_SECONDS):
            missing = sorted({informer.kind.plural for informer in self._informers if not informer.synced.is_set()})
            logger.warning("P2P: cannot begin before these can be listed: %s", ", ".join(missing))
        while True:
            self._dirty.clear()
            await self._learn_tolerations()
            locals_ = await asyncio.to_thread(_existing, local_paths(self._models.values()))
            self._look(locals_)
            try:
                async with asyncio.timeout(self._local_seconds):
                    await self._dirty.wait()
                await asyncio.sleep(self._settle_seconds)
            except TimeoutError:
                continue

    def _look(self, existing: frozenset[str]) -> None:
        node = self._view()
        if node is None:
            # Our labels are unknown, so nothing can be decided; what was decided before goes on.
            if not self.synced.is_set():
                logger.error("P2P: there is no Node %s; NODE_NAME must be this node's name", self._name)
            return
        sight = Sight(
            node=self._name,
            labels=node.labels,
            root=self._root,
            namespace=self._namespace,
            tasks=tuple(self._tasks.values()),
            models=tuple(self._models.values()),
            pods=self._pods,
            local_paths=existing,
        )
        needs = decide(sight)
        if self.synced.is_set() and (needs, node) == (self.needs, self.node):
            return
        self.needs, self.node = needs, node
        self.synced.set()
        self._on_change(needs, node)

    async def _learn_tolerations(self) -> None:
        """Those of our own pod, which stay as they are. Until they are known, unknown taints close nothing."""
        if not self._pod or self._tolerations is not None:
            return
        own = f"metadata.name={self._pod},spec.nodeName={self._name}"
        try:
            found = await self._kube.list(POD, self._namespace, field_selector=own)
        except KubeError as error:
            logger.warning("P2P: cannot see which taints this agent tolerates: %s; trying again", error.message)
            return
        if found:
            self._tolerations = PodSpec.model_validate(found[0].get("spec") or {}).tolerations
        else:
            self._pod = ""  # we are not a pod of this cluster

    def _view(self) -> NodeView | None:
        return self._view_of(self._nodes.objects.get(Key("", self._name)))

    def _view_of(self, obj: JsonObject | None) -> NodeView | None:
        if obj is None:
            return None
        meta, spec = metadata(obj), NodeSpec.model_validate(obj.get("spec") or {})
        closed = closed_by(spec, self._tolerations)
        return NodeView(self._name, str(meta.get("uid") or ""), dict(meta.get("labels") or {}), closed)

    def _node_changed(self, key: Key, before: JsonObject | None, after: JsonObject | None) -> None:
        # The kubelet touches its Node every few minutes.
        if self._view_of(before) != self._view_of(after):
            self._dirty.set()

    def _pod_changed(self, key: Key, before: JsonObject | None, after: JsonObject | None) -> None:
        contents = _contents(after)
        if contents != self._pods.get(str(key), frozenset()):
            self._dirty.set()
        self._pods.pop(str(key), None)
        if contents:
            self._pods[str(key)] = contents

    def _task_changed(self, key: Key, before: JsonObject | None, after: JsonObject | None) -> None:
        self._tasks.pop(key, None)
        if after is not None and (task := _parse(P2PTask, key, after)) is not None:
            self._tasks[key] = task
        self._dirty.set()

    def _model_listener(self, kind: Kind) -> Callable[[Key, JsonObject | None, JsonObject | None], None]:
        def changed(key: Key, before: JsonObject | None, after: JsonObject | None) -> None:
            self._models.pop((kind, key), None)
            if after is not None and (model := _parse(OmeModel, key, after)) is not None:
                self._models[kind, key] = model
            self._dirty.set()

        return changed


def _parse(model: type[M], key: Key, obj: JsonObject) -> M | None:
    try:
        return model.model_validate(obj)
    except ValidationError as error:
        first = error.errors(include_url=False, include_input=False)[0]
        where = ".".join(map(str, first["loc"]))
        logger.warning("%s %s cannot be read: %s: %s", obj.get("kind"), key, where, first["msg"])
        return None


def _contents(pod: JsonObject | None) -> frozenset[str]:
    """The contents that a pod names, as ``sha256:<hex>``."""
    annotations = metadata(pod).get("annotations") if pod is not None else None
    text = str((annotations or {}).get(CONTENTS) or "")
    return frozenset(part if ":" in part else f"sha256:{part}" for part in map(str.strip, text.split(",")) if part)


def _existing(paths: frozenset[str]) -> frozenset[str]:
    return frozenset(path for path in paths if "\0" not in path and os.path.exists(path))
