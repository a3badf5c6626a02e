"""Requests to the API server as plain dicts, on the connections of one kubernetes_asyncio ``ApiClient``.

Its configuration, credentials and TLS are used, its request path is not: see docs/decisions/0005.
"""

import asyncio
import random
from collections.abc import AsyncGenerator, Callable, Mapping, Sequence
from contextlib import aclosing
from types import SimpleNamespace
from typing import Any
from urllib.parse import urlencode

import aiohttp
from kubernetes_asyncio.client import ApiClient
from pydantic_core import from_json, to_json
from tenacity import AsyncRetrying, RetryCallState, retry_if_exception, stop_after_attempt
from yarl import URL

from modelswarm.api.labels import MANAGER
from modelswarm.api.meta import JsonObject
from modelswarm.errors import Conflict, Invalid, KubeError, NotFound, Unavailable
from modelswarm.kube.answers import error_for
from modelswarm.kube.auth import auth_headers
from modelswarm.kube.kinds import Kind, kind_of
from modelswarm.kube.objects import key_of, metadata
from modelswarm.kube.port import Listing, WatchEvent
from modelswarm.kube.stream import events
from modelswarm.metrics import ClientMetrics

TIMEOUT = 30.0
PAGE = 500
WATCH_SECONDS = 300.0
SILENCE = 150.0
LIST_RESTARTS = 3
ATTEMPTS = 4
RETRY_BASE = 0.1
LONGEST_RETRY_AFTER = 5.0
"""Seconds. If the server wants a longer pause, the caller gets Unavailable and its worker is free meanwhile."""
GONE = 410
TOO_MANY_REQUESTS = 429

JSON = "application/json"
METADATA = "application/json;as=PartialObjectMetadata;g=meta.k8s.io;v=v1"
METADATA_LIST = "application/json;as=PartialObjectMetadataList;g=meta.k8s.io;v=v1"
JSON_PATCH = "application/json-patch+json"
APPLY = "application/apply-patch+yaml"

# Nobody would read warnings about unknown fields, and to look for them costs the server a quarter of an apply.
_UNCHECKED = {"fieldValidation": "Ignore"}


class _NotSent(Unavailable):
    """No connection: the server has certainly not seen the request."""


class KubeClient:
    """``modelswarm.kube.port.KubePort`` on a real API server.

    Every call ends within ``timeout`` seconds, attempts and pauses included. What has not reached the server, or may
    safely reach it twice, is tried a few times; longer retrying belongs to the work queue. ``may_write`` is asked right
    before the bytes of every write leave (the Lease); while it says no, nothing but reads goes out.
    ``manager`` is the name under which the server notes whose a field is.
    """

    def __init__(
        self,
        api_client: ApiClient,
        *,
        metrics: ClientMetrics | None = None,
        timeout: float = TIMEOUT,
        may_write: Callable[[], bool] = lambda: True,
        manager: str = MANAGER,
    ) -> None:
        self._managed = {"fieldManager": manager, **_UNCHECKED}
        self._configuration = api_client.configuration
        # The session of kubernetes_asyncio looks for proxies and a netrc file in a thread for every request: that costs
        # more than the request. This one shares its connections; kube.auth finds the proxy once. It needs no closing.
        self._session = aiohttp.ClientSession(
            connector=api_client.rest_client.pool_manager.connector,
            connector_owner=False,
            cookie_jar=aiohttp.DummyCookieJar(),
            timeout=aiohttp.ClientTimeout(total=None),  # one asyncio.timeout per call covers everything
            trace_configs=[self._tracing()],
        )
        self._connection = _connection_options(api_client)
        self._metrics = metrics or ClientMetrics()
        self._timeout = timeout
        self._may_write = may_write
        self._host = str(self._configuration.host).rstrip("/")

    async def get(self, kind: Kind, name: str, namespace: str | None = None) -> JsonObject:
        return await self._call("get", kind, "GET", kind.path(namespace, name))

    async def apply(self, obj: JsonObject, *, force: bool = True) -> JsonObject:
        kind, key = kind_of(obj), key_of(obj)
        query = {**self._managed, "force": "true"} if force else self._managed
        try:
            return await self._call("apply", kind, "PATCH", kind.path(key.namespace, key.name), obj, APPLY, query)
        except Invalid as error:
            raise await self._conflict(kind, obj) or error from None

    async def apply_status(self, obj: JsonObject) -> JsonObject:
        # Not a server-side apply, in whose status the API server ignores the uid. It costs the server as much.
        kind, key = kind_of(obj), key_of(obj)
        tests = [{"op": "test", "path": f"/metadata/{name}", "value": value} for name, value in _identity(obj).items()]
        patch = [*tests, {"op": "add", "path": "/status", "value": obj.get("status") or {}}]
        path = kind.path(key.namespace, key.name, "status")
        try:
            return await self._call("apply_status", kind, "PATCH", path, patch, JSON_PATCH, self._managed)
        except Invalid as error:
            raise await self._conflict(kind, obj) or error from None

    async def _conflict(self, kind: Kind, obj: JsonObject) -> Conflict | None:
        """Whether an object was refused because it is not the one that we meant: the server says Invalid then."""
        wanted, key = _identity(obj), key_of(obj)
        if not wanted:
            return None
        found = metadata(await self.get(kind, key.name, key.namespace))
        if all(found.get(name) == value for name, value in wanted.items()):
            return None
        return Conflict(f"{kind.kind} {key} was changed or made anew meanwhile", status=409)

    async def create(self, obj: JsonObject) -> JsonObject:
        kind = kind_of(obj)
        path = kind.path(key_of(obj).namespace)
        return await self._call("create", kind, "POST", path, obj, JSON, self._managed, repeatable=False)

    async def replace(self, obj: JsonObject) -> JsonObject:
        kind, key = kind_of(obj), key_of(obj)
        path = kind.path(key.namespace, key.name)
        return await self._call("replace", kind, "PUT", path, obj, JSON, self._managed, repeatable=False)

    async def json_patch(
        self,
        kind: Kind,
        name: str,
        namespace: str | None,
        operations: Sequence[JsonObject],
        *,
        subresource: str | None = None,
    ) -> JsonObject:
        path = kind.path(namespace, name, subresource)
        return await self._call("patch", kind, "PATCH", path, operations, JSON_PATCH, self._managed, repeatable=False)

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
        body: dict[str, Any] = {"propagationPolicy": propagation}
        conditions = {"uid": uid, "resourceVersion": resource_version}
        if conditions := {name: value for name, value in conditions.items() if value is not None}:
            body["preconditions"] = conditions
        try:
            await self._call("delete", kind, "DELETE", kind.path(namespace, name), body, JSON)
        except NotFound:
            return False
        except Conflict:
            if uid is None or await self._still_there(kind, name, namespace, uid):
                raise
            return False
        return True

    async def _still_there(self, kind: Kind, name: str, namespace: str | None, uid: str) -> bool:
        try:
            return bool(metadata(await self.get(kind, name, namespace)).get("uid") == uid)
        except NotFound:
            return False

    async def _call(
        self,
        verb: str,
        kind: Kind,
        method: str,
        path: str,
        body: object = None,
        content_type: str | None = None,
        query: Mapping[str, str] | None = None,
        *,
        repeatable: bool = True,
        accept: str | None = None,
    ) -> JsonObject:
        """One request with its retries. ``repeatable``: it does no harm if the server gets it twice."""
        text = f"{self._host}{path}?{urlencode(query)}" if query else self._host + path
        url = URL(text, encoded=True)
        data = None if body is None else to_json(body)

        async def attempt() -> JsonObject:
            return await self._send(verb, kind, method, url, data, content_type, accept)

        def again(error: BaseException) -> bool:
            return isinstance(error, Unavailable) and _may_repeat(error, repeatable)

        def count(state: RetryCallState) -> None:
            self._metrics.api_retries.labels(verb, kind.kind).inc()

        try:
            async with asyncio.timeout(self._timeout):
                return await AsyncRetrying(
                    stop=stop_after_attempt(ATTEMPTS),
                    wait=_pause,
                    retry=retry_if_exception(again),
                    before_sleep=count,
                    reraise=True,
                )(attempt)
        except TimeoutError:
            self._metrics.api_request(verb, kind.kind, 0)
            raise Unavailable(f"no answer from the API server within {self._timeout:g} s") from None

    async def _send(
        self,
        verb: str,
        kind: Kind,
        method: str,
        url: URL,
        data: bytes | None,
        content_type: str | None,
        accept: str | None,
    ) -> JsonObject:
        headers = await auth_headers(self._configuration)
        if accept is not None:
            headers["Accept"] = accept
        if content_type is not None:
            headers["Content-Type"] = content_type
        try:
            async with self._session.request(
                method, url, data=data, headers=headers, allow_redirects=False, **self._connection
            ) as response:
                answer = await response.read()
        except aiohttp.ClientError as error:
            if isinstance(error.__cause__, Unavailable):
                raise error.__cause__ from None
            self._metrics.api_request(verb, kind.kind, 0)
            known = _NotSent if isinstance(error, aiohttp.ClientConnectorError) else Unavailable
            raise known(f"no answer from the API server ({type(error).__name__})") from None
        self._metrics.api_request(verb, kind.kind, response.status)
        if response.status not in range(200, 300):
            raise error_for(response.status, response.headers, answer)
        found: JsonObject = from_json(answer)
        return found

    def _tracing(self) -> aiohttp.TraceConfig:
        """Asks ``may_write`` in the step that hands a body to the socket: every write has one, and no read.

        A process that is frozen at an earlier turn of its loop, while it connects, say, may wake after its Lease.
        """

        async def ask(session: aiohttp.ClientSession, context: SimpleNamespace, params: object) -> None:
            if not self._may_write():
                raise Unavailable("not the leader any more; another operator goes on from here")

        tracing = aiohttp.TraceConfig()
        tracing.on_request_chunk_sent.append(ask)
        return tracing

    async def watch(
        self,
        kind: Kind,
        namespace: str | None = None,
        *,
        resource_version: str,
        label_selector: str | None = None,
        field_selector: str | None = None,
        metadata_only: bool = False,
        seconds: float = WATCH_SECONDS,
    ) -> AsyncGenerator[WatchEvent, None]:
        query = {
            "watch": "1",
            "resourceVersion": resource_version,
            "allowWatchBookmarks": "true",
            "timeoutSeconds": str(max(1, int(seconds))),
            **_selection(label_selector, field_selector),
        }
        headers = await auth_headers(self._configuration)
        if metadata_only:
            headers["Accept"] = METADATA
        url = URL(f"{self._host}{kind.path(namespace)}?{urlencode(query)}", encoded=True)
        # The server sends a bookmark every minute, and ends the watch itself; a longer silence is a dead connection.
        patience = aiohttp.ClientTimeout(total=seconds + self._timeout, sock_connect=self._timeout, sock_read=SILENCE)
        try:
            async with self._session.get(
                url, headers=headers, allow_redirects=False, timeout=patience, **self._connection
            ) as response:
                self._metrics.api_request("watch", kind.kind, response.status)
                if response.status != 200:
                    raise error_for(response.status, response.headers, await response.read())
                async with aclosing(events(response.content.iter_any(), kind)) as stream:
                    async for event in stream:
                        yield event
        except (aiohttp.ClientError, TimeoutError) as error:
            self._metrics.api_request("watch", kind.kind, 0)
            raise Unavailable(f"the watch of {kind.plural} broke off ({type(error).__name__})") from None

    # Last, because within the class body the name means this method from here on.
    async def list(
        self,
        kind: Kind,
        namespace: str | None = None,
        *,
        label_selector: str | None = None,
        field_selector: str | None = None,
        metadata_only: bool = False,
    ) -> Listing:
        query = {"limit": str(PAGE), **_selection(label_selector, field_selector)}
        for _ in range(LIST_RESTARTS):
            try:
                return await self._pages(kind, namespace, query, METADATA_LIST if metadata_only else None)
            except Unavailable as error:
                if error.status != GONE:
                    raise
        raise Unavailable(f"the list of {kind.plural} changed faster than it could be read", status=GONE)

    async def _pages(self, kind: Kind, namespace: str | None, query: dict[str, str], accept: str | None) -> Listing:
        listing, path = Listing(), kind.path(namespace)
        while True:
            page: dict[str, Any] = await self._call("list", kind, "GET", path, query=query, accept=accept)
            for item in page.get("items") or ():
                listing.append({**item, "apiVersion": kind.api_version, "kind": kind.kind})
            meta = metadata(page)
            listing.resource_version = meta.get("resourceVersion") or ""
            if not meta.get("continue"):
                return listing
            query = {**query, "continue": meta["continue"]}


def _connection_options(api_client: ApiClient) -> dict[str, Any]:
    """What kubernetes_asyncio passes with each request instead of setting it on its session."""
    rest = api_client.rest_client
    options = {"proxy": rest.proxy, "proxy_headers": rest.proxy_headers, "server_hostname": rest.server_hostname}
    return {name: value for name, value in options.items() if value}


def _selection(label_selector: str | None, field_selector: str | None) -> dict[str, str]:
    query = {"labelSelector": label_selector, "fieldSelector": field_selector}
    return {name: value for name, value in query.items() if value}


def _identity(obj: JsonObject) -> dict[str, str]:
    """What the caller says about which object, or which version of it, is meant."""
    meta = metadata(obj)
    return {name: str(meta[name]) for name in ("uid", "resourceVersion") if meta.get(name)}


def _may_repeat(error: KubeError, repeatable: bool) -> bool:
    if error.status == GONE or (error.retry_after or 0) > LONGEST_RETRY_AFTER:
        return False
    return repeatable or error.status == TOO_MANY_REQUESTS or isinstance(error, _NotSent)


def _pause(state: RetryCallState) -> float:
    error = state.outcome.exception() if state.outcome else None
    least = (error.retry_after or 0.0) if isinstance(error, KubeError) else 0.0
    return least + random.uniform(0, RETRY_BASE * 2**state.attempt_number)
