"""The seed's README, read by somebody who knows nothing else: its commands, ports, routes, Lease and steps."""

import json
import re
import socket

from dev.agents import HTTP_PORT, METAINFO_PORT, TORRENT_PORT, AgentFleet
from dev.hub import Kind, Slow
from tests.integration.seed.conftest import (
    HTTP,
    MODEL_DIR,
    Seed,
    digests,
    files_in,
    lease_name,
    metainfo,
    model_hash,
    size,
)
from tests.integration.support import eventually

LABEL = "models.ome.io/clusterbasemodel.{}"


def test_a_model_reaches_its_nodes_and_leaves_the_origin_once(seed: Seed, fleet: AgentFleet) -> None:
    repository, path = seed.repository(), f"{MODEL_DIR}/meta/llama"
    term = {"matchExpressions": [{"key": "zone", "operator": "In", "values": ["a", "b"]}]}
    affinity = {"requiredDuringSchedulingIgnoredDuringExecution": {"nodeSelectorTerms": [term]}}
    seed.create("llama", f"hf://{repository.id}", path=path, nodeSelector={"gpu": "a100"}, nodeAffinity=affinity)
    chosen = [fleet.agents[node] for node in ("n1", "n2")]
    seed.ready(LABEL.format("llama"), *chosen)
    for agent in chosen:
        assert files_in(agent.store / "meta" / "llama") == digests(repository)
        entry = seed.entries(agent.node)["clusterbasemodel.llama"]
        assert (entry["name"], entry["status"], "progress" in entry) == ("llama", "Ready", False)
    assert not (fleet.agents["n3"].store / "meta").exists()
    assert seed.entries("n3") == {}
    assert seed.sent() == size(repository)
    assert seed.api.get("ConfigMap", "n1", "ome")["metadata"]["labels"] == {
        "models.ome/basemodel-status": "true",
        "node": "n1",
    }


def test_a_branch_a_namespace_and_a_token_from_a_secret(seed: Seed, fleet: AgentFleet) -> None:
    token = "hf_of_this_test"
    repository = seed.repository()
    repository.gated = "auto"
    seed.hub.allow(token, repository.id)
    commit = repository.commit({"config.json": b'{"branch": "dev"}'}, base="main")
    repository.move("dev", commit)
    for namespace, name in (("ome", "hf-token"), ("default", "another")):
        secret = {"apiVersion": "v1", "kind": "Secret", "metadata": {"name": name, "namespace": namespace}}
        seed.api.apply({**secret, "stringData": {"token": token}})
    seed.create("gated", f"hf://{repository.id}@dev", key="hf-token", path=f"{MODEL_DIR}/gated")
    seed.ready(LABEL.format("gated"), *fleet.agents.values())
    for agent in fleet.agents.values():
        assert files_in(agent.store / "gated") == digests(repository, "dev")
    assert seed.sent() == size(repository, "dev")
    # Another namespace's Secret may not be read before somebody allows it, and the message has the command.
    other = seed.repository()
    seed.create("mine", f"hf://{other.id}", "default", key="another", path=f"{MODEL_DIR}/mine")
    failed = eventually(lambda: [each for each in seed.models("n1") if each["state"] == "Failed"], 20, 0.2)
    assert failed[0]["reason"] == "CredentialNotReadable"
    assert "kubectl -n default create role" in failed[0]["message"]
    assert token not in json.dumps([*failed, *(agent.child.log.read_text() for agent in fleet.agents.values())])


def test_the_lease_is_found_by_the_troubleshooting_commands(seed: Seed, fleet: AgentFleet) -> None:
    repository = seed.repository()
    for kind in (Kind.CDN, Kind.RESOLVE):
        seed.hub.fail("*", Slow(bytes_per_second=100 << 10), on=kind)
    seed.create("m", f"hf://{repository.id}", path=f"{MODEL_DIR}/m")
    selector = ("get", "leases", "-n", "ome", "-l", "ome.io/type=model-download", "-o", "name")
    name = lease_name(repository)
    eventually(lambda: name in seed.cluster.kubectl(*selector), 20, 0.2)
    lease = eventually(lambda: seed.lease(repository))
    assert lease["spec"]["holderIdentity"] in fleet.agents
    assert lease["spec"]["leaseDurationSeconds"] == 120
    assert "ome.io/status" not in lease["metadata"]["labels"]
    seed.hub.faults.clear()
    seed.ready(LABEL.format("m"), *fleet.agents.values())

    def complete() -> bool:
        found = seed.lease(repository)
        return found is not None and found["metadata"]["labels"].get("ome.io/status") == "complete"

    eventually(complete, 30, 0.2)
    assert "ome-peers" in seed.cluster.kubectl("get", "svc", "ome-peers", "-n", "ome")
    assert seed.sent() == size(repository)


def test_who_downloads_is_on_the_lease_long_before_it_is_renewed(seed: Seed, fleet: AgentFleet) -> None:
    """kubectl get leases -n ome -o yaml"""
    repository = seed.repository()
    for kind in (Kind.CDN, Kind.RESOLVE):
        seed.hub.fail("*", Slow(bytes_per_second=100 << 10), on=kind)
    seed.create("m", f"hf://{repository.id}", path=f"{MODEL_DIR}/m")

    def readers() -> set[str]:
        lease = seed.lease(repository) or {"metadata": {"annotations": {}}}
        named = lease["metadata"]["annotations"].get("modelswarm.io/origin-readers", "")
        return set(filter(None, named.split(",")))

    # With what eventually allows a busy machine, that is still less than the 30 s of a renewal.
    named = eventually(readers, 5, 0.1)
    assert named <= set(fleet.agents)
    seed.hub.faults.clear()
    seed.ready(LABEL.format("m"), *fleet.agents.values())


def test_a_deleted_lease_keeps_nothing_from_going_on(seed: Seed, fleet: AgentFleet) -> None:
    """kubectl delete lease ome-model-<hash> -n ome"""
    repository, name = seed.repository(), LABEL.format("m")
    # One that a node left which does not exist any more: nobody renews it.
    now = "2020-01-01T00:00:00.000000Z"
    metadata = {"name": lease_name(repository), "namespace": "ome", "labels": {"ome.io/type": "model-download"}}
    spec = {"holderIdentity": "gone", "leaseDurationSeconds": 86400, "renewTime": now, "acquireTime": now}
    stuck = {"apiVersion": "coordination.k8s.io/v1", "kind": "Lease", "metadata": metadata, "spec": spec}
    seed.api.create(stuck)
    seed.create("m", f"hf://{repository.id}", path=f"{MODEL_DIR}/m")
    waiting = eventually(lambda: [each for each in seed.models("n1") if each["state"] == "Waiting"], 20, 0.2)
    assert waiting[0]["name"] == repository.id
    assert seed.sent() == 0
    seed.cluster.kubectl("delete", "lease", lease_name(repository), "-n", "ome")
    seed.ready(name, *fleet.agents.values())
    assert seed.sent() == size(repository)


def test_the_routes_answer_whoever_asks_while_there_is_no_secret(seed: Seed, fleet: AgentFleet) -> None:
    repository = seed.repository()
    seed.create("m", f"hf://{repository.id}", path=f"{MODEL_DIR}/m")
    seed.ready(LABEL.format("m"), *fleet.agents.values())
    wanted = model_hash(repository)
    for agent in fleet.agents.values():
        assert metainfo(agent, "/health").text == "ok"
        eventually(lambda agent=agent: {"hash": wanted, "seeding": True} in metainfo(agent, "/models").json(), 20)
        torrent = metainfo(agent, f"/metainfo/{wanted}")
        assert (torrent.status_code, torrent.headers["Content-Type"]) == (200, "application/x-bittorrent")
        assert b"4:infod" in torrent.content
        assert metainfo(agent, f"/metainfo/{'0' * 64}").status_code == 404
        assert metainfo(agent, "/metainfo/..%2f..%2fetc").status_code == 400
        assert metainfo(agent, "/metainfo/").status_code == 400
        stats = metainfo(agent, "/stats").json()
        assert stats.keys() == {"active_torrents", "total_bytes_uploaded", "total_bytes_downloaded", "active_peers"}
        # The swarm is asked for its counters now and then.
        eventually(lambda agent=agent: metainfo(agent, "/stats").json()["active_torrents"] >= 1, 15, 0.2)

    def uploaded() -> int:
        return sum(metainfo(agent, "/stats").json()["total_bytes_uploaded"] for agent in fleet.agents.values())

    eventually(lambda: uploaded() >= size(repository), 15, 0.2)


def test_the_ports_are_open_and_the_probes_answer(seed: Seed, fleet: AgentFleet) -> None:
    """nc -zv PEER 6881, and what the manifest's probes ask."""
    agent = fleet.agents["n1"]
    for port in (TORRENT_PORT, METAINFO_PORT, HTTP_PORT):
        with socket.create_connection((agent.host, port), timeout=5):
            pass
    for probe in ("/healthz", "/livez", "/readyz"):
        assert HTTP.get(f"{agent.url}{probe}").status_code == 200
    assert "ome_p2p_seeding_torrents" in agent.metrics()


def test_a_node_that_is_cordoned_keeps_its_models_and_says_that_it_takes_no_pods(seed: Seed, fleet: AgentFleet) -> None:
    repository = seed.repository()
    try:
        seed.cluster.kubectl("cordon", "n1")
        eventually(lambda: closed_by(seed, "n1") == "node.kubernetes.io/unschedulable", 20, 0.1)
        seed.create("m", f"hf://{repository.id}", path=f"{MODEL_DIR}/m")
        # OME's selector and affinity say where BaseModels go, and nothing else does.
        seed.ready(LABEL.format("m"), *fleet.agents.values())
        seed.cluster.kubectl("taint", "node", "n2", "maintenance=now:NoSchedule")
        eventually(lambda: closed_by(seed, "n2") == "maintenance", 20, 0.1)
    finally:
        seed.cluster.kubectl("uncordon", "n1")
        seed.cluster.kubectl("taint", "node", "n2", "maintenance-", check=False)
    eventually(lambda: [closed_by(seed, node) for node in fleet.agents] == [None] * len(fleet.agents), 20, 0.1)


def closed_by(seed: Seed, node: str) -> str | None:
    found = seed.api.get("NodeCache", node)["status"].get("closedBy")
    return str(found) if found is not None else None


def test_grep_p2p_tells_the_story(seed: Seed, fleet: AgentFleet) -> None:
    """kubectl logs POD | grep "P2P" """
    repository = seed.repository()
    seed.create("m", f"hf://{repository.id}", path=f"{MODEL_DIR}/m")
    seed.ready(LABEL.format("m"), *fleet.agents.values())
    ready = re.compile(rf"P2P {repository.id} is ready: {size(repository)} bytes")
    for agent in fleet.agents.values():
        # The cluster is told first, and the log then.
        eventually(lambda agent=agent: ready.search(agent.child.log.read_text()), 10)
        lines = [line for line in agent.child.log.read_text().splitlines() if "P2P" in line]
        assert any("P2P enabled: BitTorrent on port 6881, metainfo on port 8081" in line for line in lines)
        assert any(ready.search(line) for line in lines)
    everything = "".join(agent.child.log.read_text() for agent in fleet.agents.values())
    assert f"P2P lease {lease_name(repository)}" in everything
    assert "Traceback" not in everything
