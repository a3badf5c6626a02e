"""What the demo prints: one line per event with the seconds since the start, and tables that keep their columns."""

import re
import sys
import threading
import time
from collections.abc import Sequence


class Console:
    """May be used from several threads; lines never mix."""

    def __init__(self) -> None:
        self._started = time.monotonic()
        self._lock = threading.Lock()

    def restart(self) -> None:
        """Count from now."""
        self._started = time.monotonic()

    def elapsed(self) -> float:
        return time.monotonic() - self._started

    def say(self, text: str) -> None:
        with self._lock:
            print(f"{self.elapsed():5.1f}  {text}", flush=True)

    def lines(self, text: str) -> None:
        """Output that belongs to the line before, indented."""
        with self._lock:
            for line in text.splitlines():
                print(f"         {line}", flush=True)

    def table(self, title: str, rows: Sequence[tuple[str, str]]) -> None:
        width = max(len(name) for name, _ in rows)
        with self._lock:
            print(f"\n{title}")
            for name, value in rows:
                print(f"  {name:<{width}}  {value}")
            sys.stdout.flush()

    def failed(self, reason: str, log: str) -> int:
        """Say what went wrong, with the end of the operator's log; returns the exit code."""
        print(f"\ndemo FAILED: {reason}", file=sys.stderr)
        if log:
            print(f"\nthe end of the operator's log:\n{log}", file=sys.stderr)
        return 1


class Columns:
    """Re-aligns lines of a table that arrive one by one, as ``kubectl get -w`` prints them.

    ``widths`` are the columns' least widths. A line with fewer cells than the first one lacks those before its last:
    a new object has a name and an age, and no status yet.
    """

    def __init__(self, *widths: int) -> None:
        self._widths = list(widths)
        self._columns = 0

    def align(self, line: str) -> str:
        cells = re.split(r"\s{2,}", line.strip())
        self._columns = self._columns or len(cells)
        cells[-1:-1] = [""] * (self._columns - len(cells))
        self._widths += [0] * (len(cells) - len(self._widths))
        for index, cell in enumerate(cells):
            self._widths[index] = max(self._widths[index], len(cell))
        return "  ".join(f"{cell:<{width}}" for cell, width in zip(cells, self._widths, strict=False)).rstrip()
