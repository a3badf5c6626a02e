"""One node: a process tree with its own network, mounts, process ids and host name, and its share of the disk."""

import contextlib
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from dev.cluster import cgroups, init
from dev.cluster.configuration import DIRECTORY, SOCKET, NodeFacts, node_files
from dev.cluster.programs import Programs
from dev.dragonfly.packages import SEARCH_PATH, program_path
from dev.netns import Network
from dev.process import Child

PRIVATE = ("/etc/containerd", "/mnt", "/opt", "/run", "/var/lib", "/var/log")
"""Directories that a node has to itself; all else is the machine's, the same on all nodes.

All of them exist on every Linux machine that has containerd, so nothing has to be made there.
"""
_PATIENCE = 90.0
_END_PATIENCE = 20.0
_POLL = 0.05


@dataclass(frozen=True, slots=True)
class Identity:
    """What lets a node into the cluster. Contents of files by name, to lie in ``configuration.DIRECTORY``."""

    files: Mapping[str, bytes]


class Node:
    """``start``, ``kill`` and ``start`` again: the disk stays, as it would."""

    def __init__(
        self,
        network: Network,
        facts: NodeFacts,
        programs: Programs,
        identity: Identity,
        *,
        directory: Path,
        images: Sequence[Path],
    ) -> None:
        self.name = facts.name
        self.address = facts.address
        self._network, self._facts, self._programs = network, facts, programs
        self._identity, self._images = identity, images
        self.directory = directory
        self._child: Child | None = None

    @property
    def running(self) -> bool:
        return self._child is not None and self._child.running

    def start(self) -> None:
        """Switch it on; ``wait_started`` returns when its programs run."""
        self._prepare()
        cgroups.create(self._facts.cgroup)
        spec = self.directory / "node.json"
        spec.write_text(json.dumps(self._spec()))
        namespaces = ["--mount", "--propagation=private", "--uts", "--ipc", "--pid", "--fork", "--mount-proc"]
        unshare = [str(program_path("unshare")), *namespaces, "--kill-child"]
        command = [*unshare, sys.executable, "-I", "-S", str(Path(init.__file__)), str(spec)]
        log = self.directory / "node.log"
        log.unlink(missing_ok=True)
        self._child = self._network.popen(self.name, command, name=self.name, log=log, env={"PATH": SEARCH_PATH})

    def wait_started(self) -> None:
        """Raises StartupFailed."""
        assert self._child is not None
        log = self._child.log
        deadline = time.monotonic() + _PATIENCE
        while "started" not in log.read_text():
            if not self._child.running:
                raise self._child.failure("ended during start-up")
            if time.monotonic() > deadline:
                raise self._child.failure(f"not up in {_PATIENCE:g} s")
            time.sleep(_POLL)

    def kill(self) -> None:
        """As a power failure does: everything ends at once, and nobody is told. Harmless when it is off."""
        if self._child is None:
            return
        with contextlib.suppress(ProcessLookupError, FileNotFoundError, ValueError):
            os.kill(self._first_process(), signal.SIGKILL)
        # unshare ends when the first process is gone, and that is gone when all others are.
        deadline = time.monotonic() + _END_PATIENCE
        while self._child.running and time.monotonic() < deadline:
            time.sleep(_POLL)
        self._child.stop()

    def remove(self) -> None:
        """Kill it and give back what the kernel does not take by itself; its directory stays."""
        self.kill()
        cgroups.remove(self._facts.cgroup)

    def command(self, argv: Sequence[str | Path]) -> list[str]:
        """The command line that runs ``argv`` on the node, until this is switched off."""
        enter = [str(program_path("nsenter")), f"--target={self._first_process()}"]
        return [*enter, "--net", "--mount", "--pid", "--uts", "--ipc", "--", *map(str, argv)]

    def run(
        self, argv: Sequence[str | Path], *, timeout: float = 60.0, stdin: Path | None = None, check: bool = True
    ) -> subprocess.CompletedProcess[str]:
        """Run a program on the node, with the node's view of everything.

        Raises subprocess.TimeoutExpired, and with ``check`` CalledProcessError.
        """
        with contextlib.ExitStack() as opened:
            source = opened.enter_context(stdin.open("rb")) if stdin else subprocess.DEVNULL
            return subprocess.run(
                self.command(argv),
                env={**os.environ, "PATH": SEARCH_PATH},
                stdin=source,
                capture_output=True,
                text=True,
                timeout=timeout,
                check=check,
            )

    def import_image(self, archive: Path) -> None:
        """Into containerd, under the names that the archive says."""
        self.run([*self._ctr(), "images", "import", "-"], stdin=archive, timeout=180)

    def path(self, inside: str) -> Path:
        """Where this machine keeps a file of one of the node's own directories."""
        private = next(each for each in PRIVATE if inside == each or inside.startswith(f"{each}/"))
        return self._private(private) / inside.removeprefix(private).lstrip("/")

    def _first_process(self) -> int:
        assert self._child is not None
        children = Path(f"/proc/{self._child.pid}/task/{self._child.pid}/children").read_text().split()
        return int(children[0])

    def _private(self, directory: str) -> Path:
        return self.directory / "fs" / directory.strip("/").replace("/", "-")

    def _prepare(self) -> None:
        for directory in PRIVATE:
            self._private(directory).mkdir(parents=True, exist_ok=True)
        # What was on it at a power failure is gone: it is memory elsewhere.
        subprocess.run(["find", str(self._private("/run")), "-mindepth", "1", "-delete"], check=True)
        for path in ("/run/lock", "/var/lib/kubelet", "/var/lib/cni", "/var/log/pods", "/var/log/containers"):
            self.path(path).mkdir(parents=True, exist_ok=True)
        texts = {name: text.encode() for name, text in node_files(self._facts).items()}
        for name, content in {**texts, **self._identity.files}.items():
            file = self.path(f"{DIRECTORY}/{name}")
            file.parent.mkdir(parents=True, exist_ok=True)
            file.touch(mode=0o600)
            file.write_bytes(content)

    def _ctr(self) -> list[str]:
        return [str(self._programs.ctr), f"--address={SOCKET}", "--namespace=k8s.io"]

    def _spec(self) -> init.Spec:
        programs = self._programs
        kubelet = [
            str(programs.kubelet),
            f"--kubeconfig={DIRECTORY}/kubelet.kubeconfig",
            f"--config={DIRECTORY}/kubelet.yaml",
            f"--hostname-override={self.name}",
            f"--node-ip={self.address}",
        ]
        return {
            "name": self.name,
            "private": {directory: str(self._private(directory)) for directory in PRIVATE},
            "programs": {
                init.CONTAINERD: [str(programs.containerd), f"--config={DIRECTORY}/config.toml"],
                "kubelet": kubelet,
                "kube-proxy": [str(programs.kube_proxy), f"--config={DIRECTORY}/kube-proxy.yaml"],
            },
            "logs": str(self.directory),
            "ready": [*self._ctr(), "version"],
            "images": [str(image) for image in self._images],
            "importer": [*self._ctr(), "images", "import", "-"],
        }
