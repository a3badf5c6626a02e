"""As much of an API server as Leases and Events need: resourceVersions, conflicts, and failures on demand."""

import asyncio
import copy
import itertools
from collections.abc import Callable, Sequence

from modelswarm.api.meta import JsonObject
from modelswarm.errors import Conflict, NotFound
from modelswarm.kube.key import Key
from modelswarm.kube.kinds import Kind, kind_of
from modelswarm.kube.objects import key_of, metadata
from modelswarm.kube.port import Listing

Interruption = Callable[[str], Exception | float | None]
"""Told the verb of a request; an exception is raised, a number of seconds waited before the server looks at it."""


class FakeServer:
    def __init__(self) -> None:
        self.objects: dict[tuple[Kind, Key], JsonObject] = {}
        self.requests: list[str] = []
        self.versions = itertools.count(1)

    def client(self, interruption: Interruption = lambda verb: None) -> "FakeKube":
        return FakeKube(self, interruption)


class FakeKube:
    """``KubePort`` of one client, with its own way to the server."""

    def __init__(self, server: FakeServer, interruption: Interruption) -> None:
        self._server = server
        self.interruption = interruption

    async def get(self, kind: Kind, name: str, namespace: str | None = None) -> JsonObject:
        await self._enter("get")
        try:
            return copy.deepcopy(self._server.objects[kind, Key(namespace or "", name)])
        except KeyError:
            raise NotFound(f"{kind.plural} {name!r} not found", status=404) from None

    async def create(self, obj: JsonObject) -> JsonObject:
        await self._enter("create")
        if (kind_of(obj), key_of(obj)) in self._server.objects:
            raise Conflict("already exists", status=409)
        return self._write(obj)

    async def replace(self, obj: JsonObject) -> JsonObject:
        await self._enter("replace")
        try:
            current = self._server.objects[kind_of(obj), key_of(obj)]
        except KeyError:
            raise NotFound("not found", status=404) from None
        if metadata(obj).get("resourceVersion") != metadata(current)["resourceVersion"]:
            raise Conflict("the object has been modified", status=409)
        return self._write(obj)

    def _write(self, obj: JsonObject) -> JsonObject:
        stored = copy.deepcopy(obj)
        metadata(stored)["resourceVersion"] = str(next(self._server.versions))
        self._server.objects[kind_of(obj), key_of(obj)] = stored
        return copy.deepcopy(stored)

    async def _enter(self, verb: str) -> None:
        """A round trip takes a moment, in which others may be faster."""
        self._server.requests.append(verb)
        what = self.interruption(verb)
        if isinstance(what, Exception):
            raise what
        await asyncio.sleep(what or 0.001)

    async def apply(self, obj: JsonObject, *, force: bool = True) -> JsonObject:
        raise NotImplementedError

    async def apply_status(self, obj: JsonObject) -> JsonObject:
        raise NotImplementedError

    async def delete(
        self,
        kind: Kind,
        name: str,
        namespace: str | None = None,
        *,
        uid: str | None = None,
        propagation: str = "Background",
    ) -> bool:
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

    async def list(
        self,
        kind: Kind,
        namespace: str | None = None,
        *,
        label_selector: str | None = None,
        field_selector: str | None = None,
    ) -> Listing:
        raise NotImplementedError
