"""A cluster that knows only OME: config/p2p's two files, OME's CRDs, agents as processes. No operator, no crds/."""

import contextlib
import hashlib
import itertools
import json
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx
import pytest

from dev.agents import METAINFO_PORT, Agent, AgentFleet
from dev.controlplane import ControlPlane
from dev.hub import Hub, HubThread, Kind, Repository, make_model
from tests.integration.support import Api, Manifest, eventually
from tests.integration.support.agents import DAEMONSET, SERVICE
from tests.integration.support.ome import OME_CRDS, base_model

MODEL_DIR = "/proc/self/cwd"
"""As /mnt/models on real nodes: one text that means a directory of its own for every agent of this machine."""
OME_KINDS = ("BaseModel", "ClusterBaseModel")
SHARDS, SHARD_BYTES = 3, 3 << 20
HTTP = httpx.Client(timeout=30, trust_env=False, verify=False, limits=httpx.Limits(max_keepalive_connections=0))
"""One for all: to make a client costs a hundred times as much as to ask."""
MakeFleet = Callable[..., AgentFleet]

_numbers = itertools.count(1)


@dataclass(frozen=True, slots=True)
class Seed:
    """One cluster with OME's kinds, and a hub."""

    cluster: ControlPlane
    api: Api
    hub: Hub

    def repository(self, **changed: bytes) -> Repository:
        """A model on the hub that nobody has asked for yet, with folders, small files and an empty one."""
        folder = self.hub.repositories["org/template"].get("main").files
        files = {path: blob.source for path, blob in folder.items()}
        content = {path: data.read_bytes() if isinstance(data, Path) else data for path, data in files.items()}
        number = next(_numbers)
        content["config.json"] = json.dumps({"number": number}).encode()
        # Bytes that no other test has: what a node has from elsewhere does not travel.
        for shard, path in enumerate(sorted(path for path in content if path.endswith(".safetensors"))):
            content[path] = (number * 100 + shard).to_bytes(8) * (SHARD_BYTES // 8)
        repository = Repository(f"org/model-{number}")
        repository.move("main", repository.commit({**content, **changed}))
        return self.hub.add(repository)

    def create(self, name: str, uri: str, namespace: str = "", **storage: Any) -> Manifest:
        return self.api.create(base_model(name, uri, namespace, **storage))

    def delete_models(self) -> None:
        for kind in OME_KINDS:
            for model in self.api.all(kind):
                self.api.delete(kind, model["metadata"]["name"], model["metadata"].get("namespace"))

    def ready(self, label: str, *agents: Agent, seconds: float = 120.0) -> None:
        """Until every one of these nodes, and no other one, has the label of a model that is ready."""

        def look() -> bool:
            nodes = {node["metadata"]["name"]: node["metadata"].get("labels", {}) for node in self.api.all("Node")}
            found = {name: labels[label] for name, labels in nodes.items() if label in labels}
            assert found == {agent.node: "Ready" for agent in agents}, (
                found,
                [each.child.log_tail(8) for each in agents],
            )
            return True

        eventually(look, seconds, 0.1)

    def entries(self, node: str) -> dict[str, Manifest]:
        """What OME's controller reads of a node."""
        found = self.api.find("ConfigMap", node, "ome") or {}
        return {key: json.loads(text) for key, text in found.get("data", {}).items()}

    def labels(self, node: str) -> dict[str, str]:
        """Those of OME's models on a Node."""
        labels = self.api.get("Node", node)["metadata"].get("labels", {})
        return {name: str(value) for name, value in labels.items() if name.startswith("models.ome.io/")}

    def word(self, node: str, key: str) -> str:
        """OME's word for a model on a node; empty where it has none."""
        return str(self.entries(node).get(key, {}).get("status", ""))

    def model(self, node: str, name: str) -> Manifest:
        """The NodeCache's entry of a model; empty where there is none yet."""
        return next((each for each in self.models(node) if each["name"] == name), {})

    def models(self, node: str) -> list[Manifest]:
        """The NodeCache's."""
        found = self.api.find("NodeCache", node) or {}
        models: list[Manifest] = found.get("status", {}).get("models", [])
        return models

    def lease(self, repository: Repository, revision: str = "main") -> Manifest | None:
        return self.api.find("Lease", lease_name(repository, revision), "ome")

    def sent(self) -> int:
        """Bytes of files that have left the hub."""
        return self.hub.counters.total(Kind.RESOLVE).content + self.hub.counters.total(Kind.CDN).content


def model_hash(repository: Repository, revision: str = "main") -> str:
    return hashlib.sha256(f"{repository.id}@{revision}".encode()).hexdigest()


def lease_name(repository: Repository, revision: str = "main") -> str:
    return f"ome-model-{model_hash(repository, revision)[:16]}"


def digests(repository: Repository, revision: str = "main") -> dict[str, str]:
    return {path: blob.sha256 for path, blob in repository.get(revision).files.items()}


def size(repository: Repository, revision: str = "main") -> int:
    return sum(blob.size for blob in repository.get(revision).files.values())


def files_in(directory: Path) -> dict[str, str]:
    """Path and sha256 of the files in a directory, without the mark of a complete one."""
    return {
        str(path.relative_to(directory)): hashlib.sha256(path.read_bytes()).hexdigest()
        for path in directory.rglob("*")
        if path.is_file() and path.name != ".complete"
    }


def has_files(directory: Path, wanted: Mapping[str, str]) -> bool:
    """Whether it has just these at the moment. It may come and go while it is looked at."""
    try:
        return files_in(directory) == wanted
    except FileNotFoundError:
        return False


def metainfo(agent: Agent, route: str, **rest: Any) -> httpx.Response:
    """As curl asks."""
    return HTTP.get(f"http://{agent.host}:{METAINFO_PORT}{route}", **rest)


def install_seed(cluster: ControlPlane) -> None:
    """The seed's two commands as they stand there."""
    cluster.kubectl("apply", "-f", SERVICE)
    cluster.kubectl("apply", "-f", DAEMONSET)


@contextlib.contextmanager
def fleet_of(
    cluster: ControlPlane, directory: Path, hub: str, nodes: Mapping[str, Mapping[str, str]], **environment: str
) -> Iterator[AgentFleet]:
    """Agents on these nodes (with these labels), started."""
    environment = {"HF_ENDPOINT": hub, "MODEL_DIR": MODEL_DIR, **environment}
    with AgentFleet(cluster, directory, environment=environment, size=max(len(nodes), 2)) as fleet:
        for node, labels in nodes.items():
            fleet.add(node, labels=labels)
        fleet.start()
        yield fleet


@pytest.fixture(scope="session")
def origin(tmp_path_factory: pytest.TempPathFactory) -> Iterator[HubThread]:
    folder = make_model(tmp_path_factory.mktemp("seed-model"), shards=SHARDS, shard_bytes=64)
    (folder / "onnx" / "deep").mkdir(parents=True)
    (folder / "onnx" / "deep" / "graph.json").write_text('{"nodes": []}')
    (folder / "empty.txt").touch()
    with HubThread(Hub(Repository.from_folder(folder, id="org/template"))) as running:
        yield running


@pytest.fixture(scope="session")
def ome_cluster() -> Iterator[ControlPlane]:
    """Empty, but for the seed's two files and OME's CRDs."""
    with ControlPlane(controllers=False, scheduler=False) as cluster:
        install_seed(cluster)
        cluster.apply(OME_CRDS)
        yield cluster


@pytest.fixture
def seed(ome_cluster: ControlPlane, origin: HubThread) -> Iterator[Seed]:
    origin.hub.reset()  # what tests without this fixture have read is not this test's
    with Api(ome_cluster) as api:
        yield Seed(ome_cluster, api, origin.hub)
    origin.hub.reset()


@pytest.fixture(scope="module")
def standing_fleet(
    ome_cluster: ControlPlane, origin: HubThread, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[AgentFleet]:
    gpu = {"gpu": "a100", "zone": "a"}
    nodes = {"n1": gpu, "n2": gpu, "n3": {"gpu": "a100"}}
    with fleet_of(ome_cluster, tmp_path_factory.mktemp("agents"), origin.url, nodes) as fleet:
        yield fleet


@pytest.fixture
def fleet(standing_fleet: AgentFleet, seed: Seed) -> Iterator[AgentFleet]:
    """Three agents, for all tests of a module: n1 and n2 in zone a, n3 in none."""
    yield standing_fleet
    seed.delete_models()
    eventually(lambda: not any(seed.entries(node) or seed.labels(node) for node in standing_fleet.agents), 30, 0.1)


@pytest.fixture
def make_fleet(seed: Seed, origin: HubThread, tmp_path: Path) -> Iterator[MakeFleet]:
    """Agents of one test, with settings of their own."""
    with contextlib.ExitStack() as stack:

        def make(*nodes: str, labels: Mapping[str, Mapping[str, str]] | None = None, **environment: str) -> AgentFleet:
            wanted = {node: (labels or {}).get(node, {}) for node in nodes}
            fleet = fleet_of(seed.cluster, tmp_path / "agents", origin.url, wanted, **environment)
            return stack.enter_context(fleet)

        yield make
        seed.delete_models()
    for found in seed.api.all("ConfigMap", "ome"):
        seed.api.delete("ConfigMap", found["metadata"]["name"], "ome")
