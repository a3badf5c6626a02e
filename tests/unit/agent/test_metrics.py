"""The seed's metrics under the seed's names with real values; and what the kubelet asks."""

import asyncio
import re
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path

import httpx
import pytest

from modelswarm.agent.metrics import DURATION_BUCKETS, AgentMetrics, Live, Source
from modelswarm.agent.probes import Probes
from modelswarm.agent.standing import Capacity
from modelswarm.api.nodecache import ModelState

HASH = "ab" * 32
LIVE = Live(
    bytes_uploaded=11,
    bytes_downloaded=12,
    seeding_torrents=3,
    downloads_in_flight=2,
    leases_waiting=1,
    peers_discovered=9,
    peers_connected={HASH: 4},
    models={HASH: ("org/model", "main")},
    states={ModelState.READY: 5},
    capacity=Capacity(total=100, used=60, free=40),
    reserved=7,
)


def full() -> AgentMetrics:
    metrics = AgentMetrics()
    metrics.watch(lambda: LIVE)
    metrics.downloaded(HASH, Source.P2P, 5000.0)
    metrics.received(HASH, origin_bytes=100, peer_bytes=300)
    metrics.failed(HASH, "InsufficientCapacity")
    metrics.verification_failed(HASH)
    metrics.lease_acquired()
    metrics.metainfo_request(200, 0.02, HASH)
    return metrics


def samples(metrics: AgentMetrics) -> dict[str, float]:
    lines = (line for line in metrics.page().decode().splitlines() if not line.startswith("#"))
    return {name: float(value) for name, _, value in (line.rpartition(" ") for line in lines)}


def of_hash(name: str, **labels: str) -> str:
    pairs = sorted({**labels, "model_hash": HASH}.items())
    return name + "{" + ",".join(f'{key}="{value}"' for key, value in pairs) + "}"


SEED = {
    of_hash("ome_p2p_download_total", source="p2p"): 1,
    of_hash("ome_p2p_download_duration_seconds_count", source="p2p"): 1,
    "ome_p2p_downloads_in_flight": 2,
    of_hash("ome_p2p_download_bytes_p2p_total"): 300,
    of_hash("ome_p2p_download_bytes_hf_total"): 100,
    of_hash("ome_p2p_download_failures_total", reason="InsufficientCapacity"): 1,
    of_hash("ome_p2p_verification_failures_total"): 1,
    of_hash("ome_p2p_peers_discovered"): 9,
    of_hash("ome_p2p_peers_connected"): 4,
    "ome_p2p_leases_acquired_total": 1,
    "ome_p2p_leases_waiting": 1,
    "ome_p2p_seeding_torrents": 3,
    "ome_p2p_bytes_uploaded_total": 11,
    "ome_p2p_bytes_downloaded_total": 12,
    "ome_p2p_download_ratio": 0.75,
    'ome_p2p_metainfo_requests_total{status="200"}': 1,
    of_hash("ome_p2p_metainfo_latency_seconds_count"): 1,
}
OURS = {
    'modelswarm_agent_received_bytes_total{source="origin"}': 100,
    'modelswarm_agent_received_bytes_total{source="peers"}': 300,
    of_hash("modelswarm_agent_model_info", model="org/model", revision="main"): 1,
    'modelswarm_agent_models{state="Ready"}': 5,
    'modelswarm_agent_models{state="Failed"}': 0,
    "modelswarm_agent_evictions_total": 0,
    "modelswarm_agent_store_capacity_bytes": 100,
    "modelswarm_agent_store_used_bytes": 60,
    "modelswarm_agent_store_free_bytes": 40,
    "modelswarm_agent_store_reserved_bytes": 7,
}


@pytest.mark.parametrize(("name", "value"), {**SEED, **OURS}.items())
def test_every_metric_has_its_value(name: str, value: float) -> None:
    found = {_sorted_labels(each): amount for each, amount in samples(full()).items()}
    assert found[name] == value


def _sorted_labels(sample: str) -> str:
    name, brace, rest = sample.partition("{")
    if not brace:
        return name
    return name + "{" + ",".join(sorted(re.findall(r'[a-z_]+="[^"]*"', rest))) + "}"


def test_all_seventeen_of_the_seed_are_there() -> None:
    assert len(SEED) == 17
    names = {name.split(" ")[2] for name in full().page().decode().splitlines() if name.startswith("# TYPE ome_p2p_")}
    assert len({name for name in names if not name.endswith("_created")}) == 17


def test_durations_reach_a_day() -> None:
    assert DURATION_BUCKETS[-1] == 24 * 3600
    found = samples(full())
    inside = [name for name, count in found.items() if "duration_seconds_bucket" in name and count]
    assert any('le="7200.0"' in name for name in inside)
    assert not any('le="3600.0"' in name for name in inside)


@pytest.mark.parametrize(
    ("origin", "peers", "source"),
    [
        pytest.param(0, 0, Source.LOCAL, id="it was there"),
        pytest.param(1, 99, Source.P2P, id="mostly peers"),
        pytest.param(50, 50, Source.P2P, id="half and half"),
        pytest.param(99, 1, Source.HF, id="mostly the origin"),
    ],
)
def test_where_a_model_came_from(origin: int, peers: int, source: Source) -> None:
    assert Source.of(origin, peers) is source


def test_received_bytes_are_there_from_the_start_so_that_rates_see_the_first() -> None:
    found = samples(AgentMetrics())
    assert [found[f'modelswarm_agent_received_bytes_total{{source="{each}"}}'] for each in ("origin", "peers")] == [
        0,
        0,
    ]


def test_a_model_that_is_gone_leaves_no_labels() -> None:
    metrics = full()
    metrics.watch(Live)
    metrics.forget(HASH)
    metrics.forget(HASH)
    assert HASH not in metrics.page().decode()
    assert samples(metrics)["ome_p2p_download_ratio"] == 0.75


def test_strangers_cannot_make_labels() -> None:
    metrics = AgentMetrics()
    for number in range(100):
        metrics.metainfo_request(404, 0.01, f"{number:064x}")
    found = samples(metrics)
    assert found['ome_p2p_metainfo_requests_total{status="404"}'] == 100
    assert len([name for name in found if "latency_seconds_count" in name]) == 1


def test_the_client_and_the_events_count_into_the_same_page() -> None:
    metrics = AgentMetrics()
    metrics.api_request("list", "Pod", 200)
    metrics.events_dropped.labels("queue_full").inc()
    found = samples(metrics)
    assert found['modelswarm_api_requests_total{code="200",kind="Pod",verb="list"}'] == 1
    assert found['modelswarm_events_dropped_total{cause="queue_full"}'] == 1


# What the kubelet asks


@asynccontextmanager
async def serving(
    root: Path, waiting_for: Callable[[], str] = lambda: ""
) -> AsyncIterator[Callable[[str], "asyncio.Future[httpx.Response]"]]:
    probes = Probes(root, full(), waiting_for)
    port = await probes.start(0, "127.0.0.1")
    async with httpx.AsyncClient(base_url=f"http://127.0.0.1:{port}", trust_env=False) as http:
        yield lambda path: asyncio.ensure_future(http.get(path))
    await probes.stop()


async def test_all_is_well(tmp_path: Path) -> None:
    async with serving(tmp_path) as get:
        assert [(await get(path)).status_code for path in ("/healthz", "/livez", "/readyz", "/metrics")] == [200] * 4
        assert (await get("/metrics")).headers["content-type"].startswith("text/plain; version=0.0.4")
        assert (await get("/other")).status_code == 404


async def test_without_its_directory_the_agent_is_alive_but_not_ready(tmp_path: Path) -> None:
    async with serving(tmp_path / "gone") as get:
        assert (await get("/livez")).status_code == 200
        for path in ("/healthz", "/readyz"):
            answer = await get(path)
            assert answer.status_code == 503
            assert "is not a directory" in answer.text


async def test_a_file_in_its_place_is_no_directory(tmp_path: Path) -> None:
    (tmp_path / "models").write_text("")
    async with serving(tmp_path / "models") as get:
        assert (await get("/healthz")).status_code == 503


async def test_not_ready_says_why(tmp_path: Path) -> None:
    missing = "waiting for the list of tasks"
    async with serving(tmp_path, lambda: missing) as get:
        answer = await get("/readyz")
        assert (answer.status_code, answer.text) == (503, f"{missing}\n")
        assert (await get("/healthz")).status_code == 200
        missing = ""
        assert (await get("/readyz")).status_code == 200
