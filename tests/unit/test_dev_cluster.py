"""What the test cluster decides before it starts anything: routes, files, control groups, images, what is abandoned."""

import gzip
import io
import json
import os
import tarfile
import tomllib
from pathlib import Path

import pytest
import yaml

from dev.binaries import TOOLS, TOOLS_BY_NAME
from dev.cluster import cgroups, state
from dev.cluster.addresses import CONTROL, ORIGIN, machines, node_name, pod_range, routes
from dev.cluster.archive import program_image
from dev.cluster.configuration import NodeFacts, node_files
from dev.cluster.programs import ClusterUnavailable, file_system_of, require_cluster
from dev.netns_commands import start_time, start_times

FACTS = NodeFacts(
    name="node-1",
    address="198.18.0.13",
    pods="10.80.1.0/24",
    dns="198.18.0.11",
    cgroup="group",
    runc=Path("/usr/sbin/runc"),
    cni=Path("/usr/lib/cni"),
    registries=("198.18.0.11:5000",),
)
GONE = "modelswarm-1-1-1-node-node-1"


def test_every_machine_has_a_way_to_the_pods_of_every_other_node() -> None:
    added = list(routes(3, lambda machine: f"<{machine}>"))
    for number in (1, 2, 3):
        node = node_name(number)
        knows = {machine for machine, route in added if route == ("add", pod_range(number), "via", f"<{node}>")}
        assert knows == set(machines(3)) - {node}
        assert (node, ("add", "default", "via", f"<{CONTROL}>")) in added
    assert not [route for machine, route in added if machine == ORIGIN and "default" in route]
    assert [machine for machine, route in added if route[0] == "replace"] == [CONTROL]


def test_the_files_of_a_node_say_what_the_node_is() -> None:
    files = node_files(FACTS)
    containerd = tomllib.loads(files["config.toml"])
    assert containerd["plugins"]["io.containerd.grpc.v1.cri"]["containerd"]["runtimes"]["runc"]["options"] == {
        "BinaryName": "/usr/sbin/runc",
        "SystemdCgroup": False,
    }
    network = json.loads(files["cni/10-pods.conflist"])
    assert network["plugins"][0]["ipam"]["ranges"] == [[{"subnet": "10.80.1.0/24"}]]
    kubelet = yaml.safe_load(files["kubelet.yaml"])
    assert (kubelet["clusterDNS"], kubelet["cgroupRoot"]) == (["198.18.0.11"], "/group")
    assert yaml.safe_load(files["kube-proxy.yaml"])["hostnameOverride"] == "node-1"
    hosts = tomllib.loads(files["certs.d/198.18.0.11:5000/hosts.toml"])
    assert hosts["host"]["http://198.18.0.11:5000"]["capabilities"] == ["pull", "resolve"]


@pytest.fixture
def version_1(tmp_path: Path) -> Path:
    """Two trees of version 1, and what is no tree."""
    for tree in ("cpuset", "memory"):
        (tmp_path / tree).mkdir()
        (tmp_path / tree / "cgroup.procs").touch()
    (tmp_path / "cpuset" / "cpuset.cpus").write_text("0-1\n")
    (tmp_path / "other").mkdir()
    return tmp_path


def test_a_control_group_is_in_every_tree_and_goes_with_what_is_below(version_1: Path) -> None:
    cgroups.create("mine", version_1)
    assert [tree.name for tree in cgroups.trees(version_1) if (tree / "mine").is_dir()] == ["cpuset", "memory"]
    (version_1 / "memory" / "mine" / "pods" / "one").mkdir(parents=True)
    cgroups.remove("mine", version_1)
    assert not [tree for tree in cgroups.trees(version_1) if (tree / "mine").exists()]


def test_only_groups_whose_process_is_gone_are_abandoned(version_1: Path) -> None:
    started = start_time()
    assert started is not None
    mine = f"modelswarm-{os.getpid()}-{started}-1-node-node-1"
    for name in (GONE, mine, "docker"):
        cgroups.create(name, version_1)
    cgroups.remove_abandoned({os.getpid(): started}, version_1)
    assert {path.name for path in (version_1 / "memory").iterdir() if path.is_dir()} == {mine, "docker"}


def test_the_directory_of_a_run_is_kept_while_the_run_lasts(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MODELSWARM_CACHE", str(tmp_path))
    mine = state.new_directory(os.getpid(), 1)
    for name in ("1-1-1", "somebody-elses"):
        (tmp_path / "clusters" / name).mkdir()
    state.remove_abandoned_directories(start_times())
    assert {path.name for path in (tmp_path / "clusters").iterdir()} == {mine.name, "somebody-elses"}


def test_the_image_of_a_program_is_whole_and_always_the_same(tmp_path: Path) -> None:
    program = tmp_path / "program"
    program.write_bytes(b"#!" + bytes(1000))
    archives = [program_image(tmp_path / f"{n}.tar", program, ["/program"], "localhost/p:1", "amd64") for n in (1, 2)]
    assert archives[0].read_bytes() == archives[1].read_bytes()
    assert _files(archives[0]) == [("program", 0o755)]


def test_a_program_can_lie_where_another_one_would(tmp_path: Path) -> None:
    program = tmp_path / "program"
    program.write_bytes(b"#!")
    place = "usr/bin/engine"
    archive = program_image(tmp_path / "1.tar", program, [f"/{place}"], "localhost/p:1", "amd64", place=place)
    assert _files(archive) == [(place, 0o755)]


def _files(image: Path) -> list[tuple[str, int]]:
    """Names and modes of what is in the only layer of an archive."""
    with tarfile.open(image) as archive:

        def blob(digest: str) -> bytes:
            stream = archive.extractfile(f"blobs/{digest.replace(':', '/')}")
            assert stream is not None
            return stream.read()

        index = archive.extractfile("index.json")
        assert index is not None
        [entry] = json.load(index)["manifests"]
        assert entry["annotations"] == {"io.containerd.image.name": "localhost/p:1"}
        manifest = json.loads(blob(entry["digest"]))
        layer = gzip.decompress(blob(manifest["layers"][0]["digest"]))
        with tarfile.open(fileobj=io.BytesIO(layer)) as files:
            return [(file.name, file.mode) for file in files]


def test_what_kind_of_file_system_a_path_will_be_on_is_known() -> None:
    assert file_system_of(Path("/proc/self/nowhere/file")) == "proc"


def test_who_is_not_root_is_told_so_in_one_line(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("os.geteuid", lambda: 1000)
    with pytest.raises(ClusterUnavailable, match="root") as caught:
        require_cluster()
    assert "\n" not in str(caught.value)


def test_a_kubelet_is_of_its_api_servers_version() -> None:
    """A newer one is not supported, and an older one only for a while."""
    assert TOOLS_BY_NAME["kubelet"].module == TOOLS_BY_NAME["kube-apiserver"].module
    assert "k8s.io/kubernetes/cmd/kubelet" in (TOOLS / "kubernetes" / "tools.go").read_text()
