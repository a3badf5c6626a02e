"""Fixtures of the tests on the real Dragonfly: ``make test-dragonfly``.

``dragonfly`` is one for all tests: a test that kills a part of it starts it again. ``origin`` is the hub stand-in with
one model of large and small files. ``bench`` has all that tests with an operator need, and a hub of its own.
"""

from collections.abc import Iterator
from pathlib import Path

import pytest

from dev.controlplane import ControlPlane
from dev.dragonfly.stack import DragonflyStack
from dev.hub import Hub, HubThread, Repository, make_model
from dev.installation import NAMESPACE, install
from tests.dragonfly.support import Bench, History
from tests.dragonfly.support.bench import TOKEN_SECRET
from tests.integration.support.api import Api

# The first start on a machine may have to build the programs, which takes half an hour.
BUILD_TIMEOUT = 5400
# Larger than what dfdaemon considers small (4 MiB), which it fetches from the origin whatever its peers have.
SHARD_BYTES = 9 << 20
MODEL = "org/model"


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption(
        "--record-task-ids",
        action="store_true",
        help="rewrite tests/dragonfly/vectors.json with what dfdaemon computes",
    )


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Building the programs counts as a test's time, so the first may take long."""
    here = Path(__file__).parent
    for item in items:
        if here in item.path.parents and item.get_closest_marker("timeout") is None:
            item.add_marker(pytest.mark.timeout(BUILD_TIMEOUT))


@pytest.fixture(scope="session")
def dragonfly() -> Iterator[DragonflyStack]:
    """Manager, scheduler, one seed and two daemons. Wait with ``wait_preheatable`` before a preheat."""
    with DragonflyStack(daemons=2, seeds=1) as stack:
        yield stack


@pytest.fixture(scope="session")
def _origin(tmp_path_factory: pytest.TempPathFactory) -> Iterator[HubThread]:
    folder = make_model(tmp_path_factory.mktemp("model"), shards=3, shard_bytes=SHARD_BYTES)
    with HubThread(Hub(Repository.from_folder(folder, id=MODEL))) as running:
        yield running


@pytest.fixture
def origin(_origin: HubThread) -> Iterator[Hub]:
    """The hub; its faults and counts are reset after the test."""
    yield _origin.hub
    _origin.hub.reset()


@pytest.fixture(scope="session")
def plane() -> Iterator[ControlPlane]:
    """A control plane with modelswarm's CRDs and rights, and no operator."""
    with ControlPlane(scheduler=False) as running:
        install(running)
        yield running


@pytest.fixture(scope="module")
def bench(plane: ControlPlane, dragonfly: DragonflyStack, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Bench]:
    with Api(plane) as api, Api(plane) as eye, HubThread(Hub()) as running:
        with History(lambda since: eye.versions("P2PTask", NAMESPACE, since=since)) as history:
            bench = Bench(plane, api, dragonfly, running.hub, tmp_path_factory.mktemp("bench"), history)
            bench.secret(TOKEN_SECRET, {"token": dragonfly.token})
            yield bench
        bench.clean()
