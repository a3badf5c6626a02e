"""What has to come from the distribution: the two databases, and the compilers that the client's crate calls.

Programs are looked for, not packages: whoever has them from elsewhere needs no Debian.
"""

import glob
import os
import shutil
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import dataclass

INSTALL_TIMEOUT = 600
# Debian keeps servers outside an ordinary user's PATH.
SEARCH_PATH = os.pathsep.join((os.environ.get("PATH", os.defpath), "/usr/local/sbin", "/usr/sbin", "/sbin"))


class PackagesMissing(RuntimeError):
    """Something of the distribution is not installed. The message is the command that installs it."""


@dataclass(frozen=True, slots=True)
class Package:
    """A Debian package and how to see that what it has is there."""

    name: str
    programs: tuple[str, ...] = ()
    patterns: tuple[str, ...] = ()
    """Alternatives; any file that matches any of them will do."""

    @property
    def present(self) -> bool:
        programs = all(program_path(program) for program in self.programs)
        return programs and (not self.patterns or any(glob.glob(pattern) for pattern in self.patterns))


DATABASES = (
    Package("mariadb-server", ("mariadbd", "mariadb-install-db")),
    Package("redis-server", ("redis-server",)),
)
BUILD = (
    Package("build-essential", ("cc", "c++", "make")),
    Package("cmake", ("cmake",)),
    Package("pkg-config", ("pkg-config",)),
    Package("protobuf-compiler", ("protoc",)),
    # The headers of protoc's own types are in a package of their own.
    Package(
        "libprotobuf-dev", patterns=("/usr/include/google/protobuf/any.proto", "/usr/local/include/google/protobuf")
    ),
    Package("clang", ("clang",)),
    Package(
        "libclang-dev",
        patterns=("/usr/lib/llvm-*/lib/libclang*.so*", "/usr/lib*/libclang*.so*", "/usr/lib/*/libclang*.so*"),
    ),
)


def program_path(name: str) -> str | None:
    return shutil.which(name, path=SEARCH_PATH)


def ensure_packages(
    packages: Sequence[Package] = DATABASES, *, install: bool = False, purpose: str = "the real Dragonfly"
) -> None:
    """Return when everything is there. With ``install``, and as root, apt-get is asked for what is not.

    Raises PackagesMissing with the command to run.
    """
    missing = [package.name for package in packages if not package.present]
    if not missing:
        return
    names = " ".join(missing)
    apt = shutil.which("apt-get")
    if not install or apt is None or os.geteuid() != 0:
        raise PackagesMissing(f"{purpose} needs more programs: apt-get install --no-install-recommends {names}")
    print(f"installing {names}", file=sys.stderr, flush=True)
    # Unattended: no questions, and no database server of the distribution's own is started on this machine.
    environment = {**os.environ, "DEBIAN_FRONTEND": "noninteractive", "RUNLEVEL": "1"}
    for arguments in (["update"], ["install", "--yes", "--no-install-recommends", *missing]):
        result = subprocess.run(
            [apt, "--quiet", *arguments],
            env=environment,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=INSTALL_TIMEOUT,
        )
        if result.returncode:
            end = "\n".join((result.stdout + result.stderr).strip().splitlines()[-5:])
            raise PackagesMissing(f"apt-get {arguments[0]} failed, needed are {names}:\n{end}")
    if absent := [package.name for package in packages if not package.present]:
        raise PackagesMissing(f"apt-get installed {names}, but what {' '.join(absent)} should have is not there")
