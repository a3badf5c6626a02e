"""The manager's preheat jobs of a task, and how often each file was asked for: by the marker in ``bio``."""

from collections import Counter
from typing import Any

from dev.dragonfly.manager import Manager
from modelswarm.backends.dragonfly.marker import Marker

Json = dict[str, Any]
_MOST_FILES = 10_000


def preheats_of(manager: Manager, uid: str) -> list[Json]:
    """The oldest first. Those that the operator deleted are not among them."""
    jobs = manager.jobs(type="preheat")
    mine = [job for job in jobs if (marker := Marker.parse(job["bio"])) is not None and marker.uid == uid]
    return sorted(mine, key=lambda job: int(job["id"]))


def attempts_by_file(jobs: list[Json]) -> Counter[tuple[int, int]]:
    """How many of the jobs were made for a file (its number in the plan) in a scheduler cluster."""
    counts: Counter[tuple[int, int]] = Counter()
    for job in jobs:
        marker = Marker.parse(job["bio"])
        assert marker is not None
        counts.update((marker.cluster, number) for number in marker.numbers(below=_MOST_FILES))
    return counts
