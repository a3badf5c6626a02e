"""How long each step of the demo took, and how one fails."""

import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field


class DemoFailed(RuntimeError):
    """A step did not do what it is there to show. The message says which and what was seen instead."""


@dataclass(slots=True)
class Summary:
    stages: list[tuple[str, float]] = field(default_factory=list)

    @contextmanager
    def stage(self, name: str) -> Iterator[None]:
        """Time what happens inside; nothing is noted if it fails."""
        started = time.monotonic()
        yield
        self.stages.append((name, time.monotonic() - started))
