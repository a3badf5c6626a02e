"""What the demo says at the end, and what must be true then."""

from collections.abc import Mapping, Sequence
from typing import Any

from dev.demo_engine import Expected
from dev.demo_gate import Opened
from dev.demo_load import Loaded
from dev.demo_steps import DemoFailed


def check_tasks(tasks: Sequence[Mapping[str, Any]], expected: Expected) -> None:
    """Raises DemoFailed unless the engine that is shown has done all of the work."""
    for task in tasks:
        name, status = task["metadata"]["name"], task.get("status", {})
        wanted = expected.image_engine if "image" in task["spec"] else expected.engine
        if status.get("engine") != wanted:
            raise DemoFailed(f"task {name} was given to engine {status.get('engine')}, not {wanted}")
        degraded = [each for each in status.get("conditions", []) if each["type"] == "Degraded"]
        if any(each["status"] == "True" for each in degraded):
            raise DemoFailed(f"task {name} is degraded: {degraded[0]['reason']}, {degraded[0]['message']}")


def looks(opened: Opened) -> str:
    return f"absent at all {opened.looks} looks while a task was not Ready"


def origin_rows(origin: int, loaded: Sequence[Loaded], expected: Expected) -> list[tuple[str, str]]:
    """Who had how much from where. Raises DemoFailed if the origin gave more than it should."""
    size = loaded[0].bytes
    if not size <= origin <= size * expected.copies:
        raise DemoFailed(f"{origin:,} bytes left the origin; the model has {size:,}")
    rows = [("bytes from the origin", f"{origin:,} for a model of {size:,}{_times(origin, size, len(loaded))}")]
    if len(loaded) > 1:
        rows += [(f"  {each.node} had its bytes from", _sources(each)) for each in loaded]
    files = sum(each.files for each in loaded)
    return [*rows, ("files verified", f"{files} (sha256, against the hub's)")]


def _times(origin: int, size: int, nodes: int) -> str:
    return f" on {nodes} nodes: {origin / size:.3f} x" if nodes > 1 else ""


def _sources(loaded: Loaded) -> str:
    found = sorted(loaded.by_source.items(), key=lambda item: -item[1])
    return ", ".join(f"{source} {count:,}" for source, count in found)
