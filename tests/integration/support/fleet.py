"""A fleet of agents as processes, a hub with models that no other test knows, and questions about what came of them.

Several fleets may run on one cluster: every node has a label of its fleet, and tasks select by it.
"""

import contextlib
import hashlib
import itertools
import json
import os
import random
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

from dev.agents import AGENT_NAMESPACE, Agent, AgentFleet
from dev.controlplane import ControlPlane
from dev.hub import Hub, HubThread, Kind, Repository
from dev.hub.counters import Tally
from dev.installation import NAMESPACE, OperatorProcess
from modelswarm.agent.segments import MIN_SEGMENT
from tests.integration.support.api import Api, Manifest
from tests.integration.support.objects import p2p_task
from tests.integration.support.waiting import eventually

SOAK = bool(os.environ.get("SOAK"))
soak = pytest.mark.skipif(not SOAK, reason="one of the long ones; they run with SOAK=1")
LABEL = "fleet"
MIB = 1 << 20
SEGMENT = MIN_SEGMENT
"""Of models as small as these."""
LEASE_SECONDS = 4.0
_numbers = itertools.count(1)


def noise(seed: object, size: int) -> bytes:
    return random.Random(repr(seed)).randbytes(size)


def model_files(seed: object, *, shards: int = 3, shard_bytes: int = 6 * MIB, small: int = 12) -> dict[str, bytes]:
    """Large files, small files in directories, and empty files. Equal seeds give equal files."""
    files = {f"model-{number}.safetensors": noise((seed, number), shard_bytes + number) for number in range(shards)}
    files |= {f"many/small/{number:04}.json": b'{"of": "%r", "n": %d}' % (seed, number) for number in range(small)}
    # Nothing is equal to a file of another model: that would be there already.
    files |= {
        ".gitattributes": b"*.safetensors filter=lfs -text\n# %r\n" % (seed,),
        "config.json": b'{"of": "%r"}' % (seed,),
    }
    return files | {"empty": b"", "many/empty.txt": b""}


@dataclass(slots=True)
class Swarm:
    """``name`` goes into the names of nodes and tasks."""

    cluster: ControlPlane
    api: Api
    hub: Hub
    operator: OperatorProcess
    fleet: AgentFleet
    name: str
    tasks: list[str] = field(default_factory=list)

    # Nodes

    def add(self, *short: str, **environment: str) -> list[str]:
        """Nodes of this fleet by their short names, with agents; the full names."""
        nodes = [f"{self.name}-{each}" for each in short]
        for node in nodes:
            self.fleet.add(node, labels={LABEL: self.name}, environment=environment)
        if nodes:
            self.fleet.start(*nodes, seconds=240)
        return nodes

    @property
    def nodes(self) -> list[str]:
        return list(self.fleet.agents)

    def agent(self, node: str) -> Agent:
        return self.fleet.agents[node]

    def label(self, node: str, **labels: str | None) -> None:
        self.api.patch("Node", node, None, {"metadata": {"labels": labels}})

    def address(self, number: int) -> str:
        """One of the addresses at which agents look for peers, from the end: 1 is the last."""
        return self.fleet.peers_service.split(",")[-number]

    @contextlib.contextmanager
    def without_api_server(self) -> Iterator[None]:
        """The operator, which ends when it loses its Lease, is started again afterwards, as its pod would be."""
        self.cluster.stop_apiserver()
        try:
            yield
        finally:
            self.cluster.start_apiserver()
            self.operator.stop()
            self.operator.start()
            self.operator.wait_leading(90)

    # What is asked for

    def publish(self, files: Mapping[str, bytes] | Path | None = None, **shape: Any) -> Repository:
        """A model that nobody knows yet: these files, or those of a directory, or some of its own."""
        id = f"swarm/{self.name}-{next(_numbers)}"
        repository = Repository(id)
        commit = repository.commit(files if files is not None else model_files(id, **shape))
        repository.move("main", commit)
        return self.hub.add(repository)

    def distribute(self, repository: Repository, name: str = "", *, revision: str = "main", **spec: Any) -> str:
        """Apply a task (again); its name. To all nodes of this fleet, unless ``placement`` says otherwise."""
        name = name or repository.id.rpartition("/")[2]
        placement = {"copies": "All", "nodeSelector": {LABEL: self.name}, **spec.pop("placement", {})}
        source = {"modelHub": {"modelID": repository.id, "revision": revision}}
        task = p2p_task(name, source, placement=placement, **spec)
        self.api.apply({**task, "metadata": {"name": name, "namespace": NAMESPACE}})
        if name not in self.tasks:
            self.tasks.append(name)
        return name

    def delete(self, task: str) -> None:
        self.api.delete("P2PTask", task, NAMESPACE)
        self.tasks.remove(task)
        eventually(lambda: self.api.find("P2PTask", task, NAMESPACE) is None, 20)

    def clean(self) -> None:
        """After a test: nothing is wanted, nothing goes wrong, and everybody is there."""
        for task in list(self.tasks):
            self.delete(task)
        self.hub.reset()
        self.fleet.start(seconds=240)

    # What came of it

    def status(self, task: str) -> Manifest:
        found: Manifest = self.api.get("P2PTask", task, NAMESPACE).get("status", {})
        return found

    def digest(self, task: str) -> str:
        """The content id."""
        resolved: Manifest = eventually(lambda: self.status(task).get("resolved"), 30)
        return str(resolved["digest"]).removeprefix("sha256:")

    def succeeded(self, task: str, nodes: int | None = None, seconds: float = 90.0) -> Manifest:
        wanted = len(self.nodes) if nodes is None else nodes

        def look() -> Manifest:
            now = self.status(task)
            told = {each: self.entry(each, str(now.get("resolved", {}).get("digest"))) for each in self.nodes}
            assert (now.get("phase"), now.get("ready")) == ("Succeeded", wanted), (now, told)
            return now

        return eventually(look, seconds, 0.2)

    def entry(self, node: str, content: str) -> Manifest:
        """What the node's NodeCache says about a content; empty if nothing."""
        cache = self.api.find("NodeCache", node) or {}
        entries: list[Manifest] = cache.get("status", {}).get("models", [])
        return next((each for each in entries if each["content"].endswith(content)), {})

    def directory(self, node: str, content: str) -> Path:
        return self.agent(node).store / "models" / content.removeprefix("sha256:")

    def is_complete(self, node: str, content: str) -> bool:
        return (self.directory(node, content) / ".complete").exists()

    def all_complete(self, nodes: Iterable[str], content: str, seconds: float = 90.0) -> None:
        """Wait for the directories of a content, whatever the cluster says about them."""
        nodes = list(nodes)

        def look() -> bool:
            missing = [node for node in nodes if not self.is_complete(node, content)]
            assert not missing, f"missing on {missing}: {self.tails(missing)}"
            return True

        eventually(look, seconds, 0.2)

    def files(self, node: str, content: str) -> dict[str, str]:
        """Path and sha256 of every file of a complete content."""
        directory = self.directory(node, content)
        assert self.is_complete(node, content), self.tails([node])
        return {
            str(path.relative_to(directory)): _sha256(path)
            for path in directory.rglob("*")
            if path.is_file() and path.name != ".complete"
        }

    def is_right(self, repository: Repository, content: str, nodes: Iterable[str], revision: str = "main") -> None:
        """Assert that these nodes have exactly the files of the commit."""
        wanted = {path: blob.sha256 for path, blob in repository.get(revision).files.items()}
        for node in nodes:
            assert self.files(node, content) == wanted, node

    def size(self, repository: Repository, revision: str = "main") -> int:
        """Bytes to fetch: files with equal bytes count once."""
        return sum({blob.sha256: blob.size for blob in repository.get(revision).files.values()}.values())

    def sent(self, repository: Repository) -> int:
        """Bytes of its files that the origin has sent."""
        tally = Tally()
        for kind in (Kind.RESOLVE, Kind.CDN):
            tally.add(self.hub.counters.total(kind, f"{repository.id}/*"))
        return tally.content

    def lease(self, repository: Repository) -> Manifest:
        """The model's Lease; empty if there is none."""
        leases = self.api.all("Lease", AGENT_NAMESPACE, labels="ome.io/type=model-download")
        found = [
            lease for lease in leases if lease["metadata"]["annotations"].get("modelswarm.io/repo") == repository.id
        ]
        return found[0] if found else {}

    def coordinator(self, repository: Repository) -> str:
        return str(self.lease(repository).get("spec", {}).get("holderIdentity", ""))

    def tails(self, nodes: Iterable[str]) -> str:
        return "\n".join(f"--- {node}\n{self.agent(node).child.log_tail()}" for node in nodes)

    def logged(self, node: str) -> str:
        return self.agent(node).child.log.read_text(errors="replace")


@dataclass(slots=True)
class Swarms:
    """Makes fleets: ``with swarms(3) as swarm``."""

    cluster: ControlPlane
    api: Api
    hub: HubThread
    operator: OperatorProcess
    directory: Path

    @contextlib.contextmanager
    def __call__(self, nodes: int = 0, spare: int = 8, /, **environment: str) -> Iterator[Swarm]:
        """``spare``: addresses at which somebody may come later, agents or others."""
        name = f"f{next(_numbers)}"
        defaults = {"HF_ENDPOINT": self.hub.url, "MODELSWARM_AGENT_LEASE_SECONDS": f"{LEASE_SECONDS:g}"}
        environment = {**defaults, **environment}
        fleet = AgentFleet(self.cluster, self.directory / name, environment=environment, size=nodes + spare)
        with fleet:
            swarm = Swarm(self.cluster, self.api, self.hub.hub, self.operator, fleet, name)
            swarm.add(*(f"n{number}" for number in range(1, nodes + 1)))
            yield swarm
            swarm.fleet.start(seconds=240)
            for task in list(swarm.tasks):
                swarm.delete(task)


def still(look: Callable[[], int], seconds: float, within: float = 10.0) -> int:
    """Wait until a number has not changed for so long; the number."""
    deadline = time.monotonic() + within + seconds
    value, since = look(), time.monotonic()
    while time.monotonic() - since < seconds:
        assert time.monotonic() < deadline, f"it still changes: {value}"
        time.sleep(0.05)
        now = look()
        if now != value:
            value, since = now, time.monotonic()
    return value


def node_models(cluster: ControlPlane) -> dict[str, list[Manifest]]:
    """The NodeCaches' models by node."""
    items = json.loads(cluster.kubectl("get", "nodecaches", "-o", "json"))["items"]
    return {item["metadata"]["name"]: item.get("status", {}).get("models", []) for item in items}


def _sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
