"""What the Dragonfly benchmark found, as a table and as JSON."""

import os
import platform
import statistics
from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Any

from dev.bench.dragonfly_bed import Shape


@dataclass(frozen=True, slots=True)
class Measured:
    """One run of one way to bring the model to all nodes. ``preheat``: seconds until the seeds had the bytes."""

    last: float
    first: float
    origin: int
    """Bytes that left the origin, of the preheat too."""
    seed_sent: int = 0
    """Bytes that left the seeds, with their protocols' headers."""
    preheat: float | None = None


@dataclass(frozen=True, slots=True)
class Ready:
    """Seconds since the OpenModel was applied until the bytes were on the seeds, and until its task was Ready."""

    ask_scheduler: bool
    on_seed: float
    ready: float
    origin: int


@dataclass(slots=True)
class Case:
    """One number of nodes and seeds."""

    shape: Shape
    size: int
    one_copy: float
    goodput: float
    runs: dict[str, list[Measured]] = field(default_factory=dict)
    ready: list[Ready] = field(default_factory=list)


WAYS = {
    "direct": "direct, our loader",
    "cold": "cold, bare dfget",
    "dfget": "preheated, bare dfget",
    "loader": "preheated, our loader",
}
"""What is compared, by the name on the command line."""


_WHO = {False: "told by the manager", True: "asking the seeds"}


@dataclass(slots=True)
class Report:
    settings: dict[str, Any]
    cases: list[Case] = field(default_factory=list)

    def text(self) -> str:
        """A table: what, how much, and how much that is of something to compare it with. Medians of several runs."""
        rows = [("", "measured", "compared")]
        for case in self.cases:
            rows += _rows(case)
        widths = [max(len(row[column]) for row in rows) for column in range(3)]
        lines = ("  ".join(f"{cell:<{width}}" for cell, width in zip(row, widths, strict=True)) for row in rows)
        return "\n".join(line.rstrip() for line in lines)

    def to_json(self) -> dict[str, Any]:
        return {
            "cores": os.cpu_count(),
            "python": platform.python_version(),
            **self.settings,
            "cases": [
                {
                    "nodes": case.shape.nodes,
                    "seeds": case.shape.seeds,
                    "linkMbit": case.shape.rate,
                    "linkGoodputMbit": case.goodput / 1e6,
                    "modelBytes": case.size,
                    "oneCopySeconds": case.one_copy,
                    "runs": {
                        way: [
                            {
                                "lastSeconds": run.last,
                                "firstSeconds": run.first,
                                "originBytes": run.origin,
                                "seedSentBytes": run.seed_sent,
                                "preheatSeconds": run.preheat,
                            }
                            for run in runs
                        ]
                        for way, runs in case.runs.items()
                    },
                    "ready": [
                        {
                            "askScheduler": each.ask_scheduler,
                            "onSeedSeconds": each.on_seed,
                            "readySeconds": each.ready,
                            "originBytes": each.origin,
                        }
                        for each in case.ready
                    ],
                }
                for case in self.cases
            ],
        }


def _rows(case: Case) -> list[tuple[str, str, str]]:
    shape = case.shape
    rows = [
        (f"{describe(shape)}, links of {shape.rate} Mbit/s", f"{case.size:,} bytes", f"one copy {case.one_copy:.1f} s"),
        (
            "  a link's goodput",
            f"{case.goodput / 1e6:.1f} Mbit/s",
            f"{case.goodput / 1e6 / shape.rate:.3f} of its rate",
        ),
    ]
    for way, runs in case.runs.items():
        last = median(run.last for run in runs)
        rows.append((f"  {WAYS[way]}: last node", seconds([run.last for run in runs]), times(last, case.one_copy)))
        preheats = [run.preheat for run in runs if run.preheat is not None]
        if preheats:
            rows.append(
                ("    bytes on the seeds before that", seconds(preheats), times(median(preheats), case.one_copy))
            )
        origin = median(run.origin for run in runs)
        rows.append(("    bytes from the origin", f"{origin:,.0f}", f"{origin / case.size:.3f} x the model"))
        if sent := median(run.seed_sent for run in runs):
            rows.append(("    bytes from the seeds", f"{sent:,.0f}", f"{sent / case.size:.2f} x the model"))
    rows += _compared(case)
    for asked in sorted({each.ask_scheduler for each in case.ready}):
        found = [each for each in case.ready if each.ask_scheduler is asked]
        rows.append(
            (
                f"  operator, {_WHO[asked]}: OpenModel to bytes on the seeds",
                seconds([each.on_seed for each in found]),
                "",
            )
        )
        rows.append(("    from there to Ready=True", seconds([each.ready - each.on_seed for each in found]), ""))
    return rows


def _compared(case: Case) -> list[tuple[str, str, str]]:
    def last(way: str) -> float | None:
        runs = case.runs.get(way)
        return median(run.last for run in runs) if runs else None

    rows = []
    for name, one, other in (
        ("our loader over bare dfget", "loader", "dfget"),
        ("bare dfget, preheated over cold", "dfget", "cold"),
        ("cold over direct", "cold", "direct"),
        ("our loader, preheated over direct", "loader", "direct"),
    ):
        a, b = last(one), last(other)
        if a is not None and b is not None:
            rows.append((f"  {name}", f"{a / b:.2f} x", f"{a - b:+.1f} s"))
    return rows


def describe(shape: Shape) -> str:
    nodes = f"{shape.nodes} node{'s' if shape.nodes > 1 else ''}"
    return f"{nodes}, {shape.seeds} seed{'s' if shape.seeds > 1 else ''}"


def median(values: Iterable[float]) -> float:
    return statistics.median(list(values))


def seconds(values: list[float]) -> str:
    spread = f" ({min(values):.1f} to {max(values):.1f}, {len(values)} runs)" if len(values) > 1 else ""
    return f"{median(values):.1f} s{spread}"


def times(value: float, one_copy: float) -> str:
    return f"{value / one_copy:.2f} x one copy"
