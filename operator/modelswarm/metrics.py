"""What our programs count. Names and meanings follow controller-runtime's where it has them."""

import socket
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from enum import StrEnum
from threading import Thread
from typing import NamedTuple, Protocol
from wsgiref.simple_server import WSGIServer

from prometheus_client import (
    CollectorRegistry,
    Counter,
    Gauge,
    GCCollector,
    Histogram,
    Info,
    PlatformCollector,
    ProcessCollector,
    start_http_server,
)
from prometheus_client.core import GaugeMetricFamily, Metric
from prometheus_client.registry import Collector

from modelswarm import __version__

SECONDS_BUCKETS = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0, 300.0)


class ReconcileResult(StrEnum):
    SUCCESS = "success"
    REQUEUE_AFTER = "requeue_after"
    CONFLICT = "conflict"
    """Somebody changed the object meanwhile; tried again at once, not counted as an error."""
    ERROR = "error"
    TIMEOUT = "timeout"


class QueueSize(Protocol):
    def __len__(self) -> int: ...

    def unfinished_seconds(self) -> list[float]: ...


class QueueMetrics:
    """A queue's observer (``controllers.queue.QueueObserver``)."""

    def __init__(self, metrics: "Metrics", name: str) -> None:
        self._adds = metrics.queue_adds.labels(name)
        self._retries = metrics.queue_retries.labels(name)
        self._latency = metrics.queue_latency.labels(name)
        self._duration = metrics.queue_duration.labels(name)

    def added(self) -> None:
        self._adds.inc()

    def retried(self) -> None:
        self._retries.inc()

    def started(self, waited: float) -> None:
        self._latency.observe(waited)

    def finished(self, worked: float) -> None:
        self._duration.observe(worked)


@dataclass(slots=True)
class Outcome:
    """How a reconcile ended; set inside ``Metrics.reconcile``."""

    result: ReconcileResult = ReconcileResult.ERROR


class TaskProblem(NamedTuple):
    """One P2PTask that does not go on as asked."""

    task_namespace: str
    """Prometheus itself adds ``namespace``: that of the pod that was scraped."""
    task: str
    engine: str
    """Empty while none is chosen."""
    phase: str
    reason: str


TaskProblems = Callable[[], Iterable[TaskProblem]]
TaskCounts = Callable[[], Mapping[tuple[str, str], int]]
"""How many P2PTasks there are by (phase, engine)."""
ReaderCounts = Callable[[], tuple[int, int]]
"""How many loaders read the origin in an engine's place, and how many wait for their turn."""


class ClientMetrics:
    """What every program of ours counts that talks to the API server. A registry of its own, so that several can live
    in one process."""

    def __init__(self) -> None:
        self.registry = CollectorRegistry()
        self.api_requests = self._counter(
            "api_requests", "Requests to the API server; code 0: no answer", "verb", "kind", "code"
        )
        self.api_retries = self._counter("api_retries", "Requests sent again by the client", "verb", "kind")
        self.events_dropped = self._counter("events_dropped", "Kubernetes Events that were not written", "cause")
        Info("modelswarm_build", "The program", registry=self.registry).info({"version": __version__})
        ProcessCollector(registry=self.registry)
        PlatformCollector(registry=self.registry)
        GCCollector(registry=self.registry)

    def api_request(self, verb: str, kind: str, code: int) -> None:
        self.api_requests.labels(verb, kind, str(code)).inc()

    def _counter(self, name: str, description: str, *labels: str) -> Counter:
        return Counter(f"modelswarm_{name}", description, labels, registry=self.registry)


class Metrics(ClientMetrics):
    """The operator's."""

    def __init__(self) -> None:
        super().__init__()
        self.reconcile_total = self._counter("reconcile", "Reconciles by result", "controller", "result")
        self.reconcile_errors = self._counter("reconcile_errors", "Reconciles that failed", "controller")
        self.reconcile_seconds = self._histogram("reconcile_time_seconds", "Duration of reconciles", "controller")
        self.active_workers = Gauge(
            "modelswarm_active_workers", "Reconciles in flight", ["controller"], registry=self.registry
        )
        self.queue_adds = self._counter("workqueue_adds", "Keys that became due", "controller")
        self.queue_retries = self._counter("workqueue_retries", "Keys put back after a failure", "controller")
        self.queue_latency = self._histogram(
            "workqueue_queue_duration_seconds", "From due to taken by a worker", "controller"
        )
        self.queue_duration = self._histogram("workqueue_work_duration_seconds", "From taken to done", "controller")
        self.leader = Gauge("modelswarm_leader", "1 while this process holds the Lease", registry=self.registry)
        self._live = _LiveCollector()
        self._server: WSGIServer | None = None
        self._thread: Thread | None = None
        self.registry.register(self._live)

    def queue_observer(self, controller: str) -> QueueMetrics:
        return QueueMetrics(self, controller)

    def watch_queue(self, controller: str, queue: QueueSize) -> None:
        """Show this queue's depth and unfinished work."""
        self._live.queues[controller] = queue

    def watch_tasks(self, counts: TaskCounts) -> None:
        """Show the P2PTasks by phase and engine; ``counts`` is called for each scrape, in the server's thread."""
        self._live.tasks = counts

    def watch_problems(self, problems: TaskProblems) -> None:
        """Name the P2PTasks with a problem; ``problems`` is called for each scrape, in the server's thread."""
        self._live.problems = problems

    def watch_readers(self, counts: ReaderCounts) -> None:
        """Show the loaders at the turnstile; ``counts`` is called for each scrape, in the server's thread."""
        self._live.readers = counts

    @contextmanager
    def reconcile(self, controller: str) -> Iterator[Outcome]:
        """Count and time what happens inside."""
        outcome = Outcome()
        active = self.active_workers.labels(controller)
        active.inc()
        started = time.perf_counter()
        try:
            yield outcome
        finally:
            active.dec()
            self.reconcile_seconds.labels(controller).observe(time.perf_counter() - started)
            self.reconcile_total.labels(controller, outcome.result.value).inc()
            if outcome.result in (ReconcileResult.ERROR, ReconcileResult.TIMEOUT):
                self.reconcile_errors.labels(controller).inc()

    def serve(self, port: int, host: str | None = None) -> int:
        """Serve ``/metrics`` in a thread of its own until ``close``, on all addresses (or ``host``'s); returns the port
        (for 0: a free one)."""
        if self._server is not None:
            raise RuntimeError("the metrics are served already")
        every = "::" if socket.has_dualstack_ipv6() else "0.0.0.0"
        self._server, self._thread = start_http_server(port, addr=host or every, registry=self.registry)
        return int(self._server.server_port)

    def close(self) -> None:
        """Stop serving; harmless if it never began."""
        if self._server is not None and self._thread is not None:
            self._server.shutdown()
            self._server.server_close()
            self._thread.join()
            self._server = self._thread = None

    def _histogram(self, name: str, description: str, *labels: str) -> Histogram:
        return Histogram(f"modelswarm_{name}", description, labels, buckets=SECONDS_BUCKETS, registry=self.registry)


class _LiveCollector(Collector):
    """What is not counted but looked up at the moment of the scrape."""

    def __init__(self) -> None:
        self.queues: dict[str, QueueSize] = {}
        self.tasks: TaskCounts | None = None
        self.problems: TaskProblems | None = None
        self.readers: ReaderCounts | None = None

    def collect(self) -> Iterable[Metric]:
        depth = GaugeMetricFamily("modelswarm_workqueue_depth", "Keys that are due", labels=["controller"])
        unfinished = GaugeMetricFamily(
            "modelswarm_workqueue_unfinished_work_seconds", "Age of all work in flight, added up", labels=["controller"]
        )
        longest = GaugeMetricFamily(
            "modelswarm_workqueue_longest_running_processor_seconds",
            "Age of the oldest work in flight",
            labels=["controller"],
        )
        for name, queue in list(self.queues.items()):
            ages = queue.unfinished_seconds()
            depth.add_metric([name], len(queue))
            unfinished.add_metric([name], sum(ages))
            longest.add_metric([name], max(ages, default=0.0))
        yield from (depth, unfinished, longest)
        if self.tasks is not None:
            tasks = GaugeMetricFamily("modelswarm_p2ptasks", "P2PTasks by phase", labels=["phase", "engine"])
            for (phase, engine), count in sorted(self.tasks().items()):
                tasks.add_metric([phase, engine], count)
            yield tasks
        if self.problems is not None:
            problems = GaugeMetricFamily(
                "modelswarm_p2ptask_problem",
                "1 for each P2PTask that does not go on as asked, with the reason (at most 500)",
                labels=TaskProblem._fields,
            )
            for problem in self.problems():
                problems.add_metric(problem, 1)
            yield problems
        if self.readers is not None:
            reading, waiting = self.readers()
            yield GaugeMetricFamily(
                "modelswarm_origin_readers", "Loaders that read the origin in an engine's place", value=reading
            )
            yield GaugeMetricFamily(
                "modelswarm_origin_readers_waiting", "Loaders that wait for their turn there", value=waiting
            )
