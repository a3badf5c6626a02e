import asyncio
import random
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import AsyncExitStack
from pathlib import Path

import pytest

from modelswarm.agent.messages import Answer, Report
from modelswarm.agent.metainfo.client import MetainfoClient
from modelswarm.agent.metainfo.desk import Desk
from modelswarm.agent.metainfo.routes import Model, Stats
from modelswarm.agent.metainfo.server import MetainfoServer
from modelswarm.agent.metainfo.signing import Signer
from modelswarm.content.manifest import Manifest
from modelswarm.errors import NotCoordinator

SECRET = b"a secret of the agents"


class Shelf:
    """The contents of a node, in memory."""

    def __init__(self) -> None:
        self.torrents: dict[str, bytes] = {}
        self.manifests: dict[str, Manifest] = {}
        self.paths: dict[str, Path] = {}
        self.desks: dict[str, Desk] = {}
        self.holder: str | None = None
        self.uploaded = 0

    async def metainfo(self, model_hash: str) -> bytes | None:
        return self.torrents.get(model_hash)

    def stats(self) -> Stats:
        return Stats(active_torrents=len(self.torrents), total_bytes_uploaded=self.uploaded)

    def models(self) -> Sequence[Model]:
        return [Model(name, True) for name in self.torrents]

    async def report(self, content_id: str, report: Report) -> Answer | None:
        desk = self.desks.get(content_id)
        if desk is not None:
            return await desk.report(report)
        if self.holder is not None:
            raise NotCoordinator("not here", holder=self.holder)
        return None

    async def manifest(self, digest: str) -> Manifest | None:
        return self.manifests.get(digest)

    async def blob(self, key: str) -> Path | None:
        return self.paths.get(key)

    def sent(self, count: int) -> None:
        self.uploaded += count


def signer(*secrets: bytes, ahead: float = 0.0) -> Signer:
    return Signer(lambda: secrets, lambda: 1_800_000_000.0 + ahead)


@pytest.fixture
def shelf() -> Shelf:
    return Shelf()


Serve = Callable[..., Awaitable[str]]
Connect = Callable[..., MetainfoClient]


@pytest.fixture
async def serve(shelf: Shelf) -> AsyncIterator[Serve]:
    """Starts a server; the result is its URL."""
    async with AsyncExitStack() as stack:

        async def start(*secrets: bytes, host: str = "127.0.0.1") -> str:
            server = MetainfoServer(shelf, signer(*(secrets or (SECRET,))), host=host, port=0)
            port = await server.start()
            stack.push_async_callback(server.stop)
            return f"http://[{host}]:{port}" if ":" in host else f"http://{host}:{port}"

        yield start


@pytest.fixture
async def connect() -> AsyncIterator[Connect]:
    """Makes a client; without arguments one that knows the Secret."""
    async with AsyncExitStack() as stack:

        def make(*secrets: bytes, ahead: float = 0.0, host: str | None = None) -> MetainfoClient:
            client = MetainfoClient(signer(*(secrets or (SECRET,)), ahead=ahead), host=host, rng=random.Random(1))
            stack.push_async_callback(client.close)
            return client

        yield make


Handler = Callable[[asyncio.StreamReader, asyncio.StreamWriter], Awaitable[None]]


@pytest.fixture
async def peer() -> AsyncIterator[Callable[[Handler], Awaitable[str]]]:
    """A peer that answers every connection with ``handler``, whatever it is asked."""
    async with AsyncExitStack() as stack:
        tasks: set[asyncio.Task[None]] = set()

        async def start(handler: Handler) -> str:
            async def handle(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
                task = asyncio.current_task()
                if task is not None:
                    tasks.add(task)
                try:
                    await handler(reader, writer)
                except (ConnectionError, asyncio.CancelledError):
                    pass
                finally:
                    writer.close()

            server = await asyncio.start_server(handle, "127.0.0.1", 0)
            stack.callback(server.close)
            return f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}"

        yield start
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
