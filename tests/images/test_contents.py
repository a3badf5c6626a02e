"""What is in the images, and what is not."""

import os
import stat
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from dev.binaries import cache_directory
from dev.images.targets import TARGETS, UID
from dev.installation import ROOT
from modelswarm import __version__
from tests.images.conftest import Containers, Images

PACKAGES = Path("opt/modelswarm/lib/python3.11/site-packages")
LABEL = "org.opencontainers.image."
MIB = 1 << 20

each_image = pytest.mark.parametrize("target", TARGETS)


def files(root: Path) -> Iterator[Path]:
    for directory, _, names in os.walk(root):
        yield from (Path(directory) / name for name in names)


@each_image
def test_configuration(target: str, image: Images, container: Containers) -> None:
    config = container(target).config
    assert config.User == f"{UID}:{UID}"
    assert config.Entrypoint == (["modelswarm", "load"] if target.startswith("loader") else ["modelswarm"])
    assert config.Cmd == []
    assert {entry.split("=")[0] for entry in config.Env} == {
        "PATH",
        "PYTHONDONTWRITEBYTECODE",
        "PYTHONUNBUFFERED",
        "PYTHONUTF8",
    }
    assert config.Labels[LABEL + "title"].startswith(f"modelswarm {target.split('-')[0]}")
    assert config.Labels[LABEL + "version"] == __version__
    assert config.Labels[LABEL + "licenses"] == "Apache-2.0"
    assert config.Labels[LABEL + "description"]
    assert len(config.Labels[LABEL + "revision"].removesuffix("-dirty")) in (len("unknown"), 40)
    assert image(target).contents.name == f"modelswarm/{target}:v{__version__}"


def test_all_images_share_their_lowest_layer(image: Images) -> None:
    assert len({image(target).contents.layers[0] for target in TARGETS[:3]}) == 1


@each_image
def test_it_is_small(target: str, image: Images) -> None:
    """To notice what comes in by accident, with some room for new versions of packages."""
    limit = {"operator": 75, "agent": 75, "loader": 45, "loader-dragonfly": 70}
    assert image(target).contents.size < limit[target] * MIB


@pytest.mark.parametrize("target", ["loader", "loader-dragonfly"])
def test_loaders_have_no_kubernetes_client_and_no_torrents(target: str, container: Containers) -> None:
    found = {path.name for path in (container(target).root / PACKAGES).iterdir()}
    assert {"httpx", "modelswarm", "obstore"} <= found
    assert not found & {"aiohttp", "kopf", "kubernetes_asyncio", "libtorrent", "prometheus_client", "yaml"}
    assert ("grpc" in found) == (target == "loader-dragonfly")


@each_image
def test_there_is_nothing_to_install_or_compile_with(target: str, container: Containers) -> None:
    root = container(target).root
    programs = {path.name for place in ("usr/bin", "usr/sbin", "usr/local/bin") for path in (root / place).glob("*")}
    assert not programs & {"apt", "apt-get", "bash", "busybox", "cc", "dpkg", "perl", "pip", "pip3"} - (
        {"busybox"} if target == "agent" else set()
    )
    assert ("sh" in programs) == (target == "agent")
    packages = {path.name.split("-")[0] for path in (root / PACKAGES).iterdir()}
    assert not packages & {"pip", "setuptools", "wheel", "pkg_resources", "pytest"}
    assert {path.name for path in (root / "opt/modelswarm/bin").iterdir()} == {"modelswarm", "python", "python3"}


@each_image
def test_files_belong_to_root_and_nobody_else_can_write_them(target: str, container: Containers) -> None:
    root = container(target).root
    wrong = []
    for directory, folders, names in os.walk(root):
        for name in (*folders, *names):
            path = Path(directory) / name
            status = path.lstat()
            open_to_all = not stat.S_ISLNK(status.st_mode) and status.st_mode & 0o6022 and path != root / "tmp"
            if status.st_uid or status.st_gid or open_to_all:
                wrong.append((str(path), oct(status.st_mode), status.st_uid))
    assert wrong == []


@each_image
def test_nothing_tells_of_the_machine_that_built_it(target: str, container: Containers) -> None:
    """No path of the clone or the cache, and no secret that a build might have seen."""
    secrets = {value for name, value in os.environ.items() if name.endswith(("TOKEN", "PASSWORD", "SECRET")) and value}
    places = {str(ROOT), str(cache_directory()), str(Path.home() / ".cache"), sys.base_prefix}
    needles = [trace.encode() for trace in places | secrets]
    root = container(target).root
    # A Rust program names the sources that it was built from. Those who build images take dfget from Dragonfly's.
    kept = [path for path in files(root) if path.is_file() and path.name != "dfget"]
    assert [str(path) for path in kept if any(needle in path.read_bytes() for needle in needles)] == []
    names = {path.name for path in files(root)}
    assert not names & {".git", ".netrc", ".pypirc", "pip.conf", "id_rsa", "credentials", "kubeconfig"}
    assert not [name for name in names if name.endswith((".key", ".p12"))]


@each_image
def test_what_debian_knows_of_the_files_is_kept_for_scanners(target: str, container: Containers) -> None:
    root = container(target).root
    records = {path.name: path.read_text() for path in (root / "var/lib/dpkg/status.d").iterdir()}
    assert {"ca-certificates", "libc6", "libssl3", "libstdc++6"} <= set(records)
    assert ("busybox" in records) == ("netcat-openbsd" in records) == (target == "agent")
    for package, record in records.items():
        assert f"Package: {package}\n" in record
        assert "\nVersion: " in record
        assert (root / "usr/share/doc" / package / "copyright").stat().st_size > 0
