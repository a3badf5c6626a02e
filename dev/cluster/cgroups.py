"""A control group for each node, in which its kubelet makes those of the pods.

With version 1 there is a tree for each controller, and the group is needed in all of them; with version 2 there is one.
"""

import contextlib
import time
from collections.abc import Iterable, Mapping
from pathlib import Path

from dev.netns_commands import abandoned

ROOT = Path("/sys/fs/cgroup")
_V2_CONTROLLERS = ("cpuset", "cpu", "memory", "pids")
_PATIENCE = 30.0
"""Seconds. The kernel lets go of a group a moment after its last process."""


def create(name: str, root: Path = ROOT) -> None:
    """Make the group ``name`` at the top of every tree."""
    if (root / "cgroup.controllers").exists():
        offered = (root / "cgroup.controllers").read_text().split()
        wanted = [f"+{controller}" for controller in _V2_CONTROLLERS if controller in offered]
        (root / "cgroup.subtree_control").write_text(" ".join(wanted))
    for tree in trees(root):
        group = tree / name
        group.mkdir(exist_ok=True)
        # A new group of version 1 has no processor and no memory to run on until somebody says which.
        for setting in ("cpuset.cpus", "cpuset.mems"):
            if (group / setting).exists() and not (root / "cgroup.controllers").exists():
                (group / setting).write_text((tree / setting).read_text())


def remove(name: str, root: Path = ROOT) -> None:
    """Remove the group and those below. Its processes have to be gone; what is still in use after a while stays."""
    deadline = time.monotonic() + _PATIENCE
    for tree in trees(root):
        while (tree / name).is_dir() and not _removed(tree / name) and time.monotonic() < deadline:
            time.sleep(0.05)


def remove_abandoned(alive: Mapping[int, int], root: Path = ROOT) -> None:
    """Those of runs whose process is gone. ``alive``: start times by process id."""
    for name in abandoned({group.name for tree in trees(root) for group in _below(tree)}, alive=alive):
        remove(name, root)


def trees(root: Path = ROOT) -> list[Path]:
    """Where version 2 is mounted beside version 1, that is a tree too."""
    if (root / "cgroup.controllers").exists():
        return [root]
    return [tree for tree in _below(root) if not tree.is_symlink() and (tree / "cgroup.procs").exists()]


def _below(directory: Path) -> Iterable[Path]:
    try:
        return sorted(entry for entry in directory.iterdir() if entry.is_dir())
    except OSError:
        return []


def _removed(group: Path) -> bool:
    for below in _below(group):
        _removed(below)
    with contextlib.suppress(OSError):
        group.rmdir()
    return not group.exists()
