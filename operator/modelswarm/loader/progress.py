"""How far the load is: counted by source, told as one line every few seconds."""

import time
from collections import deque
from collections.abc import Callable

PRESENT = "present"
"""Source of the bytes that were in place already."""
RESUMED = "resumed"
"""Source of the bytes that an earlier start had left in part files."""
_WINDOW_SECONDS = 15.0


class Meter:
    """Counts. ``done`` never exceeds ``total``; ``by_source`` also counts bytes that had to be thrown away."""

    def __init__(self, total: int, files: int, *, now: Callable[[], float] = time.monotonic) -> None:
        self.total = total
        self.files = files
        self.files_done = 0
        self.unverified = 0
        self.done = 0
        self.by_source: dict[str, int] = {}
        self._now = now
        self._samples: deque[tuple[float, int]] = deque([(now(), 0)])
        self._fetched = 0

    def received(self, source: str, count: int) -> None:
        """``count`` bytes more are on disk, from ``source``."""
        self.done += count
        self.by_source[source] = self.by_source.get(source, 0) + count
        if source not in (PRESENT, RESUMED):
            self._fetched += count

    def lost(self, count: int) -> None:
        """``count`` bytes that were counted have to be fetched again."""
        self.done -= count

    def finished(self, *, verified: bool) -> None:
        """One file more is in place."""
        self.files_done += 1
        self.unverified += not verified

    def line(self) -> str:
        """The state in one line; the rate is that of the last seconds, and of downloads only."""
        at = self._now()
        self._samples.append((at, self._fetched))
        while len(self._samples) > 2 and at - self._samples[0][0] > _WINDOW_SECONDS:
            self._samples.popleft()
        first_at, first = self._samples[0]
        rate = (self._fetched - first) / (at - first_at) if at > first_at else 0.0
        percent = 100 * self.done // self.total if self.total else 100
        eta = f"ETA {duration((self.total - self.done) / rate)}" if rate > 0 else "ETA unknown"
        return (
            f"{percent}% {size(self.done)} of {size(self.total)}, {size(int(rate))}/s, {eta}, "
            f"{self.files_done}/{self.files} files"
        )


def size(count: int) -> str:
    """``412.3 MiB``."""
    value = float(count)
    for unit in ("B", "KiB", "MiB", "GiB"):
        if value < 1024:
            return f"{value:.0f} {unit}" if unit == "B" else f"{value:.1f} {unit}"
        value /= 1024
    return f"{value:.1f} TiB"


def duration(seconds: float) -> str:
    """``3s``, ``2m05s``, ``1h02m``."""
    whole = round(seconds)
    if whole < 60:
        return f"{whole}s"
    if whole < 3600:
        return f"{whole // 60}m{whole % 60:02}s"
    return f"{whole // 3600}h{whole % 3600 // 60:02}m"
