"""A cluster with config/p2p applied, and pods of agents on nodes, so that tokens bound to them can be had."""

import json
import time
from pathlib import Path

from dev.controlplane import ControlPlane, KubectlFailed
from tests.integration.support.ome import OME_CRDS

CONFIG = Path(__file__).parents[3] / "config" / "p2p"
SERVICE = CONFIG / "headless-service.yaml"
DAEMONSET = CONFIG / "model-agent-daemonset.yaml"
AGENT = "ome-model-agent"
USER = f"system:serviceaccount:ome:{AGENT}"


def install_agents(cluster: ControlPlane, *nodes: str) -> None:
    """The manifests, OME's CRDs, and for each node a Node and an agent's pod on it. Nothing runs."""
    cluster.apply(SERVICE)
    cluster.apply(DAEMONSET)
    cluster.apply(OME_CRDS)
    for node in nodes:
        add_node(cluster, node)
    _wait_for_the_policy(cluster, nodes[0])


def add_node(cluster: ControlPlane, node: str) -> None:
    cluster.apply(json.dumps({"apiVersion": "v1", "kind": "Node", "metadata": {"name": node}}))
    container = {"name": "c", "image": "i"}
    spec = {"nodeName": node, "serviceAccountName": AGENT, "containers": [container]}
    pod = {"apiVersion": "v1", "kind": "Pod", "metadata": {"name": f"agent-{node}", "namespace": "ome"}, "spec": spec}
    cluster.apply(json.dumps(pod))


def agent_kubeconfig(cluster: ControlPlane, node: str) -> Path:
    """With the token that the kubelet would give to the agent's pod on that node."""
    return cluster.service_account_kubeconfig("ome", AGENT, pod=f"agent-{node}")


def _wait_for_the_policy(cluster: ControlPlane, node: str) -> None:
    """It works a moment after it was written. Without a node in the token nobody may write anything."""
    probe = json.dumps({"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": node, "namespace": "ome"}})
    deadline = time.monotonic() + 60
    while time.monotonic() < deadline:
        try:
            cluster.kubectl("create", "--as", USER, "--dry-run=server", "-f", "-", input=probe)
        except KubectlFailed as error:
            if "ValidatingAdmissionPolicy 'ome-model-agent'" in str(error):
                return
        time.sleep(0.1)
    raise AssertionError("the policy has no effect")
