"""A client whose API server is in memory and answers at once, with faults on demand."""

import copy
from collections.abc import Mapping
from typing import Any

from modelswarm.api.meta import JsonObject
from modelswarm.controllers import watching
from modelswarm.controllers.world import World
from modelswarm.errors import KubeError
from modelswarm.kube.key import Key
from modelswarm.kube.kinds import Kind, kind_of
from modelswarm.kube.objects import key_of, metadata
from modelswarm.kube.store import Store
from modelswarm.settings import OperatorSettings
from tests.unit.controllers.objects import NOW
from tests.unit.kube import fake

Faults = Mapping[tuple[str, str], list[KubeError]]


class Server(fake.FakeServer):
    """Its objects have uids, because they own one another."""

    def store(self, obj: JsonObject) -> JsonObject:
        found = self.objects.get((kind_of(obj), key_of(obj)))
        uid = metadata(found)["uid"] if found else f"uid-{self.version + 1}"
        return super().store({**obj, "metadata": {"uid": uid, **metadata(obj)}})


class FakeKube(fake.FakeKube):
    """``faults``: what a verb on a name answers first, before it works (again).

    ``lost_answers``: the same, but the request is carried out.
    """

    def __init__(self, *, faults: Faults | None = None, lost_answers: Faults | None = None) -> None:
        self.server = Server()
        super().__init__(self.server, lambda verb: None)
        self.faults = dict(faults or {})
        self.lost_answers = dict(lost_answers or {})
        self.calls: list[tuple[str, str]] = []

    @property
    def objects(self) -> dict[tuple[Kind, Key], JsonObject]:
        return self.server.objects

    def put(self, obj: JsonObject) -> JsonObject:
        return self.server.store(obj)

    def names(self, kind: Kind) -> list[str]:
        return sorted(key.name for each, key in self.objects if each is kind)

    async def _enter(self, verb: str, name: str = "") -> None:
        self.calls.append((verb, name))
        if waiting := self.faults.get((verb, name)):
            raise waiting.pop(0)

    def _leave(self, verb: str, name: str) -> None:
        if waiting := self.lost_answers.get((verb, name)):
            raise waiting.pop(0)


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
        kind, [copy.deepcopy(obj) for (each, _), obj in of.kube.objects.items() if each is kind], of.kube.server.version
    )
