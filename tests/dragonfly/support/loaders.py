"""``modelswarm load`` as the pod on a node would run it, beside one of the daemons."""

import hashlib
import json
import os
import subprocess
import sys
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from dev.dragonfly.daemon import Daemon
from dev.hub import Hub
from dev.installation import ROOT

TIMEOUT = 120.0


@dataclass(frozen=True, slots=True)
class Load:
    """How a load ended. ``summary`` is its termination message."""

    folder: Path
    output: str
    summary: Mapping[str, Any] = field(repr=False)

    @property
    def sources(self) -> Mapping[str, int]:
        """Bytes by source."""
        sources: Mapping[str, int] = self.summary["bytesBySource"]
        return sources

    @property
    def why_not_dragonfly(self) -> str:
        return str(self.summary.get("skipped", {}).get("dfdaemon", ""))

    def digests(self) -> dict[str, str]:
        """The sha256 of each file that is there, by path."""
        [root] = (self.folder / "models").glob("models--*")
        return {
            str(path.relative_to(root)): hashlib.sha256(path.read_bytes()).hexdigest()
            for path in root.rglob("*")
            if path.is_file() and not any(part.startswith(".") for part in path.relative_to(root).parts[:-1])
        }


def loader_command(folder: Path) -> list[str]:
    return [sys.executable, "-m", "modelswarm", "load", "--root", str(folder / "models")]


def loader_environment(daemon: Daemon, hub: Hub, model: str, revision: str, folder: Path) -> dict[str, str]:
    """As the Deployment's init container has it, on this machine."""
    return {
        "PATH": os.environ["PATH"],
        "PYTHONPATH": str(ROOT / "operator"),
        "NO_PROXY": "*",
        "HF_ENDPOINT": hub.url,
        "MODEL_SOURCE_TYPE": "modelhub",
        "MODEL_ID": model,
        "REVISION": revision,
        "MODELSWARM_DFDAEMON_SOCKET": str(daemon.socket),
        "MODELSWARM_DFGET": daemon.command("unused", folder / "unused")[0],
        "MODELSWARM_TERMINATION_LOG": str(folder / "message"),
    }


def load(
    daemon: Daemon, hub: Hub, model: str, revision: str, folder: Path, *, environment: Mapping[str, str] | None = None
) -> Load:
    """Load and wait; an end that is no success fails the test."""
    folder.mkdir()
    result = subprocess.run(
        loader_command(folder),
        env={**loader_environment(daemon, hub, model, revision, folder), **(environment or {})},
        capture_output=True,
        text=True,
        timeout=TIMEOUT,
    )
    output = result.stdout + result.stderr
    assert result.returncode == 0, output
    return Load(folder, output, json.loads((folder / "message").read_text()))
