"""The whole model onto every node at the same time: by our loader, or by Dragonfly's bare program."""

import hashlib
import json
import os
import shutil
import subprocess
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path

from dev.dragonfly.daemon import Daemon
from dev.installation import ROOT
from dev.netns import Network

LARGE = 4 << 20
"""Larger files have several pieces."""


class FetchFailed(RuntimeError):
    """A node has not got the model, or not byte for byte."""


class Policy(StrEnum):
    """What a bare dfget does about files of one piece."""

    AUTO = "auto"
    """Its default: every node reads them from the origin."""
    ALWAYS = "always"
    """Ask the scheduler for them too, as our loader has it do."""


class Order(StrEnum):
    """In which order a bare dfget asks for the files."""

    SAME = "same"
    """Every node the same, as a list of files has it."""
    ROTATED = "rotated"
    """Every node begins at another place of the list."""


@dataclass(frozen=True, slots=True)
class File:
    path: str
    size: int
    sha256: str
    url: str

    @property
    def is_large(self) -> bool:
        return self.size > LARGE


@dataclass(frozen=True, slots=True)
class Leg:
    """When each node had the whole model, in seconds after all were told to begin."""

    seconds: tuple[float, ...]

    @property
    def last(self) -> float:
        return max(self.seconds)


def fetch_on_all(network: Network, commands: Mapping[str, "Command"], *, timeout: float) -> Leg:
    """Run one command on each node, all at once, and wait. Raises FetchFailed with what a failed one said."""

    def one(node: str) -> float:
        command = commands[node]
        result = subprocess.run(
            network.command(node, command.argv),
            env=dict(command.environment),
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            timeout=timeout,
        )
        if result.returncode:
            raise FetchFailed(f"{node}: ended with {result.returncode}:\n{result.stdout[-2000:]}")
        return time.monotonic() - started

    started = time.monotonic()
    with ThreadPoolExecutor(len(commands)) as threads:
        return Leg(tuple(threads.map(one, commands)))


@dataclass(frozen=True, slots=True)
class Command:
    argv: Sequence[str]
    environment: Mapping[str, str]
    found: Callable[[], Path]
    """The directory in which the files are afterwards."""


def loader(
    folder: Path,
    *,
    hub: str,
    model: str,
    revision: str,
    parallel: int,
    daemon: Daemon | None,
    dfget: Path | None,
) -> Command:
    """``modelswarm load`` as a pod's init container runs it; without a daemon it reads the origin."""
    folder.mkdir(parents=True)
    environment = {
        "PATH": os.environ.get("PATH", os.defpath),
        "HOME": str(folder),
        "PYTHONPATH": str(ROOT / "operator"),
        "HF_ENDPOINT": hub,
        "MODEL_SOURCE_TYPE": "modelhub",
        "MODEL_ID": model,
        "REVISION": revision,
        "MODELSWARM_LOAD_PARALLEL": str(parallel),
        "MODELSWARM_TERMINATION_LOG": str(folder / "message"),
        # The links are slow on purpose.
        "MODELSWARM_DFDAEMON_SLOWEST_MIB": "1",
    }
    if daemon is not None:
        environment |= {"MODELSWARM_DFDAEMON_SOCKET": str(daemon.socket), "MODELSWARM_DFGET": str(dfget)}

    def found() -> Path:
        skipped = json.loads((folder / "message").read_text()).get("skipped")
        if skipped:
            raise FetchFailed(f"the loader did not get everything from its daemon: {skipped}")
        return next((folder / "models").glob("models--*"))

    argv = [sys.executable, "-m", "modelswarm", "load", f"--root={folder / 'models'}"]
    return Command(argv, environment, found)


def bare_dfget(folder: Path, files: Sequence[File], daemon: Daemon, *, parallel: int, policy: Policy) -> Command:
    """Nothing but dfget, some files at a time, in the order given."""
    folder.mkdir(parents=True)
    jobs = [daemon.command(file.url, folder / file.path) for file in files]
    argv = [sys.executable, "-I", "-S", "-c", _RUN_ALL, str(parallel), json.dumps(jobs)]
    environment = {"PATH": os.environ.get("PATH", os.defpath), "HOME": str(folder)}
    environment["DFGET_SCHEDULING_POLICY"] = policy
    return Command(argv, environment, lambda: folder)


def arrange(files: Sequence[File], order: Order, place: int, of: int) -> list[File]:
    """The large files in the order of the node with the number ``place`` of ``of``, from 0, and then the small ones."""
    large, small = [file for file in files if file.is_large], [file for file in files if not file.is_large]
    if order is Order.ROTATED:
        start = place * len(large) // of
        large = large[start:] + large[:start]
    return [*large, *small]


def verify(folder: Path, files: Sequence[File]) -> None:
    """Raises FetchFailed unless every file is there, byte for byte."""
    for file in files:
        try:
            with (folder / file.path).open("rb") as stream:
                digest = hashlib.file_digest(stream, "sha256").hexdigest()
        except FileNotFoundError:
            digest = "missing"
        if digest != file.sha256:
            raise FetchFailed(f"{folder / file.path} is {digest} and not {file.sha256}")


def forget(folder: Path) -> None:
    shutil.rmtree(folder, ignore_errors=True)


_RUN_ALL = """
import json, subprocess, sys
from concurrent.futures import ThreadPoolExecutor

def run(command):
    result = subprocess.run(command, stdin=subprocess.DEVNULL, capture_output=True, text=True)
    if result.returncode:
        print(result.stdout + result.stderr, flush=True)
    return result.returncode

with ThreadPoolExecutor(int(sys.argv[1])) as threads:
    sys.exit(any(list(threads.map(run, json.loads(sys.argv[2])))))
"""
