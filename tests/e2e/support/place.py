"""One test's namespace on the real cluster, and its models at the hub."""

import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx

from dev.cluster.cluster import STANDIN, Cluster
from dev.hub import Hub, Repository, make_model
from tests.integration.support import Manifest, Scene, backend_runtime, eventually
from tests.integration.support.objects import playground

RUNTIME = "standin"
PATIENCE = 45.0
"""Seconds; tests stretch it (``eventually``)."""


@dataclass(frozen=True, slots=True)
class Replica:
    """A pod of a Playground that is Ready."""

    pod: str
    node: str
    address: str


@dataclass(slots=True)
class Place:
    """``scene`` is the namespace. ``folder`` is for the models' files."""

    cluster: Cluster
    scene: Scene
    hub: Hub
    folder: Path

    # Models at the hub

    def repository(self, *, shards: int = 3, shard_bytes: int = 4 << 20) -> Repository:
        """A repository that nobody else knows, with contents that no node has."""
        number = int(self.scene.suffix.rpartition("-")[2])
        count = len([path for path in self.folder.iterdir() if path.is_dir()])
        model = make_model(
            self.folder / f"model-{count}", shards=shards, shard_bytes=shard_bytes, seed=number * 100 + count
        )
        return self.hub.add(Repository.from_folder(model, id=f"org/{self.scene.suffix}-{count}"))

    def sent(self, repository: Repository) -> int:
        """Bytes of its files that have left the hub."""
        return self.hub.counters.total(name=f"{repository.id}/*").content

    # Workloads

    def runtime(self, *, cpu: str = "500m") -> str:
        """Apply the BackendRuntime of the stand-in engine, which asks for ``cpu``; its name."""
        image, _, tag = self.cluster.images.standin.rpartition(":")
        assert tag == STANDIN[1]
        probe = {"httpGet": {"path": "/health", "port": 8080}, "periodSeconds": 1}
        config = {
            "name": "default",
            "args": ["--model", "{{ .ModelPath }}", "--served-model-name", "{{ .ModelName }}", "--host", "0.0.0.0"],
            "resources": {"requests": {"cpu": cpu, "memory": "32Mi"}, "limits": {"cpu": cpu, "memory": "64Mi"}},
        }
        name = self.scene.name(RUNTIME)
        runtime = backend_runtime(
            name,
            image,
            tag,
            command=["/standin", "serve"],
            envs=[{"name": "HF_ENDPOINT", "value": self.hub.url}],
            startupProbe={**probe, "failureThreshold": 60},
            readinessProbe=probe,
            recommendedConfigs=[config],
        )
        self.scene.apply(runtime)
        return name

    def serve(self, base: str, repository: Repository, runtime: str, **spec: Any) -> str:
        """Apply an OpenModel and a Playground of it; the Playground's name."""
        model = self.scene.model(base, repository.id)
        self.scene.apply(playground(base, model, backendName=runtime, **spec))
        return base

    def scale(self, name: str, replicas: int) -> None:
        self.scene.kubectl("scale", "playground", name, f"--replicas={replicas}")

    def replicas(self, name: str) -> list[Replica]:
        """Those that are Ready now."""
        return [
            Replica(pod["metadata"]["name"], pod["spec"]["nodeName"], pod["status"]["podIP"])
            for pod in self.pods(name)
            if _is_ready(pod)
        ]

    def pods(self, name: str) -> list[Manifest]:
        pods = self.scene.api.all("Pod", self.scene.namespace, labels=f"llmaz.io/playground={name}")
        return [pod for pod in pods if "deletionTimestamp" not in pod["metadata"]]

    def wait_replicas(self, name: str, count: int, seconds: float = PATIENCE) -> list[Replica]:
        """Exactly ``count``, all Ready."""

        def look() -> list[Replica]:
            ready = self.replicas(name)
            shown = [(pod["metadata"]["name"], pod["status"].get("phase")) for pod in self.pods(name)]
            assert len(ready) == count == len(shown), (shown, self.scene.conditions("Playground", name))
            return ready

        return eventually(look, seconds, every=0.2)

    def timed_replicas(self, name: str, count: int, seconds: float = PATIENCE) -> tuple[list[Replica], float]:
        """With the seconds that it took from the call."""
        started = time.monotonic()
        return self.wait_replicas(name, count, seconds), time.monotonic() - started

    def remove(self, name: str) -> None:
        """The Playground with its pods, so that the next test finds room on the nodes."""
        self.scene.delete("Playground", name)
        labels = f"llmaz.io/playground={name}"
        eventually(lambda: not self.scene.api.all("Pod", self.scene.namespace, labels=labels), PATIENCE)

    # From this machine, which is in the cluster's network

    def ask(self, address: str, path: str = "/health") -> httpx.Response:
        """What a pod or Service answers on port 8080."""
        return httpx.get(f"http://{address}:8080{path}", timeout=10, trust_env=False)

    def serves(self, replica: Replica, repository: Repository) -> bool:
        """Whether its files are those of the repository; no, if it is just being replaced."""
        try:
            found: dict[str, str] = self.ask(replica.address, "/digests").json()
        except httpx.TransportError:
            return False
        return found == _digests(repository)

    def check_files(self, replicas: Sequence[Replica], repository: Repository) -> None:
        """Every file that the replicas have is the hub's, and they have all of them."""
        for replica in replicas:
            assert self.ask(replica.address, "/digests").json() == _digests(repository), replica


def left_once(place: Place, repository: Repository, most: float = 1.0) -> bool:
    """Whether its bytes have left the hub once, or ``most`` times. Small files that nodes had already do not count."""
    return 0.99 <= place.sent(repository) / size(repository) <= most


def size(repository: Repository) -> int:
    return sum(blob.size for blob in repository.get("main").files.values())


def _digests(repository: Repository) -> dict[str, str]:
    return {name: blob.sha256 for name, blob in repository.get("main").files.items()}


def _is_ready(pod: Manifest) -> bool:
    conditions = {each["type"]: each["status"] for each in pod.get("status", {}).get("conditions", [])}
    return conditions.get("Ready") == "True"
