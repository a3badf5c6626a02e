"""The base image of our own builds: a minimal Debian with Python, made by debootstrap, since there is no registry to
take ``python:3.11-slim`` from. Whoever has one builds the same ``Dockerfile`` upon that.

Kept in the cache as a tar archive for as long as its recipe stays the same. Security updates of Debian are not in it:
what is built upon it is for tests.
"""

import hashlib
import os
import shutil
import subprocess
import sys
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path

from dev.binaries import cache_directory
from dev.dragonfly.packages import SEARCH_PATH, program_path
from dev.images.buildah import ISOLATED

SUITE = "bookworm"
INCLUDED = ("busybox", "ca-certificates", "libstdc++6", "netcat-openbsd", "python3")
# What no image gets out of it anyway.
EXCLUDED = ("dev", "proc", "run", "sys", "tmp", "var/cache", "var/lib/apt/lists", "var/log", "usr/share/man")
USUAL_TIME = "a minute"
TIMEOUT = 1800


class BaseUnavailable(RuntimeError):
    """debootstrap failed. The message is the end of what it said."""


@dataclass(frozen=True, slots=True)
class Base:
    archive: Path
    name: str
    """Of the image. It says what is in it."""


def base_image() -> Base:
    """The base, made if it is not in the cache. Needs root. Raises BaseUnavailable."""
    recipe = repr((SUITE, INCLUDED, EXCLUDED))
    key = f"{SUITE}-{hashlib.sha256(recipe.encode()).hexdigest()[:12]}"
    base = Base(cache_directory() / "images" / f"base-{key}.tar", f"localhost/modelswarm-base:{key}")
    if not base.archive.exists():
        _make(base.archive)
    return base


def _make(archive: Path) -> None:
    print(f"making a base image of Debian {SUITE}, usually {USUAL_TIME}", file=sys.stderr, flush=True)
    started = time.monotonic()
    archive.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=archive.parent, prefix="debootstrap-") as scratch:
        root, packed = Path(scratch) / "root", Path(scratch) / archive.name
        arguments = ["--variant=minbase", f"--include={','.join(INCLUDED)}", SUITE, str(root)]
        _run([*ISOLATED, program_path("debootstrap") or "debootstrap", *arguments])
        for name in EXCLUDED:
            shutil.rmtree(root / name, ignore_errors=True)
            (root / name).mkdir(parents=True)
        (root / "tmp").chmod(0o1777)
        _run(["tar", "--create", f"--file={packed}", "--sort=name", "--numeric-owner", f"--directory={root}", "."])
        packed.rename(archive)
    print(f"made {archive.name} in {time.monotonic() - started:.0f} s", file=sys.stderr, flush=True)


def _run(command: list[str]) -> None:
    environment = {**os.environ, "PATH": SEARCH_PATH, "LC_ALL": "C", "DEBIAN_FRONTEND": "noninteractive"}
    done = subprocess.run(
        command, capture_output=True, text=True, env=environment, stdin=subprocess.DEVNULL, timeout=TIMEOUT
    )
    if done.returncode:
        end = "\n".join((done.stdout + done.stderr).strip().splitlines()[-10:])
        raise BaseUnavailable(f"{' '.join(command[-6:])} failed:\n{end}")
