"""What a cluster needs besides Python: packages of the distribution, and programs from Go modules.

``python -m dev.cluster.programs`` prepares everything; ``--install-packages`` lets it ask apt-get, as root.
"""

import argparse
import os
import subprocess
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from dev.binaries import BinaryUnavailable, cache_directory, locate
from dev.dragonfly.packages import Package, PackagesMissing, ensure_packages, program_path
from dev.netns import NetnsUnavailable, require_netns

PREREQUISITE_MISSING = 3
"""Exit code when this machine lacks something, as opposed to a build that failed."""

PACKAGES = (
    Package("containerd", ("containerd", "ctr", "containerd-shim-runc-v2")),
    Package("runc", ("runc",)),
    Package("containernetworking-plugins", patterns=("/usr/lib/cni/bridge", "/opt/cni/bin/bridge")),
    Package("iptables", ("iptables",)),
    Package("conntrack", ("conntrack",)),
    Package("iproute2", ("ip", "tc")),
    Package("util-linux", ("nsenter", "unshare", "mount", "findmnt")),
)
_BUILT = ("kubelet", "kube-proxy", "coredns", "standin")
_CONTROL_PLANE = ("etcd", "kube-apiserver", "kube-controller-manager", "kube-scheduler", "kubectl", "registry", "helm")


class ClusterUnavailable(RuntimeError):
    """This machine or user cannot have a cluster. The message is one line that says what is missing."""


@dataclass(frozen=True, slots=True)
class Programs:
    """Absolute paths."""

    kubelet: Path
    kube_proxy: Path
    coredns: Path
    standin: Path
    containerd: Path
    ctr: Path
    runc: Path
    cni: Path
    """A directory."""


def require_cluster() -> None:
    """Raises ClusterUnavailable if something is missing that nobody can build."""
    try:
        require_netns()
        ensure_packages(PACKAGES, purpose="a cluster")
    except (NetnsUnavailable, PackagesMissing) as error:
        raise ClusterUnavailable(str(error)) from None
    if file_system_of(cache_directory()) == "overlay":
        raise ClusterUnavailable(
            f"a cluster cannot store images in {cache_directory()}, which is on an overlay file system, as those of "
            "containers are; let MODELSWARM_CACHE name a directory on a disk or volume"
        )


def file_system_of(path: Path) -> str:
    """The type of the file system that it is on, or will be; as the kernel calls it."""
    there = next(each for each in (path, *path.parents) if each.exists())
    command = ["findmnt", "--noheadings", "--output=FSTYPE", "--target", str(there)]
    return subprocess.run(command, capture_output=True, text=True).stdout.strip()


def find_programs() -> Programs:
    """Builds what is missing. Raises ClusterUnavailable or BinaryUnavailable."""
    require_cluster()
    built: Mapping[str, Path] = locate(*_BUILT)
    return Programs(
        kubelet=built["kubelet"],
        kube_proxy=built["kube-proxy"],
        coredns=built["coredns"],
        standin=built["standin"],
        containerd=_installed("containerd"),
        ctr=_installed("ctr"),
        runc=_installed("runc"),
        cni=next(path for path in map(Path, ("/usr/lib/cni", "/opt/cni/bin")) if (path / "bridge").exists()),
    )


def _installed(name: str) -> Path:
    path = program_path(name)
    assert path is not None  # require_cluster has seen it
    return Path(path)


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m dev.cluster.programs", description="Prepare the cluster's parts.")
    parser.add_argument("--install-packages", action="store_true", help="let apt-get install what is missing (root)")
    options = parser.parse_args()
    try:
        if options.install_packages and os.geteuid() == 0:
            ensure_packages(PACKAGES, install=True, purpose="a cluster")
        require_cluster()
        locate(*_CONTROL_PLANE, *_BUILT)
    except (ClusterUnavailable, PackagesMissing) as error:
        print(error, file=sys.stderr)
        return PREREQUISITE_MISSING
    except BinaryUnavailable as error:
        print(error, file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
