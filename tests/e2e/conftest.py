"""Fixtures of the tests on real nodes: ``make test-e2e``. Root is needed; nothing is skipped.

``cluster`` is one for all tests: three nodes, and room for a fourth. ``release`` is the chart, installed once with the
images that were built from this tree. ``place`` is a test's own namespace. The tests' own thread is on the control
plane's machine, in the cluster's network.
"""

import contextlib
import io
import itertools
import subprocess
import tarfile
from collections.abc import Iterator, Mapping
from pathlib import Path

import pytest

from dev import images
from dev.cluster.archive import push
from dev.cluster.cluster import Cluster
from dev.cluster.programs import PREREQUISITE_MISSING, ClusterUnavailable
from dev.dragonfly.packages import PackagesMissing
from dev.hub import Hub, HubThread
from dev.images.wheelhouse import WheelsUnavailable, wheelhouse
from dev.installation import ROOT
from tests.e2e.support import Place, Release
from tests.e2e.support.release import TAG
from tests.integration.support import Api, Scene

# Building the programs and images counts as the first test's time.
TIMEOUT = 2400
MOST_NODES = 4
TARGETS = ("operator", "agent", "loader")

# What comes later needs what comes before: the first seed's manifests and the chart exclude each other, others install
# the chart in their own ways before it is installed once for all, a node that joined stays, and the last one looks at
# what all others have asked of the API server.
ORDER = (
    "test_page",
    "test_clean_up",
    "test_nodes",
    "test_seed",
    "test_quickstart",
    "test_upgrade",
    "test_install",
    "test_main_job",
    "test_plugin",
    "test_scaling",
    "test_faults",
    "test_disk",
    "test_row",
    "test_dragonfly",
    "test_joining",
    "test_rights",
)

_numbers = itertools.count(1)


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    here = Path(__file__).parent
    for item in items:
        if here in item.path.parents and item.get_closest_marker("timeout") is None:
            item.add_marker(pytest.mark.timeout(TIMEOUT))
    items.sort(key=lambda item: ORDER.index(item.path.stem) if item.path.stem in ORDER else -1)


EARLIER = "fb0241a646f94df825f7b6d15498c1ff17fa8ced"
"""The commit that is upgraded from."""


@pytest.fixture(scope="session")
def earlier_tree(tmp_path_factory: pytest.TempPathFactory) -> Path | None:
    """The files of that commit; None where this clone does not have it. Its images can be built without a network."""
    git = ["git", "--no-optional-locks", "-C", str(ROOT), "archive", EARLIER]
    archive = subprocess.run(git, capture_output=True)
    if archive.returncode:
        return None
    folder = tmp_path_factory.mktemp("earlier")
    with tarfile.open(fileobj=io.BytesIO(archive.stdout)) as tar:
        tar.extractall(folder, filter="data")
    with contextlib.suppress(WheelsUnavailable):  # the test that needs them says so
        wheelhouse(folder)
    return folder


@pytest.fixture(scope="session")
def cluster(archives: Mapping[str, Path], earlier_tree: Path | None) -> Iterator[Cluster]:
    """After everything that may have to be downloaded: from its network there is no way out."""
    try:
        with Cluster(most=MOST_NODES, audit_log=True) as running:
            yield running
    except ClusterUnavailable as error:
        pytest.exit(str(error), returncode=PREREQUISITE_MISSING)


@pytest.fixture(scope="session")
def api(cluster: Cluster) -> Iterator[Api]:
    with Api(cluster.plane) as api:
        yield api


@pytest.fixture(scope="session")
def hub_server(cluster: Cluster) -> Iterator[HubThread]:
    with cluster.serve(Hub(host=cluster.origin_address)) as running:
        yield running


@pytest.fixture
def hub(hub_server: HubThread) -> Iterator[Hub]:
    """Without faults and counts after each test."""
    yield hub_server.hub
    hub_server.hub.reset()


@pytest.fixture(scope="session")
def archives() -> Mapping[str, Path]:
    """Our own images, by target."""
    try:
        return images.build(TARGETS)
    except (images.NotRoot, PackagesMissing) as error:
        pytest.exit(str(error), returncode=PREREQUISITE_MISSING)


@pytest.fixture(scope="session")
def release(cluster: Cluster, hub_server: HubThread, archives: Mapping[str, Path]) -> Release:
    """Installed, every pod Ready. It goes with the cluster."""
    for target, archive in archives.items():
        push(archive, cluster.registry, f"modelswarm/{target}", TAG)
    release = Release(cluster, hub_server.url)
    release.install()
    return release


@pytest.fixture
def place(cluster: Cluster, api: Api, hub: Hub, tmp_path: Path) -> Iterator[Place]:
    """A namespace in which pods can be made."""
    number = next(_numbers)
    namespace = f"place-{number}"
    api.create({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": namespace}})
    cluster.plane.kubectl("-n", namespace, "wait", "--for=create", "--timeout=60s", "serviceaccount/default")
    scene = Scene(cluster.plane, api, namespace, namespace)
    yield Place(cluster, scene, hub, tmp_path)
    scene.clean()
    # What is left of a test without pods takes nothing from the next one, and a namespace is never gone before 5 s.
    if api.all("Pod", namespace):
        cluster.plane.kubectl("wait", "--for=delete", "--timeout=120s", f"namespace/{namespace}")
