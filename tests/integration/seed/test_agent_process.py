"""The process itself: what it says to people, when it refuses to start, and how it ends."""

import os
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path

import pytest

from dev.agents import AgentFleet
from dev.hub import Kind, Slow
from dev.installation import ROOT
from modelswarm.agent.process import main
from tests.integration.seed.conftest import MODEL_DIR, MakeFleet, Seed, digests, files_in, metainfo, model_hash, size
from tests.integration.support import eventually

LABEL = "models.ome.io/clusterbasemodel.{}"
STOP_SECONDS = 20.0
"""The kubelet waits half a minute."""


def run(*arguments: str, **environment: str) -> subprocess.CompletedProcess[str]:
    known = {"PATH": os.environ["PATH"], "PYTHONPATH": str(ROOT / "operator"), **environment}
    command = [sys.executable, "-m", "modelswarm", "agent", *arguments]
    return subprocess.run(command, env=known, capture_output=True, text=True, timeout=60)


def test_help_names_every_variable_of_the_seed() -> None:
    found = run("--help")
    assert found.returncode == 0
    for name in (
        "P2P_ENABLED",
        "PEERS_SERVICE",
        "P2P_TORRENT_PORT",
        "P2P_METAINFO_PORT",
        "P2P_MAX_DOWNLOAD_RATE",
        "P2P_MAX_UPLOAD_RATE",
        "P2P_ENCRYPTION_ENABLED",
        "P2P_ENCRYPTION_REQUIRED",
    ):
        assert f"\n  {name}\n" in found.stdout
    assert "(default: 524288000)" in found.stdout
    assert max(map(len, found.stdout.splitlines())) <= 120


@pytest.mark.parametrize(
    ("environment", "words"),
    [
        pytest.param({}, "NODE_NAME", id="no node"),
        pytest.param({"P2P_ENABLED": "perhaps"}, "P2P_ENABLED", id="not a yes or no"),
        pytest.param({"P2P_TORRENT_PORT": "70000"}, "P2P_TORRENT_PORT", id="no port"),
        pytest.param({"P2P_TORRENT_PORT": "8081"}, "must differ", id="one port for two"),
        pytest.param({"P2P_MAX_DOWNLOAD_RATE": "fast"}, "P2P_MAX_DOWNLOAD_RATE", id="no rate"),
        pytest.param({"POD_IP": "here"}, "POD_IP", id="no address"),
        pytest.param({"MODEL_DIR": "models"}, "MODEL_DIR", id="no absolute path"),
    ],
)
def test_wrong_settings_end_it_with_one_line(
    environment: dict[str, str],
    words: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    if words != "NODE_NAME":
        environment = {"NODE_NAME": "n1", "MODEL_DIR": str(tmp_path), **environment}
    monkeypatch.delenv("NODE_NAME", raising=False)
    for name, value in environment.items():
        monkeypatch.setenv(name, value)
    assert main([]) == 2
    [line] = capsys.readouterr().err.strip().splitlines()
    assert words in line


def test_without_a_cluster_it_ends_with_one_line(tmp_path: Path) -> None:
    found = run(NODE_NAME="n1", MODEL_DIR=str(tmp_path), KUBECONFIG="/does/not/exist")
    assert found.returncode == 2
    [line] = found.stderr.strip().splitlines()
    assert "KUBECONFIG: cannot log in to a cluster: /does/not/exist does not exist" in line


def test_an_unknown_argument_ends_it() -> None:
    assert run("--fast", NODE_NAME="n1").returncode == 2


def refused(fleet: AgentFleet, node: str) -> str:
    """Start this agent, which must give up; returns its log."""
    child = fleet.agents[node].child
    child.start()
    eventually(lambda: not child.running, 60, 0.1)
    assert child.exit_code == 2, child.log_tail()
    text = child.log.read_text()
    assert "Traceback" not in text
    return text


def test_a_second_agent_on_the_same_directory_is_refused(seed: Seed, make_fleet: MakeFleet) -> None:
    fleet = make_fleet("n1")
    first = fleet.agents["n1"]
    fleet.add("n2", environment={"MODEL_DIR": str(first.store)})
    text = refused(fleet, "n2")
    assert f"another agent (process {first.child.pid} on node n1) uses {first.store}" in text
    eventually(lambda: first.ready, 10)


@pytest.mark.parametrize("port", [6881, 8081, 8080])
def test_a_port_that_is_taken_is_named(seed: Seed, make_fleet: MakeFleet, port: int) -> None:
    fleet = make_fleet()
    agent = fleet.add("n1")
    with socket.create_server((agent.host, port)):
        text = refused(fleet, "n1")
    [error] = [line for line in text.splitlines() if "in use" in line]
    assert "ERROR" in error
    assert agent.host in error
    assert str(port) in error


def test_sigterm_ends_it_cleanly_and_gives_the_lease_back(seed: Seed, make_fleet: MakeFleet) -> None:
    fleet = make_fleet("n1", "n2")
    repository = seed.repository()
    for kind in (Kind.CDN, Kind.RESOLVE):
        seed.hub.fail("*", Slow(bytes_per_second=150 << 10), on=kind)
    seed.create("m", f"hf://{repository.id}", path=f"{MODEL_DIR}/m")
    eventually(lambda: seed.sent() > size(repository) * 0.2, 30)
    lease = seed.lease(repository)
    assert lease is not None
    holder = lease["spec"]["holderIdentity"]
    child = fleet.agents[holder].child
    began = time.monotonic()
    child.stop(grace=STOP_SECONDS)
    assert time.monotonic() - began < STOP_SECONDS
    seed.hub.faults.clear()
    assert child.exit_code == 0, child.log_tail()
    text = child.log.read_text()
    assert "Traceback" not in text
    assert "Task was destroyed" not in text
    # Given back, or in another's hands already, long before its two minutes are over.
    [other] = fleet.agents.keys() - {holder}
    eventually(lambda: (seed.lease(repository) or {"spec": {}})["spec"].get("holderIdentity") == other, 10, 0.1)
    agent = fleet.agents[other]
    eventually(lambda: (agent.store / "m").exists(), 60, 0.2)
    assert files_in(agent.store / "m") == digests(repository)
    fleet.start(holder)
    seed.ready(LABEL.format("m"), *fleet.agents.values())


def test_sigterm_while_it_only_serves(seed: Seed, make_fleet: MakeFleet) -> None:
    fleet = make_fleet("n1", "n2")
    repository = seed.repository()
    seed.create("m", f"hf://{repository.id}", path=f"{MODEL_DIR}/m")
    seed.ready(LABEL.format("m"), *fleet.agents.values())
    for agent in fleet.agents.values():
        agent.child.stop(grace=STOP_SECONDS)
        assert agent.child.exit_code == 0, agent.child.log_tail()
        assert "Traceback" not in agent.child.log.read_text()


def test_after_sigkill_it_serves_again_at_once(seed: Seed, make_fleet: MakeFleet) -> None:
    fleet = make_fleet("n1", "n2")
    repository = seed.repository()
    seed.create("m", f"hf://{repository.id}", path=f"{MODEL_DIR}/m")
    seed.ready(LABEL.format("m"), *fleet.agents.values())
    agent = fleet.agents["n1"]
    wanted = {"hash": model_hash(repository), "seeding": True}
    eventually(lambda: wanted in metainfo(agent, "/models").json(), 30, 0.2)
    fleet.kill("n1")
    assert agent.child.exit_code == -signal.SIGKILL
    seed.hub.counters.reset()
    fleet.start("n1")
    eventually(lambda: wanted in metainfo(agent, "/models").json(), 20, 0.1)
    assert metainfo(agent, f"/metainfo/{model_hash(repository)}").status_code == 200
    seed.ready(LABEL.format("m"), *fleet.agents.values())
    assert seed.sent() == 0
