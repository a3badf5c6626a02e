"""The demo's engine BitTorrent: three node agents as processes, each with a Node object, an address and a store.

The model reaches all of them while it leaves the hub once; then a second revision shows how little of it travels.
"""

import json
import time
from collections.abc import Sequence

from dev.agents import Agent, AgentFleet
from dev.controlplane import ControlPlane
from dev.demo_engine import Expected, Node, Stage, Surroundings
from dev.demo_steps import DemoFailed
from dev.hub import HubThread
from dev.installation import NAMESPACE, ROOT
from dev.process import LOOPBACK

NODES = 3
AGENT_ROOT = "/mnt/models"
"""On every node of a real cluster. Here each agent has a directory of its own."""
SECOND = "second-revision"
_PATIENCE = 120.0


class SwarmDemo:
    expected = Expected(copies=1.0, engine="BitTorrent")
    patience = 240.0
    registry_address = LOOPBACK

    def prepare(self) -> None:
        pass

    def start(self, stage: Stage) -> None:
        self._stage = stage

    def connect(self, around: Surroundings) -> dict[str, str]:
        self._cluster: ControlPlane = around.cluster
        environment = {"HF_ENDPOINT": around.hub}
        fleet = AgentFleet(around.cluster, self._stage.scratch / "agents", environment=environment)
        self._fleet = self._stage.stack.enter_context(fleet)
        for rules in ("rbac-agents.yaml", "rbac-for-agents.yaml"):
            around.cluster.apply(ROOT / "config" / "operator" / rules)
        with self._stage.summary.stage(f"{NODES} agents ready"):
            for number in range(1, NODES + 1):
                fleet.add(f"node-{number}")
            fleet.start()
        hosts = ", ".join(agent.host for agent in fleet.agents.values())
        self._stage.console.say(f"node agents at {hosts}: BitTorrent on 6881, metainfo on 8081, metrics on 8080")
        return {"MODELSWARM_AGENT_ROOT": AGENT_ROOT, "MODELSWARM_PLACEMENT_COPIES": str(NODES)}

    def nodes(self) -> Sequence[Node]:
        """The pod mounts the model's directory on its node; here those of all nodes lie side by side."""
        content = self._digest(self._model_task())
        return [
            Node(agent.node, {"MODELSWARM_NODE_MODEL": str(agent.store / "models" / content)})
            for agent in self._fleet.agents.values()
        ]

    def encore(self, hub: HubThread, model: str) -> list[tuple[str, str]]:
        """A second revision that differs in one shard."""
        repository = hub.hub.repositories[model]
        shard = max(repository.get("main").files.items(), key=lambda item: item[1].size)
        commit = repository.commit({shard[0]: bytes(shard[1].size)}, base="main")
        before = hub.hub.counters.total(name=f"{model}/*").content
        self._stage.console.say(f"a second revision, {commit[:12]}: {shard[0]} is new, the rest is as it was")
        with self._stage.summary.stage("second revision on all nodes"):
            self._cluster.apply(_task(model, commit))
            task = self._wait(SECOND)
        status = task["status"]
        travelled = hub.hub.counters.total(name=f"{model}/*").content - before
        self._stage.console.lines(self._cluster.kubectl("get", "p2ptask", SECOND, "-n", NAMESPACE, "-o", "wide"))
        self._stage.console.lines(self._cluster.kubectl("get", "nodecaches"))
        if travelled > shard[1].size:
            raise DemoFailed(
                f"{travelled:,} bytes left the origin for a second revision with {shard[1].size:,} new ones"
            )
        rows = [(f"{agent.node}: from origin, from peers", self._split(agent)) for agent in self._fleet.agents.values()]
        return [
            *rows,
            ("second revision from the origin", f"{travelled:,} of its {status['resolved']['bytes']:,} bytes"),
        ]

    def way_in(self) -> str:
        return ""

    def _model_task(self) -> str:
        tasks = json.loads(self._cluster.kubectl("get", "p2ptasks", "-n", NAMESPACE, "-o", "json"))["items"]
        return str(tasks[0]["metadata"]["name"])

    def _digest(self, task: str) -> str:
        path = "jsonpath={.status.resolved.digest}"
        return self._cluster.kubectl("get", "p2ptask", task, "-n", NAMESPACE, "-o", path).removeprefix("sha256:")

    def _split(self, agent: Agent) -> str:
        cache = json.loads(self._cluster.kubectl("get", "nodecache", agent.node, "-o", "json"))
        models = cache["status"]["models"]
        origin, peers = (sum(model[key] for model in models) for key in ("originBytes", "peerBytes"))
        return f"{origin:,}, {peers:,}"

    def _wait(self, name: str) -> dict[str, dict[str, dict[str, int]]]:
        deadline = time.monotonic() + _PATIENCE
        while True:
            task = json.loads(self._cluster.kubectl("get", "p2ptask", name, "-n", NAMESPACE, "-o", "json"))
            if task.get("status", {}).get("phase") == "Succeeded":
                found: dict[str, dict[str, dict[str, int]]] = task
                return found
            if time.monotonic() > deadline:
                raise DemoFailed(f"{name} was not on all nodes within {_PATIENCE:g} s: {task.get('status')}")
            time.sleep(0.2)


def _task(model: str, commit: str) -> str:
    return f"""
apiVersion: llmaz.io/v1alpha1
kind: P2PTask
metadata: {{name: {SECOND}, namespace: {NAMESPACE}}}
spec:
  model: {{source: {{modelHub: {{modelID: {model}, revision: {commit}}}}}}}
  placement: {{copies: All}}
"""
