"""Real agents for the swarm benchmark: ``modelswarm agent`` on every node, above them the operator and an API server.

The control plane, the operator and the hub stand-in have nodes of their own; only the hub's link is the origin's.
The clock runs from the moment in which a P2PTask is created until the last node's directory is complete.
"""

import json
import os
import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path

from dev.agents import AgentFleet
from dev.bench.swarm_plan import NodeResult
from dev.controlplane import ControlPlane
from dev.installation import NAMESPACE, ROOT, SERVICE_ACCOUNT, OperatorProcess, install
from dev.netns import Network
from dev.process import Child

CONTROL = "control"
HUB_PORT, CDN_PORT = 80, 81
MODEL = "bench/model"
_POLL = 0.02
_TICKS = os.sysconf("SC_CLK_TCK")


@dataclass(frozen=True, slots=True)
class Usage:
    """CPU seconds of a process, those of its first thread (Python's), and its peak memory in MiB."""

    cpu: float
    loop: float
    memory: int


class Agents:
    """All agents are ready and want nothing yet."""

    def __init__(self, fleet: AgentFleet, cluster: ControlPlane) -> None:
        self._fleet = fleet
        self._cluster = cluster
        self._before = {node: usage(agent.child) for node, agent in fleet.agents.items()}

    def spread(self, timeout: float) -> list[NodeResult]:
        """Bring the model to every node. Raises TimeoutError."""
        began = time.monotonic()
        self._cluster.apply(json.dumps(_TASK))
        finished: dict[str, float] = {}
        used: dict[str, Usage] = {}
        while len(finished) < len(self._fleet.agents):
            for node, agent in self._fleet.agents.items():
                if node not in finished and any(agent.store.glob("models/*/.complete")):
                    finished[node] = time.monotonic()
            if time.monotonic() > began + timeout:
                missing = [node for node in self._fleet.agents if node not in finished]
                raise TimeoutError(f"{missing} without the model:\n{self._fleet.agents[missing[0]].child.log_tail(20)}")
            time.sleep(_POLL)
        used = {node: usage(agent.child) for node, agent in self._fleet.agents.items()}
        return [
            NodeResult(
                node,
                began,
                finished[node],
                used[node].cpu - self._before[node].cpu,
                used[node].loop - self._before[node].loop,
                used[node].memory,
            )
            for node in self._fleet.agents
        ]

    def directories(self) -> list[Path]:
        return [next(agent.store.glob("models/*/.complete")).parent for agent in self._fleet.agents.values()]


@contextmanager
def agents_on(net: Network, hub: str, nodes: Sequence[str], source: Path, scratch: Path) -> Iterator[Agents]:
    """The model in ``source`` at the node ``hub``, and agents on ``nodes``."""
    (scratch / "hub" / MODEL).parent.mkdir(parents=True)
    (scratch / "hub" / MODEL).symlink_to(source)
    _start_hub(net, hub, scratch)
    endpoint = {"HF_ENDPOINT": f"http://{net.address(hub)}:{HUB_PORT}"}
    # Everything that is started in here, threads as well, is on the node that all others can reach.
    with net.entered(CONTROL), ExitStack() as stack:
        address = net.address(CONTROL)
        flags = (f"--bind-address={address}", f"--advertise-address={address}")
        plane = ControlPlane(controllers=False, scheduler=False, address=address, apiserver_flags=flags)
        cluster = stack.enter_context(plane)
        install(cluster)
        fleet = AgentFleet(
            cluster,
            scratch / "agents",
            # What the headless Service's name would say. At an address that nobody has, nothing even refuses.
            environment={**endpoint, "PEERS_SERVICE": ",".join(map(net.address, nodes))},
            prefix={node: net.command(node, []) for node in nodes},
        )
        stack.enter_context(fleet)
        for rules in ("rbac-agents.yaml", "rbac-for-agents.yaml"):
            cluster.apply(ROOT / "config" / "operator" / rules)
        operator = OperatorProcess(
            cluster.service_account_kubeconfig(NAMESPACE, SERVICE_ACCOUNT),
            scratch / "operator.log",
            arguments=["--agent-root=/mnt/models"],
            environment={**endpoint, "NO_PROXY": "*"},
        )
        stack.enter_context(operator)
        for node in nodes:
            fleet.add(node, net.address(node))
        fleet.start(seconds=120)
        operator.wait_leading()
        yield Agents(fleet, cluster)


def usage(child: Child) -> Usage:
    process = Path("/proc", str(child.pid))
    loop = _cpu(process / "task" / str(child.pid) / "stat")
    peak = next(line for line in (process / "status").read_text().splitlines() if line.startswith("VmHWM"))
    return Usage(_cpu(process / "stat"), loop, int(peak.split()[1]) // 1024)


def _cpu(stat: Path) -> float:
    fields = stat.read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / _TICKS


def _start_hub(net: Network, node: str, scratch: Path) -> None:
    argv: list[str | Path] = [sys.executable, "-m", "dev.hub", "--root", scratch / "hub", "--host", net.address(node)]
    argv += ["--port", str(HUB_PORT), "--cdn-port", str(CDN_PORT)]
    child = net.popen(node, argv, log=scratch / "hub.log", env={"PYTHONPATH": f"{ROOT / 'operator'}:{ROOT}"})
    deadline = time.monotonic() + 60
    while '"url"' not in (scratch / "hub.log").read_text():
        if not child.running or time.monotonic() > deadline:
            raise child.failure("did not start")
        time.sleep(0.05)


_TASK = {
    "apiVersion": "llmaz.io/v1alpha1",
    "kind": "P2PTask",
    "metadata": {"name": "bench", "namespace": NAMESPACE},
    "spec": {
        "engine": "BitTorrent",
        "model": {"source": {"modelHub": {"modelID": MODEL, "revision": "main"}}},
        "placement": {"copies": "All"},
    },
}
