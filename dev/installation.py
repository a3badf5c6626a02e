"""modelswarm on a control plane of this machine: CRDs, rights, BackendRuntimes, and the operator as a process.

The tests' fixtures, the demo and the benchmarks share it. The operator runs under its own ServiceAccount with the
shipped rules, never as admin.
"""

import sys
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Self

import httpx

from dev.controlplane import ControlPlane
from dev.process import Child, free_port

ROOT = Path(__file__).resolve().parent.parent
NAMESPACE = "llmaz-system"
SERVICE_ACCOUNT = "modelswarm-operator"
_HTTP = httpx.Client(timeout=60, trust_env=False, verify=False, limits=httpx.Limits(max_keepalive_connections=0))
"""For the operator's own pages. One for all: to make a client costs a hundred times as much as to ask."""


def install(cluster: ControlPlane) -> None:
    """What an administrator applies once."""
    cluster.apply(ROOT / "crds")
    cluster.apply(ROOT / "config" / "operator" / "rbac.yaml")
    cluster.apply(ROOT / "charts" / "modelswarm" / "backendruntimes")


class OperatorProcess:
    """``modelswarm operator`` as a child process. A context manager; ``start`` may follow ``kill`` or ``stop``."""

    def __init__(
        self,
        kubeconfig: Path,
        log: Path,
        *,
        arguments: Sequence[str] = (),
        environment: Mapping[str, str] | None = None,
    ) -> None:
        self.health_port = free_port()
        self.metrics_port = free_port()
        command = [
            sys.executable,
            "-m",
            "modelswarm",
            "operator",
            f"--namespace={NAMESPACE}",
            f"--health-port={self.health_port}",
            f"--metrics-port={self.metrics_port}",
            *arguments,
        ]
        self.child = Child(
            "operator",
            command,
            log=log,
            env={
                "KUBECONFIG": str(kubeconfig),
                "PYTHONPATH": str(ROOT / "operator"),
                "NO_PROXY": "127.0.0.1,localhost",
                **(environment or {}),
            },
        )

    def start(self) -> None:
        self.child.start()

    def stop(self) -> None:
        """SIGTERM, and SIGKILL if it has not ended after what it needs to drain."""
        self.child.stop(grace=25)

    def kill(self) -> None:
        """SIGKILL: no draining, no release of the Lease."""
        self.child.stop()

    def wait_leading(self, seconds: float = 90.0) -> None:
        """Until it leads and watches; raises ``StartupFailed`` with the end of its log."""
        deadline = time.monotonic() + seconds
        while time.monotonic() < deadline:
            if not self.child.running:
                raise self.child.failure("ended before it led")
            if self.state() == "leading":
                return
            time.sleep(0.05)
        raise self.child.failure(f"did not lead within {seconds:g} s")

    def state(self) -> str:
        """What ``/readyz`` says (``standing by``, ``leading``...); empty while nothing answers."""
        try:
            return _HTTP.get(f"http://127.0.0.1:{self.health_port}/readyz", timeout=10).text.strip()
        except httpx.HTTPError:
            return ""

    def metrics(self) -> str:
        return _HTTP.get(f"http://127.0.0.1:{self.metrics_port}/metrics").text

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.stop()
