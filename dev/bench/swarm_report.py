"""What the swarm benchmark found, as a table with goals and as JSON."""

import os
import platform
from dataclasses import asdict, dataclass

from dev.bench.swarm_plan import Program

GOAL_ORIGIN = 1.02
GOAL_CPU = 8.0
"""CPU seconds for each 10^9 bytes delivered."""
MEASURED_BUSY = 0.70
"""Above this share of the machine that is busy, the machine is what is measured, not the network."""


def goal_ratio(total: int) -> float:
    """Time to the last of 8 nodes, as a multiple of size over the origin's bandwidth."""
    return 1.4 if total < 1 << 29 else 1.15


@dataclass(frozen=True, slots=True)
class Run:
    """``rate``: bits per second of every link, None: as fast as the machine; ``origin_rate``: of the origin's.

    ``origin_bytes`` are those of files, ``upload`` is as the link counted it, headers included; times are in seconds.
    """

    program: Program
    model: str
    total: int
    nodes: int
    rate: int | None
    origin_rate: int | None
    first: float
    last: float
    origin_bytes: int
    upload: int
    """Of the node that sent most."""
    cpu: float
    loop_cpu: float
    origin_cpu: float | None
    """Of the origin, where that is a server which does nothing but send; what a sender pays."""
    busy: float
    memory: int
    windows: int
    troubles: int

    @property
    def limit(self) -> float | None:
        """Nobody can have everything before the slower of the origin's and its own link has carried it once."""
        rates = [rate for rate in (self.rate, self.origin_rate) if rate is not None]
        return self.total * 8 / min(rates) if rates else None

    @property
    def ratio(self) -> float | None:
        return self.last / self.limit if self.limit else None

    @property
    def origin_share(self) -> float:
        return self.origin_bytes / self.total

    @property
    def cpu_per_gb(self) -> float:
        return self.cpu / (self.total * self.nodes / 1e9)

    @property
    def sending_per_gb(self) -> float | None:
        """CPU seconds of the origin for each GB that it has sent."""
        return self.origin_cpu / (self.origin_bytes / 1e9) if self.origin_cpu is not None else None

    @property
    def counts(self) -> bool:
        """Whether the goals apply: eight nodes, the network as the limit."""
        swarm = self.program is not Program.HTTP
        return swarm and self.nodes == 8 and self.rate is not None and self.busy < MEASURED_BUSY


def table(runs: list[Run]) -> str:
    head = "model,nodes,mbit,by,first s,last s,x limit,origin x,upload x,CPU s/GB,python,origin s/GB,busy,MiB,windows"
    return aligned([head.split(","), *map(_row, runs)])


def aligned(rows: list[list[str]]) -> str:
    """Columns as wide as they have to be; the first row is the head."""
    widths = [max(len(row[column]) for row in rows) for column in range(len(rows[0]))]
    return "\n".join("  ".join(f"{cell:>{width}}" for cell, width in zip(row, widths, strict=True)) for row in rows)


def _row(run: Run) -> list[str]:
    ratio = f"{run.ratio:.2f}" if run.ratio else "-"
    return [
        *(run.model, str(run.nodes), f"{run.rate // 1_000_000}" if run.rate else "-", run.program.value),
        *(f"{run.first:.1f}", f"{run.last:.1f}", ratio, f"{run.origin_share:.3f}", f"{run.upload / run.total:.2f}"),
        *(f"{run.cpu_per_gb:.1f}", f"{run.loop_cpu / run.cpu:.0%}" if run.cpu else "-"),
        *(f"{run.sending_per_gb:.1f}" if run.sending_per_gb is not None else "-", f"{run.busy:.2f}"),
        *(str(run.memory), str(run.windows)),
    ]


def verdicts(runs: list[Run]) -> list[str]:
    """One line for each run that counts and each goal."""
    lines = []
    for run in runs:
        if run.counts and run.ratio is not None:
            name = f"{run.program.value}: {run.model} at {(run.rate or 0) // 1_000_000} mbit"
            for what, value, goal in (
                ("x limit", run.ratio, goal_ratio(run.total)),
                ("x origin", run.origin_share, GOAL_ORIGIN),
                ("CPU s/GB", run.cpu_per_gb, GOAL_CPU),
            ):
                lines.append(f"{name}: {value:.2f} {what}, goal {goal:g}: {'met' if value <= goal else 'MISSED'}")
    return lines


def to_json(runs: list[Run]) -> dict[str, object]:
    return {
        "cores": os.cpu_count(),
        "python": platform.python_version(),
        "runs": [{**asdict(run), "ratio": run.ratio, "cpuPerGB": run.cpu_per_gb} for run in runs],
    }
