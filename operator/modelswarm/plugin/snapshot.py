"""What the cluster says at one moment, and how its objects belong together. Pure."""

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from datetime import datetime

from modelswarm.api.labels import MODEL_NAME
from modelswarm.api.meta import JsonObject, ObjectMeta
from modelswarm.api.nodecache import CachedModel, NodeCache
from modelswarm.api.openmodel import OpenModel
from modelswarm.api.p2ptask import P2PTask
from modelswarm.api.playground import Playground
from modelswarm.errors import InvalidReference
from modelswarm.workload.tasks import model_task_name


@dataclass(frozen=True, slots=True)
class Holding:
    """What one node says of one content; ``model`` None: nothing (yet)."""

    node: str
    live: bool
    model: CachedModel | None


@dataclass(frozen=True, slots=True)
class Snapshot:
    """Lists of objects, each in the order of namespace and name. What may not be read is empty, and in ``unread``."""

    now: datetime
    tasks: tuple[P2PTask, ...] = ()
    playgrounds: tuple[Playground, ...] = ()
    models: tuple[OpenModel, ...] = ()
    caches: tuple[NodeCache, ...] = ()
    live: frozenset[str] | None = None
    """Nodes with a ready agent; None where that cannot be seen."""
    pods: tuple[JsonObject, ...] = ()
    """Pods of Playgrounds."""
    unread: Mapping[str, str] = field(default_factory=dict)
    """By kind, why it could not be read."""

    def model(self, name: str) -> OpenModel | None:
        return next((each for each in self.models if each.metadata.name == name), None)

    def playground(self, namespace: str, name: str) -> Playground | None:
        return next((each for each in self.playgrounds if _is(each.metadata, namespace, name)), None)

    def task(self, namespace: str, name: str) -> P2PTask | None:
        return next((each for each in self.tasks if _is(each.metadata, namespace, name)), None)

    def cache(self, node: str) -> NodeCache | None:
        return next((each for each in self.caches if each.metadata.name == node), None)

    def is_live(self, node: str) -> bool:
        """Whether the node's agent is ready; where that cannot be seen, it is believed to be."""
        return self.live is None or node in self.live

    def tasks_of_model(self, model: OpenModel) -> tuple[P2PTask, ...]:
        """The tasks that the OpenModel owns, the one of its present source first."""
        owned = [task for task in self.tasks if owns(model.metadata, task.metadata)]
        try:
            current = model_task_name(model)
        except InvalidReference:
            current = ""
        return tuple(sorted(owned, key=lambda task: task.metadata.name != current))

    def model_tasks(self, playground: Playground, name: str) -> tuple[P2PTask, ...]:
        """The tasks that bring a model to a Playground: of the OpenModel; with the namespace's own credentials, too."""
        model = self.model(name)
        own = self.tasks_of_model(model)[:1] if model is not None else ()
        private = tuple(
            task
            for task in self._owned_by(playground.metadata)
            if task.spec.model is not None and task.metadata.labels.get(MODEL_NAME) == name
        )
        return (*own, *private)

    def image_tasks(self, playground: Playground) -> tuple[P2PTask, ...]:
        return tuple(task for task in self._owned_by(playground.metadata) if task.spec.image is not None)

    def tasks_of(self, playground: Playground) -> tuple[P2PTask, ...]:
        """Everything that the Playground waits for, models first."""
        models = [task for ref in playground.model_refs for task in self.model_tasks(playground, ref.name)]
        return (*models, *self.image_tasks(playground))

    def pods_of(self, playground: Playground) -> tuple[JsonObject, ...]:
        return tuple(pod for pod in self.pods if _pod_of(pod, playground))

    def holdings(self, task: P2PTask) -> tuple[Holding, ...]:
        """The nodes that should hold the task's content, or say something about it, by name."""
        digest = task.status.resolved.digest if task.status.resolved is not None else None
        said = {cache.metadata.name: entry(cache, digest) for cache in self.caches} if digest is not None else {}
        told = {failure.node for failure in task.status.failures}
        names = {*task.status.nodes, *told, *(node for node, model in said.items() if model is not None)}
        return tuple(Holding(node, self.is_live(node), said.get(node)) for node in sorted(names))

    def wanting(self, content: str) -> tuple[P2PTask, ...]:
        """The tasks whose content that is."""
        return tuple(task for task in self.tasks if task.status.resolved and task.status.resolved.digest == content)

    def _owned_by(self, owner: ObjectMeta) -> Iterator[P2PTask]:
        return (task for task in self.tasks if owns(owner, task.metadata))


def entry(cache: NodeCache, content: str) -> CachedModel | None:
    """What a NodeCache says of a content (``sha256:<hex>``)."""
    return next((model for model in cache.status.models if model.content == content), None)


def owns(owner: ObjectMeta, owned: ObjectMeta) -> bool:
    return bool(owner.uid) and any(reference.uid == owner.uid for reference in owned.owner_references)


def in_namespace(metas: Iterable[ObjectMeta], namespace: str) -> list[str]:
    """Names in a namespace, for suggestions."""
    return [meta.name for meta in metas if meta.namespace == namespace]


def _is(meta: ObjectMeta, namespace: str, name: str) -> bool:
    return (meta.namespace, meta.name) == (namespace, name)


def _pod_of(pod: JsonObject, playground: Playground) -> bool:
    meta = pod.get("metadata")
    if not isinstance(meta, dict) or meta.get("namespace") != playground.metadata.namespace:
        return False
    labels = meta.get("labels")
    return isinstance(labels, dict) and labels.get("llmaz.io/playground") == playground.metadata.name
