"""The chart on the cluster, installed as a user installs it, with the images that were built here."""

import time
from collections.abc import Iterable
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path

from dev.cluster.cluster import Cluster
from dev.helm import CHART, helm, setting
from modelswarm import __version__
from tests.integration.support import eventually, kubectl_json

NAME = "modelswarm"
NAMESPACE = "llmaz-system"
OPERATOR = "deployment/modelswarm-operator"
AGENTS = "daemonset/ome-model-agent"
TAG = f"v{__version__}"
"""Of the images that are built from this tree."""
_ROLLOUT = "--timeout=600s"


@dataclass(slots=True)
class Release:
    """One release. ``values`` are the user's; ``put`` installs or upgrades with them."""

    cluster: Cluster
    hub: str
    """URL of the hub that takes the place of the public ones."""
    seconds: float = 0.0
    """What the installation took, until every pod was Ready."""
    values: dict[str, str | int | bool] = field(default_factory=dict)
    restarts: list[tuple[datetime, datetime]] = field(default_factory=list)
    """From when to when the API server was restarted."""
    since: datetime = field(default_factory=lambda: datetime.now(UTC))
    """Before it others may have been installed, with other rights."""

    def helm(self, verb: str, *arguments: str | Path) -> str:
        words = (verb, NAME, *arguments, "--namespace", NAMESPACE)
        return helm(*words, kubeconfig=self.cluster.plane.kubeconfig)

    def put(self, verb: str = "upgrade", **more: str | int | bool) -> str:
        """Returns helm's notes. Does not wait for pods."""
        host = self.cluster.registry.host
        given: dict[str, str | int | bool] = {
            "image__registry": host,
            "env__HF_ENDPOINT": self.hub,
            # Not HTTPS, as everybody else's is.
            "operator__settings__registries": f"{host}=http://{host}",
        }
        chosen = setting(**{**given, **self.values, **more})
        return self.helm(verb, CHART, *(["--create-namespace"] if verb == "install" else []), *chosen)

    def install(self) -> str:
        # Who was here before has left its Lease; that ours makes one is seen by test_rights.
        self.cluster.plane.kubectl("-n", NAMESPACE, "delete", "lease/modelswarm-operator", "--ignore-not-found")
        started = time.monotonic()
        notes = self.put("install")
        self.wait()
        self.seconds = time.monotonic() - started
        return notes

    def wait(self, namespace: str = NAMESPACE) -> None:
        """Until operator and agents are those of the last ``put``, all of them Ready, and one operator leads."""
        for workload in (OPERATOR, AGENTS):
            self.cluster.plane.kubectl("-n", namespace, "rollout", "status", workload, _ROLLOUT)
        eventually(self.leads, 20)

    def leads(self) -> bool:
        """Whether a pod that exists holds the operator's Lease."""
        # Ready is also an operator that has not made its Lease yet; the empty answer is a ValueError.
        lease = ("get", "lease/modelswarm-operator", "--ignore-not-found")
        holder = kubectl_json(self.cluster.plane, "-n", NAMESPACE, *lease)
        return any(str(holder["spec"].get("holderIdentity", "")).startswith(pod) for pod in self.operators())

    def restart_api_server(self) -> None:
        self.cluster.plane.stop_apiserver()
        stopped = datetime.now(UTC)
        self.cluster.plane.start_apiserver()
        self.restarts.append((stopped, datetime.now(UTC)))

    def operators(self) -> list[str]:
        return self._pods("modelswarm-operator", None)

    def agent_on(self, node: str) -> str:
        """The name of the agent's pod on a node."""
        [name] = self._pods("ome-model-agent", node)
        return name

    def kill(self, pod: str) -> None:
        """SIGKILL to everything in it, and the object goes at once."""
        self.cluster.plane.kubectl("-n", NAMESPACE, "delete", "pod", pod, "--grace-period=0", "--force")

    def restart_agent(self, node: str) -> None:
        """Kill a node's agent, and wait until another one is Ready there."""
        before = self.agent_on(node)
        self.kill(before)

        def after() -> str:
            name = self.agent_on(node)
            assert name != before
            return name

        pod = f"pod/{eventually(after, 60, every=0.2)}"
        self.cluster.plane.kubectl("-n", NAMESPACE, "wait", "--for=condition=Ready", _ROLLOUT, pod)

    def _pods(self, app: str, node: str | None) -> list[str]:
        where = [] if node is None else [f"--field-selector=spec.nodeName={node}"]
        select = f"app.kubernetes.io/name={app}"
        pods: Iterable[dict[str, dict[str, str]]] = kubectl_json(
            self.cluster.plane, "-n", NAMESPACE, "get", "pods", "-l", select, *where
        )["items"]
        return [pod["metadata"]["name"] for pod in pods if "deletionTimestamp" not in pod["metadata"]]
