"""``kubectl swarm`` as a user runs it: the real kubectl, which finds the program on the PATH."""

import json
import os
import signal
import subprocess
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from dev.binaries import locate
from dev.controlplane import ControlPlane

PROGRAMS = Path(sys.executable).parent
"""Where the package's scripts are installed."""


@dataclass(frozen=True, slots=True)
class Said:
    """What came of one call."""

    code: int
    out: str
    err: str

    @property
    def json(self) -> Any:
        return json.loads(self.out)


class Kubectl:
    """``environment``: what is different from the test's own."""

    def __init__(self, cluster: ControlPlane, environment: Mapping[str, str] | None = None) -> None:
        self.environment = {
            **os.environ,
            "KUBECONFIG": str(cluster.kubeconfig),
            "PATH": f"{PROGRAMS}{os.pathsep}{os.environ['PATH']}",
            "KUBERC": "off",
            "KUBECACHEDIR": str(cluster.directory / "kubectl-cache"),
            "NO_PROXY": "*",
            "TERM": "dumb",
            **(environment or {}),
        }
        # The tests' own origins are given by name; what the machine has must not matter.
        self.environment.pop("HF_TOKEN", None)

    def command(self, *words: str) -> list[str]:
        return [str(locate("kubectl")["kubectl"]), *words]

    def swarm(self, *words: str, input: str | None = None, **environment: str) -> Said:
        """``kubectl swarm WORD...``."""
        return self(*("swarm", *words), input=input, **environment)

    def __call__(self, *words: str, input: str | None = None, **environment: str) -> Said:
        run = subprocess.run(
            self.command(*words),
            env={**self.environment, **environment},
            input=input,
            capture_output=True,
            text=True,
            timeout=180,
        )
        return Said(run.returncode, run.stdout, run.stderr)

    def start(self, *words: str) -> "subprocess.Popen[str]":
        """``kubectl swarm WORD...`` that goes on; end it with ``interrupt``."""
        return subprocess.Popen(
            self.command("swarm", *words),
            env=self.environment,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )


def interrupt(process: "subprocess.Popen[str]") -> Said:
    """Ctrl-C."""
    process.send_signal(signal.SIGINT)
    try:
        out, err = process.communicate(timeout=60)
    finally:
        process.kill()
    return Said(process.returncode, out, err)
