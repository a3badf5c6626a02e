"""Networks of namespaces, for real: isolated, shaped, cut, counted, and gone afterwards. Skipped without root."""

import os
import shutil
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest

from dev.hub import Hub, HubThread
from dev.installation import ROOT
from dev.netns import MBIT, NetnsUnavailable, Network, require_netns
from dev.netns_goodput import goodput
from dev.process import Child

try:
    require_netns()
    with Network(["probe"], rates={"probe": MBIT}):
        pass
except NetnsUnavailable as unavailable:
    pytest.skip(f"SKIPPED: {unavailable}", allow_module_level=True)

RATE = 50 * MBIT
PYTHON = [sys.executable, "-I", "-S", "-c"]


@pytest.fixture
def net() -> Iterator[Network]:
    with Network(["origin", "n1", "n2"], rates={"origin": RATE, "n1": RATE}) as network:
        yield network


def namespaces() -> set[str]:
    names = Path("/run/netns")
    return {entry.name for entry in names.iterdir()} if names.is_dir() else set()


def connect(net: Network, source: str, address: str, port: int = 9) -> str:
    """Empty, or the name of the error of a connection."""
    attempt = f"try: socket.create_connection(({address!r}, {port}), 1)"
    code = f"import socket\n{attempt}\nexcept OSError as e: print(type(e).__name__, e.errno)"
    return net.run(source, [*PYTHON, code], timeout=10).stdout.strip()


def test_nodes_reach_each_other_and_nothing_else(net: Network) -> None:
    refused = "ConnectionRefusedError 111"  # somebody is there, and nobody listens
    assert connect(net, "n1", net.address("n2")) == refused
    if net.has_ipv6:
        assert connect(net, "n1", net.address6("n2")) == refused
    assert connect(net, "n1", "127.0.0.1") == refused
    assert connect(net, "n1", "192.0.2.1") == "OSError 101"  # network is unreachable
    host = subprocess.run(["ip", "-brief", "address"], capture_output=True, text=True, check=True).stdout
    assert net.address("n2") not in host


@pytest.mark.parametrize(("source", "destination"), [("n1", "n2"), ("n2", "n1")])
def test_link_is_shaped_in_both_directions_and_counts(net: Network, source: str, destination: str) -> None:
    size = 8_000_000
    before = net.traffic()
    # The first 256 kB are not limited, so a short transfer seems a little faster than the link.
    assert goodput(net, source, destination, size) < 1.1 * RATE
    after = net.traffic()
    assert size < (after[source] - before[source]).sent < 1.1 * size
    assert size < (after[destination] - before[destination]).received < 1.1 * size
    assert (after["origin"] - before["origin"]).received < 10_000


def test_rate_can_be_changed_and_taken_away(net: Network) -> None:
    net.shape("n1", RATE // 2)
    assert goodput(net, "n1", "n2", 4_000_000) < 1.1 * RATE // 2
    net.shape("n1", None)
    assert goodput(net, "n1", "n2", 64_000_000) > RATE


def test_unplugged_node_cannot_be_reached_until_it_is_plugged_in(net: Network) -> None:
    net.unplug("n1")
    assert connect(net, "n2", net.address("n1")).startswith("TimeoutError")
    net.plug("n1")
    assert goodput(net, "n2", "n1", 1_000_000) < 2 * RATE


def test_server_thread_started_on_a_node_serves_that_node(net: Network) -> None:
    before = os.readlink("/proc/thread-self/ns/net")
    with net.entered("origin"):
        hub = HubThread(Hub(host=net.address("origin")))
        hub.__enter__()
    try:
        assert os.readlink("/proc/thread-self/ns/net") == before
        port = httpx.URL(hub.url).port or 0
        assert connect(net, "n1", net.address("origin"), port) == ""
    finally:
        hub.__exit__(None, None, None)


def test_child_started_on_a_node_is_there(net: Network, tmp_path: Path) -> None:
    show = [shutil.which("ip") or "", "-brief", "address", "show", "to", net.address("n2")]
    children = [Child(name, show, log=tmp_path / name) for name in ("inside", "outside")]
    with net.entered("n2"):
        children[0].start()
    children[1].start()
    for child in children:
        while child.running:
            pass
    assert net.address("n2") in (tmp_path / "inside").read_text()
    assert (tmp_path / "outside").read_text() == ""


def test_processes_and_namespaces_end_with_the_block(tmp_path: Path) -> None:
    before = namespaces()
    # It forks a child that leaves its session, so that ending the group is not enough.
    code = "import os, time\nif os.fork() == 0: os.setsid()\nprint(os.getpid(), flush=True)\ntime.sleep(600)"
    with Network(["n1"]) as net:
        child = net.popen("n1", [*PYTHON, code], log=tmp_path / "log")
        while len(pids := (tmp_path / "log").read_text().split()) < 2:
            assert child.running
        assert len(namespaces() - before) == 2
    assert all(pid.isdecimal() for pid in pids), pids
    assert [pid for pid in pids if runs(pid)] == []
    assert namespaces() <= before


def test_what_a_killed_run_left_is_removed_by_the_next(tmp_path: Path) -> None:
    code = (
        "import sys, time; from pathlib import Path; from dev.netns import Network\n"
        "net = Network(['n1']); net.open()\n"
        "child = net.popen('n1', ['sleep', '600'], log=Path(sys.argv[1]))\n"
        "while Path(f'/proc/{child.pid}/comm').read_text().strip() != 'sleep': pass\n"
        "print(child.pid, flush=True); time.sleep(600)"
    )
    command = [sys.executable, "-c", code, str(tmp_path / "log")]
    before = namespaces()
    with subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, text=True) as run:
        assert run.stdout is not None
        child = run.stdout.readline().strip()
        left = namespaces() - before
        run.send_signal(signal.SIGKILL)
    assert len(left) == 2
    with Network(["n1"]):
        assert left.isdisjoint(namespaces())
    assert not runs(child)


def runs(pid: str) -> bool:
    """Whether it has not ended. What nobody has waited for yet is still listed."""
    try:
        state = Path("/proc", pid, "stat").read_text().rpartition(")")[2].split()[0]
    except OSError:
        return False
    return state != "Z"
