"""Node agents as processes of this machine: each with a Node object, an address of its own, and its own store.

There is no kubelet here, so this module does what the kubelet and the endpoint controller would do for a DaemonSet:
a Pod object per node (tokens are bound to it, which is how the API server knows an agent's node), and an EndpointSlice
of the headless Service that follows every agent's ``/readyz``.
"""

import contextlib
import random
import shutil
import socket
import sys
import threading
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Self

import httpx

from dev.controlplane import ControlPlane
from dev.installation import ROOT
from dev.process import Child, reserve

AGENT_NAMESPACE = "ome"
SERVICE = "ome-peers"
SERVICE_ACCOUNT = "ome-model-agent"
HTTP_PORT, TORRENT_PORT, METAINFO_PORT = 8080, 6881, 8081
_POLL = 0.5
"""Seconds between two looks at who is ready; the kubelet's would be ten."""
_HTTP = httpx.Client(timeout=30, trust_env=False, verify=False, limits=httpx.Limits(max_keepalive_connections=0))
"""For the agents' own pages. One for all: to make a client costs a hundred times as much as to ask."""
_PODS = f"/api/v1/namespaces/{AGENT_NAMESPACE}/pods"
_SLICES = f"/apis/discovery.k8s.io/v1/namespaces/{AGENT_NAMESPACE}/endpointslices"
_LEASES = f"/apis/coordination.k8s.io/v1/namespaces/{AGENT_NAMESPACE}/leases"
_DAEMONSET = f"/apis/apps/v1/namespaces/{AGENT_NAMESPACE}/daemonsets/ome-model-agent"
_NODES = "/api/v1/nodes"
_NODE_CACHES = "/apis/llmaz.io/v1alpha1/nodecaches"
_MANIFESTS = ROOT / "config" / "p2p"


@dataclass(slots=True)
class Agent:
    """One node's agent. ``host`` is its address: of loopback, or of a network namespace (``prefix`` enters it)."""

    node: str
    host: str
    store: Path
    child: Child
    labels: Mapping[str, str] = field(default_factory=dict)

    @property
    def url(self) -> str:
        host = f"[{self.host}]" if ":" in self.host else self.host
        return f"http://{host}:{HTTP_PORT}"

    @property
    def ready(self) -> bool:
        try:
            return _HTTP.get(f"{self.url}/readyz", timeout=2).status_code == 200
        except httpx.HTTPError:
            return False

    def metrics(self) -> str:
        return _HTTP.get(f"{self.url}/metrics").text

    def files(self) -> dict[str, Path]:
        """Everything in complete or growing model directories, by path below ``models``."""
        models = self.store / "models"
        return {str(path.relative_to(models)): path for path in models.rglob("*") if path.is_file()}


def _choose_network() -> tuple[str, socket.socket]:
    """Three numbers of loopback addresses that no other fleet has; they are ours until the socket is closed."""
    # Not the shared generator, which test tools seed: then all test processes would choose alike.
    choice = random.SystemRandom()
    while True:
        network = f"127.{choice.randint(16, 254)}.{choice.randint(1, 254)}"
        reservation = reserve(f"network-{network}")
        if reservation is not None:
            return network, reservation


class AgentFleet:
    """Agents on one control plane. A context manager; agents may be added, killed and started again at any time.

    ``environment`` is for all of them; the hub is named by ``HF_ENDPOINT`` in it. All use the seed's ports, each on an
    address of its own in ``network`` (the first three numbers of loopback addresses; by default some that no other
    fleet of this machine is likely to have). ``size``: the most agents that there will be.
    """

    def __init__(
        self,
        cluster: ControlPlane,
        directory: Path,
        *,
        environment: Mapping[str, str] | None = None,
        prefix: Mapping[str, Sequence[str]] | None = None,
        network: str | None = None,
        size: int = 32,
    ) -> None:
        self.agents: dict[str, Agent] = {}
        self._cluster = cluster
        self._directory = directory
        self._environment = dict(environment or {})
        self._prefix = dict(prefix or {})
        self._size = size
        self._reservation: socket.socket | None = None
        if network is None:
            network, self._reservation = _choose_network()
        self.network = network
        self._taken = 0
        self._slice = f"{SERVICE}-{self.network.replace('.', '-')}"
        self._published: list[tuple[str, str, bool]] | None = None
        self._lock = threading.Lock()
        self._stopping = threading.Event()
        self._thread = threading.Thread(target=self._follow, name="endpoints", daemon=True)

    def __enter__(self) -> Self:
        self._directory.mkdir(parents=True, exist_ok=True)
        self._api = httpx.Client(
            base_url=self._cluster.server, verify=self._cluster.ssl_context(), timeout=30, trust_env=False
        )
        if self._api.get(_DAEMONSET).is_error:
            for manifest in ("headless-service.yaml", "model-agent-daemonset.yaml"):
                self._cluster.apply(_MANIFESTS / manifest)
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stopping.set()
        self._thread.join()
        for agent in self.agents.values():
            agent.child.stop()
        self._clean()
        self._api.close()
        if self._reservation is not None:
            self._reservation.close()

    def _clean(self) -> None:
        """Other tests must not meet our nodes."""
        self._delete(f"{_SLICES}/{self._slice}")
        for node in self.agents:
            self._delete(f"{_PODS}/{_pod_name(node)}")
            self._delete(f"{_NODE_CACHES}/{node}")
            self._delete(f"{_NODES}/{node}")
        self._delete(_LEASES, labelSelector="ome.io/type=model-download")

    def _delete(self, path: str, **query: str) -> None:
        """At once; what is gone already is no error. Raises httpx.HTTPError."""
        answer = self._api.delete(path, params={"gracePeriodSeconds": "0", **query})
        if answer.status_code != httpx.codes.NOT_FOUND:
            answer.raise_for_status()

    def add(
        self,
        node: str,
        host: str | None = None,
        *,
        labels: Mapping[str, str] | None = None,
        environment: Mapping[str, str] | None = None,
    ) -> Agent:
        """A node with an agent on it; the agent is not started yet. ``environment``: what is different for it."""
        self._taken += 1
        host = host or f"{self.network}.{self._taken}"
        labels = {"kubernetes.io/hostname": node, **(labels or {})}
        pod = f"{_PODS}/{_pod_name(node)}"
        self._patch(f"{_NODES}/{node}", _node(node, labels))
        self._patch(pod, _pod(node, host))
        status = {"status": {"phase": "Running", "podIP": host}}
        self._patch(f"{pod}/status", status, "application/merge-patch+json")
        store = self._directory / node
        store.mkdir(parents=True, exist_ok=True)
        child = Child(
            f"agent {node}",
            [*self._prefix.get(node, ()), sys.executable, "-m", "modelswarm", "agent"],
            log=self._directory / f"{node}.log",
            cwd=store,
            env={
                "KUBECONFIG": str(
                    self._cluster.service_account_kubeconfig(
                        AGENT_NAMESPACE, SERVICE_ACCOUNT, "24h", pod=_pod_name(node)
                    )
                ),
                "PYTHONPATH": str(ROOT / "operator"),
                "NO_PROXY": "*",
                "NODE_NAME": node,
                "POD_NAME": _pod_name(node),
                "POD_NAMESPACE": AGENT_NAMESPACE,
                "POD_IP": host,
                "MODEL_DIR": str(store),
                "PEERS_SERVICE": self.peers_service,
                "MODELSWARM_AGENT_LOG_FORMAT": "text",
                # The disk is not theirs alone: however full others have made it, nothing is evicted for that.
                "MODELSWARM_AGENT_HIGH_WATERMARK": "1.0",
                **self._environment,
                **(environment or {}),
            },
        )
        agent = Agent(node, host, store, child, labels)
        with self._lock:
            self.agents[node] = agent
        return agent

    @property
    def peers_service(self) -> str:
        """Instead of DNS: every address that an agent may have."""
        return ",".join(f"{self.network}.{number}" for number in range(1, self._size + 1))

    def start(self, *nodes: str, seconds: float = 90.0) -> None:
        """Start these agents (all of them without names), and wait until they are ready."""
        chosen = [self.agents[node] for node in nodes or self.agents]
        for agent in chosen:
            if not agent.child.running:
                agent.child.start()
        deadline = time.monotonic() + seconds
        for agent in chosen:
            while not agent.ready:
                if not agent.child.running:
                    raise agent.child.failure("ended at its start")
                if time.monotonic() > deadline:
                    raise agent.child.failure(f"was not ready within {seconds:g} s")
                time.sleep(0.05)

    def kill(self, node: str) -> None:
        """SIGKILL."""
        self.agents[node].child.stop()

    def stop(self, node: str) -> None:
        self.agents[node].child.stop(grace=15)

    def remove(self, node: str) -> None:
        """The node leaves the cluster, and its disk with it."""
        with self._lock:
            agent = self.agents.pop(node)
        agent.child.stop()
        self._delete(f"{_PODS}/{_pod_name(node)}")
        self._delete(f"{_NODES}/{node}")
        shutil.rmtree(agent.store, ignore_errors=True)

    def _follow(self) -> None:
        while not self._stopping.wait(_POLL):
            with self._lock:
                agents = list(self.agents.values())
            found = [(agent.node, agent.host, agent.child.running and agent.ready) for agent in agents]
            # Not before there is an agent: of what family the addresses are cannot be changed later.
            if found and found != self._published:
                # An API server that a test has taken away comes back; until then nothing is known of the endpoints.
                with contextlib.suppress(httpx.HTTPError):
                    self._patch(f"{_SLICES}/{self._slice}", _slice(self._slice, found))
                    self._published = found

    def _patch(self, path: str, body: Mapping[str, object], content_type: str = "application/apply-patch+yaml") -> None:
        """Server-side apply, unless it says something else. Raises httpx.HTTPError."""
        query = {"fieldManager": "dev", **({"force": "true"} if "apply" in content_type else {})}
        answer = self._api.patch(path, json=dict(body), params=query, headers={"Content-Type": content_type})
        answer.raise_for_status()


def _node(name: str, labels: Mapping[str, str]) -> dict[str, object]:
    return {"apiVersion": "v1", "kind": "Node", "metadata": {"name": name, "labels": dict(labels)}}


def _pod_name(node: str) -> str:
    return f"ome-model-agent-{node}"


def _pod(node: str, host: str) -> dict[str, object]:
    return {
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": {
            "name": _pod_name(node),
            "namespace": AGENT_NAMESPACE,
            "labels": {"app.kubernetes.io/instance": "dev"},
        },
        "spec": {
            "nodeName": node,
            "serviceAccountName": SERVICE_ACCOUNT,
            "containers": [{"name": "model-agent", "image": "agent"}],
        },
    }


def _slice(name: str, found: Sequence[tuple[str, str, bool]]) -> dict[str, object]:
    return {
        "apiVersion": "discovery.k8s.io/v1",
        "kind": "EndpointSlice",
        "metadata": {
            "name": name,
            "namespace": AGENT_NAMESPACE,
            "labels": {"kubernetes.io/service-name": SERVICE, "endpointslice.kubernetes.io/managed-by": "dev"},
        },
        "addressType": "IPv6" if any(":" in host for _, host, _ in found) else "IPv4",
        "endpoints": [
            {"addresses": [_routable(host, number)], "nodeName": node, "conditions": {"ready": ready, "serving": ready}}
            for number, (node, host, ready) in enumerate(found, 1)
        ],
        "ports": [
            {"name": "torrent", "port": TORRENT_PORT, "protocol": "TCP"},
            {"name": "metainfo", "port": METAINFO_PORT, "protocol": "TCP"},
        ],
    }


def _routable(host: str, number: int) -> str:
    """The API server takes no loopback addresses. Nobody connects to what is written instead (a benchmark range)."""
    return f"198.18.255.{number}" if host.startswith("127.") else host
