"""What the programs of a node are told, as files. Pure.

Every path is one that only the node sees (``init.PRIVATE``), so the files say the same on all nodes but for names and
addresses.
"""

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import yaml

from dev.cluster.addresses import CLUSTER_DOMAIN, PODS

DIRECTORY = "/etc/containerd"
"""Of the node's configuration; containerd's own, so that nothing else of the machine is hidden by it."""
SOCKET = "/run/containerd/containerd.sock"
PAUSE = "localhost/pause:1"


@dataclass(frozen=True, slots=True)
class NodeFacts:
    """What the files of one node depend on."""

    name: str
    address: str
    pods: str
    """The range of its pods."""
    dns: str
    """Address of the cluster's DNS."""
    cgroup: str
    runc: Path
    cni: Path
    """Directory of the plugins."""
    registries: tuple[str, ...] = ()
    """``host:port`` of registries that speak plain HTTP."""


def node_files(facts: NodeFacts) -> dict[str, str]:
    """Texts by path below ``DIRECTORY``."""
    return {
        "config.toml": _containerd(facts),
        "cni/10-pods.conflist": json.dumps(_pod_network(facts)),
        "kubelet.yaml": yaml.safe_dump(_kubelet(facts), sort_keys=False),
        "kube-proxy.yaml": yaml.safe_dump(_kube_proxy(facts), sort_keys=False),
        "resolv.conf": f"nameserver {facts.dns}\n",
        **{f"certs.d/{host}/hosts.toml": _plain_registry(host) for host in facts.registries},
    }


def _containerd(facts: NodeFacts) -> str:
    cri = 'plugins."io.containerd.grpc.v1.cri"'
    return f"""version = 2
root = "/var/lib/containerd"
state = "/run/containerd"
[grpc]
  address = "{SOCKET}"
[plugins."io.containerd.internal.v1.opt"]
  path = "/var/lib/containerd/opt"
[{cri}]
  sandbox_image = "{PAUSE}"
  # Without the capability SYS_RESOURCE, which containers and small machines take from root, a pod could not start.
  restrict_oom_score_adj = true
  [{cri}.cni]
    bin_dir = "{facts.cni}"
    conf_dir = "{DIRECTORY}/cni"
  [{cri}.registry]
    config_path = "{DIRECTORY}/certs.d"
  [{cri}.containerd]
    snapshotter = "overlayfs"
    [{cri}.containerd.runtimes.runc]
      runtime_type = "io.containerd.runc.v2"
      [{cri}.containerd.runtimes.runc.options]
        BinaryName = "{facts.runc}"
        SystemdCgroup = false
"""


def _pod_network(facts: NodeFacts) -> Mapping[str, object]:
    bridge = {
        "type": "bridge",
        "bridge": "cni0",
        "isGateway": True,
        # Off, so that a server sees the address of the pod that asks and not that of its node.
        "ipMasq": False,
        "hairpinMode": True,
        "ipam": {
            "type": "host-local",
            "dataDir": "/var/lib/cni/ipam",
            "ranges": [[{"subnet": facts.pods}]],
            "routes": [{"dst": "0.0.0.0/0"}],
        },
    }
    ports = {"type": "portmap", "capabilities": {"portMappings": True}}
    return {"cniVersion": "0.4.0", "name": "pods", "plugins": [bridge, ports]}


def _kubelet(facts: NodeFacts) -> Mapping[str, object]:
    return {
        "apiVersion": "kubelet.config.k8s.io/v1beta1",
        "kind": "KubeletConfiguration",
        "authentication": {
            "anonymous": {"enabled": False},
            "webhook": {"enabled": True, "cacheTTL": "10s"},
            "x509": {"clientCAFile": f"{DIRECTORY}/ca.crt"},
        },
        "authorization": {"mode": "Webhook"},
        "tlsCertFile": f"{DIRECTORY}/kubelet.crt",
        "tlsPrivateKeyFile": f"{DIRECTORY}/kubelet.key",
        "cgroupDriver": "cgroupfs",
        "cgroupRoot": f"/{facts.cgroup}",
        "failCgroupV1": False,
        "failSwapOn": False,
        # All nodes see the whole machine, so none of them keeps a part for itself.
        "enforceNodeAllocatable": [],
        "containerRuntimeEndpoint": f"unix://{SOCKET}",
        "clusterDNS": [facts.dns],
        "clusterDomain": CLUSTER_DOMAIN,
        "resolvConf": f"{DIRECTORY}/resolv.conf",
        "volumePluginDir": "/var/lib/kubelet/volume-plugins",
        # Often, so that a node that died is known to be dead within half a minute.
        "nodeStatusUpdateFrequency": "4s",
        "syncFrequency": "10s",
        # All nodes share the machine's disk, and how full that is says nothing about them.
        "evictionHard": {"memory.available": "100Mi", "nodefs.available": "1%", "imagefs.available": "1%"},
        "imageGCHighThresholdPercent": 100,
        "makeIPTablesUtilChains": False,
        "serializeImagePulls": False,
        "registryPullQPS": 0,
    }


def _kube_proxy(facts: NodeFacts) -> Mapping[str, object]:
    return {
        "apiVersion": "kubeproxy.config.k8s.io/v1alpha1",
        "kind": "KubeProxyConfiguration",
        "mode": "iptables",
        "clusterCIDR": PODS,
        "hostnameOverride": facts.name,
        "clientConnection": {"kubeconfig": f"{DIRECTORY}/kube-proxy.kubeconfig"},
        "healthzBindAddress": "0.0.0.0:10256",
        # Zeros leave alone what only the machine itself may set.
        "conntrack": {"maxPerCore": 0, "min": 0, "tcpEstablishedTimeout": "0s", "tcpCloseWaitTimeout": "0s"},
    }


def _plain_registry(host: str) -> str:
    return f'server = "http://{host}"\n[host."http://{host}"]\n  capabilities = ["pull", "resolve"]\n'
