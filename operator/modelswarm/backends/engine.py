"""The one small protocol that every engine speaks: ``ensure`` and ``release``.

An engine gets a task whose content is pinned, makes sure that the bytes are on their way, and says how far they are.
Both calls are idempotent and may be repeated, interrupted and started again by another process at any time. What an
observation *means* (ready, stalled, fallen back) is decided elsewhere, once for all engines.
"""

from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from enum import StrEnum
from typing import Protocol

from modelswarm.api.p2ptask import DragonflyStatus, Engine, NodeFailure, P2PTask
from modelswarm.content.credentials import Credentials
from modelswarm.content.manifest import Manifest


class EngineState(StrEnum):
    """What an engine says of a task."""

    RUNNING = "Running"
    READY = "Ready"
    """As many nodes as the task asks for at least (``minReady``) hold every byte, verified."""
    FAILED = "Failed"
    """This attempt failed; another may help (counts towards ``backoffLimit``)."""
    UNREACHABLE = "Unreachable"
    """The engine could not be asked; says nothing about the bytes."""


@dataclass(frozen=True, slots=True)
class Observation:
    """How far a task is. Bytes are totals over the task's life; ``poll_after`` is in seconds (None: an event comes)."""

    state: EngineState
    reason: str
    message: str
    desired: int = 0
    ready: int = 0
    failed: int = 0
    done_bytes: int = 0
    total_bytes: int = 0
    origin_bytes: int = 0
    peer_bytes: int = 0
    measured: bool = True
    """False where an engine moves no bytes itself (Direct): progress is then shown as ``-``."""
    failures: tuple[NodeFailure, ...] = ()
    attempts: int = 0
    """How many attempts have failed so far, as the engine counts them (with FAILED: at least one)."""
    degraded: tuple[str, str] | None = None
    """Reason and message, where it works but not as asked."""
    dragonfly: DragonflyStatus | None = None
    nodes: tuple[str, ...] = ()
    """Where the copies should be, if the engine chose a number of nodes."""
    holds: bool = False
    """Something must be given back before the task may go (a finalizer is kept while this is so)."""
    poll_after: float | None = None


ManifestReader = Callable[[], Awaitable[Manifest]]
"""Reads the pinned manifest when an engine really needs the list of files (an API read, cached by the reader)."""


class EngineBackend(Protocol):
    """An engine, as the p2ptask controller knows it."""

    name: Engine

    def serves(self, task: P2PTask) -> bool | None:
        """Whether this engine can spread this kind of content (``Auto`` takes the next one otherwise).

        None: that cannot be said before the task is pinned.
        """

    async def ensure(self, task: P2PTask, manifest: ManifestReader, credentials: Credentials | None) -> Observation:
        """Make it so, and say how far it is. Raises ``EngineError``."""

    async def release(self, task: P2PTask) -> None:
        """Give back what the task holds. Bytes on nodes stay. Raises ``EngineError``."""
