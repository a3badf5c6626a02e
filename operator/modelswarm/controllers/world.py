"""What every controller works with: the store that the watches feed, the API server behind it, events, time.

Writes go to the API server and their answers into the store, so that the next reconcile sees them even if the watch is
late. Nothing here decides anything.
"""

from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Protocol

from modelswarm.api.backendruntime import BackendRuntime
from modelswarm.api.conditions import Condition, TaskReason, find
from modelswarm.api.meta import ApiModel, JsonObject, Resource
from modelswarm.api.openmodel import OpenModel
from modelswarm.api.p2ptask import P2PTask
from modelswarm.api.playground import Playground
from modelswarm.controllers.cluster import ClusterState
from modelswarm.controllers.queue import Key
from modelswarm.errors import NotFound
from modelswarm.kube.kinds import BACKENDRUNTIME, OPENMODEL, P2PTASK, PLAYGROUND, Kind, kind_of
from modelswarm.kube.objects import key_of, metadata, version_of
from modelswarm.kube.port import KubePort
from modelswarm.kube.store import Store
from modelswarm.settings import OperatorSettings


def utc_now() -> datetime:
    return datetime.now(UTC)


class Events(Protocol):
    """Where Kubernetes Events go; never blocks, never fails (``kube/events.py``)."""

    def emit(self, regarding: JsonObject, type_: str, reason: str, message: str) -> None: ...


@dataclass(slots=True)
class World:
    kube: KubePort
    store: Store
    events: Events
    settings: OperatorSettings
    cluster: ClusterState = field(default_factory=ClusterState)
    clock: Callable[[], datetime] = utc_now
    told: Callable[[Kind, JsonObject], None] = lambda kind, obj: None
    """Called with what was written; the operator wakes the controllers that hear of it."""
    _written: dict[tuple[Kind, Key], str] = field(default_factory=dict)

    def openmodel(self, name: str) -> OpenModel | None:
        obj = self.store.get(OPENMODEL, name)
        return None if obj is None else OpenModel.model_validate(obj)

    def runtime(self, name: str) -> BackendRuntime | None:
        obj = self.store.get(BACKENDRUNTIME, name)
        return None if obj is None else BackendRuntime.model_validate(obj)

    def playground(self, key: Key) -> Playground | None:
        obj = self.store.get(PLAYGROUND, key.name, key.namespace)
        return None if obj is None else Playground.model_validate(obj)

    def task(self, namespace: str, name: str) -> P2PTask | None:
        obj = self.store.get(P2PTASK, name, namespace)
        return None if obj is None else P2PTask.model_validate(obj)

    async def find(self, kind: Kind, name: str, namespace: str) -> JsonObject | None:
        """Who has this name: by the watch, or, where that does not know it (yet), by the API server.

        To be asked before the first write to a name: a server-side apply would take a stranger's object over without a
        word.
        """
        if (known := self.store.get(kind, name, namespace)) is not None:
            return known
        try:
            return await self.kube.get(kind, name, namespace)
        except NotFound:
            return None

    def is_there(self, resource: OpenModel | Playground) -> bool:
        """Whether the object is still what has this name. It may have been deleted while the API server was asked, and
        what is made for it then has to be collected again."""
        kind = kind_of({"apiVersion": resource.api_version_of_kind(), "kind": resource.KIND})
        found = self.store.get(kind, resource.metadata.name, resource.metadata.namespace)
        return found is not None and metadata(found).get("uid") == resource.metadata.uid

    def took(self, answer: JsonObject) -> JsonObject:
        """The API server's answer to a write of ours: into the store with it, and tell whoever hears of the object.

        The watch will say the same a moment later; ``is_echo`` knows it then, so that nobody looks twice.
        """
        kind = kind_of(answer)
        self.store.put(kind, answer)
        self._written[kind, key_of(answer)] = version_of(answer)
        self.told(kind, answer)
        return answer

    def is_echo(self, kind: Kind, obj: JsonObject) -> bool:
        """Whether a watch event shows what our last write to the object answered."""
        return self._written.get((kind, key_of(obj))) == version_of(obj)

    def gone(self, kind: Kind, obj: JsonObject) -> None:
        """The watch says that the object was deleted."""
        self._written.pop((kind, key_of(obj)), None)
        self.store.remove(kind, obj)

    async def apply(self, obj: JsonObject) -> JsonObject:
        """Server-side apply. ``obj`` says everything that we want to own of the object, and nothing else."""
        return self.took(await self.kube.apply(obj))

    async def create(self, obj: JsonObject) -> JsonObject:
        return self.took(await self.kube.create(obj))

    async def delete(self, kind: Kind, name: str, namespace: str | None, *, uid: str) -> None:
        """Delete this very object (not one that has taken its name meanwhile). The watch tells when it is gone."""
        await self.kube.delete(kind, name, namespace, uid=uid)

    async def write_status(self, resource: OpenModel | Playground | P2PTask, status: ApiModel) -> bool:
        """Write the status if it differs from the object's, and an Event for each condition that changed.

        Both are compared as they would be written, so that a default that stands only in our model is no difference.
        Returns whether it was written.
        """
        wanted = status.to_json()
        if wanted == resource.status.to_json():
            return False
        await self._put_status(resource, wanted)
        for condition in getattr(status, "conditions", ()):
            previous = find(resource.status.conditions, condition.type)
            if previous is None or (previous.status, previous.reason) != (condition.status, condition.reason):
                self._tell(resource, condition)
        return True

    async def _put_status(self, resource: Resource, status: JsonObject) -> None:
        self.took(await self.kube.apply_status({**self.identify(resource, with_uid=True), "status": status}))

    def _tell(self, resource: Resource, condition: Condition) -> None:
        bad_when = "True" if condition.type == "Degraded" else "False"
        warning = condition.status == bad_when and condition.reason not in _WAITING
        step = condition.type in _STEPS or condition.reason == TaskReason.NOTHING_TO_DISTRIBUTE
        if condition.type == "Pending" or (step and not warning):
            return
        self.events.emit(
            self.identify(resource, with_uid=True),
            "Warning" if warning else "Normal",
            condition.reason,
            condition.message,
        )

    @staticmethod
    def identify(resource: Resource, *, with_uid: bool = False) -> JsonObject:
        """``apiVersion``, ``kind`` and the metadata that name the object.

        With the uid, a write to an object that was deleted and re-created meanwhile is refused as a conflict.
        """
        metadata: JsonObject = {"name": resource.metadata.name}
        if resource.NAMESPACED:
            metadata["namespace"] = resource.metadata.namespace
        if with_uid:
            metadata["uid"] = resource.metadata.uid
        return {"apiVersion": resource.api_version_of_kind(), "kind": resource.KIND, "metadata": metadata}

    async def label(self, resource: Resource, labels: dict[str, str]) -> None:
        """Own these labels on a user's object (what llmaz's webhooks set), if they are not there yet."""
        if is_labelled(resource, labels):
            return
        body = self.identify(resource, with_uid=True)
        metadata = body["metadata"]
        assert isinstance(metadata, dict)
        metadata["labels"] = dict(labels)
        await self.apply(body)


_WAITING = frozenset({"Pending", "Resolving", "Running", "WaitingForModel", "PreheatingImage", "Suspended"})
"""Reasons that are a stage and not a fault, though their condition says False."""


_STEPS = frozenset({"Accepted", "Resolved", "Progressing"})
"""Conditions that lead to another one: good news of them is told by that one, in one Event instead of three."""


def is_labelled(resource: Resource, labels: dict[str, str]) -> bool:
    return all(resource.metadata.labels.get(key) == value for key, value in labels.items())
