"""A cluster ends without a trace: when it is told to, and after it was killed without a chance to clean up.

These run before the cluster of all other tests, outside of any.
"""

import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from dev.binaries import locate
from dev.cluster import cgroups, state
from dev.installation import ROOT
from tests.integration.support import eventually

NODES = 2


@pytest.fixture
def running(tmp_path: Path) -> Iterator[subprocess.Popen[bytes]]:
    """``make cluster``, ready to be used."""
    log = tmp_path / "log"
    with log.open("wb") as output:
        process = subprocess.Popen(
            [sys.executable, "-m", "dev.cluster", f"--nodes={NODES}"],
            env={**os.environ, "PYTHONPATH": str(ROOT)},
            cwd=ROOT,
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=output,
        )
    try:

        def up() -> bool:
            assert process.poll() is None, log.read_text()
            return "export KUBECONFIG=" in log.read_text()

        eventually(up, 60, every=0.2)
        config = log.read_text().partition("export KUBECONFIG=")[2].split()[0]
        nodes = [str(locate("kubectl")["kubectl"]), "--kubeconfig", config, "get", "nodes", "-o", "name"]
        found = subprocess.run(nodes, capture_output=True, text=True)
        assert len(found.stdout.split()) == NODES, found
        yield process
    finally:
        process.kill()
        process.wait()
        state.remove_abandoned()


def traces(pid: int) -> dict[str, list[str]]:
    """What there is of the run of a process, by kind."""
    descendants = subprocess.run(["pgrep", "-f", f"clusters/{pid}-"], capture_output=True, text=True).stdout.split()
    mark = f"modelswarm-{pid}-"
    namespaces = subprocess.run(["ip", "netns", "list"], capture_output=True, text=True).stdout.splitlines()
    groups = [str(group) for tree in cgroups.trees() for group in tree.glob(f"{mark}*")]
    directories = state.directories()
    found = {
        "processes": descendants,
        "namespaces": [name for name in namespaces if name.startswith(mark)],
        "control groups": groups,
        "directories": [path.name for path in directories if path.name.startswith(f"{pid}-")],
    }
    return {kind: names for kind, names in found.items() if names}


def test_a_signal_ends_it_without_a_trace(running: subprocess.Popen[bytes]) -> None:
    assert traces(running.pid).keys() == {"processes", "namespaces", "control groups", "directories"}
    running.send_signal(signal.SIGTERM)
    assert running.wait(120) == 0
    assert traces(running.pid) == {}


def test_what_a_killed_run_leaves_goes_with_the_next(running: subprocess.Popen[bytes]) -> None:
    running.kill()
    running.wait()
    eventually(lambda: "processes" not in traces(running.pid), 20)  # nobody told them: the kernel did
    state.remove_abandoned()
    assert traces(running.pid) == {}
