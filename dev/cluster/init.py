"""The first process of a node, in namespaces of its own; everything that runs on the node descends from it.

    python -I -S init.py SPEC       # JSON, see ``Spec``

It needs nothing but the standard library, and runs as a file, not as a module of a package. When it is killed, the
kernel ends all that runs on the node and takes its mounts away, as a power failure does.
"""

import json
import os
import socket
import subprocess
import sys
import time
from pathlib import Path
from typing import TypedDict

CONTAINERD = "containerd"
_PATIENCE = 60.0
_POLL = 0.05


class Spec(TypedDict):
    """What the node is. Paths are those of the machine."""

    name: str
    private: dict[str, str]
    """Directories that the node has to itself: its path of each, and where its content is kept."""
    programs: dict[str, list[str]]
    """Command lines by name; containerd has to be among them."""
    logs: str
    """Directory of their logs."""
    ready: list[str]
    """Succeeds when containerd answers."""
    images: list[str]
    """Archives to import before pods can start."""
    importer: list[str]
    """Reads an archive on its standard input."""


def main(path: str) -> int:
    spec: Spec = json.loads(Path(path).read_text())
    # Before the directories are covered: any of these may be below one of them.
    logs = {name: (Path(spec["logs"]) / f"{name}.log").open("ab") for name in spec["programs"]}
    images = [os.open(image, os.O_RDONLY) for image in spec["images"]]
    socket.sethostname(spec["name"])
    # Shared among the pods of this node, and private to it: the caller made the whole tree private before.
    _run("mount", "--make-rshared", "/")
    for inside, outside in spec["private"].items():
        _run("mount", "--rbind", outside, inside)
    Path("/proc/sys/net/ipv4/ip_forward").write_text("1")

    running: dict[int, str] = {}

    def start(name: str) -> None:
        child = subprocess.Popen(spec["programs"][name], stdin=subprocess.DEVNULL, stdout=logs[name], stderr=logs[name])
        running[child.pid] = name

    start(CONTAINERD)
    deadline = time.monotonic() + _PATIENCE
    while subprocess.run(spec["ready"], capture_output=True).returncode:
        if time.monotonic() > deadline:
            print(f"{CONTAINERD} does not answer", flush=True)
            return 1
        time.sleep(_POLL)
    for image in images:
        _run(*spec["importer"], stdin=image)
    for name in spec["programs"]:
        if name != CONTAINERD:
            start(name)
    print("started", flush=True)
    while True:
        # Also the orphans of containers, which are ours to bury.
        pid, status = os.wait()
        if pid in running:
            print(f"{running[pid]} ended with {os.waitstatus_to_exitcode(status)}", flush=True)
            return 1


def _run(*command: str, stdin: int = subprocess.DEVNULL) -> None:
    result = subprocess.run(command, stdin=stdin, capture_output=True, text=True)
    if result.returncode:
        print(f"{' '.join(command)}: {result.stderr.strip()}", flush=True)
        sys.exit(1)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1]))
