"""Commands as people type them, in a shell that finds the pinned kubectl and helm."""

import os
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from dev.binaries import locate

_PATIENCE = 300.0


@dataclass(frozen=True, slots=True)
class Shell:
    """``directory`` is where it stands; of ``home`` it takes ``kubeconfig``, and nothing else from the user."""

    home: Path
    directory: Path

    def __call__(self, command: str, *, fails: bool = False) -> str:
        """What it prints, errors too. ``fails``: it may."""
        result = subprocess.run(
            ["bash", "-c", command],
            env=self._environment(),
            cwd=self.directory,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=_PATIENCE,
        )
        assert fails or result.returncode == 0, (command, result.stdout, result.stderr)
        return result.stdout + result.stderr

    @contextmanager
    def background(self, command: str) -> Iterator[None]:
        """It runs until the block ends."""
        process = subprocess.Popen(
            ["bash", "-c", f"exec {command}"],
            env=self._environment(),
            cwd=self.directory,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )
        try:
            yield
        finally:
            process.kill()
            process.wait()

    def _environment(self) -> dict[str, str]:
        programs = dict.fromkeys(str(path.parent) for path in locate("kubectl", "helm").values())
        path = os.pathsep.join([*programs, "/usr/bin", "/bin"])
        return {"PATH": path, "KUBECONFIG": str(self.home / "kubeconfig"), "HOME": str(self.home)}
