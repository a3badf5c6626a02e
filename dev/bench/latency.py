"""From the last task's Ready to the Deployment, while tasks turn Ready at a steady rate."""

import asyncio
import statistics
import time
from dataclasses import dataclass, field

from dev.bench import objects, readings
from dev.bench.api import Api, Object
from dev.bench.converge import DidNotConverge, wait_quiet
from dev.controlplane import ControlPlane
from dev.hub import Hub, Kind, Slow
from dev.installation import NAMESPACE, OperatorProcess

HOLD_SECONDS = 25.0
"""How late the hub answers while the tasks are being suspended; less than the resolver's patience."""
AFTERMATH = 60.0
MODEL_LABEL = "llmaz.io/model-name"


@dataclass(frozen=True, slots=True)
class Latency:
    """Seconds, as one program that watches both kinds saw them."""

    rate: float
    """Tasks per second that turned Ready."""
    seconds: tuple[float, ...]
    operator_cpu: float

    def percentile(self, percent: int) -> float:
        return statistics.quantiles(self.seconds, n=100, method="inclusive")[percent - 1]


@dataclass(slots=True)
class _Moments:
    ready: dict[str, float] = field(default_factory=dict)
    created: dict[str, float] = field(default_factory=dict)

    def complete(self, count: int) -> bool:
        return len(self.ready) >= count and len(self.created) >= count


async def measure(
    cluster: ControlPlane, operator: OperatorProcess, hub: Hub, *, count: int, rate: float, runtimes: int
) -> Latency:
    """Let ``count`` tasks go, ``rate`` a second, each the last that a Playground waits for.

    They are held by ``spec.suspend``, which a user may set as well. It is set while the hub is slow to answer.
    """
    pid = operator.child.pid
    assert pid is not None
    names = [f"held-{index}" for index in range(count)]
    async with Api(cluster) as api:
        tasks = await _hold(api, operator, hub, names, runtimes)
        moments = _Moments()
        watches = [
            asyncio.create_task(_watch_tasks(api, await api.version(objects.TASKS), moments)),
            asyncio.create_task(_watch_deployments(api, await api.version(objects.DEPLOYMENTS), moments)),
        ]
        cpu = readings.cpu_seconds(pid)
        try:
            await _let_go(api, [tasks[name] for name in names], rate)
            deadline = time.monotonic() + AFTERMATH
            while time.monotonic() < deadline and not moments.complete(count):
                await asyncio.wait(watches, timeout=0.1, return_when=asyncio.FIRST_EXCEPTION)
                for watch in watches:
                    if watch.done():
                        watch.result()
        finally:
            for watch in watches:
                watch.cancel()
            await asyncio.gather(*watches, return_exceptions=True)
        cpu = readings.cpu_seconds(pid) - cpu
    if not moments.complete(count):
        raise DidNotConverge(
            f"of {count} tasks {len(moments.ready)} turned Ready and {len(moments.created)} Deployments came"
        )
    spread = max(moments.ready.values()) - min(moments.ready.values())
    seconds = tuple(moments.created[name] - moments.ready[name] for name in names)
    return Latency((count - 1) / spread, seconds, cpu)


async def _hold(api: Api, operator: OperatorProcess, hub: Hub, names: list[str], runtimes: int) -> dict[str, str]:
    """Create the pairs with suspended model tasks, and wait until only these are missing. Task names by model name."""
    answered = time.monotonic() + HOLD_SECONDS + 1
    rule = hub.fail(f"*{objects.HELD_REPOSITORY}*", Slow(first_byte_delay=HOLD_SECONDS), on=Kind.API)
    await api.create_all((objects.MODELS, objects.model(name, objects.HELD_REPOSITORY)) for name in names)
    tasks: dict[str, str] = {}
    while len(tasks) < len(names):
        for task in await api.items(f"/apis/llmaz.io/v1alpha1/namespaces/{NAMESPACE}/p2ptasks"):
            model, name = task["metadata"]["labels"].get(MODEL_LABEL, ""), task["metadata"]["name"]
            if model.startswith("held-") and model not in tasks:
                tasks[model] = name
                await api.merge(_task(name), {"spec": {"suspend": True}})
    await api.create_all(
        (objects.PLAYGROUNDS, objects.playground(name, name, index % runtimes)) for index, name in enumerate(names)
    )
    rule.times = 0
    # The question that is under way is joined by whoever asks the same: let it end.
    await asyncio.sleep(max(0.0, answered - time.monotonic()))
    await wait_quiet(operator)
    for task in await api.items(objects.TASKS):
        if task["metadata"]["name"] in tasks.values() and is_ready(task):
            raise DidNotConverge(f"P2PTask {task['metadata']['name']} was Ready before it was suspended")
    return tasks


async def _let_go(api: Api, tasks: list[str], rate: float) -> None:
    """On a fixed schedule, so that a slow answer does not slow the next task down."""
    started = time.monotonic()
    async with asyncio.TaskGroup() as group:
        for index, name in enumerate(tasks):
            await asyncio.sleep(max(0.0, started + index / rate - time.monotonic()))
            group.create_task(api.merge(_task(name), {"spec": {"suspend": False}}))


async def _watch_tasks(api: Api, version: str, moments: _Moments) -> None:
    async for event in api.watch(objects.TASKS, version):
        now, task = time.monotonic(), event["object"]
        model = task["metadata"].get("labels", {}).get(MODEL_LABEL, "")
        if model and is_ready(task):
            moments.ready.setdefault(model, now)


async def _watch_deployments(api: Api, version: str, moments: _Moments) -> None:
    async for event in api.watch(objects.DEPLOYMENTS, version):
        if event["type"] == "ADDED":
            moments.created[event["object"]["metadata"]["name"]] = time.monotonic()


def _task(name: str) -> str:
    return f"/apis/llmaz.io/v1alpha1/namespaces/{NAMESPACE}/p2ptasks/{name}"


def is_ready(task: Object) -> bool:
    conditions = task.get("status", {}).get("conditions") or []
    return any(condition["type"] == "Ready" and condition["status"] == "True" for condition in conditions)
