"""Agents of the seed under other settings than its manifest's, and its two commands before and after OME."""

import socket
from pathlib import Path

import pytest

from dev.agents import METAINFO_PORT, TORRENT_PORT
from dev.controlplane import ControlPlane
from dev.hub import HubThread, Kind, Slow
from tests.integration.seed.conftest import (
    HTTP,
    MODEL_DIR,
    MakeFleet,
    Seed,
    digests,
    files_in,
    fleet_of,
    install_seed,
    lease_name,
    metainfo,
    model_hash,
    size,
)
from tests.integration.support import Api, eventually
from tests.integration.support.ome import OME_CRDS, base_model

LABEL = "models.ome.io/clusterbasemodel.{}"


@pytest.mark.parametrize("ome", ["before", "after"])
def test_two_commands_on_an_empty_cluster_and_a_model_arrives(ome: str, origin: HubThread, tmp_path: Path) -> None:
    repository = origin.hub.repositories["org/template"]
    with ControlPlane(controllers=False, scheduler=False) as cluster, Api(cluster) as api:
        if ome == "before":
            cluster.apply(OME_CRDS)
        install_seed(cluster)
        with fleet_of(cluster, tmp_path, origin.url, {"n1": {}}) as fleet:
            if ome == "after":
                # Agents look every half minute whether a kind that was not there has come.
                cluster.apply(OME_CRDS)
            api.create(base_model("m", "hf://org/template", path=f"{MODEL_DIR}/org/template"))
            label = LABEL.format("m")
            eventually(lambda: api.get("Node", "n1")["metadata"]["labels"].get(label) == "Ready", 120, 0.2)
            assert files_in(fleet.agents["n1"].store / "org" / "template") == digests(repository)


def test_a_lease_names_the_readers_and_is_made_again_when_it_is_deleted(seed: Seed, make_fleet: MakeFleet) -> None:
    fleet = make_fleet("n1", "n2", MODELSWARM_AGENT_LEASE_SECONDS="8")
    repository = seed.repository()
    for kind in (Kind.CDN, Kind.RESOLVE):
        seed.hub.fail("*", Slow(bytes_per_second=64 << 10), on=kind)
    seed.create("m", f"hf://{repository.id}", path=f"{MODEL_DIR}/m")
    # Who downloads: kubectl get leases -n ome -o yaml
    eventually(lambda: "origin-readers: n" in seed.cluster.kubectl("get", "leases", "-n", "ome", "-o", "yaml"), 30, 0.2)
    seed.cluster.kubectl("delete", "lease", lease_name(repository), "-n", "ome")
    seed.hub.faults.clear()
    seed.ready(LABEL.format("m"), *fleet.agents.values())
    for agent in fleet.agents.values():
        assert files_in(agent.store / "m") == digests(repository)
    assert seed.sent() <= size(repository) + 4 * (2 << 20)


def test_with_a_secret_only_its_holders_are_told(seed: Seed, make_fleet: MakeFleet, tmp_path: Path) -> None:
    secret = tmp_path / "secret"
    secret.write_text("of this test, and of no other one\n")
    fleet = make_fleet("n1", "n2", MODELSWARM_AGENT_PEER_SECRET_FILE=str(secret))
    repository = seed.repository()
    seed.create("m", f"hf://{repository.id}", path=f"{MODEL_DIR}/m")
    seed.ready(LABEL.format("m"), *fleet.agents.values())
    assert seed.sent() == size(repository)
    agent = fleet.agents["n1"]
    assert metainfo(agent, "/health").status_code == 200
    for route in ("/stats", "/models", f"/metainfo/{model_hash(repository)}"):
        assert metainfo(agent, route).status_code == 401


def test_other_ports_rates_and_encryption(seed: Seed, make_fleet: MakeFleet) -> None:
    """The rows of the README's table that its manifest leaves at their defaults."""
    torrent, metainfo_port = 7881, 9081
    fleet = make_fleet(
        "n1",
        "n2",
        P2P_TORRENT_PORT=str(torrent),
        P2P_METAINFO_PORT=str(metainfo_port),
        P2P_MAX_DOWNLOAD_RATE="104857600",
        P2P_MAX_UPLOAD_RATE="104857600",
        P2P_ENCRYPTION_ENABLED="true",
        P2P_ENCRYPTION_REQUIRED="true",
    )
    repository = seed.repository()
    seed.create("m", f"hf://{repository.id}", path=f"{MODEL_DIR}/m")
    seed.ready(LABEL.format("m"), *fleet.agents.values())
    assert seed.sent() == size(repository)
    for agent in fleet.agents.values():
        assert files_in(agent.store / "m") == digests(repository)
        assert HTTP.get(f"http://{agent.host}:{metainfo_port}/health").text == "ok"
        told = seed.api.get("NodeCache", agent.node)["status"]["agent"]
        assert told["torrentAddress"] == f"{agent.host}:{torrent}"
        assert told["metainfoURL"] == f"http://{agent.host}:{metainfo_port}"
        with socket.create_connection((agent.host, torrent), timeout=5):
            pass
        for port in (TORRENT_PORT, METAINFO_PORT):
            with pytest.raises(OSError, match="refused"), socket.create_connection((agent.host, port), timeout=5):
                pass


def test_without_p2p_every_node_downloads_by_itself(seed: Seed, make_fleet: MakeFleet) -> None:
    fleet = make_fleet("n1", "n2", P2P_ENABLED="false")
    repository = seed.repository()
    seed.create("m", f"hf://{repository.id}", path=f"{MODEL_DIR}/m")
    seed.ready(LABEL.format("m"), *fleet.agents.values())
    for agent in fleet.agents.values():
        assert files_in(agent.store / "m") == digests(repository)
        assert "P2P disabled" in agent.child.log.read_text()
        for port in (TORRENT_PORT, METAINFO_PORT):
            with pytest.raises(OSError, match="refused"), socket.create_connection((agent.host, port), timeout=5):
                pass
    assert seed.sent() == 2 * size(repository)
    assert seed.lease(repository) is None
