"""The proposal's end-to-end row: with Dragonfly the last node has the model sooner, and the origin sends it once.

Every machine is a network namespace. The origin's link has a quarter of the speed of all others, as a link to the world
has. Both ways run in the same minute on the same links: first every loader reads the origin, then an operator brings
the model to the seed peer, and the loaders start when its task is Ready.
"""

import json
import subprocess
import time
from collections.abc import Iterator
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path

import pytest

from dev.controlplane import ControlPlane
from dev.dragonfly.configs import CLUSTER
from dev.dragonfly.network import FIRST_DAEMON, FIRST_SEED, SERVER_HOST, NamespaceNetwork
from dev.dragonfly.stack import DragonflyStack
from dev.hub import Hub, HubThread, Repository, make_model
from dev.installation import NAMESPACE, SERVICE_ACCOUNT, OperatorProcess
from dev.netns import MBIT, NetnsUnavailable, Network
from tests.dragonfly.support.bench import NOWHERE, TOKEN_SECRET
from tests.dragonfly.support.loaders import loader_command, loader_environment
from tests.integration.support.api import Api
from tests.integration.support.objects import open_model
from tests.integration.support.valve import Valve
from tests.integration.support.waiting import eventually

NODES = [f"node-{number}" for number in range(1, 5)]
ORIGIN, SEED, CONTROL = "origin", "seed", "control"
ORIGIN_RATE = 36 * MBIT
NODE_RATE = 4 * ORIGIN_RATE
MODEL = "org/row"
SHARDS, SHARD_BYTES = 4, 12 << 20
ALLOWANCE = 1.02
LONGEST_LOAD = 240.0


@dataclass(frozen=True, slots=True)
class Row:
    """What is on the machines. The test's own thread is on the host, unless it enters one."""

    network: Network
    dragonfly: DragonflyStack
    hub: Hub
    folder: Path

    @property
    def size(self) -> int:
        return sum(blob.size for blob in self.hub.repositories[MODEL].get("main").files.values())

    def load(self, name: str, *, dragonfly: bool) -> float:
        """All nodes at once, each into a directory of its own; seconds until the last one is done."""
        head = self.hub.repositories[MODEL].head
        started, running = time.monotonic(), []
        for node, daemon in zip(NODES, self.dragonfly.daemons, strict=True):
            folder = self.folder / f"{name}-{node}"
            folder.mkdir()
            environment = loader_environment(daemon, self.hub, MODEL, head, folder)
            if not dragonfly:
                environment = {key: value for key, value in environment.items() if "DFDAEMON" not in key}
            command = self.network.command(node, loader_command(folder))
            log = (folder / "log").open("w")
            running.append(subprocess.Popen(command, env=environment, stdout=log, stderr=log))
        try:
            for process in running:
                assert process.wait(LONGEST_LOAD) == 0
        finally:
            for process in running:
                process.kill()
        return time.monotonic() - started

    def from_dragonfly(self, name: str) -> list[int]:
        """For each node, the bytes that came through its daemon."""
        messages = [json.loads((self.folder / f"{name}-{node}" / "message").read_text()) for node in NODES]
        return [message["bytesBySource"].get("dfdaemon", 0) for message in messages]


@pytest.fixture
def row(tmp_path: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Row]:
    rates: dict[str, int | None] = {ORIGIN: ORIGIN_RATE, SEED: NODE_RATE, **dict.fromkeys(NODES, NODE_RATE)}
    model = make_model(tmp_path / "model", shards=SHARDS, shard_bytes=SHARD_BYTES, seed=7)
    places = {SERVER_HOST: CONTROL, FIRST_SEED: SEED}
    places |= {FIRST_DAEMON + number: node for number, node in enumerate(NODES)}
    with ExitStack() as resources:
        try:
            network = resources.enter_context(Network([ORIGIN, SEED, *NODES, CONTROL], rates=rates))
        except NetnsUnavailable as error:
            pytest.skip(str(error))
        with network.entered(ORIGIN):
            hub = resources.enter_context(
                HubThread(Hub(Repository.from_folder(model, id=MODEL), host=network.address(ORIGIN)))
            )
        # A name of its own and short: it holds Unix sockets.
        directory = tmp_path_factory.mktemp("row")
        with network.entered(CONTROL):
            stack = resources.enter_context(
                DragonflyStack(
                    daemons=len(NODES), seeds=1, directory=directory, network=NamespaceNetwork(network, places)
                )
            )
        yield Row(network, stack, hub.hub, tmp_path)


@pytest.fixture
def operator(row: Row, plane: ControlPlane, tmp_path: Path) -> Iterator[OperatorProcess]:
    """On the machine of the manager; the API server's port is passed in to it."""
    kubeconfig = plane.service_account_kubeconfig(NAMESPACE, SERVICE_ACCOUNT)
    with row.network.entered(CONTROL):
        way = Valve(plane.server)
    inside = tmp_path / "kubeconfig"
    inside.write_text(kubeconfig.read_text().replace(plane.server, way.url.replace("http:", "https:")))
    process = OperatorProcess(
        inside,
        tmp_path / "operator.log",
        arguments=["--leader-elect=false", "--log-format=text", f"--registries=docker.io={NOWHERE}"],
        environment={
            "HF_ENDPOINT": row.hub.url,
            "NO_PROXY": "*",
            "MODELSWARM_DRAGONFLY_MANAGER_URL": row.dragonfly.manager_url,
            "MODELSWARM_DRAGONFLY_SCHEDULERS": f"{CLUSTER}={row.dragonfly.scheduler_address}",
        },
    )
    process.child.start_through(row.network.command(CONTROL, ()))
    with way, process:
        with row.network.entered(CONTROL):
            process.wait_leading()
        yield process


def test_the_last_node_is_done_sooner_than_without_and_the_origin_sends_the_model_once(
    row: Row, plane: ControlPlane, operator: OperatorProcess
) -> None:
    without = row.load("without", dragonfly=False)
    baseline = row.hub.counters.total().content
    assert len(NODES) * row.size <= baseline <= len(NODES) * row.size * ALLOWANCE

    with Api(plane) as api:
        metadata = {"name": TOKEN_SECRET, "namespace": NAMESPACE}
        token = {"token": row.dragonfly.token}
        api.apply({"apiVersion": "v1", "kind": "Secret", "metadata": metadata, "stringData": token})
        row.dragonfly.wait_preheatable()
        row.hub.counters.reset()
        started = time.monotonic()
        api.apply(open_model("row", MODEL))
        try:
            eventually(lambda: _distributed(api), 200, every=0.1)
            until_ready = time.monotonic() - started
            from_ready = row.load("with", dragonfly=True)
        finally:
            api.delete("OpenModel", "row")

    large = sum(blob.size for blob in row.hub.repositories[MODEL].get("main").files.values() if blob.size > 4 << 20)
    assert all(count >= large for count in row.from_dragonfly("with")), row.from_dragonfly("with")
    assert row.size <= row.hub.counters.total().content <= row.size * ALLOWANCE
    # The one place in which a test asserts a time: Dragonfly is there for it, and the other way ran a moment before.
    print(f"without: {without:.1f} s; with: {until_ready:.1f} s until Ready and {from_ready:.1f} s from there")
    assert until_ready + from_ready < without


def _distributed(api: Api) -> bool:
    tasks = api.all("P2PTask", NAMESPACE, labels="llmaz.io/model-name=row")
    conditions = {each["type"]: each for task in tasks for each in task.get("status", {}).get("conditions", [])}
    ready = conditions.get("Ready", {})
    assert ready.get("reason") == "Distributed", conditions
    return bool(ready["status"] == "True")
