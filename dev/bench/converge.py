"""From nothing to a cluster in which every Deployment exists and every status says so."""

import asyncio
import time
from collections.abc import Iterable
from dataclasses import dataclass

from dev.bench import objects, readings
from dev.bench.api import Api, Object
from dev.bench.objects import Sizes
from dev.bench.readings import Requests
from dev.controlplane import ControlPlane
from dev.installation import OperatorProcess

POLL = 0.25
QUIET = 3.0
"""Seconds without a write of the operator after which it is asked whether all is settled."""


class DidNotConverge(RuntimeError):
    """The message says what was still missing."""


@dataclass(frozen=True, slots=True)
class Convergence:
    seconds: float
    """From the first create to the operator's last write."""
    created_seconds: float
    """Of that, until the last OpenModel and Playground was created."""
    requests: Requests
    operator_cpu: float
    control_plane_cpu: float
    peak_mib: float


async def converge(
    cluster: ControlPlane,
    operator: OperatorProcess,
    sizes: Sizes,
    *,
    distribution: bool,
    concurrency: int,
    timeout: float,
) -> Convergence:
    """Create everything, and wait until it has become what it should be. Raises ``DidNotConverge``."""
    pid = operator.child.pid
    assert pid is not None
    before, cpu, plane = readings.requests(cluster), readings.cpu_seconds(pid), _plane_cpu(cluster)
    async with Api(cluster, concurrency=concurrency) as api:
        started = time.monotonic()
        creating = asyncio.create_task(api.create_all(objects.bulk(sizes)))
        last_write, created = await _until_settled(api, operator, sizes, creating, distribution, started + timeout)
    requests = readings.requests(cluster) - before
    return Convergence(
        seconds=last_write - started,
        created_seconds=created - started,
        requests=requests,
        operator_cpu=readings.cpu_seconds(pid) - cpu,
        control_plane_cpu=_plane_cpu(cluster) - plane,
        peak_mib=readings.memory_mib(pid, peak=True),
    )


async def _until_settled(
    api: Api, operator: OperatorProcess, sizes: Sizes, creating: asyncio.Task[None], distribution: bool, deadline: float
) -> tuple[float, float]:
    """The moments of the last write and of the last create."""
    writes, last_write, created = 0, time.monotonic(), 0.0
    while True:
        await asyncio.sleep(POLL)
        now = time.monotonic()
        if creating.done() and not created:
            creating.result()
            created = now
        count = await asyncio.to_thread(readings.writes_sent, operator)
        if count != writes:
            writes, last_write = count, now
        elif created and now - last_write > QUIET and await api.count(objects.DEPLOYMENTS) == sizes.playgrounds:
            missing = await unsettled(api, distribution=distribution)
            if not missing:
                return last_write, created
        if now > deadline:
            missing = await unsettled(api, distribution=distribution)
            raise DidNotConverge(f"not settled in time: {', '.join(missing[:5])} and {max(0, len(missing) - 5)} more")


async def wait_quiet(operator: OperatorProcess, seconds: float = QUIET) -> None:
    """Until the operator has written nothing for so long, Events included."""
    writes, since = -1, time.monotonic()
    while time.monotonic() - since < seconds:
        await asyncio.sleep(POLL)
        count = await asyncio.to_thread(readings.writes_sent, operator, events=True)
        if count != writes:
            writes, since = count, time.monotonic()


async def unsettled(api: Api, *, distribution: bool) -> list[str]:
    """What is not yet as it should be."""
    playgrounds = await api.items(objects.ALL_PLAYGROUNDS)
    found = {item["metadata"]["name"] for item in await api.items(objects.DEPLOYMENTS)}
    found_services = {item["metadata"]["name"] for item in await api.items(objects.SERVICES)}
    missing = list(_without(await api.items(objects.MODELS), "Ready", "True"))
    # Nothing runs pods here, so a settled Playground is one that waits for its Deployment to become available.
    missing += _without(playgrounds, "Available", "False", "Pending")
    for playground in playgrounds:
        name = playground["metadata"]["name"]
        missing += [f"Deployment {name}"] * (name not in found)
        missing += [f"Service {name}-lb"] * (f"{name}-lb" not in found_services)
    if distribution:
        missing += _without(await api.items(objects.TASKS), "Ready", "True")
    return missing


def _without(items: Iterable[Object], type_: str, status: str, reason: str | None = None) -> Iterable[str]:
    """Names of the objects that lack a condition."""
    for item in items:
        conditions = item.get("status", {}).get("conditions") or []
        if not any(
            condition["type"] == type_
            and condition["status"] == status
            and condition.get("observedGeneration") == item["metadata"]["generation"]
            and reason in (None, condition["reason"])
            for condition in conditions
        ):
            yield f"{item.get('kind', type_)} {item['metadata']['name']}"


def _plane_cpu(cluster: ControlPlane) -> float:
    return sum(readings.cpu_seconds(pid) for pid in cluster.pids.values())
