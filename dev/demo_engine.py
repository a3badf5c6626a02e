"""What the demo of an engine adds to the story that all of them share (``dev.demo``)."""

from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path
from typing import Protocol

from dev.controlplane import ControlPlane
from dev.demo_console import Console
from dev.demo_steps import Summary
from dev.hub import HubThread
from dev.process import LOOPBACK


@dataclass(frozen=True, slots=True)
class Stage:
    """Where an engine's demo prints, times, leaves what has to be given back, and writes files."""

    console: Console
    summary: Summary
    stack: ExitStack
    scratch: Path


@dataclass(frozen=True, slots=True)
class Surroundings:
    """What runs when an engine is connected."""

    cluster: ControlPlane
    hub: str
    """URL of the hub, the origin."""
    registry: str
    """URL of the image registry."""


@dataclass(frozen=True, slots=True)
class Node:
    """A node on which a loader runs."""

    name: str
    environment: Mapping[str, str] = field(default_factory=dict)
    """What the loader finds on this node: it comes on top of the container's own."""


@dataclass(frozen=True, slots=True)
class Expected:
    """What must be true at the end, or the demo fails."""

    copies: float = 1.0
    """How often the model may leave the origin, at most."""
    engine: str = "Direct"
    """Of every model's task, as ``kubectl get p2ptasks`` shows it."""
    image_engine: str = "Direct"


class EngineDemo(Protocol):
    """One engine, in the order of the calls. Raises ``DemoFailed``, or what the programs that it starts raise."""

    expected: Expected
    patience: float
    """Seconds that the tasks may take until they are Ready."""
    registry_address: str
    """Where the image registry has to listen."""

    def prepare(self) -> None:
        """Find or build what is needed, before anything runs. Says on standard error what takes long."""

    def start(self, stage: Stage) -> None:
        """Start what needs no cluster."""

    def connect(self, around: Surroundings) -> dict[str, str]:
        """Start the rest, apply what the operator needs to find the engine, and return variables of its environment."""

    def nodes(self) -> Sequence[Node]:
        """Where loaders run, all at the same time."""

    def encore(self, hub: HubThread, model: str) -> list[tuple[str, str]]:
        """What only this engine can show, after the story, and rows of the summary about it; mostly nothing."""

    def way_in(self) -> str:
        """What a user types before a command that talks to the cluster, from another terminal; mostly nothing."""


class Direct:
    """No peers: every loader reads the origin, as it is without an engine."""

    expected = Expected()
    patience = 40.0
    registry_address = LOOPBACK

    def prepare(self) -> None:
        pass

    def start(self, stage: Stage) -> None:
        pass

    def connect(self, around: Surroundings) -> dict[str, str]:
        return {}

    def nodes(self) -> Sequence[Node]:
        return [Node("node-1")]

    def encore(self, hub: HubThread, model: str) -> list[tuple[str, str]]:
        return []

    def way_in(self) -> str:
        return ""


def _dragonfly() -> EngineDemo:
    from dev.demo_dragonfly import DragonflyDemo

    return DragonflyDemo()


def _bittorrent() -> EngineDemo:
    from dev.demo_swarm import SwarmDemo

    return SwarmDemo()


ENGINES: Mapping[str, Callable[[], EngineDemo]] = {
    "bittorrent": _bittorrent,
    "dragonfly": _dragonfly,
    "direct": Direct,
}
"""By the name that ``make demo ENGINE=`` takes; the first is the default."""
