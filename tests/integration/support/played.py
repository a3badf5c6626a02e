"""Agents that are played by a test, which writes what they would report: for tests of the operator alone."""

import contextlib
import json
from collections.abc import Iterator

from dev.controlplane import ControlPlane
from dev.installation import ROOT, OperatorProcess
from tests.integration.support.api import Api, Manifest
from tests.integration.support.operators import Operators

NAMESPACE = "ome"
RIGHTS = ROOT / "config" / "operator" / "rbac-agents.yaml"
"""What the operator may do with agents."""


def make_namespace(cluster: ControlPlane) -> None:
    """The agents' namespace, where config/p2p is not installed."""
    cluster.apply(json.dumps({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": NAMESPACE}}))


@contextlib.contextmanager
def operator_with_agents(cluster: ControlPlane, operators: Operators, *flags: str) -> Iterator[OperatorProcess]:
    """In place of the shared operator one that gives work to agents, with these further flags."""
    make_namespace(cluster)
    cluster.apply(RIGHTS)
    with operators.replaced("--agent-root=/mnt/models", *flags) as operator:
        yield operator


class PlayedAgents:
    """Nodes with agents, as the API server sees them: their NodeCaches, and the endpoints of their Service."""

    def __init__(self, api: Api) -> None:
        self._api = api
        self._models: dict[str, list[Manifest]] = {}
        self._labels: dict[str, dict[str, str]] = {}
        self._free: dict[str, int] = {}
        self._closed: dict[str, str] = {}

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
        self._api.apply(
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

    def close(self, name: str, taint: str | None) -> None:
        """No pod comes to the node, for this taint; None: pods come again."""
        self._closed = {**self._closed, name: taint} if taint else {k: v for k, v in self._closed.items() if k != name}
        self.report(name)

    def report(self, name: str, content: str | None = None, **entry: object) -> None:
        if content is not None:
            self._models[name] = [{"content": content, "name": "org/model", **entry}]
        cache: Manifest = {
            "apiVersion": "llmaz.io/v1alpha1",
            "kind": "NodeCache",
            "metadata": {"name": name},
        }
        self._api.apply(cache)
        status = {"labels": self._labels[name], "models": self._models[name], "freeBytes": self._free.get(name, 0)}
        status |= {"closedBy": self._closed[name]} if name in self._closed else {}
        self._api.apply({**cache, "status": status}, subresource="status")

    def clean(self) -> None:
        for kind, namespace in (("NodeCache", None), ("EndpointSlice", NAMESPACE)):
            for obj in self._api.all(kind, namespace):
                self._api.delete(kind, obj["metadata"]["name"], namespace)
