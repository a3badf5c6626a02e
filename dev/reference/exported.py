"""What the programs export, as their registries tell it once everything in them has counted something."""

from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType

from prometheus_client import CollectorRegistry, Metric

from modelswarm.agent.metrics import AgentMetrics, Live, Source
from modelswarm.metrics import ClientMetrics, Metrics, TaskProblem

OURS = ("modelswarm_", "ome_")
_HASH = "0" * 64


class NothingCounted(RuntimeError):
    """A metric with labels has no sample, so its labels cannot be seen. The message names it."""


@dataclass(frozen=True, slots=True)
class Exported:
    """One metric under the name that queries use."""

    name: str
    type: str
    labels: tuple[str, ...]
    help: str
    buckets: tuple[float, ...] = ()
    """Upper bounds of a histogram, without the infinite one."""


def of_operator() -> Mapping[str, Exported]:
    """The operator's metrics by name. Raises NothingCounted."""
    metrics = Metrics()
    _talk_to_the_server(metrics)
    metrics.watch_queue("p2ptask", _NoQueue())
    metrics.watch_tasks(lambda: {("Running", "BitTorrent"): 1})
    metrics.watch_problems(lambda: [TaskProblem("ns", "task", "BitTorrent", "FellBack", "Stalled")])
    metrics.watch_readers(lambda: (0, 0))
    metrics.queue_observer("p2ptask")
    with metrics.reconcile("p2ptask"):
        pass
    return of_registry(metrics.registry)


def of_agent() -> Mapping[str, Exported]:
    """The agents' metrics by name. Raises NothingCounted."""
    metrics = AgentMetrics()
    _talk_to_the_server(metrics)
    metrics.watch(lambda: Live(models={_HASH: ("model", "main")}, peers_connected={_HASH: 1}))
    metrics.downloaded(_HASH, Source.P2P, 1.0)
    metrics.received(_HASH, origin_bytes=1, peer_bytes=1)
    metrics.failed(_HASH, "InsufficientCapacity")
    metrics.verification_failed(_HASH)
    metrics.metainfo_request(200, 0.1, _HASH)
    return of_registry(metrics.registry)


def _talk_to_the_server(metrics: ClientMetrics) -> None:
    metrics.api_request("get", "Pod", 200)
    metrics.api_retries.labels("get", "Pod")
    metrics.events_dropped.labels("queue_full")


class _NoQueue:
    def __len__(self) -> int:
        return 0

    def unfinished_seconds(self) -> list[float]:
        return []


def of_registry(registry: CollectorRegistry) -> Mapping[str, Exported]:
    """Our metrics in a registry, by name. Raises NothingCounted."""
    found = (_of_family(family) for family in registry.collect() if family.name.startswith(OURS))
    return MappingProxyType({each.name: each for each in sorted(found, key=lambda each: each.name)})


def _of_family(family: Metric) -> Exported:
    samples = [sample for sample in family.samples if not sample.name.endswith("_created")]
    if not samples:
        raise NothingCounted(f"{family.name} has no sample: let dev/reference/exported.py count something into it")
    suffix = {"counter": "_total", "info": "_info"}.get(family.type, "")
    labels = tuple(label for label in samples[0].labels if label != "le")
    bounds = sorted({float(sample.labels["le"]) for sample in samples if "le" in sample.labels})
    return Exported(family.name + suffix, family.type, labels, family.documentation, tuple(bounds[:-1]))
