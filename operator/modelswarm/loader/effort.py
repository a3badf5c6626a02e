"""How hard to try, in numbers."""

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Effort:
    """How hard to try. ``attempts`` are failures in a row without one new byte; times are in seconds."""

    parallel: int = 4
    small_parallel: int = 8
    """Besides those: files of up to ``small_bytes`` where a daemon is asked, which takes longer than the transfer."""
    small_bytes: int = 4 << 20
    span_bytes: int = 64 << 20
    attempts: int = 10
    first_pause: float = 0.5
    longest_pause: float = 60.0
