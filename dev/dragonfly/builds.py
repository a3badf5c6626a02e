"""Dragonfly's programs: manager and scheduler from Go modules, dfdaemon and dfget from their Rust crate.

All are built into the cache of ``dev.binaries``, keyed by version and by the content of what pins them
(``dev/tools/dragonfly``). The crate takes 26 CPU minutes, so an interrupted build is continued, not begun again.

``python -m dev.dragonfly.builds`` prepares everything, the databases' Debian packages included, and prints where it is.
"""

import argparse
import hashlib
import os
import shutil
import subprocess
import sys
import time
import tomllib
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from dev.binaries import (
    TOOLS,
    Binary,
    BinaryUnavailable,
    Tool,
    _from_cache,
    _locked,
    _target,
    cache_directory,
    parse_version,
)
from dev.dragonfly.packages import BUILD, DATABASES, PackagesMissing, ensure_packages

DIRECTORY = TOOLS / "dragonfly"
SERVERS = tuple(
    Tool(name, "dragonfly", f"d7y.io/dragonfly/v2/cmd/{name}", usual_build)
    for name, usual_build in (("manager", "90 seconds"), ("scheduler", "10 seconds"))
)
CLIENTS = ("dfdaemon", "dfget")
USUAL_CLIENT_BUILD = "25 minutes on two cores"
PREREQUISITE_MISSING = 3
"""Exit code when this machine lacks what a build or a run needs, as opposed to a build that failed."""
RUST = (1, 88)
INSTALL_RUST = "install Rust 1.88 or newer with its cargo"

# The crate's release profile takes much longer and buys nothing here: 64 MiB through a daemon take half a second with
# this one. Unoptimized is no way either: hashing then costs more than the network.
PROFILE = {
    "CARGO_INCREMENTAL": "0",
    "CARGO_PROFILE_DEV_DEBUG": "0",
    "CARGO_PROFILE_DEV_OPT_LEVEL": "1",
    "RUSTFLAGS": "--cfg tokio_unstable",
}


class RustMissing(BinaryUnavailable):
    """There is no cargo that can build the crate. The message says what to install."""


@dataclass(frozen=True, slots=True)
class Crate:
    """The Rust package that has the client programs."""

    name: str
    version: str
    sha256: str
    """Of the archive. The Cargo.lock inside pins everything else."""


@dataclass(frozen=True, slots=True)
class Programs:
    manager: Path
    scheduler: Path
    dfdaemon: Path
    dfget: Path


def locate() -> Programs:
    """Paths of all four programs, building what is missing. Raises BinaryUnavailable or PackagesMissing."""
    found = prepare()
    return Programs(**{name: binary.path for name, binary in found.items()})


def prepare() -> dict[str, Binary]:
    """Like ``locate``, with where each program came from and how long that took."""
    return {**{tool.name: _from_cache(tool) for tool in SERVERS}, **_clients()}


def pinned_crate(path: Path = DIRECTORY / "client.toml") -> Crate:
    pin = tomllib.loads(path.read_text())
    return Crate(pin["crate"], pin["version"], pin["sha256"])


def cache_key(crate: Crate) -> str:
    """Changes with everything of ours that decides what comes out of a build."""
    content = repr((crate, sorted(PROFILE.items())))
    goos, goarch = _target()
    return f"{crate.name}-{crate.version}-{goos}-{goarch}-{hashlib.sha256(content.encode()).hexdigest()[:12]}"


def _clients() -> dict[str, Binary]:
    crate = pinned_crate()
    directory = cache_directory() / "bin" / cache_key(crate)
    if directory.exists():
        return {name: Binary(directory / name, "cache") for name in CLIENTS}
    directory.parent.mkdir(parents=True, exist_ok=True)
    # A lock of its own: half an hour is too long for those who wait for another program.
    with _locked(cache_directory() / "bin" / "build-dragonfly-client.lock"):
        started = time.monotonic()
        built = not directory.exists()
        if built:
            _build(crate, directory)
        seconds = time.monotonic() - started if built else 0.0
    return {name: Binary(directory / name, "built" if built else "cache", seconds) for name in CLIENTS}


def _build(crate: Crate, directory: Path) -> None:
    """Build the client programs and let ``directory`` appear with all of them inside."""
    cargo = _cargo()
    ensure_packages(BUILD)
    work = cache_directory() / "build" / directory.name
    root = work / "root"
    work.mkdir(parents=True, exist_ok=True)
    print(
        f"building {crate.name} {crate.version} into {directory}, usually {USUAL_CLIENT_BUILD}; progress: {work}/log",
        file=sys.stderr,
        flush=True,
    )
    command = [cargo, "install", crate.name, "--version", f"={crate.version}", "--locked", "--profile", "dev"]
    command += [argument for name in CLIENTS for argument in ("--bin", name)]
    command += ["--root", str(root), "--no-track", "--force"]
    environment = {**os.environ, **PROFILE, "CARGO_TARGET_DIR": str(work / "target")}
    with (work / "log").open("wb") as log:
        # In the work directory, so that no cargo configuration of the clone or above it has a say.
        result = subprocess.run(command, cwd=work, env=environment, stdout=log, stderr=log, stdin=subprocess.DEVNULL)
    if result.returncode:
        end = "\n".join((work / "log").read_text(errors="replace").strip().splitlines()[-20:])
        raise BinaryUnavailable(f"building {crate.name} {crate.version} failed:\n{end}")
    _verify(crate, _archives(crate))
    (root / "bin").rename(directory)
    shutil.rmtree(work, ignore_errors=True)


def _cargo() -> str:
    cannot = f"cannot build {' and '.join(CLIENTS)}"
    cargo = shutil.which("cargo")
    if cargo is None:
        raise RustMissing(f"{cannot}: there is no 'cargo' on PATH; {INSTALL_RUST}")
    told = subprocess.run([cargo, "--version"], capture_output=True, text=True)
    version = parse_version(told.stdout)
    if version is None or version < RUST:
        raise RustMissing(f"{cannot}: {cargo} says {(told.stdout or told.stderr).strip()!r}; {INSTALL_RUST}")
    return cargo


def _archives(crate: Crate) -> list[Path]:
    """What cargo downloaded. It has compared it with its registry's checksum, but that is not in our repository."""
    home = Path(os.environ.get("CARGO_HOME") or Path.home() / ".cargo")
    return list(home.glob(f"registry/cache/*/{crate.name}-{crate.version}.crate"))


def _verify(crate: Crate, archives: Iterable[Path]) -> None:
    for archive in archives:
        digest = hashlib.sha256(archive.read_bytes()).hexdigest()
        if digest != crate.sha256:
            raise BinaryUnavailable(f"{archive} has the checksum {digest} instead of {crate.sha256}")


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m dev.dragonfly.builds", description="Prepare the real Dragonfly.")
    parser.add_argument(
        "--install-packages", action="store_true", help="let apt-get install the missing Debian packages (needs root)"
    )
    options = parser.parse_args()
    try:
        # First, because it takes seconds and what is built after it takes half an hour.
        ensure_packages(DATABASES, install=options.install_packages)
        if options.install_packages and not (cache_directory() / "bin" / cache_key(pinned_crate())).exists():
            ensure_packages(BUILD, install=True)
        found = prepare()
    except (PackagesMissing, RustMissing) as error:
        print(error, file=sys.stderr)
        return PREREQUISITE_MISSING
    except BinaryUnavailable as error:
        print(error, file=sys.stderr)
        return 1
    for name, binary in found.items():
        print(f"{name:<24} {binary.source:<19} {binary.seconds:6.1f} s  {binary.path}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
