"""``kubectl swarm suspend``, ``resume`` and ``retry``: changes of ``spec.suspend``, and nothing else."""

import asyncio
import sys
from collections.abc import Awaitable, Callable, Sequence
from typing import Annotated

import typer

from modelswarm.api.p2ptask import P2PTask, Phase
from modelswarm.kube.kinds import P2PTASK
from modelswarm.plugin.cluster import Cluster
from modelswarm.plugin.commands import finding
from modelswarm.plugin.exits import Exit, problem
from modelswarm.plugin.options import Context, Kubeconfig, Namespace, Switchable, Where
from modelswarm.plugin.reference import What, parse
from modelswarm.plugin.running import checked, run
from modelswarm.plugin.views.standing import is_ready

NOTICE_SECONDS = 20.0
"""In which an operator that runs notices a change of a spec."""
EVERY = 0.2

Every = Annotated[bool, typer.Option("--all", help="Of a Playground: also tasks that are Ready.")]


def suspend(
    object_: Switchable, namespace: Namespace = None, kubeconfig: Kubeconfig = None, context: Context = None
) -> None:
    """Stop a task, or all tasks that a Playground uses. What was downloaded stays."""
    _each(Where(kubeconfig, context, namespace), object_, lambda cluster, task: _set(cluster, task, True))


def resume(
    object_: Switchable, namespace: Namespace = None, kubeconfig: Kubeconfig = None, context: Context = None
) -> None:
    """Let a suspended task go on, or all tasks that a Playground uses."""
    _each(Where(kubeconfig, context, namespace), object_, lambda cluster, task: _set(cluster, task, False))


def retry(
    object_: Switchable,
    every: Every = False,
    namespace: Namespace = None,
    kubeconfig: Kubeconfig = None,
    context: Context = None,
) -> None:
    """Let a task try again at once, with its time anew. Of a Playground: the tasks that are not Ready."""
    chosen = _all if every else _not_ready
    _each(Where(kubeconfig, context, namespace), object_, _again, chosen)


def _all(tasks: Sequence[P2PTask]) -> Sequence[P2PTask]:
    return tasks


def _not_ready(tasks: Sequence[P2PTask]) -> Sequence[P2PTask]:
    return [task for task in tasks if not is_ready(task) or task.status.phase is Phase.FELL_BACK]


Change = Callable[[Cluster, P2PTask], Awaitable[str]]


def _each(
    where: Where, object_: str, change: Change, chosen: Callable[[Sequence[P2PTask]], Sequence[P2PTask]] = _all
) -> None:
    reference = checked(lambda: parse(object_, (What.TASK, What.PLAYGROUND), What.TASK))

    async def work(cluster: Cluster) -> Exit:
        snapshot = await cluster.everything(where.namespaces)
        if reference.what is What.TASK:
            named = where.chosen is not None
            tasks = [finding.task(snapshot, where.namespace, reference.name, anywhere=not named)]
        else:
            found = finding.playground(snapshot, where.namespace, reference.name)
            tasks = list(chosen(snapshot.tasks_of(found)))
        if not tasks:
            print(f"{reference}: there is nothing to do")
        for task in tasks:
            print(f"p2ptask/{task.metadata.name} in {task.metadata.namespace}: {await change(cluster, task)}")
            sys.stdout.flush()
        return Exit.OK

    run(where, work)


async def _set(cluster: Cluster, task: P2PTask, suspended: bool) -> str:
    if task.spec.suspend is suspended:
        return f"was {'suspended' if suspended else 'not suspended'} already"
    await _patch(cluster, task, suspended)
    return "suspended" if suspended else "resumed"


async def _again(cluster: Cluster, task: P2PTask) -> str:
    """A pause that the operator has seen makes it begin anew: its time, and the questions to the origin."""
    if task.spec.suspend:
        raise problem(f"p2ptask/{task.metadata.name} is suspended; kubectl swarm resume lets it go on")
    await _patch(cluster, task, True)
    try:
        noticed = await _noticed(cluster, task)
    finally:
        await asyncio.shield(_patch(cluster, task, False))
    if not noticed:
        raise problem(
            f"p2ptask/{task.metadata.name}: the operator has not noticed within {NOTICE_SECONDS:.0f} s; "
            "see kubectl swarm doctor"
        )
    return "tries again"


async def _noticed(cluster: Cluster, task: P2PTask) -> bool:
    deadline = asyncio.get_running_loop().time() + NOTICE_SECONDS
    while asyncio.get_running_loop().time() < deadline:
        found = await cluster.kube.get(P2PTASK, task.metadata.name, task.metadata.namespace)
        if P2PTask.model_validate(found).status.phase is Phase.SUSPENDED:
            return True
        await asyncio.sleep(EVERY)
    return False


async def _patch(cluster: Cluster, task: P2PTask, suspended: bool) -> None:
    """Of this very object, not of one that has taken its name meanwhile."""
    await cluster.kube.json_patch(
        P2PTASK,
        task.metadata.name,
        task.metadata.namespace,
        [
            {"op": "test", "path": "/metadata/uid", "value": task.metadata.uid},
            {"op": "add", "path": "/spec/suspend", "value": suspended},
        ],
    )
