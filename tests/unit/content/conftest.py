"""What the tests of origins share: a client, and the hub stand-in on real sockets."""

from collections.abc import AsyncIterator, Callable

import httpx
import pytest

from dev.hub import Hub, Repository
from modelswarm.content.endpoints import Endpoints

LARGE = b"weights" * 100
FILES = {
    ".gitattributes": b"*.safetensors filter=lfs diff=lfs merge=lfs -text\n",
    "config.json": b'{"a": 1}',
    "model-00001-of-00002.safetensors": LARGE,
    "model-00002-of-00002.safetensors": LARGE + b"2",
    "onnx/model.onnx": b"onnx",
    "a b#c%41.txt": b"odd",
}


@pytest.fixture
async def http() -> AsyncIterator[httpx.AsyncClient]:
    async with httpx.AsyncClient(trust_env=False) as client:
        yield client


@pytest.fixture
async def hub() -> AsyncIterator[Hub]:
    """A hub with ``org/model`` at ``main``; pages of 2 so that every listing has several."""
    async with Hub(page_size=2) as running:
        add_model(running, "org/model")
        yield running


def add_model(hub: Hub, name: str, files: dict[str, bytes] | None = None, **options: object) -> Repository:
    repository = Repository(name, **options)  # type: ignore[arg-type]
    repository.move("main", repository.commit(files or FILES))
    return hub.add(repository)


@pytest.fixture
def endpoints(hub: Hub) -> Endpoints:
    return Endpoints(huggingface=hub.url, modelscope=hub.url)


MockClient = Callable[[Callable[[httpx.Request], httpx.Response]], httpx.AsyncClient]


@pytest.fixture
def mock_client() -> MockClient:
    return lambda handler: httpx.AsyncClient(transport=httpx.MockTransport(handler))
