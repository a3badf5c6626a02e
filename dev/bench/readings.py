"""What is read while a benchmark runs: ``/proc`` for processes, the operator's metrics, the API server's audit log."""

import os
import re
from collections import Counter
from dataclasses import dataclass
from pathlib import Path

from dev.controlplane import ControlPlane
from dev.installation import NAMESPACE, SERVICE_ACCOUNT, OperatorProcess

OPERATOR_USER = f"system:serviceaccount:{NAMESPACE}:{SERVICE_ACCOUNT}"
WRITES = frozenset({"create", "update", "patch", "delete", "deletecollection"})
APART = frozenset({"leases", "events"})
"""Resources whose writes are counted apart: they grow with time and with news, not with objects."""

_TICKS = os.sysconf("SC_CLK_TCK")
_REQUESTS = re.compile(
    r'^modelswarm_api_requests_total\{code="[^"]*",kind="([^"]*)",verb="([^"]*)"\} (\S+)$', re.MULTILINE
)
_WRITE_VERBS = frozenset({"apply", "apply_status", "create", "replace", "patch", "delete"})


def cpu_seconds(pid: int) -> float:
    """User and system time of a process so far."""
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / _TICKS


def memory_mib(pid: int, *, peak: bool) -> float:
    """Resident memory, now or at its highest."""
    name = "VmHWM" if peak else "VmRSS"
    found = re.search(rf"^{name}:\s+(\d+) kB", Path(f"/proc/{pid}/status").read_text(), re.MULTILINE)
    assert found is not None
    return int(found[1]) / 1024


def writes_sent(operator: OperatorProcess, *, events: bool = False) -> int:
    """How many writes the operator has sent so far, Leases aside; Events, which come behind the rest, on demand."""
    apart = {"Lease"} if events else {"Lease", "Event"}
    return sum(
        int(float(count))
        for kind, verb, count in _REQUESTS.findall(operator.metrics())
        if verb in _WRITE_VERBS and kind not in apart
    )


@dataclass(frozen=True, slots=True)
class Requests:
    """The operator's requests that reached the API server, from its audit log: by verb, and by resource for writes."""

    by_verb: Counter[str]
    writes: Counter[str]
    """``verb resource``, Leases and Events included."""

    @property
    def object_writes(self) -> int:
        return sum(count for name, count in self.writes.items() if name.split()[1] not in APART)

    @property
    def event_writes(self) -> int:
        return self.writes["create events"]

    def __sub__(self, before: "Requests") -> "Requests":
        return Requests(self.by_verb - before.by_verb, self.writes - before.writes)


def requests(cluster: ControlPlane) -> Requests:
    by_verb: Counter[str] = Counter()
    writes: Counter[str] = Counter()
    for event in cluster.audit_events():
        if event.user != OPERATOR_USER:
            continue
        by_verb[event.verb] += 1
        if event.verb in WRITES:
            writes[f"{event.verb} {event.resource}"] += 1
    return Requests(by_verb, writes)
