"""What a node of the swarm benchmark is told, and what it answers; and the models that are spread."""

import json
from dataclasses import asdict, dataclass, field
from enum import StrEnum
from pathlib import Path

from modelswarm.agent.swarm.settings import DISK_THREADS

MIB = 1 << 20


class Program(StrEnum):
    """How the bytes travel."""

    AGENTS = "agents"
    """By ``modelswarm agent`` on every node, with the operator and a real API server."""
    SWARM = "swarm"
    """By the agent's data plane alone: its windows, with a coordinator that is as small as can be."""
    HTTP = "http"
    """Every node downloads everything from the origin: what there is without a swarm."""


MODELS: dict[str, dict[str, int]] = {
    "270MB": {**{f"model-{index}.safetensors": 32 * MIB for index in range(8)}, "tokenizer.json": 2_000_000},
    "1GiB": {f"model-{index}.safetensors": 128 * MIB for index in range(8)},
    "1GiB-one-file": {"model.safetensors": 1024 * MIB},
}
"""By name: the size of each file. The first is that of the measurements of other systems."""


@dataclass(frozen=True, slots=True)
class Plan:
    """``nodes``: name and address; the first coordinates. ``segment``: bytes read from the origin at a time."""

    program: Program
    nodes: list[tuple[str, str]]
    files: dict[str, int]
    origin: str
    directory: Path
    segment: int
    disk_threads: int = DISK_THREADS
    streams: int = 2
    """Ranges that a node reads from the origin at once."""

    def dump(self) -> str:
        return json.dumps({**asdict(self), "directory": str(self.directory)})

    @classmethod
    def load(cls, text: str) -> "Plan":
        told = json.loads(text)
        nodes = [(name, address) for name, address in told["nodes"]]
        return cls(
            **{**told, "program": Program(told["program"]), "nodes": nodes, "directory": Path(told["directory"])}
        )

    @property
    def total(self) -> int:
        return sum(self.files.values())


@dataclass(frozen=True, slots=True)
class NodeResult:
    """``finished`` and ``began``: on the machine's monotonic clock; ``cpu``: seconds of the process in between."""

    node: str
    began: float
    finished: float
    cpu: float
    loop_cpu: float
    """Of it, the Python side."""
    memory: int
    """Peak resident set in MiB."""
    windows: int = 0
    troubles: list[str] = field(default_factory=list)
