"""An API server in memory: enough of one for what is tested here, with faults on demand."""

import copy
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

from modelswarm.api.meta import JsonObject
from modelswarm.controllers import watching
from modelswarm.controllers.world import World
from modelswarm.errors import Conflict, KubeError, NotFound
from modelswarm.kube.kinds import Kind, kind_of
from modelswarm.kube.objects import key_of, metadata
from modelswarm.kube.port import Listing
from modelswarm.kube.store import Store
from modelswarm.settings import OperatorSettings
from tests.unit.controllers.objects import NOW


@dataclass(slots=True)
class FakeKube:
    objects: dict[tuple[Kind, str, str], JsonObject] = field(default_factory=dict)
    faults: dict[tuple[str, str], list[KubeError]] = field(default_factory=dict)
    """What a verb on a name answers first, before it works (again)."""
    lost_answers: dict[tuple[str, str], list[KubeError]] = field(default_factory=dict)
    """The same, but the request is carried out."""
    calls: list[tuple[str, str]] = field(default_factory=list)
    versions: int = 100

    def put(self, obj: JsonObject) -> JsonObject:
        self.versions += 1
        stored = copy.deepcopy(obj)
        meta = metadata(stored)
        meta.setdefault("uid", f"uid-{self.versions}")
        meta["resourceVersion"] = str(self.versions)
        key = key_of(stored)
        self.objects[kind_of(stored), key.namespace, key.name] = stored
        return copy.deepcopy(stored)

    def names(self, kind: Kind) -> list[str]:
        return sorted(name for each, _, name in self.objects if each is kind)

    def _enter(self, verb: str, name: str) -> None:
        self.calls.append((verb, name))
        if waiting := self.faults.get((verb, name)):
            raise waiting.pop(0)

    def _leave(self, verb: str, name: str) -> None:
        if waiting := self.lost_answers.get((verb, name)):
            raise waiting.pop(0)

    async def get(self, kind: Kind, name: str, namespace: str | None = None) -> JsonObject:
        self._enter("get", name)
        found = self.objects.get((kind, namespace or "", name))
        if found is None:
            raise NotFound(f"{kind.plural} {name!r} not found", status=404)
        return copy.deepcopy(found)

    async def create(self, obj: JsonObject) -> JsonObject:
        key = key_of(obj)
        self._enter("create", key.name)
        if (kind_of(obj), key.namespace, key.name) in self.objects:
            raise Conflict(f"{key.name!r} already exists", status=409)
        stored = self.put(obj)
        self._leave("create", key.name)
        return stored

    async def delete(
        self,
        kind: Kind,
        name: str,
        namespace: str | None = None,
        *,
        uid: str | None = None,
        resource_version: str | None = None,
        propagation: str = "Background",
    ) -> bool:
        self._enter("delete", name)
        found = self.objects.get((kind, namespace or "", name))
        if found is None or (uid is not None and metadata(found)["uid"] != uid):
            return False
        del self.objects[kind, namespace or "", name]
        return True

    async def list(
        self,
        kind: Kind,
        namespace: str | None = None,
        *,
        label_selector: str | None = None,
        field_selector: str | None = None,
    ) -> Listing:
        raise NotImplementedError

    async def apply(self, obj: JsonObject, *, force: bool = True) -> JsonObject:
        raise NotImplementedError

    async def apply_status(self, obj: JsonObject) -> JsonObject:
        raise NotImplementedError

    async def replace(self, obj: JsonObject) -> JsonObject:
        raise NotImplementedError

    async def json_patch(
        self,
        kind: Kind,
        name: str,
        namespace: str | None,
        operations: Sequence[JsonObject],
        *,
        subresource: str | None = None,
    ) -> JsonObject:
        raise NotImplementedError


class NoEvents:
    def emit(self, regarding: JsonObject, type_: str, reason: str, message: str) -> None:
        pass


def world(kube: FakeKube, **settings: Any) -> World:
    """A world whose store knows nothing yet."""
    store = Store()
    watching.add_indexes(store)
    return World(kube, store, NoEvents(), OperatorSettings(**settings), clock=lambda: NOW)


def watch(of: World, kind: Kind) -> None:
    """What the watch of a kind would have told by now."""
    assert isinstance(of.kube, FakeKube)
    of.store.replace_all(
        kind, [copy.deepcopy(obj) for (each, *_), obj in of.kube.objects.items() if each is kind], of.kube.versions
    )
