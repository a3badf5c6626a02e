"""The manager's preheat jobs of a task, and how often each file was asked for: by the marker in ``bio``.

A scheduler asks its seeds twice a minute how they are, and forgets until the next time one that does not answer within
two seconds. On a busy machine that happens; all jobs of that half minute fail, and are to be made again.
"""

from collections import Counter
from collections.abc import Sequence
from typing import Any

from dev.dragonfly.manager import Manager, failures
from dev.dragonfly.stack import DragonflyStack
from modelswarm.backends.dragonfly.marker import Marker

Json = dict[str, Any]
_MOST_FILES = 10_000


def is_seedless(job: Json) -> bool:
    """Whether it failed because the scheduler had lost sight of its seed."""
    return job["state"] == "FAILURE" and any("no available seed peer" in failure for failure in failures(job))


def preheat(dragonfly: DragonflyStack, urls: Sequence[str], **arguments: object) -> Json:
    """Post a job, and once more if the seed was out of sight; the job when it has ended."""
    dragonfly.wait_preheatable()
    for _ in range(3):
        job = dragonfly.api.wait_for_job(int(dragonfly.api.preheat(urls, **arguments)["id"]))
        if not is_seedless(job):
            break
    return job


def preheats_of(manager: Manager, uid: str) -> list[Json]:
    """The oldest first. Those that the operator deleted are not among them, nor those that found no seed."""
    jobs = [job for job in manager.jobs(type="preheat") if not is_seedless(job)]
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
