"""The cluster itself: what any cluster does has to work before anything is said about modelswarm on it."""

import json
import subprocess
from collections.abc import Iterator

import pytest

from dev.cluster.cluster import Cluster
from dev.cluster.node import Node
from dev.controlplane import KubectlFailed
from tests.integration.support import Api, Manifest, eventually, kubectl_json

NAMESPACE = "default"
APP = "probe"


@pytest.fixture(scope="module")
def probes(cluster: Cluster, api: Api) -> Iterator[list[Manifest]]:
    """A pod on every node, a Service and a headless one in front of them."""
    labels = {"app": APP}
    container = {
        "name": APP,
        "image": cluster.images.standin,
        "command": ["/standin", "serve", "--model", "/etc"],
        "readinessProbe": {"httpGet": {"path": "/health", "port": 8080}, "periodSeconds": 1},
    }
    pods = {"metadata": {"labels": labels}, "spec": {"containers": [container], "terminationGracePeriodSeconds": 1}}
    metadata = {"name": APP, "namespace": NAMESPACE}
    spec = {"selector": {"matchLabels": labels}, "template": pods}
    objects = [{"apiVersion": "apps/v1", "kind": "DaemonSet", "metadata": metadata, "spec": spec}]
    for name, address in ((APP, {}), (f"{APP}-headless", {"clusterIP": "None"})):
        ports = [{"port": 8080, "name": "http"}]
        objects.append(
            {
                "apiVersion": "v1",
                "kind": "Service",
                "metadata": {**metadata, "name": name},
                "spec": {"selector": labels, "ports": ports, **address},
            }
        )
    for each in objects:
        cluster.plane.kubectl("create", "-f", "-", input=json.dumps(each))
    cluster.plane.kubectl("rollout", "status", f"daemonset/{APP}", "--timeout=120s")
    running = api.all("Pod", NAMESPACE, labels=f"app={APP}")

    def served() -> bool:
        """Every node's rules, and the names, follow a moment after the pods are Ready."""
        try:
            for pod in running:
                run(cluster, pod, "get", f"http://{APP}:8080/whoami")
                found = run(cluster, pod, "lookup", f"{APP}-headless.{NAMESPACE}.svc.cluster.local")
                assert len(found.split()) == len(running)
        except KubectlFailed as error:
            raise AssertionError(str(error)) from error
        return True

    eventually(served, 15)
    yield running
    cluster.plane.kubectl("delete", f"daemonset/{APP}", f"service/{APP}", f"service/{APP}-headless")
    eventually(lambda: not api.all("Pod", NAMESPACE, labels=f"app={APP}"), 30)


def run(cluster: Cluster, pod: Manifest, *command: str) -> str:
    """What the stand-in prints in a pod."""
    return cluster.plane.kubectl("exec", pod["metadata"]["name"], "--", "/standin", *command)


def test_every_node_is_ready_with_its_own_containerd(cluster: Cluster) -> None:
    nodes = kubectl_json(cluster.plane, "get", "nodes")["items"]
    assert [node["metadata"]["name"] for node in nodes] == ["node-1", "node-2", "node-3"]
    runtimes = {node["status"]["nodeInfo"]["containerRuntimeVersion"].partition(":")[0] for node in nodes}
    assert runtimes == {"containerd"}
    assert len({node["status"]["addresses"][0]["address"] for node in nodes}) == 3


def test_pods_reach_pods_of_other_nodes_by_address(cluster: Cluster, probes: list[Manifest]) -> None:
    assert len({pod["spec"]["nodeName"] for pod in probes}) == 3
    for pod in probes:
        for other in probes:
            answer = run(cluster, pod, "get", f"http://{other['status']['podIP']}:8080/whoami")
            assert answer.strip() == other["metadata"]["name"]


def test_services_and_their_names_work_from_every_node(cluster: Cluster, probes: list[Manifest]) -> None:
    names = {pod["metadata"]["name"] for pod in probes}
    addresses = {pod["status"]["podIP"] for pod in probes}
    for pod in probes:
        for name in (APP, f"{APP}.{NAMESPACE}", f"{APP}.{NAMESPACE}.svc.cluster.local"):
            assert run(cluster, pod, "get", f"http://{name}:8080/whoami").strip() in names
        found = run(cluster, pod, "lookup", f"{APP}-headless.{NAMESPACE}.svc.cluster.local").split()
        assert set(found) == addresses


def test_logs_and_ports_are_reached_through_the_api_server(cluster: Cluster, probes: list[Manifest]) -> None:
    name = probes[0]["metadata"]["name"]
    path = f"/api/v1/namespaces/{NAMESPACE}/pods/{name}:8080/proxy/whoami"
    assert cluster.plane.kubectl("get", "--raw", path).strip() == name
    assert cluster.plane.kubectl("logs", name) == ""


def test_a_directory_of_the_host_is_each_nodes_own(cluster: Cluster) -> None:
    for name, node in cluster.nodes.items():
        node.path("/mnt/whose").write_text(name)
    for name, node in cluster.nodes.items():
        assert node.run(["cat", "/mnt/whose"]).stdout == name
        assert node.run(["hostname"]).stdout.strip() == name
        # A child has its parent's name for a moment.
        eventually(lambda node=node: programs(node) == {"kubelet": 1, "containerd": 1})


def programs(node: Node) -> dict[str, int]:
    processes = node.run(["ps", "-e", "-o", "comm="]).stdout.split()
    return {name: processes.count(name) for name in ("kubelet", "containerd")}


def test_nothing_of_the_cluster_shows_on_the_machine(cluster: Cluster) -> None:
    """No mount, no interface, no route: all of it is in namespaces."""
    mounts = subprocess.run(["findmnt", "--noheadings", "--output", "TARGET"], capture_output=True, text=True).stdout
    assert str(cluster.directory) not in mounts
    for node in cluster.nodes.values():
        assert str(node.directory) not in mounts
