"""Command lines of the control plane's components. Pure: every function maps a directory and ports to flags.

All paths are relative to the state directory, which is the working directory of every component.
"""

from collections.abc import Sequence

from dev.process import LOOPBACK

SERVICE_RANGE = "10.0.0.0/16"
KUBERNETES_SERVICE_ADDRESS = "10.0.0.1"
"""The first address of the range, which the API server gives to the Service ``kubernetes``."""


def etcd_flags(port: int) -> list[str]:
    """TLS with client certificates on both listeners: whoever can write to etcd owns the cluster.

    It also makes a clash of ports harmless. An API server that reaches the etcd of another control plane, because that
    one was faster to bind, is refused there instead of writing into it.
    """
    client, peer = f"https://{LOOPBACK}:{port}", f"https://{LOOPBACK}:0"
    return [
        "--data-dir=etcd",
        f"--listen-client-urls={client}",
        f"--advertise-client-urls={client}",
        # A single member talks to no peer, but etcd insists on a listener; port 0 lets the kernel choose.
        f"--listen-peer-urls={peer}",
        f"--initial-advertise-peer-urls={peer}",
        f"--initial-cluster=default={peer}",
        *_tls("", "pki/etcd", trusted="--trusted-ca-file"),
        "--client-cert-auth",
        *_tls("peer-", "pki/etcd", trusted="--peer-trusted-ca-file"),
        "--peer-client-cert-auth",
        # The data is thrown away; waiting for the disk would only make tests slow and dependent on its load.
        "--unsafe-no-fsync",
        "--log-level=warn",
    ]


def apiserver_flags(etcd_port: int, port: int, *, controllers: bool, audit: bool, extra: Sequence[str]) -> list[str]:
    flags = [
        f"--etcd-servers=https://{LOOPBACK}:{etcd_port}",
        "--etcd-cafile=pki/ca.crt",
        "--etcd-certfile=pki/etcd.crt",
        "--etcd-keyfile=pki/etcd.key",
        f"--bind-address={LOOPBACK}",
        f"--secure-port={port}",
        "--tls-cert-file=pki/apiserver.crt",
        "--tls-private-key-file=pki/apiserver.key",
        "--client-ca-file=pki/ca.crt",
        f"--service-cluster-ip-range={SERVICE_RANGE}",
        "--service-account-issuer=https://kubernetes.default.svc.cluster.local",
        "--service-account-key-file=pki/sa.pub",
        "--service-account-signing-key-file=pki/sa.key",
        "--authorization-mode=Node,RBAC",
        "--enable-admission-plugins=NodeRestriction",
        "--allow-privileged=true",
        # The endpoints of the Service "kubernetes" must not be loopback addresses, and we listen nowhere else.
        f"--advertise-address={LOOPBACK}",
        "--endpoint-reconciler-type=none",
    ]
    if not controllers:
        # This plugin refuses pods until the namespace's ServiceAccount exists, and nobody would create it.
        flags.append("--disable-admission-plugins=ServiceAccount")
    if audit:
        flags += ["--audit-policy-file=audit-policy.yaml", "--audit-log-path=audit.log", "--audit-log-mode=blocking"]
    return [*flags, *extra]


def controller_manager_flags(*, extra: Sequence[str]) -> list[str]:
    return [
        "--kubeconfig=pki/kube-controller-manager.kubeconfig",
        # Each controller acts as its own ServiceAccount with its own narrow rights, as in every real cluster.
        "--use-service-account-credentials=true",
        "--service-account-private-key-file=pki/sa.key",
        "--root-ca-file=pki/ca.crt",
        "--cluster-signing-cert-file=pki/ca.crt",
        "--cluster-signing-key-file=pki/ca.key",
        # Nodes in these tests are made by hand and send no heartbeats. Set their Ready condition to take one down.
        "--node-monitor-grace-period=24h",
        # The default of 20 requests per second makes creating the controllers' ServiceAccounts take seconds.
        "--kube-api-qps=500",
        "--kube-api-burst=1000",
        *_single_instance(),
        *extra,
    ]


def scheduler_flags() -> list[str]:
    return ["--kubeconfig=pki/kube-scheduler.kubeconfig", *_single_instance()]


def _single_instance() -> list[str]:
    # Port 0: no health and metrics server, hence no port that could clash with that of another control plane.
    return ["--leader-elect=false", "--secure-port=0"]


def _tls(prefix: str, name: str, *, trusted: str) -> list[str]:
    return [f"--{prefix}cert-file={name}.crt", f"--{prefix}key-file={name}.key", f"{trusted}=pki/ca.crt"]
