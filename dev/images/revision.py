"""Which state of the project an image is built from."""

import os
import subprocess
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import urlsplit

from modelswarm import __version__

UNKNOWN = "unknown"


@dataclass(frozen=True, slots=True)
class Revision:
    version: str
    commit: str
    """``-dirty`` at the end: with changes that no commit has. ``unknown`` without a repository."""
    epoch: int
    """Seconds since 1970: the commit's time, or ``SOURCE_DATE_EPOCH``, which everybody's build may set."""
    source: str
    """Where the repository can be read, if it has an origin on the web; else empty."""


def current_revision(root: Path) -> Revision:
    """Of a clone. An unpacked archive has no commit; then only ``SOURCE_DATE_EPOCH`` says when it is from."""
    commit, time = (_git(root, "log", "-1", "--format=%H %ct") or f"{UNKNOWN} 0").split()
    if commit != UNKNOWN and _git(root, "status", "--porcelain"):
        commit += "-dirty"
    epoch = int(os.environ.get("SOURCE_DATE_EPOCH") or time)
    return Revision(__version__, commit, epoch, public_address(_git(root, "remote", "get-url", "origin")))


def public_address(remote: str) -> str:
    """The address of a repository on the web, without user and token; empty for paths and for anything else."""
    parts = urlsplit(remote)
    if parts.scheme != "https" or not parts.hostname:
        return ""
    return f"https://{parts.hostname}{parts.path}".removesuffix(".git")


def _git(root: Path, *arguments: str) -> str:
    # Without optional locks, so that looking never gets in the way of somebody's commit.
    command = ["git", "--no-optional-locks", "-C", str(root), *arguments]
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=60, stdin=subprocess.DEVNULL)
    except OSError:
        return ""
    return done.stdout.strip() if done.returncode == 0 else ""
