"""The control plane that all other integration tests stand on: is it a real, separate, safe and clean one?"""

import json
import os
import signal
import ssl
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import httpx
import pytest

from dev import controlplane
from dev.controlplane import ControlPlane, KubectlFailed
from dev.process import LOOPBACK, StartupFailed, free_port

# The first start on a machine may have to build the programs.
pytestmark = pytest.mark.timeout(1200)

DEPLOYMENT = """
apiVersion: apps/v1
kind: Deployment
metadata: {name: web, namespace: default}
spec:
  replicas: 1
  selector: {matchLabels: {app: web}}
  template:
    metadata: {labels: {app: web}}
    spec: {containers: [{name: web, image: "registry.example/web:1"}]}
"""

POD = """
apiVersion: v1
kind: Pod
metadata: {name: alone, namespace: default}
spec: {containers: [{name: main, image: "registry.example/web:1"}]}
"""

CRD = """
apiVersion: apiextensions.k8s.io/v1
kind: CustomResourceDefinition
metadata: {name: things.example.com}
spec:
  group: example.com
  scope: Namespaced
  names: {kind: Thing, plural: things}
  versions:
  - {name: v1, served: true, storage: true, schema: {openAPIV3Schema: {type: object}}}
"""

THING = "apiVersion: example.com/v1\nkind: Thing\nmetadata: {name: one, namespace: default}\n"

NODE = """
apiVersion: v1
kind: Node
metadata: {name: by-hand}
"""

NODE_STATUS = """
status:
  allocatable: {cpu: "4", memory: 8Gi, pods: "110"}
  conditions: [{type: Ready, status: "True", reason: ByHand, message: ""}]
"""


@pytest.fixture(scope="module")
def cluster() -> Iterator[ControlPlane]:
    with ControlPlane(audit_log=True) as running:
        yield running


@pytest.fixture(scope="module")
def neighbour() -> Iterator[ControlPlane]:
    with ControlPlane(controllers=False, scheduler=False) as running:
        yield running


def test_two_control_planes_run_at_once_and_share_nothing(cluster: ControlPlane, neighbour: ControlPlane) -> None:
    assert cluster.server != neighbour.server
    cluster.kubectl("create", "namespace", "only-here")
    assert "only-here" in cluster.kubectl("get", "namespaces", "--output=name")
    assert "only-here" not in neighbour.kubectl("get", "namespaces", "--output=name")


def test_server_certificate_is_verified(cluster: ControlPlane, neighbour: ControlPlane) -> None:
    assert httpx.get(f"{cluster.server}/readyz", verify=cluster.ssl_context(), timeout=60).text == "ok"
    with pytest.raises(httpx.ConnectError, match="CERTIFICATE_VERIFY_FAILED"):
        httpx.get(
            f"{cluster.server}/readyz", verify=ssl.create_default_context(cafile=str(neighbour.ca_file)), timeout=60
        )
    with pytest.raises(httpx.ConnectError, match="CERTIFICATE_VERIFY_FAILED"):
        httpx.get(f"{cluster.server}/readyz", timeout=60)


def test_client_certificate_of_another_authority_is_refused(cluster: ControlPlane, neighbour: ControlPlane) -> None:
    context = neighbour.ssl_context()
    context.load_verify_locations(cafile=str(cluster.ca_file))
    assert httpx.get(f"{cluster.server}/api/v1/namespaces", verify=context, timeout=60).status_code == 401


def test_service_account_token_authenticates_and_rbac_limits_it(cluster: ControlPlane) -> None:
    cluster.kubectl("create", "serviceaccount", "robot", "--namespace=default")
    kubeconfig = cluster.service_account_kubeconfig("default", "robot")
    whoami = json.loads(cluster.kubectl("--kubeconfig", kubeconfig, "auth", "whoami", "--output=json"))
    assert whoami["status"]["userInfo"]["username"] == "system:serviceaccount:default:robot"
    with pytest.raises(KubectlFailed, match="Forbidden"):
        cluster.kubectl("--kubeconfig", kubeconfig, "get", "secrets", "--all-namespaces")


def test_user_has_the_groups_of_the_certificate(cluster: ControlPlane) -> None:
    kubeconfig = cluster.user_kubeconfig("jane@example.com", ("developers",))
    whoami = json.loads(cluster.kubectl("--kubeconfig", kubeconfig, "auth", "whoami", "--output=json"))
    assert whoami["status"]["userInfo"]["username"] == "jane@example.com"
    assert "developers" in whoami["status"]["userInfo"]["groups"]
    assert kubeconfig.stat().st_mode & 0o077 == 0


def test_controller_manager_makes_replica_set_and_pod_of_deployment(cluster: ControlPlane) -> None:
    cluster.apply(DEPLOYMENT)

    def owners(resource: str) -> list[str]:
        items = json.loads(cluster.kubectl("get", resource, "--selector=app=web", "--output=json"))["items"]
        return [item["metadata"]["ownerReferences"][0]["kind"] for item in items]

    eventually(lambda: owners("replicasets") == ["Deployment"] and owners("pods") == ["ReplicaSet"])


def test_scheduler_binds_a_pod_to_a_node_made_by_hand(cluster: ControlPlane) -> None:
    cluster.apply(NODE)
    cluster.kubectl("patch", "node", "by-hand", "--subresource=status", "--patch", NODE_STATUS)
    cluster.apply(POD)
    node = ("get", "pod", "alone", "--output=jsonpath={.spec.nodeName}")
    eventually(lambda: cluster.kubectl(*node) == "by-hand")


def test_pod_is_admitted_without_controllers(neighbour: ControlPlane) -> None:
    neighbour.apply(POD)
    assert neighbour.kubectl("get", "pods", "--output=name").split() == ["pod/alone"]


def test_apply_waits_until_a_crd_is_served(neighbour: ControlPlane, tmp_path: Path) -> None:
    (tmp_path / "thing.yaml").write_text(CRD)
    neighbour.apply(tmp_path)
    neighbour.apply(THING)
    assert neighbour.kubectl("get", "things", "--output=name").split() == ["thing.example.com/one"]


def test_audit_log_tells_who_asked_for_what(cluster: ControlPlane) -> None:
    reader = cluster.user_kubeconfig("reader")
    cluster.kubectl("--kubeconfig", reader, "get", "configmaps", "--namespace=default", check=False)

    def asked() -> list[tuple[str, str, str, int]]:
        return [
            (event.verb, event.resource, event.namespace, event.code)
            for event in cluster.audit_events()
            if event.user == "reader" and event.resource
        ]

    eventually(lambda: bool(asked()))
    assert asked() == [("list", "configmaps", "default", 403)]
    users = {event.user for event in cluster.audit_events()}
    assert "modelswarm:readiness-probe" not in users
    assert not any(user.startswith("system:kube-") for user in users)


def test_audit_log_counts_a_watch_once(cluster: ControlPlane) -> None:
    uri = "/api/v1/namespaces/default/configmaps?watch=1&timeoutSeconds=1&resourceVersion=0"
    assert httpx.get(cluster.server + uri, verify=cluster.ssl_context(), timeout=30).status_code == 200
    watches = [event for event in cluster.audit_events() if event.uri == uri]
    assert [(event.verb, event.stage) for event in watches] == [("watch", "ResponseStarted")]


def test_api_server_comes_back_on_the_same_address_with_its_data(neighbour: ControlPlane) -> None:
    neighbour.kubectl("create", "configmap", "kept", "--from-literal=key=value")
    address = neighbour.server
    neighbour.stop_apiserver()
    with pytest.raises(httpx.ConnectError):
        httpx.get(f"{address}/readyz", verify=neighbour.ssl_context(), timeout=60)
    neighbour.start_apiserver()
    assert neighbour.server == address
    assert neighbour.kubectl("get", "configmap", "kept", "--output=jsonpath={.data.key}") == "value"


def test_nothing_is_left_after_stop() -> None:
    cluster = ControlPlane()
    cluster.start()
    pids = cluster.pids
    assert set(pids) == {"etcd", "kube-apiserver", "kube-controller-manager", "kube-scheduler"}
    assert all(is_running(pid) for pid in pids.values())
    cluster.stop()
    assert not any(is_running(pid) for pid in pids.values())
    assert not cluster.directory.exists()
    cluster.stop()


@pytest.mark.skipif(sys.platform != "linux", reason="only Linux tells a child about the death of its parent")
def test_nothing_is_left_when_the_parent_is_killed(tmp_path: Path) -> None:
    command = [
        sys.executable,
        "-m",
        "dev.controlplane",
        "--no-controllers",
        "--no-scheduler",
        f"--directory={tmp_path}",
    ]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as parent:
        assert parent.stdout is not None
        assert parent.stdout.readline().startswith("export KUBECONFIG=")
        children = children_of(parent.pid)
        assert len(children) == 2
        parent.send_signal(signal.SIGKILL)
    eventually(lambda: not any(is_running(pid) for pid in children))


def test_control_plane_outlives_the_thread_that_started_it() -> None:
    cluster = ControlPlane(controllers=False, scheduler=False)
    starter = threading.Thread(target=cluster.start)
    starter.start()
    starter.join()
    try:
        assert cluster.kubectl("get", "--raw", "/readyz") == "ok"
    finally:
        cluster.stop()


def test_failed_start_shows_the_end_of_the_log_and_leaves_nothing() -> None:
    cluster = ControlPlane(controllers=False, scheduler=False, apiserver_flags=["--no-such-flag"])
    with pytest.raises(
        StartupFailed, match=r"kube-apiserver: ended during start-up(.|\n)*unknown flag: --no-such-flag"
    ):
        cluster.start()
    assert not cluster.pids
    assert not cluster.directory.exists()


def test_taken_port_is_replaced(neighbour: ControlPlane, monkeypatch: pytest.MonkeyPatch) -> None:
    taken = int(neighbour.server.rpartition(":")[2])
    ports = iter([free_port(), taken])  # etcd gets its own, the API server one that is in use
    monkeypatch.setattr(controlplane, "free_port", lambda: next(ports, None) or free_port())
    with ControlPlane(controllers=False, scheduler=False) as cluster:
        assert cluster.server != f"https://{LOOPBACK}:{taken}"
        assert cluster.kubectl("get", "--raw", "/readyz") == "ok"


def test_directory_with_content_is_refused(tmp_path: Path) -> None:
    (tmp_path / "mine").touch()
    with pytest.raises(ValueError, match="is not empty"):
        ControlPlane(directory=tmp_path).start()
    assert (tmp_path / "mine").exists()


def eventually(condition: Callable[[], bool], timeout: float = 80.0) -> None:
    deadline = time.monotonic() + timeout
    while not condition():
        assert time.monotonic() < deadline, f"not so within {timeout:.0f} s"
        time.sleep(0.05)


def is_running(pid: int) -> bool:
    """Whether the process exists and is more than a zombie that its new parent has not collected yet."""
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    stat = Path(f"/proc/{pid}/stat")
    try:
        return stat.read_text().rpartition(") ")[2][0] != "Z" if stat.parent.parent.exists() else True
    except (FileNotFoundError, ProcessLookupError):
        return False


def children_of(pid: int) -> list[int]:
    lists = Path(f"/proc/{pid}/task").glob("*/children")  # one list for each thread
    return [int(child) for path in lists for child in path.read_text().split()]
