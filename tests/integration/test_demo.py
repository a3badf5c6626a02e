"""``make demo``, as a user runs it: ends with the summary, leaves nothing behind, and says what went wrong."""

import os
import re
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from dev.installation import ROOT

# The first start on a machine may have to build the programs.
pytestmark = [pytest.mark.slow, pytest.mark.timeout(1200)]


def run_demo(tmp_path: Path, engine: str, **environment: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "dev.demo", "--engine", engine],
        cwd=ROOT,
        env={**os.environ, "TMPDIR": str(tmp_path), **environment},
        capture_output=True,
        text=True,
    )


def rows(output: str) -> dict[str, str]:
    """The summary's table."""
    table = output.partition("\nsummary\n")[2]
    return dict(re.split(r"\s{2,}", line.strip(), maxsplit=1) for line in table.splitlines() if line.strip())


ORIGIN = r"([\d,]+) for a model of ([\d,]+)"


@pytest.mark.parametrize(
    ("engine", "origin", "files"),
    [
        pytest.param("bittorrent", rf"{ORIGIN} on 3 nodes: 1\.000 x", 33, id="peer to peer, to three nodes"),
        pytest.param("direct", ORIGIN, 11, id="from the origin"),
    ],
)
def test_demo_shows_the_gate_and_loads_the_model(engine: str, origin: str, files: int, tmp_path: Path) -> None:
    # Long enough to be seen to wait on a busy machine, too.
    result = run_demo(tmp_path, engine, DEMO_HUB_SECONDS="10")
    assert result.returncode == 0, result.stdout + result.stderr
    summary = rows(result.stdout)
    assert summary["result"] == "OK"
    assert re.match(r"absent at all [1-9]\d* looks", summary["gate"])
    assert re.fullmatch(r"\d+ ms", summary["task Ready to Deployment"])
    sent = re.fullmatch(origin, summary["bytes from the origin"])
    assert sent is not None
    assert sent[1] == sent[2]
    assert summary["files verified"].split()[0] == str(files)
    assert "Resolving" in result.stdout
    assert "WaitingForModel" in result.stdout
    assert "Traceback" not in result.stdout + result.stderr
    assert list(tmp_path.iterdir()) == []


def test_demo_says_what_failed_and_shows_the_operators_log(tmp_path: Path) -> None:
    result = run_demo(tmp_path, "direct", MODELSWARM_LEASE_SECONDS="-1")
    assert result.returncode == 1
    assert "demo FAILED: operator: ended before it led" in result.stderr
    assert "lease-seconds" in result.stderr.lower().replace("_", "-")
    assert "Traceback" not in result.stdout + result.stderr
    assert list(tmp_path.iterdir()) == []


def test_kept_demo_runs_until_it_is_stopped(tmp_path: Path) -> None:
    command = [sys.executable, "-u", "-m", "dev.demo", "--engine", "direct", "--keep"]
    environment = {**os.environ, "TMPDIR": str(tmp_path)}
    with subprocess.Popen(command, cwd=ROOT, env=environment, stdout=subprocess.PIPE, text=True) as demo:
        assert demo.stdout is not None
        kubeconfig = ""
        for line in demo.stdout:
            if "export KUBECONFIG=" in line:
                kubeconfig = line.partition("=")[2].strip()
            if "stops it" in line:
                break
        assert Path(kubeconfig).exists()
        demo.send_signal(signal.SIGTERM)
        assert demo.wait(120) == 0
    assert list(tmp_path.iterdir()) == []
