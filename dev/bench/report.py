"""What the operator benchmark found, as a table with goals and as JSON."""

import os
import platform
from dataclasses import dataclass, field
from typing import Any

from dev.bench.converge import Convergence
from dev.bench.latency import Latency
from dev.bench.objects import Sizes
from dev.bench.readings import Requests

LLMAZ_WRITES = 12.2
"""API writes of llmaz itself per OpenModel and Playground."""
GOAL_SECONDS, GOAL_MIB, GOAL_P99, GOAL_WRITES = 90.0, 300.0, 1.0, 8.0


@dataclass(frozen=True, slots=True)
class Idle:
    seconds: float
    requests: Requests
    operator_cpu: float


@dataclass(slots=True)
class Report:
    sizes: Sizes
    on: Convergence | None = None
    off: Convergence | None = None
    latency: Latency | None = None
    idle: Idle | None = None
    rows: list[tuple[str, str, str]] = field(default_factory=list)

    def text(self) -> str:
        """A table: what, how much, and the goal where there is one (with the share of it that was used)."""
        self.rows = [("", "measured", "goal")]
        for name, run in (("distribution on", self.on), ("distribution off", self.off)):
            if run is not None:
                self._convergence(name, run)
        if self.latency is not None:
            self._latency(self.latency)
        if self.idle is not None:
            self._idle(self.idle)
        widths = [max(len(row[column]) for row in self.rows) for column in range(3)]
        lines = ("  ".join(f"{cell:<{width}}" for cell, width in zip(row, widths, strict=True)) for row in self.rows)
        return "\n".join(line.rstrip() for line in lines)

    def _convergence(self, name: str, run: Convergence) -> None:
        pairs, writes = self.sizes.pairs, run.requests.object_writes
        self._add(f"{name}: {self.sizes.models} OpenModels, {self.sizes.playgrounds} Playgrounds", "")
        self._add("  converged after", f"{run.seconds:.1f} s", _goal(run.seconds, GOAL_SECONDS, "s"))
        self._add("  of that, until all were created", f"{run.created_seconds:.1f} s")
        self._add("  operator, peak memory", f"{run.peak_mib:.0f} MiB", _goal(run.peak_mib, GOAL_MIB, "MiB"))
        self._add("  operator, CPU", f"{run.operator_cpu:.1f} s ({run.operator_cpu / pairs * 1000:.0f} ms per pair)")
        self._add("  control plane, CPU", f"{run.control_plane_cpu:.1f} s")
        goal = _goal(writes / pairs, GOAL_WRITES, "") if run is self.off else ""
        self._add("  writes per pair, without Events", f"{writes / pairs:.2f}", goal)
        if run is self.off:
            self._add("    against llmaz's", f"{writes / pairs / LLMAZ_WRITES:.2f} x")
        self._add("  Events per pair", f"{run.requests.event_writes / pairs:.2f}")
        verbs = ", ".join(f"{verb} {count}" for verb, count in run.requests.by_verb.most_common())
        self._add("  requests by verb", verbs)

    def _latency(self, latency: Latency) -> None:
        count = len(latency.seconds)
        self._add(f"last task Ready to Deployment: {count} of {latency.rate:.1f} a second", "")
        self._add("  p50", f"{latency.percentile(50) * 1000:.0f} ms")
        p99 = latency.percentile(99)
        self._add("  p99", f"{p99 * 1000:.0f} ms", _goal(p99 * 1000, GOAL_P99 * 1000, "ms"))
        self._add("  longest", f"{max(latency.seconds) * 1000:.0f} ms")
        self._add("  operator, CPU per task", f"{latency.operator_cpu / count * 1000:.0f} ms")

    def _idle(self, idle: Idle) -> None:
        writes = idle.requests.object_writes
        self._add(f"idle for {idle.seconds:.0f} s", "")
        events = f" (and {idle.requests.event_writes} Events)" if idle.requests.event_writes else ""
        self._add("  writes but the Lease's", f"{writes}{events}", f"0 {'(met)' if not writes else '(MISSED)'}")
        self._add("  requests by verb", ", ".join(f"{k} {v}" for k, v in idle.requests.by_verb.most_common()))
        self._add("  operator, CPU", f"{idle.operator_cpu / idle.seconds * 100:.1f} % of a core")

    def _add(self, what: str, measured: str, goal: str = "") -> None:
        self.rows.append((what, measured, goal))

    @property
    def missed(self) -> bool:
        """Whether a goal was missed; ``text`` has to be asked before."""
        return any("MISSED" in goal for _, _, goal in self.rows)

    def to_json(self) -> dict[str, Any]:
        document: dict[str, Any] = {
            "cores": os.cpu_count(),
            "python": platform.python_version(),
            "models": self.sizes.models,
            "playgrounds": self.sizes.playgrounds,
            "runtimes": self.sizes.runtimes,
            "repositories": self.sizes.repositories,
        }
        for name, run in (("distributionOn", self.on), ("distributionOff", self.off)):
            if run is not None:
                document[name] = {
                    "seconds": run.seconds,
                    "createdSeconds": run.created_seconds,
                    "peakMiB": run.peak_mib,
                    "operatorCpuSeconds": run.operator_cpu,
                    "controlPlaneCpuSeconds": run.control_plane_cpu,
                    "writesPerPair": run.requests.object_writes / self.sizes.pairs,
                    **_requests(run.requests),
                }
        if self.latency is not None:
            document["readyToDeployment"] = {
                "tasks": len(self.latency.seconds),
                "perSecond": self.latency.rate,
                "p50Seconds": self.latency.percentile(50),
                "p99Seconds": self.latency.percentile(99),
                "maxSeconds": max(self.latency.seconds),
            }
        if self.idle is not None:
            document["idle"] = {
                "seconds": self.idle.seconds,
                "operatorCpuSeconds": self.idle.operator_cpu,
                **_requests(self.idle.requests),
            }
        return document


def _requests(requests: Requests) -> dict[str, Any]:
    return {"requestsByVerb": dict(requests.by_verb), "writes": dict(requests.writes)}


def _goal(value: float, goal: float, unit: str) -> str:
    verdict = f"{value / goal:.0%} of it" if value <= goal else f"MISSED, {value / goal:.0%} of it"
    return f"{goal:g} {unit}".rstrip() + f" ({verdict})"
