"""Where the test programs come from: the order of the places, and what is good enough."""

import subprocess
from pathlib import Path

import pytest

from dev import binaries
from dev.binaries import BinaryUnavailable, locate, parse_version, pinned_version, prepare
from dev.installation import ROOT


@pytest.fixture
def on_path(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The only directory on PATH, empty; no other place has any program."""
    directory = tmp_path / "path"
    directory.mkdir()
    monkeypatch.setenv("PATH", str(directory))
    monkeypatch.delenv("KUBEBUILDER_ASSETS", raising=False)
    monkeypatch.setenv("MODELSWARM_CACHE", str(tmp_path / "cache"))
    return directory


def put_program(directory: Path, name: str, output: str = "") -> Path:
    directory.mkdir(exist_ok=True)
    program = directory / name
    program.write_text(f"#!/bin/sh\necho '{output}'\n")
    program.chmod(0o755)
    return program


def put_cached(tmp_path: Path, name: str) -> Path:
    tool = binaries.TOOLS_BY_NAME[name]
    goos, goarch = binaries._target()
    key = f"{name}-{pinned_version(tool.module)}-{goos}-{goarch}-{binaries._sources_digest(tool.module)}"
    (tmp_path / "cache" / "bin").mkdir(parents=True, exist_ok=True)
    return put_program(tmp_path / "cache" / "bin" / key, name)


@pytest.mark.parametrize(
    ("output", "version"),
    [
        pytest.param("Kubernetes v1.36.3", (1, 36), id="kube-apiserver"),
        pytest.param("Client Version: v1.32.4-vendor\nKustomize Version: v5.5.0", (1, 32), id="kubectl of a vendor"),
        pytest.param("etcd Version: 3.6.7\nGit SHA: abc\nGo Version: go1.26.8", (3, 6), id="etcd"),
        pytest.param("registry github.com/distribution/distribution/v3 v3.1.2+unknown", (3, 1), id="registry"),
        pytest.param("no idea", None, id="no version at all"),
    ],
)
def test_version_is_read_from_what_a_program_prints(output: str, version: tuple[int, int] | None) -> None:
    assert parse_version(output) == version


@pytest.mark.parametrize("module", ["kubernetes", "etcd", "registry", "helm"])
def test_every_module_pins_a_version(module: str) -> None:
    assert parse_version(pinned_version(module)) is not None


def test_assets_directory_comes_before_path(on_path: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    put_program(on_path, "etcd", "etcd Version: 3.6.7")
    wanted = put_program(tmp_path / "assets", "etcd")
    monkeypatch.setenv("KUBEBUILDER_ASSETS", str(tmp_path / "assets"))
    assert locate("etcd") == {"etcd": wanted}


def test_new_enough_program_on_path_is_used(on_path: Path) -> None:
    wanted = put_program(on_path, "kubectl", "Client Version: v1.31.0")
    assert locate("kubectl") == {"kubectl": wanted}


def test_too_old_program_on_path_is_passed_over_for_the_cache(on_path: Path, tmp_path: Path) -> None:
    put_program(on_path, "kubectl", "Client Version: v1.30.9")
    cached = put_cached(tmp_path, "kubectl")
    assert locate("kubectl") == {"kubectl": cached}


def test_other_program_of_the_same_name_is_never_taken_from_path(on_path: Path, tmp_path: Path) -> None:
    put_program(on_path, "htpasswd", "2.4.66")
    cached = put_cached(tmp_path, "htpasswd")
    assert locate("htpasswd") == {"htpasswd": cached}


def test_server_components_come_all_from_the_same_place(on_path: Path, tmp_path: Path) -> None:
    put_program(on_path, "kube-apiserver", "Kubernetes v1.33.0")
    assert prepare("kube-apiserver")["kube-apiserver"].source == "PATH"
    cached = {name: put_cached(tmp_path, name) for name in ("kube-apiserver", "kube-controller-manager")}
    assert locate("kube-apiserver", "kube-controller-manager") == cached


@pytest.mark.usefixtures("on_path")
def test_missing_go_is_named() -> None:
    with pytest.raises(BinaryUnavailable, match=r"cannot build etcd: there is no 'go' on PATH; install Go 1\.26"):
        locate("etcd")


def test_too_old_go_is_named_with_its_own_words(on_path: Path) -> None:
    go = put_program(on_path, "go")
    go.write_text("#!/bin/sh\necho 'go: go.mod requires go >= 1.26.0 (running go 1.24.1)' >&2\nexit 1\n")
    with pytest.raises(BinaryUnavailable, match=r"requires go >= 1\.26\.0 \(running go 1\.24\.1\); install Go 1\.26"):
        locate("etcd")


def test_built_program_is_put_into_the_cache_whole(on_path: Path) -> None:
    go = put_program(on_path, "go")
    go.write_text('#!/bin/sh\n[ "$1" = build ] || exit 0\nwhile [ "$1" != -o ]; do shift; done\necho built > "$2"\n')
    first, second = prepare("etcd")["etcd"], prepare("etcd")["etcd"]
    assert (first.source, second.source) == ("built", "cache")
    assert first.path.read_text() == "built\n"
    assert [entry.name for entry in first.path.parent.iterdir()] == ["etcd"]


def test_failed_build_leaves_no_program(on_path: Path) -> None:
    go = put_program(on_path, "go")
    go.write_text('#!/bin/sh\n[ "$1" = build ] || exit 0\necho "verifying module: checksum mismatch" >&2\nexit 1\n')
    with pytest.raises(BinaryUnavailable, match="checksum mismatch"):
        locate("etcd")
    assert not list((binaries.cache_directory() / "bin").glob("*/etcd"))


def test_rendering_the_chart_builds_no_program_but_those_it_asks_for() -> None:
    """It asks for helm. The rest takes eight minutes, of somebody who only wants a file to apply."""
    command = ["make", "--dry-run", "-C", str(ROOT), "manifests"]
    steps = subprocess.run(command, check=True, capture_output=True, text=True).stdout
    assert "dev.manifests" in steps
    assert "dev.binaries" not in steps
