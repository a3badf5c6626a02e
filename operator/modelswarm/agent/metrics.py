"""What an agent counts: the seed's metrics under the seed's names, and the store's.

``model_hash`` is the seed's name for a model; ``modelswarm_agent_model_info`` says which model it is, so that a query
can join them. What belongs to a model that is gone is forgotten, so that labels do not pile up.
"""

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from enum import StrEnum

from prometheus_client import Counter, Histogram, generate_latest
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, Metric
from prometheus_client.registry import Collector

from modelswarm.agent.standing import Capacity
from modelswarm.api.nodecache import ModelState
from modelswarm.metrics import ClientMetrics

DURATION_BUCKETS = (1, 5, 10, 30, 60, 120, 300, 600, 1200, 1800, 3600, 7200, 14400, 28800, 43200, 86400)
"""Seconds. The seed's, and on to a day: 140 GB over a slow link take hours."""
OTHER = "other"
LONGEST_REASON = 64


class Source(StrEnum):
    """Where a completed model came from, in the seed's words."""

    P2P = "p2p"
    """At least half of its bytes came from peers."""
    HF = "hf"
    """More than half came from the origin, whichever that is."""
    LOCAL = "local"
    """It was on the node already."""

    @classmethod
    def of(cls, origin_bytes: int, peer_bytes: int) -> "Source":
        if not origin_bytes and not peer_bytes:
            return cls.LOCAL
        return cls.P2P if peer_bytes >= origin_bytes else cls.HF


@dataclass(frozen=True, slots=True)
class Live:
    """What is looked up for each scrape. Totals are since the process began, and never go back."""

    bytes_uploaded: int = 0
    bytes_downloaded: int = 0
    """Through the swarm."""
    seeding_torrents: int = 0
    """Complete models that are offered to peers."""
    downloads_in_flight: int = 0
    leases_waiting: int = 0
    """Models for which this node waits for another one, which coordinates them."""
    peers_discovered: int = 0
    """Other agents that the headless Service names."""
    peers_connected: Mapping[str, int] = field(default_factory=dict)
    """By model hash."""
    models: Mapping[str, tuple[str, str]] = field(default_factory=dict)
    """Name and revision by model hash."""
    states: Mapping[ModelState, int] = field(default_factory=dict)
    capacity: Capacity = field(default_factory=Capacity)
    reserved: int = 0
    """Bytes that running downloads still need."""


class AgentMetrics(ClientMetrics):
    """One per process. ``watch`` tells where the rest is looked up."""

    def __init__(self) -> None:
        super().__init__()
        self._downloads = self._p2p("download", "Models that became complete, by where they came from", "source")
        self._durations = Histogram(
            "ome_p2p_download_duration_seconds",
            "From wanted to complete",
            ["source", "model_hash"],
            buckets=DURATION_BUCKETS,
            registry=self.registry,
        )
        self._from_peers = self._p2p("download_bytes_p2p", "Bytes of models that came from peers")
        self._from_origin = self._p2p("download_bytes_hf", "Bytes of models that were read from the origin")
        self._failures = Counter(
            "ome_p2p_download_failures",
            "Downloads that failed, by reason",
            ["model_hash", "reason"],
            registry=self.registry,
        )
        self._verification_failures = self._p2p(
            "verification_failures", "Files whose digest was not the one that the origin gives"
        )
        self._leases_acquired = Counter(
            "ome_p2p_leases_acquired", "Times that this node became a model's coordinator", registry=self.registry
        )
        self._metainfo_requests = Counter(
            "ome_p2p_metainfo_requests", "Requests for metainfo that were answered", ["status"], registry=self.registry
        )
        self._metainfo_latency = Histogram(
            "ome_p2p_metainfo_latency_seconds",
            "Time to answer a request for metainfo",
            ["model_hash"],
            registry=self.registry,
        )
        self.evictions = Counter(
            "modelswarm_agent_evictions", "Models that made room for others", registry=self.registry
        )
        # Without a model's label, so that it is 0 from the start: what a series is born with, no rate() ever sees.
        received = Counter(
            "modelswarm_agent_received_bytes",
            "Bytes of models that arrived on this node, from the origin and from peers",
            ["source"],
            registry=self.registry,
        )
        self._received_from_origin, self._received_from_peers = received.labels("origin"), received.labels("peers")
        self._live = _LiveCollector()
        self._live.transferred = self._transferred
        self._peer_bytes = self._origin_bytes = 0
        self._sources: dict[str, set[str]] = {}
        self._reasons: dict[str, set[str]] = {}
        self.registry.register(self._live)

    def watch(self, live: Callable[[], Live]) -> None:
        """``live`` is called for each scrape, in the event loop."""
        self._live.live = live

    def downloaded(self, model_hash: str, source: Source, seconds: float) -> None:
        """A model became complete ``seconds`` after it was wanted."""
        self._downloads.labels(source, model_hash).inc()
        self._durations.labels(source, model_hash).observe(seconds)
        self._sources.setdefault(model_hash, set()).add(source)

    def received(self, model_hash: str, *, origin_bytes: int = 0, peer_bytes: int = 0) -> None:
        """Bytes of a model arrived (since the last call)."""
        if peer_bytes:
            self._from_peers.labels(model_hash).inc(peer_bytes)
            self._received_from_peers.inc(peer_bytes)
            self._peer_bytes += peer_bytes
        if origin_bytes:
            self._from_origin.labels(model_hash).inc(origin_bytes)
            self._received_from_origin.inc(origin_bytes)
            self._origin_bytes += origin_bytes

    def failed(self, model_hash: str, reason: str) -> None:
        """A download failed. ``reason`` is a fixed word, such as InsufficientCapacity."""
        reason = reason[:LONGEST_REASON] or OTHER
        self._failures.labels(model_hash, reason).inc()
        self._reasons.setdefault(model_hash, set()).add(reason)

    def verification_failed(self, model_hash: str) -> None:
        self._verification_failures.labels(model_hash).inc()

    def lease_acquired(self) -> None:
        self._leases_acquired.inc()

    def metainfo_request(self, status: int, seconds: float, model_hash: str = "") -> None:
        """One request was answered. Only models that this node has get a label of their own: anybody may ask for what
        does not exist."""
        self._metainfo_requests.labels(str(status)).inc()
        known = status == 200 and model_hash
        self._metainfo_latency.labels(model_hash if known else "").observe(seconds)

    def forget(self, model_hash: str) -> None:
        """The model is not wanted on this node any more."""
        for metric in (
            self._from_peers,
            self._from_origin,
            self._verification_failures,
            self._metainfo_latency,
        ):
            metric.remove_by_labels({"model_hash": model_hash})
        for source in self._sources.pop(model_hash, ()):
            self._downloads.remove(source, model_hash)
            self._durations.remove(source, model_hash)
        for reason in self._reasons.pop(model_hash, ()):
            self._failures.remove(model_hash, reason)

    def page(self) -> bytes:
        """The text that Prometheus reads."""
        return generate_latest(self.registry)

    def _transferred(self) -> tuple[int, int]:
        return self._origin_bytes, self._peer_bytes

    def _p2p(self, name: str, description: str, *labels: str) -> Counter:
        return Counter(f"ome_p2p_{name}", description, [*labels, "model_hash"], registry=self.registry)


class _LiveCollector(Collector):
    """What is not counted but looked up at the moment of the scrape."""

    def __init__(self) -> None:
        self.live: Callable[[], Live] = Live
        self.transferred: Callable[[], tuple[int, int]] = lambda: (0, 0)

    def collect(self) -> Iterable[Metric]:
        live = self.live()
        origin, peers = self.transferred()
        yield _counter("ome_p2p_bytes_uploaded", "Bytes sent to peers", live.bytes_uploaded)
        yield _counter("ome_p2p_bytes_downloaded", "Bytes received from peers", live.bytes_downloaded)
        yield _gauge("ome_p2p_seeding_torrents", "Complete models offered to peers", live.seeding_torrents)
        yield _gauge("ome_p2p_downloads_in_flight", "Models that are being fetched", live.downloads_in_flight)
        yield _gauge("ome_p2p_leases_waiting", "Models that another node coordinates", live.leases_waiting)
        ratio = peers / (origin + peers) if origin + peers else 0.0
        yield _gauge("ome_p2p_download_ratio", "Part of all bytes of models that came from peers, 0 to 1", ratio)
        discovered = GaugeMetricFamily(
            "ome_p2p_peers_discovered", "Other agents that the headless Service names", labels=["model_hash"]
        )
        for model_hash in sorted(live.models):
            discovered.add_metric([model_hash], live.peers_discovered)
        yield discovered
        connected = GaugeMetricFamily(
            "ome_p2p_peers_connected",
            "Members that bring the model to its nodes with this one now",
            labels=["model_hash"],
        )
        for model_hash, count in sorted(live.peers_connected.items()):
            connected.add_metric([model_hash], count)
        yield connected
        info = GaugeMetricFamily(
            "modelswarm_agent_model_info", "1: which model a hash is", labels=["model_hash", "model", "revision"]
        )
        for model_hash, (name, revision) in sorted(live.models.items()):
            info.add_metric([model_hash, name, revision], 1)
        yield info
        states = GaugeMetricFamily("modelswarm_agent_models", "Models on this node by state", labels=["state"])
        for state in ModelState:
            states.add_metric([state], live.states.get(state, 0))
        yield states
        capacity = live.capacity
        yield _gauge("modelswarm_agent_store_capacity_bytes", "Space that models may take", capacity.total)
        yield _gauge("modelswarm_agent_store_used_bytes", "Space that models take", capacity.used)
        yield _gauge("modelswarm_agent_store_free_bytes", "Space that is left for models", capacity.free)
        yield _gauge("modelswarm_agent_store_reserved_bytes", "Space that running downloads need", live.reserved)


def _counter(name: str, description: str, value: float) -> Metric:
    return CounterMetricFamily(name, description, value=value)


def _gauge(name: str, description: str, value: float) -> Metric:
    return GaugeMetricFamily(name, description, value=value)
