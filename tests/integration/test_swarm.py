"""Agents as processes: real libtorrent and real sockets between them, the real API server and operator above them."""

import hashlib
import json
import re
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from dev.agents import Agent, AgentFleet
from dev.controlplane import ControlPlane
from dev.hub import Hub, HubThread, Kind, Repository, Slow, make_model
from dev.installation import NAMESPACE, ROOT, OperatorProcess
from tests.integration.support import Api, Manifest, Operators, eventually, p2p_task

MODEL = "swarm/model"
SHARDS, SHARD_BYTES = 3, 6 << 20
MakeFleet = Callable[..., AgentFleet]


@pytest.fixture(scope="module")
def origin(tmp_path_factory: pytest.TempPathFactory) -> Iterator[HubThread]:
    folder = make_model(tmp_path_factory.mktemp("swarm-model"), shards=SHARDS, shard_bytes=SHARD_BYTES)
    for number in range(120):
        path = folder / "many" / "small" / f"{number:03}.json"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(json.dumps({"number": number}))
    (folder / "empty").touch()
    (folder / "many" / "empty.txt").touch()
    with HubThread(Hub(Repository.from_folder(folder, id=MODEL))) as running:
        yield running


@pytest.fixture
def hub(origin: HubThread) -> Iterator[Hub]:
    yield origin.hub
    origin.hub.reset()


@pytest.fixture(scope="module")
def operator(cluster: ControlPlane, operators: Operators, origin: HubThread) -> Iterator[OperatorProcess]:
    for manifest in ("p2p/headless-service", "p2p/model-agent-daemonset"):
        cluster.apply(ROOT / "config" / f"{manifest}.yaml")
    for manifest in ("rbac-agents", "rbac-for-agents"):
        cluster.apply(ROOT / "config" / "operator" / f"{manifest}.yaml")
    flags = ("--agent-root=/mnt/models", "--stall-seconds=120", "--retry-seconds=2")
    with operators.replaced(*flags, environment={"HF_ENDPOINT": origin.url}) as other:
        yield other


@pytest.fixture
def make_fleet(
    cluster: ControlPlane, operator: OperatorProcess, origin: HubThread, tmp_path: Path
) -> Iterator[MakeFleet]:
    fleets: list[AgentFleet] = []

    def make(*nodes: str, **environment: str) -> AgentFleet:
        fleet = AgentFleet(cluster, tmp_path / "agents", environment={"HF_ENDPOINT": origin.url, **environment})
        fleets.append(fleet)
        fleet.__enter__()
        for node in nodes:
            fleet.add(node)
        fleet.start()
        return fleet

    yield make
    for task in json.loads(cluster.kubectl("get", "p2ptasks", "-n", NAMESPACE, "-o", "json"))["items"]:
        cluster.kubectl("delete", "p2ptask", "-n", NAMESPACE, task["metadata"]["name"])
    for fleet in fleets:
        fleet.__exit__()


def distribute(api: Api, name: str, revision: str = "main", **spec: object) -> None:
    spec = {"placement": {"copies": "All"}, **spec}
    source = {"modelHub": {"modelID": MODEL, "revision": revision}}
    api.apply({**p2p_task(name, source, **spec), "metadata": {"name": name, "namespace": NAMESPACE}})


def status(api: Api, name: str) -> Manifest:
    found: Manifest = api.get("P2PTask", name, NAMESPACE).get("status", {})
    return found


def succeeded(api: Api, name: str, nodes: int, seconds: float = 60.0) -> Manifest:
    def look() -> Manifest:
        now = status(api, name)
        assert (now.get("phase"), now.get("ready")) == ("Succeeded", nodes), now
        return now

    return eventually(look, seconds, 0.2)


def files_of(agent: Agent, digest: str) -> dict[str, str]:
    """Path and sha256 of every file of a complete content."""
    directory = agent.store / "models" / digest.removeprefix("sha256:")
    assert (directory / ".complete").exists(), f"{agent.node}: {agent.child.log_tail()}"
    return {
        str(path.relative_to(directory)): hashlib.sha256(path.read_bytes()).hexdigest()
        for path in directory.rglob("*")
        if path.is_file() and path.name != ".complete"
    }


def expected(hub: Hub, revision: str = "main") -> dict[str, str]:
    commit = hub.repositories[MODEL].get(revision)
    return {path: blob.sha256 for path, blob in commit.files.items()}


def size(hub: Hub, revision: str = "main") -> int:
    return sum(blob.size for blob in hub.repositories[MODEL].get(revision).files.values())


def sent(hub: Hub) -> int:
    return hub.counters.total(Kind.RESOLVE).content + hub.counters.total(Kind.CDN).content


def coordinator(cluster: ControlPlane) -> str:
    """Who holds the Lease of the only model."""
    leases = json.loads(
        cluster.kubectl("get", "leases", "-n", "ome", "-l", "ome.io/type=model-download", "-o", "json")
    )["items"]
    return str(leases[0]["spec"].get("holderIdentity", "")) if leases else ""


def test_a_model_reaches_every_node_and_leaves_the_origin_once(
    api: Api, hub: Hub, make_fleet: MakeFleet, cluster: ControlPlane
) -> None:
    fleet = make_fleet("n1", "n2", "n3")
    distribute(api, "all")
    now = succeeded(api, "all", 3)
    for agent in fleet.agents.values():
        assert files_of(agent, now["resolved"]["digest"]) == expected(hub)
    assert sent(hub) == size(hub)
    assert now["progress"]["originBytes"] == size(hub)
    assert now["progress"]["peerBytes"] == 2 * size(hub)
    assert "3/3" in cluster.kubectl("get", "p2ptask", "all", "-n", NAMESPACE)
    nodes = {node: cluster.kubectl("get", "node", node, "--show-labels") for node in fleet.agents}
    label = f"content.modelswarm.io/{now['resolved']['digest'].removeprefix('sha256:')[:16]}=Ready"
    assert all(label in labels for labels in nodes.values())


def test_a_second_revision_costs_what_is_new_in_it(api: Api, hub: Hub, make_fleet: MakeFleet) -> None:
    fleet = make_fleet("n1", "n2")
    distribute(api, "first")
    succeeded(api, "first", 2)
    hub.counters.reset()
    repository = hub.repositories[MODEL]
    changed = b"new weights" * 300_000
    commit = repository.commit({"model-00001-of-00003.safetensors": changed}, base="main")
    distribute(api, "second", commit)
    now = succeeded(api, "second", 2)
    for agent in fleet.agents.values():
        assert files_of(agent, now["resolved"]["digest"]) == expected(hub, commit)
    assert sent(hub) == len(changed)


def test_a_node_that_comes_late_asks_the_origin_for_nothing(api: Api, hub: Hub, make_fleet: MakeFleet) -> None:
    fleet = make_fleet("n1", "n2")
    distribute(api, "all")
    digest = succeeded(api, "all", 2)["resolved"]["digest"]
    hub.counters.reset()
    late = fleet.add("n3")
    fleet.start("n3")
    succeeded(api, "all", 3)
    assert files_of(late, digest) == expected(hub)
    assert sent(hub) == 0


def test_a_restarted_agent_serves_again_without_fetching(api: Api, hub: Hub, make_fleet: MakeFleet) -> None:
    fleet = make_fleet("n1", "n2")
    distribute(api, "all")
    digest = succeeded(api, "all", 2)["resolved"]["digest"]
    hub.counters.reset()
    for node in ("n1", "n2"):
        fleet.kill(node)
    fleet.start()
    succeeded(api, "all", 2)
    late = fleet.add("n3")
    fleet.start("n3")
    succeeded(api, "all", 3)
    assert files_of(late, digest) == expected(hub)
    assert sent(hub) == 0


def test_the_coordinators_death_costs_no_more_than_what_was_in_flight(
    api: Api, hub: Hub, make_fleet: MakeFleet, cluster: ControlPlane
) -> None:
    fleet = make_fleet("n1", "n2", "n3", MODELSWARM_AGENT_LEASE_SECONDS="6")
    hub.fail("*", Slow(bytes_per_second=1 << 20), on=Kind.CDN)
    distribute(api, "all")
    eventually(lambda: sent(hub) > size(hub) * 0.4, 60)
    holder = coordinator(cluster)
    fleet.kill(holder)
    left = [agent for node, agent in fleet.agents.items() if node != holder]
    digest = status(api, "all")["resolved"]["digest"]
    complete = [agent.store / "models" / digest.removeprefix("sha256:") / ".complete" for agent in left]
    eventually(lambda: all(path.exists() for path in complete), 90, 0.2)
    for agent in left:
        assert files_of(agent, digest) == expected(hub)
    assert coordinator(cluster) in fleet.agents.keys() - {holder}
    # Three segments of 2 MiB that it was given, and one that it had read and nobody had yet.
    assert sent(hub) <= size(hub) + 4 * (2 << 20)


def test_suspended_no_byte_moves_and_resumed_it_goes_on_from_there(api: Api, hub: Hub, make_fleet: MakeFleet) -> None:
    fleet = make_fleet("n1", "n2")
    hub.fail("*", Slow(bytes_per_second=200 << 10), on=Kind.CDN)
    distribute(api, "all")
    eventually(lambda: sent(hub) > size(hub) * 0.2, 60)
    distribute(api, "all", suspend=True)
    eventually(lambda: hub.counters.active == 0, 10)
    stopped = sent(hub)
    assert stopped < size(hub)
    assert not any(list(agent.store.glob("models/*/.complete")) for agent in fleet.agents.values())
    hub.reset()
    distribute(api, "all", suspend=False)
    now = succeeded(api, "all", 2)
    for agent in fleet.agents.values():
        assert files_of(agent, now["resolved"]["digest"]) == expected(hub)
    assert sent(hub) + stopped <= 1.2 * size(hub) + (2 << 20)


def test_with_one_origin_node_one_node_reads(api: Api, hub: Hub, make_fleet: MakeFleet, cluster: ControlPlane) -> None:
    make_fleet("n1", "n2", "n3", P2P_ORIGIN_NODES="1")
    distribute(api, "all")
    succeeded(api, "all", 3)
    caches = json.loads(cluster.kubectl("get", "nodecaches", "-o", "json"))["items"]
    readers = [cache for cache in caches if cache["status"]["models"][0]["originBytes"]]
    assert len(readers) == 1
    assert sent(hub) == size(hub)


def test_without_peers_every_node_downloads_by_itself(api: Api, hub: Hub, make_fleet: MakeFleet) -> None:
    fleet = make_fleet("n1", "n2", P2P_ENABLED="false")
    distribute(api, "all")
    now = succeeded(api, "all", 2)
    for agent in fleet.agents.values():
        assert files_of(agent, now["resolved"]["digest"]) == expected(hub)
    assert sent(hub) == 2 * size(hub)


def test_a_node_without_space_says_how_much_is_missing(api: Api, hub: Hub, make_fleet: MakeFleet) -> None:
    make_fleet("n1", MODELSWARM_AGENT_QUOTA="1Mi")
    distribute(api, "all")

    def look() -> Manifest:
        failures = status(api, "all").get("failures")
        assert failures, status(api, "all")
        found: Manifest = failures[0]
        return found

    failure = eventually(look, 30)
    assert (failure["node"], failure["reason"]) == ("n1", "InsufficientCapacity")
    assert re.search(r"need [0-9.]+Mi, free [0-9.]+(Mi|Ki)?", failure["message"])
    assert sent(hub) == 0
