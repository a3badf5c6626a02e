"""As fast as the machine: one node with everything and some without, on loopback, against bare libtorrent.

The ways take turns in one run, so that what else the machine does meets all of them.
"""

import json
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import IO

from dev.bench.swarm_bare import BarePlan, BareResult, Way, make
from dev.bench.swarm_report import aligned
from dev.installation import ROOT

GOAL = 0.90
"""Of bare libtorrent's speed."""
_NETWORK = "127.93.7"


class BareFailed(RuntimeError):
    """A node ended without a result."""


@dataclass(frozen=True, slots=True)
class Speed:
    """``bytes`` that were delivered in ``seconds``, until the last node had all; ``threads``: CPU seconds of all."""

    way: Way
    leeches: int
    bytes: int
    seconds: float
    cpu: float
    system: float
    threads: dict[str, float]

    @property
    def rate(self) -> float:
        """MB (10^6) per second, of all nodes together."""
        return self.bytes / self.seconds / 1e6

    @property
    def cpu_per_gb(self) -> float:
        return self.cpu / (self.bytes / 1e9)


def measure(source: Path, files: dict[str, int], leeches: int, rounds: int, disk_threads: int) -> list[Speed]:
    """Every way once per round. Raises BareFailed."""
    found = []
    with tempfile.TemporaryDirectory(prefix="made-", dir=source.parent) as made:
        for way in Way:
            make(way, source, files, Path(made))
        for _ in range(rounds):
            for way in Way:
                with tempfile.TemporaryDirectory(prefix="bare-", dir=source.parent) as scratch:
                    hosts = [f"{_NETWORK}.{number + 1}" for number in range(leeches + 1)]
                    plan = BarePlan(way, hosts, files, source, Path(made), Path(scratch), disk_threads)
                    found.append(_spread(plan))
    return found


def _spread(plan: BarePlan) -> Speed:
    leeches = len(plan.hosts) - 1
    nodes: list[subprocess.Popen[str]] = []
    try:
        for number in range(leeches + 1):
            directory = plan.scratch / str(number)
            directory.mkdir()
            told = plan.scratch / f"{number}.json"
            told.write_text(replace(plan, scratch=directory).dump())
            command = [sys.executable, "-m", "dev.bench.swarm_bare", str(told), str(number)]
            environment = {"PYTHONPATH": f"{ROOT / 'operator'}:{ROOT}"}
            pipe = subprocess.PIPE
            nodes.append(subprocess.Popen(command, stdin=pipe, stdout=pipe, text=True, env=environment))
        _hear(nodes, "ready")
        began = time.monotonic()
        _tell(nodes)
        _hear(nodes[1:], "done")
        _tell(nodes)
        results = [BareResult(**json.loads(_out(node).readline() or _raise(node))) for node in nodes]
    finally:
        for node in nodes:
            node.kill()
            node.communicate()
    threads: dict[str, float] = {}
    for result in results:
        for kind, seconds in result.threads.items():
            threads[kind] = threads.get(kind, 0.0) + seconds
    return Speed(
        plan.way,
        leeches,
        leeches * sum(plan.files.values()),
        max(result.finished for result in results[1:]) - began,
        sum(result.cpu for result in results),
        sum(result.system for result in results),
        threads,
    )


def table(speeds: Sequence[Speed]) -> str:
    kinds = sorted({kind for speed in speeds for kind in speed.threads})
    head = ["by", "nodes without", "MB/s", "CPU s/GB", "kernel", *(f"{kind} s/GB" for kind in kinds)]
    rows = [head]
    for speed in speeds:
        delivered = speed.bytes / 1e9
        shares = [f"{speed.threads.get(kind, 0.0) / delivered:.2f}" for kind in kinds]
        kernel = f"{speed.system / speed.cpu:.0%}" if speed.cpu else "-"
        figures = [speed.way.value, str(speed.leeches), f"{speed.rate:.0f}", f"{speed.cpu_per_gb:.2f}", kernel]
        rows.append([*figures, *shares])
    return aligned(rows)


def verdicts(speeds: Sequence[Speed]) -> list[str]:
    """Each way's median against bare libtorrent's."""
    rates = {way: sorted(speed.rate for speed in speeds if speed.way is way) for way in Way}
    middle = {way: found[len(found) // 2] for way, found in rates.items() if found}
    lines = []
    for way in (Way.WINDOWS, Way.MODEL):
        share = middle[way] / middle[Way.BARE]
        verdict = "met" if share >= GOAL else "MISSED"
        lines.append(f"{way.value}: {share:.2f} of bare libtorrent, goal {GOAL:g}: {verdict}")
    return lines


def _tell(nodes: Sequence["subprocess.Popen[str]"]) -> None:
    for node in nodes:
        assert node.stdin is not None
        node.stdin.write("\n")
        node.stdin.flush()


def _hear(nodes: Sequence["subprocess.Popen[str]"], word: str) -> None:
    for node in nodes:
        if _out(node).readline().strip() != word:
            raise BareFailed(f"a node did not say {word!r}")


def _out(node: "subprocess.Popen[str]") -> IO[str]:
    assert node.stdout is not None
    return node.stdout


def _raise(node: "subprocess.Popen[str]") -> str:
    raise BareFailed(f"process {node.pid} has no result")
