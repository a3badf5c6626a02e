"""The cluster's DNS: CoreDNS as a process beside the control plane, so that it survives whatever happens to nodes."""

import time
from pathlib import Path

import httpx
import yaml

from dev.cluster.addresses import CLUSTER_DOMAIN
from dev.controlplane import ControlPlane
from dev.process import LOOPBACK, Child

USER = "cluster-dns"
_READY_PORT = 8181
_PATIENCE = 60.0
_GROUP = "rbac.authorization.k8s.io"


class ClusterDns:
    """Answers for Services and pods on port 53 of ``address``. Names outside the cluster do not exist for it."""

    def __init__(self, program: Path, plane: ControlPlane, address: str, directory: Path) -> None:
        directory.mkdir()
        plane.apply(yaml.safe_dump_all(_rights()))
        corefile = directory / "Corefile"
        corefile.write_text(_corefile(address, plane.user_kubeconfig(USER)))
        self._child = Child("coredns", [program, "-conf", corefile], log=directory / "coredns.log", cwd=directory)

    def start(self) -> None:
        """Returns when it knows all Services. Raises StartupFailed."""
        self._child.start()
        deadline = time.monotonic() + _PATIENCE
        while not _ready():
            if not self._child.running:
                raise self._child.failure("ended during start-up")
            if time.monotonic() > deadline:
                raise self._child.failure(f"not ready in {_PATIENCE:g} s")
            time.sleep(0.05)

    def stop(self) -> None:
        self._child.stop()


def _ready() -> bool:
    try:
        return httpx.get(f"http://{LOOPBACK}:{_READY_PORT}/ready", timeout=2, trust_env=False).is_success
    except httpx.HTTPError:
        return False


def _corefile(address: str, kubeconfig: Path) -> str:
    # No cache and no time to live: a pod that is gone is gone from the answers at once.
    return f"""{CLUSTER_DOMAIN}:53 in-addr.arpa:53 {{
    bind {address}
    errors
    ready {LOOPBACK}:{_READY_PORT}
    kubernetes {CLUSTER_DOMAIN} in-addr.arpa {{
        kubeconfig {kubeconfig} test
        ttl 0
        pods insecure
    }}
}}
"""


def _rights() -> list[dict[str, object]]:
    reads = ["get", "list", "watch"]
    core = {"apiGroups": [""], "resources": ["services", "pods", "namespaces", "nodes"], "verbs": reads}
    slices = {"apiGroups": ["discovery.k8s.io"], "resources": ["endpointslices"], "verbs": reads}
    metadata = {"name": USER}
    subject = {"apiGroup": _GROUP, "kind": "User", "name": USER}
    reference = {"apiGroup": _GROUP, "kind": "ClusterRole", "name": USER}
    return [
        {"apiVersion": f"{_GROUP}/v1", "kind": "ClusterRole", "metadata": metadata, "rules": [core, slices]},
        {
            "apiVersion": f"{_GROUP}/v1",
            "kind": "ClusterRoleBinding",
            "metadata": metadata,
            "roleRef": reference,
            "subjects": [subject],
        },
    ]
