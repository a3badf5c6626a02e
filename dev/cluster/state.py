"""Where a cluster keeps what is on its disks, and how what a killed run has left is found and removed.

A run's directory carries the process's number and start time, as its namespaces and control groups do. It is in the
cache and not among temporary files, because those may be in memory, and nodes store gigabytes.
"""

import re
import shutil
from collections.abc import Mapping
from pathlib import Path

from dev import netns
from dev.binaries import cache_directory
from dev.cluster import cgroups
from dev.netns_commands import start_time, start_times

_NAME = re.compile(r"(?P<pid>\d+)-(?P<started>\d+)-\d+")


def new_directory(pid: int, serial: int) -> Path:
    directory = _root() / f"{pid}-{start_time(pid)}-{serial}"
    directory.mkdir(mode=0o700, parents=True)
    return directory


def remove_directory(directory: Path) -> None:
    """What cannot be removed stays for the next run to try."""
    shutil.rmtree(directory, ignore_errors=True)


def remove_abandoned() -> None:
    """Processes and namespaces first, then the control groups that these were in, then the files that they had open."""
    netns.remove_abandoned()
    alive = start_times()
    cgroups.remove_abandoned(alive)
    remove_abandoned_directories(alive)


def remove_abandoned_directories(alive: Mapping[int, int]) -> None:
    """``alive``: start times by process id."""
    for directory in directories():
        match = _NAME.fullmatch(directory.name)
        if match and alive.get(int(match["pid"])) != int(match["started"]):
            remove_directory(directory)


def directories() -> list[Path]:
    """Of all runs, whether they last or not."""
    return sorted(_root().iterdir()) if _root().is_dir() else []


def _root() -> Path:
    return cache_directory() / "clusters"
