"""What decides about the images, without building one."""

import hashlib
import json
import re
import tarfile
from datetime import UTC, datetime
from pathlib import Path

import pytest

from dev.images import TARGETS
from dev.images.archive import Contents, config, pack, read
from dev.images.context import DFGET, FILES, FOLDERS, WHEELS, lay_out
from dev.images.inside.root import left_out
from dev.images.revision import public_address
from dev.images.wheelhouse import BUILD_TOOLS, platforms, requirements
from dev.installation import ROOT
from dev.oci_image import build_image
from modelswarm import __version__

DOCKERFILE = (ROOT / "Dockerfile").read_text()


def test_the_dockerfile_has_these_targets() -> None:
    stages = re.findall(r"^FROM runtime AS (\S+)$", DOCKERFILE, re.MULTILINE)
    assert tuple(stages) == TARGETS


def test_the_dockerfile_names_this_version_by_itself() -> None:
    assert re.findall(r"^ARG VERSION=(\S+)$", DOCKERFILE, re.MULTILINE) == [__version__]


def test_the_context_is_what_dockerignore_lets_in() -> None:
    lines = (ROOT / ".dockerignore").read_text().splitlines()
    allowed = {line[1:] for line in lines if line.startswith("!")}
    # Docker reads these two whether they are let in or not.
    assert allowed == ({*FILES, *FOLDERS, WHEELS, DFGET} - {"Dockerfile", ".dockerignore"})
    assert lines[1] == "*"


def test_all_packages_of_all_extras_are_wanted_but_those_for_developers() -> None:
    project = """
[project]
dependencies = ["httpx>=0.28"]
[project.optional-dependencies]
operator = ["kopf>=1", "obstore>=0.12"]
agent = ["libtorrent>=2", "obstore>=0.12"]
loader = ["obstore>=0.12"]
loader-gated = ["grpcio>=1"]
dev = ["pytest>=9"]
"""
    wanted = ["grpcio>=1", "httpx>=0.28", "kopf>=1", "libtorrent>=2", "obstore>=0.12", "pip", "setuptools"]
    assert requirements(project) == wanted


def test_what_builds_the_package_is_pinned_too() -> None:
    pinned = {line.split("==")[0] for line in (ROOT / "constraints.txt").read_text().split()}
    assert set(BUILD_TOOLS) <= pinned


def test_wheels_for_an_older_c_library_will_do() -> None:
    names = platforms("x86_64")
    assert names[0] == "manylinux_2_36_x86_64"
    assert {"manylinux_2_17_x86_64", "manylinux2014_x86_64", "linux_x86_64"} <= set(names)


@pytest.mark.parametrize(
    ("remote", "expected"),
    [
        pytest.param("https://git.test/team/swarm.git", "https://git.test/team/swarm", id="a public address"),
        pytest.param(
            "https://me:secret@git.test/team/swarm", "https://git.test/team/swarm", id="without user and token"
        ),
        pytest.param("git@git.test:team/swarm.git", "", id="an address of ssh is nobody else's business"),
        pytest.param("/srv/git/swarm", "", id="a path of a machine"),
        pytest.param("", "", id="no remote"),
    ],
)
def test_source_address(remote: str, expected: str) -> None:
    assert public_address(remote) == expected


@pytest.mark.parametrize(
    ("path", "expected"),
    [
        pytest.param("json/decoder.py", False, id="a module"),
        pytest.param("json/tests", True, id="a folder of tests"),
        pytest.param("test", True, id="the tests of Python"),
        pytest.param("lib-dynload/_ssl.cpython-311-x86_64-linux-gnu.so", False, id="a compiled module"),
        pytest.param("lib-dynload/_tkinter.cpython-311-x86_64-linux-gnu.so", True, id="a window system's"),
        pytest.param("config-3.11-x86_64-linux-gnu", True, id="what a compiler needs"),
        pytest.param("unittest/case.py", False, id="a name that begins like a pattern"),
    ],
)
def test_what_is_left_out_of_pythons_library(path: str, expected: bool) -> None:
    assert left_out(Path(path)) == expected


def test_a_context_has_no_compiled_files_and_everybodys_modes(tmp_path: Path) -> None:
    first, second = lay_out(ROOT, tmp_path / "one"), lay_out(ROOT, tmp_path / "two")
    assert first == second
    files = [path for path in (tmp_path / "one").rglob("*") if path.is_file()]
    assert {path.relative_to(tmp_path / "one").as_posix() for path in files} >= set(FILES)
    assert not [path for path in files if path.suffix == ".pyc"]
    assert {path.stat().st_mode & 0o7777 for path in files} == {0o644}
    (tmp_path / "one" / "LICENSE").write_text("another")
    with pytest.raises(FileNotFoundError):
        lay_out(tmp_path / "nothing", tmp_path / "three")


def test_archive(tmp_path: Path) -> None:
    """What is read from it is what was packed, under the name that containerd looks for."""
    image = build_image(["linux/amd64"], [1000, 2000], seed=1).platforms[0]
    layout = tmp_path / "layout"
    blobs = layout / "blobs" / "sha256"
    blobs.mkdir(parents=True)
    for blob in (image.manifest, image.config, *image.layers):
        (blobs / blob.digest.removeprefix("sha256:")).write_bytes(blob.content)
    (layout / "index.json").write_text(json.dumps({"schemaVersion": 2, "manifests": [image.manifest.descriptor()]}))
    for name in ("one.tar", "two.tar"):
        pack(layout, "modelswarm/agent:v1", tmp_path / name, created=datetime(2026, 1, 2, tzinfo=UTC))
    assert (tmp_path / "one.tar").read_bytes() == (tmp_path / "two.tar").read_bytes()
    found = read(tmp_path / "one.tar")
    with tarfile.open(tmp_path / "one.tar") as packed:
        contents = {member.name: packed.extractfile(member).read() for member in packed}  # type: ignore[union-attr]
    for name, content in contents.items():
        if name.startswith("blobs/"):
            assert hashlib.sha256(content).hexdigest() == name.rpartition("/")[2]
    (entry,) = json.loads(contents["index.json"])["manifests"]
    assert entry["annotations"] == {
        "io.containerd.image.name": "docker.io/modelswarm/agent:v1",
        "org.opencontainers.image.ref.name": "v1",
    }
    manifest = json.loads(contents["blobs/" + entry["digest"].replace(":", "/")])
    described = json.loads(contents["blobs/" + manifest["config"]["digest"].replace(":", "/")])
    assert described == json.loads(image.config.content) | {"created": "2026-01-02T00:00:00Z"}
    assert found == Contents(
        name="modelswarm/agent:v1",
        digest=entry["digest"],
        layers=tuple(layer.digest for layer in image.layers),
        size=manifest["config"]["size"] + sum(len(layer.content) for layer in image.layers),
        unpacked=found.unpacked,
    )
    assert config(tmp_path / "one.tar").Labels == {"seed": "1"}
