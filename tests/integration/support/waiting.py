"""Waiting for what must come, and watching that nothing comes that must not."""

import time
from collections.abc import Callable
from typing import TypeVar

import httpx

T = TypeVar("T")

COLLECTED = 40.0
"""Seconds. The garbage collector learns of kinds that are new to the cluster twice a minute, and works in a second."""

BUSY = 4.0
"""Times that a bound is stretched: bounds are what an idle machine needs. Costs nothing where it comes true."""


def eventually(attempt: Callable[[], T | None], seconds: float = 10.0, every: float = 0.05) -> T:
    """The first true value of ``attempt``. What fails in it because something is not there counts as "not yet"; the
    last failure is raised."""
    seconds *= BUSY
    deadline = time.monotonic() + seconds
    while True:
        failure: Exception | None = None
        try:
            value = attempt()
            if value:
                return value
        except (AssertionError, LookupError, ValueError, httpx.TransportError) as error:
            failure = error
        if time.monotonic() > deadline:
            raise failure or AssertionError(f"did not come true within {seconds:g} s (last value: {value!r})")
        time.sleep(every)


def throughout(check: Callable[[], object], seconds: float = 0.7, every: float = 0.05) -> None:
    """Assert that ``check`` is true for the whole time: absence can only be observed by looking for a while."""
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline:
        assert check(), "did not hold"
        time.sleep(every)
