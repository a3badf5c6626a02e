"""What is in the images runs as in a pod: another user than root, a root that nobody can write, no capabilities."""

import json
from pathlib import Path

import pytest

from dev.hub import Hub, HubThread, Repository, make_model
from dev.images.targets import TARGETS
from modelswarm import __version__
from tests.images.conftest import Containers

COMMANDS = {"operator": ["operator"], "agent": ["agent"], "loader": [], "loader-dragonfly": []}
"""The arguments that the manifests give."""
PACKAGES = {
    "operator": ["api", "backends", "cli", "content", "controllers", "kube", "operator", "workload"],
    "agent": ["agent", "api", "cli", "content", "kube"],
    "loader": ["content", "loader"],
    "loader-dragonfly": ["content", "loader"],
}
NOT_HERE = {"agent": "modelswarm.kube.login", "loader": "modelswarm.loader.dfstream"}
"""Modules whose packages only another image has: kopf is the operator's, gRPC the loader's with dfget."""
IMPORT = """
import importlib, pkgutil, sys
not_here, *names = sys.argv[1:]
for name in names:
    package = importlib.import_module(name)
    for found in pkgutil.walk_packages(getattr(package, "__path__", []), name + "."):
        if not found.name.endswith("__main__") and found.name != not_here:
            importlib.import_module(found.name)
print("imported", len(sys.modules))
"""
NAME = "ome-peers.ome.svc.cluster.local"

each_image = pytest.mark.parametrize("target", TARGETS)


@each_image
def test_it_tells_its_version(target: str, container: Containers) -> None:
    ran = container(target).execute("modelswarm", "--version")
    assert (ran.code, ran.output) == (0, f"modelswarm {__version__}\n")


@each_image
def test_the_entrypoint_with_the_arguments_of_the_manifests_is_the_component(
    target: str, container: Containers
) -> None:
    ran = container(target).run(*COMMANDS[target], "--help")
    assert ran.code == 0
    assert f"usage: modelswarm {'load' if target.startswith('loader') else target}" in ran.output


@each_image
def test_every_module_of_the_component_finds_what_it_imports(target: str, container: Containers) -> None:
    names = [NOT_HERE.get(target, "-"), *(f"modelswarm.{package}" for package in PACKAGES[target])]
    ran = container(target).execute("python3", "-W", "error::ImportWarning", "-c", IMPORT, *names)
    assert ran.code == 0, ran.output
    assert ran.output.startswith("imported ")


@each_image
def test_nobody_can_write_anywhere_but_in_tmp(target: str, container: Containers) -> None:
    attempt = """
import errno, sys
open("/tmp/x", "w")
try:
    open(sys.argv[1], "w")
except OSError as error:
    print(errno.errorcode[error.errno])
"""
    for place in ("/x", "/opt/modelswarm/x", "/workspace/x"):
        assert container(target).execute("python3", "-c", attempt, place, uid=0).output == "EROFS\n"


@each_image
def test_certificates_of_authorities_are_found(target: str, container: Containers) -> None:
    code = "import ssl; print(len(ssl.create_default_context().get_ca_certs()))"
    ran = container(target).execute("python3", "-c", code)
    assert ran.code == 0
    assert int(ran.output) > 100


@pytest.mark.parametrize("target", ["loader", "loader-dragonfly"])
def test_the_loader_loads_a_model(target: str, container: Containers, tmp_path: Path) -> None:
    """As in a pod: the volume of an emptyDir is anybody's to write."""
    volume = tmp_path / "volume"
    volume.mkdir()
    volume.chmod(0o777)
    folder = make_model(tmp_path / "model", shards=2, shard_bytes=1 << 20)
    with HubThread(Hub(Repository.from_folder(folder, id="org/model"))) as running:
        environment = {"MODEL_SOURCE_TYPE": "modelhub", "MODEL_ID": "org/model", "HF_ENDPOINT": running.url}
        ran = container(target).run(volume=(volume, "/workspace"), environment=environment)
    assert ran.code == 0, ran.output
    loaded = volume / "models" / "models--org--model"
    assert {path.name: path.read_bytes() for path in loaded.iterdir()} == {
        path.name: path.read_bytes() for path in folder.iterdir()
    }


def test_dfget_runs(container: Containers) -> None:
    ran = container("loader-dragonfly").execute("dfget", "--version")
    assert ran.code == 0, ran.output
    assert ran.output.startswith("dfget ")


def test_the_agent_is_root_without_any_capability_in_its_pods(container: Containers) -> None:
    """libtorrent too opens its session then."""
    code = """
import libtorrent, os
session = libtorrent.session()
lines = dict(line.split(":", 1) for line in open("/proc/self/status"))
print(os.getuid(), lines["CapEff"].strip(), lines["CapBnd"].strip())
"""
    ran = container("agent").execute("python3", "-c", code, uid=0)
    assert ran.output == f"0 {'0' * 16} {'0' * 16}\n"


@pytest.mark.parametrize(
    ("command", "expected"),
    [
        pytest.param(["nslookup", NAME], "10.9.8.7", id="nslookup finds the agents' Service"),
        pytest.param(["nc", "-zv", "127.0.0.1", "6881"], "succeeded", id="nc finds a peer's port open"),
        pytest.param(["sh", "-c", "ps | grep sh"], "sh -c", id="ps and grep"),
    ],
)
def test_the_agent_has_what_one_looks_around_with(command: list[str], expected: str, container: Containers) -> None:
    resolver = container("agent").root / "etc" / "resolv.conf"
    resolver.write_text("nameserver 127.0.0.1\n")
    try:
        ran = container("agent").execute(*command, uid=0, serve=NAME)
    finally:
        resolver.unlink()
    assert ran.code == 0, ran.output
    assert expected in ran.output


def test_a_closed_port_and_an_unknown_name_are_told(container: Containers) -> None:
    agent = container("agent")
    assert agent.execute("nc", "-zv", "127.0.0.1", "6882", uid=0).code != 0
    assert agent.execute("nslookup", "other.ome.svc.cluster.local", "127.0.0.1", uid=0, serve=NAME).code != 0


def test_names_are_resolved_by_the_c_library(container: Containers) -> None:
    """Which needs more of a system than Python itself: pods have their name server in /etc/resolv.conf."""
    operator = container("operator")
    resolver, hosts = operator.root / "etc" / "resolv.conf", operator.root / "etc" / "hosts"
    resolver.write_text("nameserver 127.0.0.1\n")
    hosts.write_text("127.0.0.1 localhost\n")
    code = f"import json, socket; print(json.dumps([socket.gethostbyname(n) for n in ({NAME!r}, 'localhost')]))"
    try:
        ran = operator.execute("python3", "-c", code, serve=NAME)
    finally:
        resolver.unlink()
        hosts.unlink()
    assert json.loads(ran.output) == ["10.9.8.7", "127.0.0.1"]
