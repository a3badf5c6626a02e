"""The seventeen metrics of the seed, on port 8080, with the numbers that hub, sizes and nodes give."""

import pytest
from prometheus_client.parser import text_string_to_metric_families
from prometheus_client.samples import Sample

from dev.agents import Agent
from dev.hub import Kind, Slow, WrongBytes
from tests.integration.seed.conftest import MODEL_DIR, MakeFleet, Seed, metainfo, model_hash, size
from tests.integration.support import eventually

LABEL = "models.ome.io/clusterbasemodel.{}"
TWICE = 256 << 10
"""Bytes that may come to a node from two peers at once: both are counted, because both have travelled."""
NAMES = {
    "ome_p2p_download_total": "counter",
    "ome_p2p_download_duration_seconds": "histogram",
    "ome_p2p_downloads_in_flight": "gauge",
    "ome_p2p_download_bytes_p2p_total": "counter",
    "ome_p2p_download_bytes_hf_total": "counter",
    "ome_p2p_download_failures_total": "counter",
    "ome_p2p_verification_failures_total": "counter",
    "ome_p2p_peers_discovered": "gauge",
    "ome_p2p_peers_connected": "gauge",
    "ome_p2p_leases_acquired_total": "counter",
    "ome_p2p_leases_waiting": "gauge",
    "ome_p2p_seeding_torrents": "gauge",
    "ome_p2p_bytes_uploaded_total": "counter",
    "ome_p2p_bytes_downloaded_total": "counter",
    "ome_p2p_download_ratio": "gauge",
    "ome_p2p_metainfo_requests_total": "counter",
    "ome_p2p_metainfo_latency_seconds": "histogram",
}


class Page:
    """What one agent's /metrics says."""

    def __init__(self, agent: Agent) -> None:
        self.families = {family.name: family for family in text_string_to_metric_families(agent.metrics())}
        self.samples: list[Sample] = [sample for family in self.families.values() for sample in family.samples]

    def of(self, name: str, **labels: str) -> float:
        """The sum of the samples with these labels; 0 without any."""
        return sum(
            sample.value for sample in self.samples if sample.name == name and labels.items() <= sample.labels.items()
        )

    def kinds(self) -> dict[str, str]:
        """Name and type of every metric; a counter's name ends in _total, as everybody writes it."""
        return {
            name + ("_total" if family.type == "counter" else ""): family.type for name, family in self.families.items()
        }


@pytest.fixture
def fleet_agents(make_fleet: MakeFleet) -> list[Agent]:
    return list(make_fleet("n1", "n2", "n3").agents.values())


def test_after_a_run_every_number_is_true(seed: Seed, fleet_agents: list[Agent]) -> None:
    agents, repository = fleet_agents, seed.repository()
    whole, wanted = size(repository), model_hash(repository)
    seed.create("m", f"hf://{repository.id}", path=f"{MODEL_DIR}/m")
    seed.ready(LABEL.format("m"), *agents)
    eventually(lambda: all(Page(agent).of("ome_p2p_seeding_torrents") == 1 for agent in agents), 30, 0.2)
    eventually(lambda: all(Page(agent).of("ome_p2p_downloads_in_flight") == 0 for agent in agents), 30, 0.2)
    # What one has sent another has received; some of it comes as small files over HTTP. The swarm is asked for its
    # counters now and then.
    eventually(lambda: sum(Page(agent).of("ome_p2p_bytes_uploaded_total") for agent in agents) >= 2 * whole, 15, 0.2)
    pages = [Page(agent) for agent in agents]
    for page in pages:
        assert {name: kind for name, kind in page.kinds().items() if name in NAMES} == NAMES
        assert page.of("ome_p2p_download_total", model_hash=wanted) == 1
        assert page.of("ome_p2p_download_duration_seconds_count", model_hash=wanted) == 1
        assert 0 < page.of("ome_p2p_download_duration_seconds_sum", model_hash=wanted) < 120
        assert page.of("ome_p2p_peers_discovered", model_hash=wanted) == 2
        assert page.of("ome_p2p_leases_waiting") == 0
        assert page.of("ome_p2p_download_failures_total") == 0
        assert page.of("ome_p2p_verification_failures_total") == 0
        got = {kind: page.of(f"ome_p2p_download_bytes_{kind}_total", model_hash=wanted) for kind in ("hf", "p2p")}
        assert whole <= sum(got.values()) <= whole + TWICE
        assert page.of("ome_p2p_download_ratio") == pytest.approx(got["p2p"] / sum(got.values()))
        source = "p2p" if got["p2p"] >= got["hf"] else "hf"
        assert page.of("ome_p2p_download_total", source=source, model_hash=wanted) == 1
        assert page.of("modelswarm_agent_model_info", model_hash=wanted, model=repository.id, revision="main") == 1

    def total(name: str, **labels: str) -> float:
        return sum(page.of(name, **labels) for page in pages)

    assert total("ome_p2p_download_bytes_hf_total", model_hash=wanted) == whole == seed.sent()
    assert 2 * whole <= total("ome_p2p_download_bytes_p2p_total", model_hash=wanted) <= 2 * (whole + TWICE)
    assert total("ome_p2p_leases_acquired_total") == 1
    assert total("ome_p2p_bytes_downloaded_total") == pytest.approx(total("ome_p2p_bytes_uploaded_total"), rel=0.02)
    assert total("ome_p2p_metainfo_requests_total") > 0
    assert total("ome_p2p_metainfo_latency_seconds_count") == total("ome_p2p_metainfo_requests_total")


def test_while_it_runs_the_gauges_move(seed: Seed, fleet_agents: list[Agent]) -> None:
    agents, repository = fleet_agents, seed.repository()
    wanted = model_hash(repository)
    for kind in (Kind.CDN, Kind.RESOLVE):
        seed.hub.fail("*", Slow(bytes_per_second=40 << 10), on=kind)
    seed.create("m", f"hf://{repository.id}", path=f"{MODEL_DIR}/m")

    def look() -> bool:
        pages = [Page(agent) for agent in agents]
        assert [page.of("ome_p2p_downloads_in_flight") for page in pages] == [1, 1, 1]
        assert sum(page.of("ome_p2p_leases_waiting") for page in pages) == 2
        assert [page.of("ome_p2p_peers_connected", model_hash=wanted) for page in pages] == [2, 2, 2]
        assert sum(page.of("ome_p2p_download_bytes_hf_total") for page in pages) > 0
        return True

    eventually(look, 20, 0.2)
    seed.hub.reset()
    seed.ready(LABEL.format("m"), *agents)


def test_a_node_that_has_it_says_local_and_one_that_comes_late_p2p(seed: Seed, make_fleet: MakeFleet) -> None:
    fleet = make_fleet("n1", "n2")
    repository = seed.repository()
    wanted = model_hash(repository)
    agents = list(fleet.agents.values())
    seed.create("m", f"hf://{repository.id}", path=f"{MODEL_DIR}/m")
    seed.ready(LABEL.format("m"), *agents)
    fleet.stop("n1")
    fleet.start("n1")
    eventually(lambda: Page(agents[0]).of("ome_p2p_seeding_torrents") == 1, 30, 0.2)
    again = Page(agents[0])
    assert again.of("ome_p2p_download_total", source="local", model_hash=wanted) == 1
    assert again.of("ome_p2p_download_total") == 1
    assert again.of("ome_p2p_download_bytes_hf_total") == again.of("ome_p2p_download_bytes_p2p_total") == 0
    assert again.of("ome_p2p_leases_acquired_total") == 0
    seed.hub.counters.reset()
    fleet.remove("n2")
    late = fleet.add("n2", agents[1].host)
    fleet.start("n2")
    seed.ready(LABEL.format("m"), agents[0], late)
    eventually(lambda: Page(late).of("ome_p2p_seeding_torrents") == 1, 30, 0.2)
    page = Page(late)
    assert page.of("ome_p2p_download_total", source="p2p", model_hash=wanted) == 1
    assert 0 <= page.of("ome_p2p_download_bytes_p2p_total", model_hash=wanted) - size(repository) <= TWICE
    assert page.of("ome_p2p_download_bytes_hf_total") == seed.sent() == 0
    assert page.of("ome_p2p_download_ratio") == 1
    # The swarm is asked for its counters now and then.
    eventually(lambda: Page(agents[0]).of("ome_p2p_bytes_uploaded_total") >= size(repository), 15, 0.2)
    served = Page(agents[0])
    assert served.of("ome_p2p_metainfo_requests_total", status="200") >= 1
    assert served.of("ome_p2p_metainfo_latency_seconds_count", model_hash=wanted) >= 1
    assert metainfo(agents[0], f"/metainfo/{'0' * 64}").status_code == 404
    assert Page(agents[0]).of("ome_p2p_metainfo_requests_total", status="404") >= 1


def test_failures_are_counted_by_reason_and_a_model_that_is_gone_by_none(seed: Seed, make_fleet: MakeFleet) -> None:
    [agent] = make_fleet("n1").agents.values()
    seed.create("nothing", "hf://nobody/nothing")
    repository = seed.repository()
    shard = next(path for path in repository.get("main").files if path.endswith(".safetensors"))
    seed.hub.fail(shard, WrongBytes(), on=Kind.CDN, times=1)
    seed.hub.fail(shard, WrongBytes(), on=Kind.RESOLVE, times=1)
    seed.create("m", f"hf://{repository.id}", path=f"{MODEL_DIR}/m")
    seed.ready(LABEL.format("m"), agent)
    eventually(lambda: Page(agent).of("ome_p2p_download_failures_total", reason="SourceNotFound") >= 1, 20, 0.2)
    assert Page(agent).of("ome_p2p_verification_failures_total", model_hash=model_hash(repository)) >= 1
    seed.delete_models()
    wanted = model_hash(repository)
    eventually(lambda: not [each for each in Page(agent).samples if each.labels.get("model_hash") == wanted], 20, 0.2)
    assert Page(agent).of("ome_p2p_seeding_torrents") == 0
