"""The real programs that the integration tests run, found on this machine or built from pinned Go modules.

Each program is looked for in the directory ``KUBEBUILDER_ASSETS``, then on ``PATH`` if it is new enough there, then in
our cache; failing all three it is built into the cache. The versions are pinned in ``dev/tools/*/go.mod`` and the
content of every module in ``go.sum`` beside it, so a build anywhere gives the same program.

``python -m dev.binaries`` prepares everything and prints where it is.
"""

import fcntl
import hashlib
import os
import platform
import re
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

TOOLS = Path(__file__).parent / "tools"
INSTALL_GO = "install Go 1.26 or newer, or put the program on PATH or into KUBEBUILDER_ASSETS"


class BinaryUnavailable(RuntimeError):
    """A program is neither installed nor buildable here. The message says what to install, or shows what go said."""


@dataclass(frozen=True, slots=True)
class Tool:
    """One program, and how to recognise or build it."""

    name: str
    module: str
    """The directory below dev/tools whose go.mod pins it."""
    package: str
    usual_build: str
    """How long a first build takes on two cores; printed so that nobody takes the silence for a hang."""
    minimum: tuple[int, int] | None = None
    """The oldest version taken from PATH. None: never taken from there."""
    version_command: tuple[str, ...] = ("--version",)
    tags: str = ""
    """Go's build tags."""
    group: str = ""
    """Tools of one group come all from the same place. A controller manager must not be newer than its API server."""
    on_demand: bool = False
    """Built when somebody asks for it by name, and not with the rest: only the three-node cluster needs it."""


@dataclass(frozen=True, slots=True)
class Binary:
    path: Path
    source: str
    seconds: float = field(default=0.0)


_SERVER = "kubernetes server"
_KUBE = (1, 31)
TOOLS_BY_NAME = {
    tool.name: tool
    for tool in (
        Tool("etcd", "etcd", "go.etcd.io/etcd/server/v3", "1 minute", (3, 4)),
        Tool("kube-apiserver", "kubernetes", "k8s.io/kubernetes/cmd/kube-apiserver", "4 minutes", _KUBE, group=_SERVER),
        Tool(
            "kube-controller-manager",
            "kubernetes",
            "k8s.io/kubernetes/cmd/kube-controller-manager",
            "1 minute",
            _KUBE,
            group=_SERVER,
        ),
        Tool(
            "kube-scheduler", "kubernetes", "k8s.io/kubernetes/cmd/kube-scheduler", "10 seconds", _KUBE, group=_SERVER
        ),
        Tool("kubectl", "kubernetes", "k8s.io/kubernetes/cmd/kubectl", "20 seconds", _KUBE, ("version", "--client")),
        Tool("registry", "registry", "github.com/distribution/distribution/v3/cmd/registry", "1 minute", (3, 0)),
        Tool("helm", "helm", "helm.sh/helm/v4/cmd/helm", "2 minutes", (4, 0), ("version", "--short")),
        Tool("kubelet", "kubernetes", "k8s.io/kubernetes/cmd/kubelet", "2 minutes", on_demand=True),
        Tool("kube-proxy", "kubernetes", "k8s.io/kubernetes/cmd/kube-proxy", "1 minute", on_demand=True),
        Tool("coredns", "cluster", "./coredns", "3 minutes", on_demand=True),
        Tool("standin", "cluster", "./standin", "10 seconds", on_demand=True),
        # Without the ways to find targets, of which it needs none: 240 packages less, whole clouds' clients among them.
        Tool(
            "promtool",
            "prometheus",
            "github.com/prometheus/prometheus/cmd/promtool",
            "2 minutes",
            (3, 0),
            tags="remove_all_sd",
        ),
        Tool("promql", "prometheus", "./promql", "10 seconds"),
        # The program of this name on PATH is Apache's, with other arguments.
        Tool("htpasswd", "registry", "./htpasswd", "5 seconds"),
    )
}


def locate(*names: str) -> dict[str, Path]:
    """Paths of the named programs, building those that are missing. Raises BinaryUnavailable."""
    return {name: binary.path for name, binary in prepare(*names).items()}


def prepare(*names: str) -> dict[str, Binary]:
    """Like ``locate``, with where each program came from and how long that took."""
    tools = [TOOLS_BY_NAME[name] for name in names]
    installed = {tool.name: _installed(tool) for tool in tools}
    incomplete = {tool.group for tool in tools if tool.group and installed[tool.name] is None}
    found: dict[str, Binary] = {}
    for tool in tools:
        binary = None if tool.group in incomplete else installed[tool.name]
        found[tool.name] = binary or _from_cache(tool)
    return found


def _installed(tool: Tool) -> Binary | None:
    if assets := os.environ.get("KUBEBUILDER_ASSETS"):
        path = Path(assets) / tool.name
        if os.access(path, os.X_OK):
            return Binary(path.resolve(), "KUBEBUILDER_ASSETS")
    if tool.minimum is not None and (on_path := shutil.which(tool.name)):
        version = _version_of(on_path, tool.version_command)
        if version is not None and version >= tool.minimum:
            return Binary(Path(on_path).absolute(), "PATH")
    return None


def _version_of(path: str, arguments: tuple[str, ...]) -> tuple[int, int] | None:
    try:
        output = subprocess.run([path, *arguments], capture_output=True, text=True, timeout=30).stdout
    except (OSError, subprocess.TimeoutExpired):
        return None
    return parse_version(output)


def parse_version(output: str) -> tuple[int, int] | None:
    """Major and minor of the first MAJOR.MINOR.PATCH in what a program printed about itself."""
    match = re.search(r"(?<![\d.])v?(\d+)\.(\d+)\.\d+", output)
    return (int(match[1]), int(match[2])) if match else None


def cache_directory() -> Path:
    if own := os.environ.get("MODELSWARM_CACHE"):
        return Path(own).absolute()
    base = os.environ.get("XDG_CACHE_HOME")
    return (Path(base) if base else Path.home() / ".cache") / "modelswarm"


def _from_cache(tool: Tool) -> Binary:
    version = pinned_version(tool.module)
    goos, goarch = _target()
    key = f"{tool.name}-{version}-{goos}-{goarch}-{_sources_digest(tool.module)}"
    binary = cache_directory() / "bin" / key / tool.name
    if binary.exists():
        return Binary(binary, "cache")
    binary.parent.mkdir(parents=True, exist_ok=True)
    # One lock for all builds: two at once would only fight for the cores and for the memory of the linker.
    with _locked(cache_directory() / "bin" / "build.lock"):
        if binary.exists():
            return Binary(binary, "cache")
        started = time.monotonic()
        _build(tool, version, goos, goarch, binary)
        return Binary(binary, "built", time.monotonic() - started)


def pinned_version(module: str) -> str:
    """The version of the first module that dev/tools/MODULE/go.mod requires, which is the one it is there for."""
    match = re.search(r"^(?:require)?\s+\S+/\S+ (v\S+)$", (TOOLS / module / "go.mod").read_text(), re.MULTILINE)
    if match is None:
        raise BinaryUnavailable(f"{TOOLS / module / 'go.mod'} requires no module")
    return match[1]


def _sources_digest(module: str) -> str:
    """Changes whenever anything changes that a build of this module depends on."""
    digest = hashlib.sha256()
    files = [*(TOOLS / module).glob("go.*"), *(TOOLS / module).rglob("*.go")]
    for path in sorted(files):
        digest.update(path.relative_to(TOOLS).as_posix().encode() + b"\0" + path.read_bytes() + b"\0")
    return digest.hexdigest()[:12]


def _target() -> tuple[str, str]:
    machine = platform.machine().lower()
    return platform.system().lower(), {"x86_64": "amd64", "aarch64": "arm64"}.get(machine, machine)


def _build(tool: Tool, version: str, goos: str, goarch: str, binary: Path) -> None:
    go = shutil.which("go")
    if go is None:
        raise BinaryUnavailable(f"cannot build {tool.name}: there is no 'go' on PATH; {INSTALL_GO}")
    directory = TOOLS / tool.module
    environment = {**os.environ, "CGO_ENABLED": "0", "GOWORK": "off", "GOOS": goos, "GOARCH": goarch}
    check = subprocess.run([go, "list", "-m"], cwd=directory, env=environment, capture_output=True, text=True)
    if check.returncode:
        reason = check.stderr.strip().splitlines()[-1]
        raise BinaryUnavailable(f"cannot build {tool.name}: {reason}; {INSTALL_GO}")
    print(
        f"building {tool.name} {version} into {binary.parent}, usually {tool.usual_build} the first time",
        file=sys.stderr,
        flush=True,
    )
    with tempfile.TemporaryDirectory(dir=binary.parent) as scratch:
        built = Path(scratch) / tool.name
        # -mod=readonly: a module whose content differs from go.sum, or that go.mod does not pin, is an error.
        arguments = ["-mod=readonly", "-trimpath", "-buildvcs=false", f"-ldflags={_linker_flags(tool, version)}"]
        if tool.tags:
            arguments.append(f"-tags={tool.tags}")
        command = [go, "build", *arguments, "-o", str(built), tool.package]
        result = subprocess.run(command, cwd=directory, env=environment, capture_output=True, text=True)
        if result.returncode:
            output = "\n".join(result.stderr.strip().splitlines()[-20:])
            raise BinaryUnavailable(f"building {tool.name} {version} failed:\n{output}")
        # The rename makes the program appear complete or not at all, also to processes that hold no lock.
        built.rename(binary)


def _linker_flags(tool: Tool, version: str) -> str:
    flags = "-s -w"
    if tool.module == "kubernetes":
        # Without these the API server calls itself v0.0.0-master: kubectl version fails then, and helm refuses every
        # chart that has a kubeVersion line.
        major, minor, _ = version.removeprefix("v").split(".", 2)
        package = "k8s.io/component-base/version"
        flags += f" -X {package}.gitVersion={version} -X {package}.gitMajor={major} -X {package}.gitMinor={minor}"
    if tool.module == "helm":
        # Otherwise it calls itself v4.0 whichever it is; the chart sees that as .Capabilities.HelmVersion.
        flags += f" -X helm.sh/helm/v4/internal/version.version={version}"
    return flags


@contextmanager
def _locked(path: Path) -> Iterator[None]:
    with path.open("a") as lock:
        # Released by close, and by the kernel if this process dies.
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            print(f"waiting for another process that builds programs ({path})", file=sys.stderr, flush=True)
            fcntl.flock(lock, fcntl.LOCK_EX)
        yield


def main() -> int:
    try:
        binaries = prepare(*(tool.name for tool in TOOLS_BY_NAME.values() if not tool.on_demand))
    except BinaryUnavailable as error:
        print(error, file=sys.stderr)
        return 1
    if "--quiet" in sys.argv[1:]:  # what had to be built was told while it was
        return 0
    for name, binary in binaries.items():
        print(f"{name:<24} {binary.source:<19} {binary.seconds:6.1f} s  {binary.path}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
