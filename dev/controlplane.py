"""A real Kubernetes control plane on this machine, for tests and for trying things out. No root, no containers.

etcd, kube-apiserver and, if wanted, kube-controller-manager and kube-scheduler run as child processes on free loopback
ports with a certificate authority of their own, so any number of control planes can run side by side. There is no
kubelet: pods exist as objects but nothing runs them.

    with ControlPlane(scheduler=False) as cluster:
        cluster.apply(Path("crds"))
        print(cluster.kubectl("get", "crds"))

``python -m dev.controlplane`` starts one and keeps it until Ctrl-C.
"""

import argparse
import os
import shlex
import shutil
import signal
import ssl
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from types import TracebackType
from typing import Self
from urllib.parse import quote

import httpx

from dev.audit import PROBE_USER, AuditEvent, audit_policy, read_audit_log
from dev.binaries import BinaryUnavailable, locate
from dev.component_flags import (
    KUBERNETES_SERVICE_ADDRESS,
    apiserver_flags,
    controller_manager_flags,
    etcd_flags,
    scheduler_flags,
)
from dev.pki import CertificateAuthority, KeyPair, signing_key, write_kubeconfig, write_private
from dev.process import LOOPBACK, Child, StartupFailed, free_port, interrupt_on_stop_signals

READY_TIMEOUT = 120.0
"""Seconds. A start takes three to four; the rest is for a machine that is busy with something else."""
PORT_ATTEMPTS = 5
POLL_INTERVAL = 0.05
SERVICE_NAMES = ("kubernetes", "kubernetes.default", "kubernetes.default.svc", "kubernetes.default.svc.cluster.local")


class KubectlFailed(RuntimeError):
    """kubectl ended with an error. The message is its own."""


class ControlPlane:
    """One control plane. A context manager; ``start`` and ``stop`` for those who cannot use it as one.

    ``controllers`` and ``scheduler`` choose the optional components. ``audit_log`` records requests in ``audit_log``,
    with ``audit_everything`` also those that the control plane makes to itself. ``directory``, which has to be empty or
    missing, holds all state and logs and is kept; without it a temporary directory is used and removed on ``stop``.
    ``address`` is where the API server listens; another one than loopback needs flags that fit (``dev.cluster``).
    """

    def __init__(
        self,
        *,
        controllers: bool = True,
        scheduler: bool = True,
        audit_log: bool = False,
        audit_everything: bool = False,
        directory: Path | None = None,
        address: str = LOOPBACK,
        apiserver_flags: Sequence[str] = (),
        controller_flags: Sequence[str] = (),
    ) -> None:
        self._with_controllers = controllers
        self._with_scheduler = scheduler
        self._with_audit = audit_log or audit_everything
        self._audit_everything = audit_everything
        self._given_directory = directory.absolute() if directory else None
        self._address = address
        self._apiserver_flags = tuple(apiserver_flags)
        self._controller_flags = tuple(controller_flags)
        self._children: dict[str, Child] = {}
        self._started = False

    # Lifecycle

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.stop()

    def start(self) -> None:
        """Start all components and wait until they can be used. Raises StartupFailed or BinaryUnavailable."""
        if self._started:
            raise RuntimeError("this control plane is already running")
        names = ["etcd", "kube-apiserver", "kubectl"]
        names += ["kube-controller-manager"] * self._with_controllers + ["kube-scheduler"] * self._with_scheduler
        self._binaries = locate(*names)
        self._create_directory()
        self._started = True
        try:
            self._start_on_free_ports()
        except BaseException:
            self.stop()
            raise

    def stop(self) -> None:
        """End all components at once, without grace: their state is thrown away. Harmless when nothing runs."""
        # The clients first, so that their logs do not end with complaints about a lost API server.
        for child in reversed(self._children.values()):
            child.stop()
        self._children.clear()
        if self._started and self._given_directory is None:
            shutil.rmtree(self.directory, ignore_errors=True)
        self._started = False

    @property
    def pids(self) -> dict[str, int]:
        """Process ids of the components by name."""
        return {name: child.pid for name, child in self._children.items() if child.pid is not None}

    def stop_apiserver(self) -> None:
        """Kill the API server as a power failure would: open watches break, etcd keeps everything acknowledged.

        SIGKILL because after SIGTERM it serves on for up to a minute, until its last watch is closed.
        """
        self._children["kube-apiserver"].stop()

    def start_apiserver(self) -> None:
        """Start the stopped API server again, on the same port and data, and wait until it is ready."""
        self._children["kube-apiserver"].start()
        self.wait_ready()

    def restart_apiserver(self) -> None:
        self.stop_apiserver()
        self.start_apiserver()

    def wait_ready(self, timeout: float = READY_TIMEOUT) -> None:
        """Wait until the API server is ready and a pod can be created in the namespace ``default``."""
        # The paths appear in this order. The namespace is made by the API server after it is ready; the
        # ServiceAccount, without which no pod is admitted, by the controller manager.
        paths = ["/readyz", "/api/v1/namespaces/default"]
        if self._with_controllers:
            paths.append("/api/v1/namespaces/default/serviceaccounts/default")
        self._wait_for(*paths, timeout=timeout)

    # Access

    def ssl_context(self) -> ssl.SSLContext:
        """Trusts this control plane only and authenticates as its administrator."""
        return self._ssl_context("admin")

    def kubectl(self, *args: str | Path, input: str | None = None, check: bool = True) -> str:
        """Run kubectl as administrator and return its standard output. Raises KubectlFailed unless ``check`` is off."""
        # A cache of its own: kubectl caches the API by address, and an address is used again by the next cluster.
        command = [self._binaries["kubectl"], "--cache-dir", self.directory / "kubectl-cache", *args]
        environment = {**os.environ, "KUBECONFIG": str(self.kubeconfig), "KUBERC": "off"}
        result = subprocess.run(command, input=input, env=environment, capture_output=True, text=True)
        if check and result.returncode:
            raise KubectlFailed(f"kubectl {' '.join(map(str, args))}: {result.stderr.strip()}")
        return result.stdout

    def apply(self, manifest: Path | str) -> str:
        """Apply a file, a directory (both as Path) or YAML text (as str), and wait for the CRDs among it.

        Server-side: large CRDs do not fit into the annotation that a client-side apply needs.
        """
        arguments = ("apply", "--server-side", "--force-conflicts", "-o", "name", "-f")
        if isinstance(manifest, Path):
            output = self.kubectl(*arguments, manifest)
        else:
            output = self.kubectl(*arguments, "-", input=manifest)
        crds = [line for line in output.split() if line.startswith("customresourcedefinition")]
        if crds:
            self.kubectl("wait", "--for=condition=Established", "--timeout=60s", *crds)
            self.wait_for_storage(*(line.partition("/")[2] for line in crds))
        return output

    def wait_for_storage(self, *crds: str, seconds: float = 60.0) -> None:
        """For a moment after a CRD is established, nobody finds its kind yet, or its storage answers 429."""
        deadline = time.monotonic() + seconds
        while True:
            try:
                self.kubectl("get", ",".join(crds), "-A", "-o", "name")
            except KubectlFailed:
                if time.monotonic() > deadline:
                    raise
                time.sleep(0.05)
            else:
                return

    def user_kubeconfig(self, name: str, groups: Sequence[str] = ()) -> Path:
        """A kubeconfig for a user with a client certificate. The user may do what RBAC allows, at first nothing."""
        client = self._ca.client(name, groups)
        return write_kubeconfig(
            self._config_path("user", name), server=self.server, ca=self._ca.certificate, client=client
        )

    def serving_certificate(self, name: str, hosts: Sequence[str]) -> KeyPair:
        """For a server that the control plane or its clients have to trust: a kubelet's."""
        return self._ca.server(name, hosts)

    def service_account_kubeconfig(
        self, namespace: str, name: str, duration: str = "1h", *, pod: str | None = None
    ) -> Path:
        """A kubeconfig with a token of an existing ServiceAccount, issued as the kubelet issues those of pods.

        With ``pod``, the name of an existing Pod, the token is bound to it: the API server then knows the Pod's node.
        """
        bound = ["--bound-object-kind=Pod", f"--bound-object-name={pod}"] if pod else []
        token = self.kubectl("create", "token", name, "--namespace", namespace, "--duration", duration, *bound).strip()
        path = self._config_path("serviceaccount", f"{namespace}.{pod or name}")
        return write_kubeconfig(path, server=self.server, ca=self.ca_file.resolve(), token=token)

    def audit_events(self) -> Iterator[AuditEvent]:
        """The audit log up to now, oldest event first. Needs ``audit_log=True``."""
        if not self._with_audit:
            raise RuntimeError("the control plane was started without audit_log=True")
        return read_audit_log(self.audit_log)

    # Start-up

    def _create_directory(self) -> None:
        if self._given_directory is None:
            self.directory = Path(tempfile.mkdtemp(prefix="modelswarm-"))
        else:
            self.directory = self._given_directory
            self.directory.mkdir(mode=0o700, parents=True, exist_ok=True)
            if any(self.directory.iterdir()):
                raise ValueError(f"{self.directory} is not empty")
        self.kubeconfig = self.directory / "admin.kubeconfig"
        self.audit_log = self.directory / "audit.log"
        self._pki = self.directory / "pki"
        self.ca_file = self._pki / "ca.crt"
        self._pki.mkdir(mode=0o700)
        self._ca = CertificateAuthority()
        self._ca.key_pair.write(self._pki, "ca")
        hosts = dict.fromkeys((LOOPBACK, "localhost", self._address, KUBERNETES_SERVICE_ADDRESS, *SERVICE_NAMES))
        self._ca.server("kube-apiserver", tuple(hosts)).write(self._pki, "apiserver")
        self._ca.server("etcd", (LOOPBACK, "localhost")).write(self._pki, "etcd")
        self._admin = self._ca.client("admin", ("system:masters",))
        self._admin.write(self._pki, "admin")
        self._ca.client(PROBE_USER, ("system:masters",)).write(self._pki, "probe")
        private, public = signing_key()
        write_private(self._pki / "sa.key", private)
        (self._pki / "sa.pub").write_bytes(public)
        if self._with_audit:
            (self.directory / "audit-policy.yaml").write_text(audit_policy(everything=self._audit_everything))

    def _start_on_free_ports(self) -> None:
        for attempt in range(1, PORT_ATTEMPTS + 1):
            etcd_port, api_port = free_port(), free_port()
            self.server = f"https://{self._address}:{api_port}"
            self._write_kubeconfigs()
            shutil.rmtree(self.directory / "etcd", ignore_errors=True)
            self._add("etcd", etcd_flags(etcd_port))
            self._add("kube-apiserver", self._apiserver_command(etcd_port, api_port))
            try:
                self._wait_for("/readyz")
                break
            except StartupFailed:
                if attempt == PORT_ATTEMPTS or not any(child.lost_port() for child in self._children.values()):
                    raise
                for child in self._children.values():
                    child.stop()
        # Not earlier: the controller manager gives up when the API server takes more than ten seconds.
        if self._with_controllers:
            self._add("kube-controller-manager", controller_manager_flags(extra=self._controller_flags))
        if self._with_scheduler:
            self._add("kube-scheduler", scheduler_flags())
        self.wait_ready()

    def _apiserver_command(self, etcd_port: int, api_port: int) -> list[str]:
        return apiserver_flags(
            etcd_port,
            api_port,
            controllers=self._with_controllers,
            audit=self._with_audit,
            extra=self._apiserver_flags,
        )

    def _write_kubeconfigs(self) -> None:
        ca = self._ca.certificate
        write_kubeconfig(self.kubeconfig, server=self.server, ca=ca, client=self._admin)
        for name in ("kube-controller-manager", "kube-scheduler"):
            write_kubeconfig(
                self._pki / f"{name}.kubeconfig", server=self.server, ca=ca, client=self._ca.client(f"system:{name}")
            )

    def _add(self, name: str, flags: Sequence[str]) -> None:
        child = Child(name, [self._binaries[name], *flags], log=self.directory / f"{name}.log", cwd=self.directory)
        self._children[name] = child
        child.start()

    def _wait_for(self, *paths: str, timeout: float = READY_TIMEOUT) -> None:
        deadline = time.monotonic() + timeout
        context = self._ssl_context("probe")
        # trust_env off: a proxy of the environment must not get between us and loopback.
        with httpx.Client(base_url=self.server, verify=context, timeout=5, trust_env=False) as client:
            for path in paths:
                while not _answers(client, path):
                    for child in self._children.values():
                        if not child.running:
                            raise child.failure("ended during start-up")
                    if time.monotonic() > deadline:
                        raise self._children["kube-apiserver"].failure(f"no success from {path} in {timeout:.0f} s")
                    time.sleep(POLL_INTERVAL)

    def _ssl_context(self, client: str) -> ssl.SSLContext:
        context = ssl.create_default_context(cafile=str(self.ca_file))
        context.load_cert_chain(self._pki / f"{client}.crt", self._pki / f"{client}.key")
        return context

    def _config_path(self, kind: str, name: str) -> Path:
        return self.directory / f"{kind}-{quote(name, safe='')}.kubeconfig"


def _answers(client: httpx.Client, path: str) -> bool:
    try:
        return client.get(path).status_code == httpx.codes.OK
    except httpx.TransportError:  # also a certificate of somebody else who took our port: our own child then ends
        return False


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m dev.controlplane", description="Run a Kubernetes control plane.")
    parser.add_argument("--directory", type=Path, help="keep state and logs in this new or empty directory")
    parser.add_argument("--no-controllers", action="store_true", help="without kube-controller-manager")
    parser.add_argument("--no-scheduler", action="store_true", help="without kube-scheduler")
    parser.add_argument("--audit-log", action="store_true", help="record requests in audit.log in the directory")
    options = parser.parse_args()
    interrupt_on_stop_signals()
    try:
        with ControlPlane(
            controllers=not options.no_controllers,
            scheduler=not options.no_scheduler,
            audit_log=options.audit_log,
            directory=options.directory,
        ) as cluster:
            print(f"export KUBECONFIG={shlex.quote(str(cluster.kubeconfig))}", flush=True)
            while True:
                signal.pause()
    except KeyboardInterrupt:
        return 0
    except (BinaryUnavailable, StartupFailed, ValueError) as error:
        print(error, file=sys.stderr)
        return 1


if __name__ == "__main__":
    sys.exit(main())
