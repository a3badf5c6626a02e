"""The benchmark's own requests: many at once, and as cheap as they can be, for they share the cores."""

import asyncio
import json
from collections.abc import AsyncIterator, Iterable
from types import TracebackType
from typing import Any, Self

import aiohttp

from dev.controlplane import ControlPlane

Object = dict[str, Any]


class RequestFailed(RuntimeError):
    """The API server refused what the benchmark asked for. The message is its own."""


class Api:
    """An administrator's client. An asynchronous context manager."""

    def __init__(self, cluster: ControlPlane, *, concurrency: int = 16) -> None:
        self._server = cluster.server
        self._ssl = cluster.ssl_context()
        self._concurrency = concurrency

    async def __aenter__(self) -> Self:
        connector = aiohttp.TCPConnector(ssl=self._ssl, limit=self._concurrency + 8)
        self._session = aiohttp.ClientSession(self._server, connector=connector, timeout=aiohttp.ClientTimeout(60))
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        await self._session.close()

    async def create_all(self, objects: Iterable[tuple[str, Object]]) -> None:
        """POST each object to its path, in this order, as many at once as ``concurrency`` says."""
        waiting = iter(objects)

        async def work() -> None:
            for path, obj in waiting:
                await self._request("POST", path, obj)

        async with asyncio.TaskGroup() as group:
            for _ in range(self._concurrency):
                group.create_task(work())

    async def merge(self, path: str, patch: Object) -> None:
        await self._request("PATCH", path, patch, "application/merge-patch+json")

    async def items(self, path: str) -> list[Object]:
        found: list[Object] = (await self._request("GET", path))["items"]
        return found

    async def count(self, path: str) -> int:
        """How many objects there are, without reading them."""
        page = await self._request("GET", f"{path}?limit=1")
        return len(page["items"]) + int(page["metadata"].get("remainingItemCount", 0))

    async def version(self, path: str) -> str:
        """The resourceVersion to begin a watch at."""
        return str((await self._request("GET", f"{path}?limit=1"))["metadata"]["resourceVersion"])

    async def watch(self, path: str, version: str) -> AsyncIterator[Object]:
        """Events after ``version``, until the caller stops listening."""
        timeout = aiohttp.ClientTimeout(total=None)
        query = f"?watch=1&resourceVersion={version}&timeoutSeconds=3600"
        async with self._session.get(path + query, timeout=timeout) as response:
            async for line in response.content:
                yield json.loads(line)

    async def _request(
        self, method: str, path: str, body: Object | None = None, content_type: str = "application/json"
    ) -> Object:
        data = None if body is None else json.dumps(body)
        headers = {"Content-Type": content_type}
        async with self._session.request(method, path, data=data, headers=headers) as response:
            answer: Object = await response.json()
            if response.status >= 300:
                raise RequestFailed(f"{method} {path}: {answer.get('message', response.status)}")
            return answer
