"""Whose a job is: the text in its ``bio``, by which it is found again when the answer to its POST was lost.

The manager has no other place for it, and no idempotency key. A marker alone is enough to take a job over: it names the
files, so that it does not matter if the bounds of a job were other ones when it was made.
"""

import re
from collections.abc import Collection
from dataclasses import dataclass

from modelswarm.backends.dragonfly.answers import Job
from modelswarm.backends.dragonfly.items import Items, format_items, parse_items

PREFIX = "modelswarm"
PROBE = "modelswarm-probe"
MAX_LENGTH = 1024
"""Of the column in the manager's database."""

_MARKER = re.compile(
    rf"{PREFIX}/(?P<uid>[^/]+)/(?P<plan>[0-9a-f]+)/c(?P<cluster>\d{{1,9}})/n(?P<serial>\d{{1,9}})"
    r"/a(?P<attempt>\d{1,9})/(?P<items>[0-9,-]*)",
    re.ASCII,
)


@dataclass(frozen=True, slots=True)
class Marker:
    """The ``serial``-th job of a task's plan on a cluster, for these files of the plan, ``attempt`` times tried."""

    uid: str
    plan: str
    cluster: int
    serial: int
    attempt: int
    items: str

    @classmethod
    def of(cls, uid: str, plan: str, cluster: int, serial: int, attempt: int, items: Items) -> "Marker":
        return cls(uid, plan, cluster, serial, attempt, format_items(items))

    @classmethod
    def parse(cls, bio: str) -> "Marker | None":
        """The marker in a ``bio``; None for the jobs of others."""
        match = _MARKER.fullmatch(bio)
        if match is None:
            return None
        cluster, serial, attempt = (int(match[name]) for name in ("cluster", "serial", "attempt"))
        return cls(match["uid"], match["plan"], cluster, serial, attempt, match["items"])

    def __str__(self) -> str:
        return f"{PREFIX}/{self.uid}/{self.plan}/c{self.cluster}/n{self.serial}/a{self.attempt}/{self.items}"

    def numbers(self, *, below: int) -> Items:
        return parse_items(self.items, below=below)


def superfluous(jobs: list[Job], uid: str, *, ending: Collection[int] = (), useless: bool = False) -> list[int]:
    """Of a task that has everything: its jobs that hold credentials, that still run (but for those ``ending`` by
    themselves), or that are there twice. All of them, however they ended, where they are ``useless``: what they brought
    is under ids that nobody asks for."""
    seen: set[tuple[str, int, int]] = set()
    found: list[int] = []
    for job in sorted(jobs, key=lambda job: job.id):
        marker = Marker.parse(job.bio)
        if marker is None or marker.uid != uid:
            continue
        place = (marker.plan, marker.cluster, marker.serial)
        if useless or place in seen or job.carries_credentials or not (job.is_over or job.id in ending):
            found.append(job.id)
        seen.add(place)
    return found
