"""All Python packages that go into any image, as wheels in the cache, so that image builds need no network.

Versions are those of ``constraints.txt``. The wheels are for the images' Python, whichever this one is.

``python -m dev.images --wheels`` puts them into ``build/wheels``, for builds without a network by other tools.
"""

import hashlib
import platform
import shutil
import subprocess
import sys
import time
import tomllib
from pathlib import Path

from dev.binaries import cache_directory
from dev.images.context import WHEELS
from dev.installation import ROOT

PYTHON = "3.11"
GLIBC = 36
"""Minor version of the C library of Debian 12."""
EXTRAS = ("operator", "agent", "loader", "loader-gated")
# pip installs, and setuptools makes a wheel of our own package; neither is in an image at the end.
BUILD_TOOLS = ("pip", "setuptools")
RETRIES = 8
"""Pip's, with growing pauses: about a minute without the index is survived."""


class WheelsUnavailable(RuntimeError):
    """A package could not be downloaded. The message is the end of what pip said."""


def wheelhouse(root: Path) -> Path:
    """The directory with the wheels, filled if it is not there. Raises WheelsUnavailable."""
    wanted = requirements((root / "pyproject.toml").read_text())
    (cache_directory() / "images").mkdir(parents=True, exist_ok=True)
    constraints = root / "constraints.txt"
    content = "\n".join([*wanted, *platforms(), constraints.read_text()])
    directory = cache_directory() / "images" / f"wheels-{hashlib.sha256(content.encode()).hexdigest()[:12]}"
    if directory.exists():
        directory.touch()
        return directory
    scratch = directory.with_suffix(".part")  # pip keeps what is there already
    started = time.monotonic()
    command = [sys.executable, "-m", "pip", "download", "--quiet", "--disable-pip-version-check", f"--dest={scratch}"]
    command += [
        f"--retries={RETRIES}",
        "--only-binary=:all:",
        f"--python-version={PYTHON}",
        "--implementation=cp",
        f"--constraint={constraints}",
    ]
    command += [f"--platform={name}" for name in platforms()]
    done = subprocess.run([*command, *wanted], capture_output=True, text=True, stdin=subprocess.DEVNULL)
    if done.returncode:
        end = "\n".join(done.stderr.strip().splitlines()[-10:])
        raise WheelsUnavailable(f"downloading the images' Python packages failed:\n{end}")
    scratch.rename(directory)
    count = len(list(directory.glob("*.whl")))
    print(f"downloaded {count} wheels in {time.monotonic() - started:.0f} s", file=sys.stderr, flush=True)
    return directory


def requirements(pyproject: str) -> list[str]:
    """What any image needs, sorted."""
    project = tomllib.loads(pyproject)["project"]
    wanted = {*project["dependencies"], *BUILD_TOOLS}
    for extra in EXTRAS:
        wanted |= set(project["optional-dependencies"][extra])
    return sorted(wanted)


def platforms(machine: str = platform.machine()) -> list[str]:
    """What wheels may be built for, the newest C library first. ``any`` goes without saying."""
    names = [f"manylinux_2_{minor}_{machine}" for minor in range(GLIBC, 16, -1)]
    return [*names, f"manylinux2014_{machine}", f"linux_{machine}"]


def copy_wheels() -> int:
    """Put the wheels where image builds look for them; returns how many there are. Raises WheelsUnavailable."""
    wheels = wheelhouse(ROOT)
    shutil.rmtree(ROOT / WHEELS, ignore_errors=True)
    shutil.copytree(wheels, ROOT / WHEELS)
    return len(list(wheels.iterdir()))
