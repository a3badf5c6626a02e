"""What the store says of a content that it has something of."""

from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path

from modelswarm.content.manifest import Manifest


class ContentState(StrEnum):
    """What the store has of a content; the session knows more (who is fetching, what failed)."""

    COMPLETE = "Complete"
    FILLING = "Filling"
    PARTIAL = "Partial"
    """Something of it is there, and nobody is at it."""


@dataclass(frozen=True, slots=True)
class Held:
    """One content. ``bytes`` is its size, ``present`` what is on disk of it, ``last_used`` seconds since the epoch."""

    content: str
    state: ContentState
    bytes: int
    present: int
    last_used: float
    manifest: Manifest | None
    placements: tuple[Path, ...]
