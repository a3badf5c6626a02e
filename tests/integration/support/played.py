"""Agents that are played by a test, which writes what they would report: for tests of the operator alone."""

import json

from dev.controlplane import ControlPlane
from tests.integration.support.api import Manifest

NAMESPACE = "ome"


def make_namespace(cluster: ControlPlane) -> None:
    """The agents' namespace, where config/p2p is not installed."""
    cluster.apply(json.dumps({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": NAMESPACE}}))


class PlayedAgents:
    """Nodes with agents, as the API server sees them: their NodeCaches, and the endpoints of their Service."""

    def __init__(self, cluster: ControlPlane) -> None:
        self._cluster = cluster
        self._models: dict[str, list[Manifest]] = {}
        self._labels: dict[str, dict[str, str]] = {}
        self._free: dict[str, int] = {}

    def add(self, *names: str, **labels: str) -> None:
        for name in names:
            self._models[name], self._labels[name] = [], labels
            self.report(name)
        self.ready(*self._models)

    def ready(self, *names: str) -> None:
        """These have a ready endpoint, and no others."""
        endpoints = [
            {"addresses": [f"10.0.0.{number}"], "nodeName": name, "conditions": {"ready": name in names}}
            for number, name in enumerate(self._models, 1)
        ]
        self._apply(
            {
                "apiVersion": "discovery.k8s.io/v1",
                "kind": "EndpointSlice",
                "metadata": {
                    "name": "ome-peers-test",
                    "namespace": NAMESPACE,
                    "labels": {"kubernetes.io/service-name": "ome-peers"},
                },
                "addressType": "IPv4",
                "endpoints": endpoints,
                "ports": [],
            }
        )

    def room(self, name: str, free: int) -> None:
        """So many bytes are left on the node."""
        self._free[name] = free
        self.report(name)

    def report(self, name: str, content: str | None = None, **entry: object) -> None:
        if content is not None:
            self._models[name] = [{"content": content, "name": "org/model", **entry}]
        cache: Manifest = {
            "apiVersion": "llmaz.io/v1alpha1",
            "kind": "NodeCache",
            "metadata": {"name": name},
        }
        self._apply(cache)
        status = {"labels": self._labels[name], "models": self._models[name], "freeBytes": self._free.get(name, 0)}
        self._apply({**cache, "status": status}, "status")

    def clean(self) -> None:
        self._cluster.kubectl("delete", "nodecaches", "--all", "--wait=false")
        self._cluster.kubectl("delete", "endpointslices", "--all", "-n", NAMESPACE, "--wait=false")

    def _apply(self, obj: Manifest, subresource: str = "") -> None:
        flags = [f"--subresource={subresource}"] if subresource else []
        command = ("apply", "--server-side", "--force-conflicts", *flags, "-f", "-")
        self._cluster.kubectl(*command, input=json.dumps(obj))
