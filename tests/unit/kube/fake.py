"""As much of an API server as Leases, Events and informers need: versions, conflicts, watches, failures on demand."""

import asyncio
import copy
import itertools
from collections.abc import AsyncGenerator, Callable, Sequence

from modelswarm.api.meta import JsonObject
from modelswarm.errors import Conflict, NotFound, Unavailable
from modelswarm.kube.key import Key
from modelswarm.kube.kinds import Kind, kind_of
from modelswarm.kube.objects import key_of, metadata
from modelswarm.kube.port import Change, Listing, WatchEvent

Interruption = Callable[[str], Exception | float | None]
"""Told the verb of a request; an exception is raised, a number of seconds waited before the server looks at it."""


class _Watcher:
    def __init__(self, kind: Kind) -> None:
        self.kind = kind
        self.queue: asyncio.Queue[WatchEvent | Exception | None] = asyncio.Queue()


class FakeServer:
    def __init__(self) -> None:
        self.objects: dict[tuple[Kind, Key], JsonObject] = {}
        self.requests: list[str] = []
        self.versions = itertools.count(1)
        self.version = 0
        self.history: list[tuple[int, Kind, WatchEvent]] = []
        self.forgotten = 0
        """Watches from before this version get 410."""
        self.absent: set[Kind] = set()
        self.watchers: list[_Watcher] = []

    def store(self, obj: JsonObject) -> JsonObject:
        stored = copy.deepcopy(obj)
        self.version = next(self.versions)
        metadata(stored)["resourceVersion"] = str(self.version)
        name = (kind_of(obj), key_of(obj))
        self._tell(name[0], Change.MODIFIED if name in self.objects else Change.ADDED, stored)
        self.objects[name] = stored
        return copy.deepcopy(stored)

    def remove(self, kind: Kind, name: str, namespace: str = "") -> None:
        gone = copy.deepcopy(self.objects.pop((kind, Key(namespace, name))))
        self.version = next(self.versions)
        metadata(gone)["resourceVersion"] = str(self.version)
        self._tell(kind, Change.DELETED, gone)

    def bookmark(self, kind: Kind) -> None:
        self.version = next(self.versions)
        self._tell(kind, Change.BOOKMARK, {"metadata": {"resourceVersion": str(self.version)}})

    def forget_history(self) -> None:
        self.forgotten = self.version
        self.history.clear()

    def break_watches(self, error: Exception | None = None) -> None:
        """End all watches, as a restart of the server (an error) or their time-out (None) does."""
        for watcher in self.watchers:
            watcher.queue.put_nowait(error)

    def _tell(self, kind: Kind, change: Change, obj: JsonObject) -> None:
        event = WatchEvent(change, copy.deepcopy(obj))
        if change is not Change.BOOKMARK:
            self.history.append((self.version, kind, event))
        for watcher in self.watchers:
            if watcher.kind == kind:
                watcher.queue.put_nowait(event)

    def client(self, interruption: Interruption = lambda verb: None) -> "FakeKube":
        return FakeKube(self, interruption)


class FakeKube:
    """``KubePort`` of one client, with its own way to the server."""

    def __init__(self, server: FakeServer, interruption: Interruption) -> None:
        self._server = server
        self.interruption = interruption

    async def get(self, kind: Kind, name: str, namespace: str | None = None) -> JsonObject:
        await self._enter("get", name)
        try:
            found = copy.deepcopy(self._server.objects[kind, Key(namespace or "", name)])
        except KeyError:
            raise NotFound(f"{kind.plural} {name!r} not found", status=404) from None
        self._leave("get", name)
        return found

    async def create(self, obj: JsonObject) -> JsonObject:
        name = key_of(obj).name
        await self._enter("create", name)
        if (kind_of(obj), key_of(obj)) in self._server.objects:
            raise Conflict(f"{name!r} already exists", status=409)
        stored = self._server.store(obj)
        self._leave("create", name)
        return stored

    async def replace(self, obj: JsonObject) -> JsonObject:
        name = key_of(obj).name
        await self._enter("replace", name)
        try:
            current = self._server.objects[kind_of(obj), key_of(obj)]
        except KeyError:
            raise NotFound("not found", status=404) from None
        if metadata(obj).get("resourceVersion") != metadata(current)["resourceVersion"]:
            raise Conflict("the object has been modified", status=409)
        stored = self._server.store(obj)
        self._leave("replace", name)
        return stored

    async def _enter(self, verb: str, name: str = "") -> None:
        """A round trip takes a moment, in which others may be faster."""
        self._server.requests.append(verb)
        what = self.interruption(verb)
        if isinstance(what, Exception):
            raise what
        await asyncio.sleep(what or 0.001)

    def _leave(self, verb: str, name: str) -> None:
        """The server has done it. Whoever raises here loses the answer."""

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
        resource_version: str | None = None,
        propagation: str = "Background",
    ) -> bool:
        await self._enter("delete", name)
        current = self._server.objects.get((kind, Key(namespace or "", name)))
        if current is None or (uid is not None and metadata(current).get("uid") != uid):
            return False
        if resource_version is not None and metadata(current)["resourceVersion"] != resource_version:
            raise Conflict("the object has been modified", status=409)
        self._server.remove(kind, name, namespace or "")
        return True

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
        metadata_only: bool = False,
    ) -> Listing:
        """Selectors are not looked at."""
        await self._enter("list")
        self._exists(kind)
        found = [copy.deepcopy(obj) for (each, _), obj in self._server.objects.items() if each == kind]
        return Listing(found, str(self._server.version))

    async def watch(
        self,
        kind: Kind,
        namespace: str | None = None,
        *,
        resource_version: str,
        label_selector: str | None = None,
        field_selector: str | None = None,
        metadata_only: bool = False,
        seconds: float = 300.0,
    ) -> AsyncGenerator[WatchEvent, None]:
        await self._enter("watch")
        self._exists(kind)
        since = int(resource_version)
        if since < self._server.forgotten:
            raise Unavailable("too old resource version", status=410)
        watcher = _Watcher(kind)
        self._server.watchers.append(watcher)
        try:
            for version, each, event in list(self._server.history):
                if each == kind and version > since:
                    yield event
            while (found := await watcher.queue.get()) is not None:
                if isinstance(found, Exception):
                    raise found
                yield found
        finally:
            self._server.watchers.remove(watcher)

    def _exists(self, kind: Kind) -> None:
        if kind in self._server.absent:
            raise NotFound("the server could not find the requested resource", status=404)
