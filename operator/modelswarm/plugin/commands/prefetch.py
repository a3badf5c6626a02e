"""``kubectl swarm prefetch``."""

import asyncio
import sys
from typing import Annotated

import typer

from modelswarm.api.meta import JsonObject
from modelswarm.api.p2ptask import Engine, P2PTask, Phase
from modelswarm.errors import Conflict, NotFound
from modelswarm.kube.kinds import P2PTASK
from modelswarm.kube.objects import key_of
from modelswarm.plugin.cluster import Cluster
from modelswarm.plugin.exits import NOT_INSTALLED, Exit, problem, usage
from modelswarm.plugin.options import Context, Format, Kubeconfig, Namespace, Output, Where
from modelswarm.plugin.running import checked, complain, put, run, show
from modelswarm.plugin.show import views
from modelswarm.plugin.views.standing import of_task
from modelswarm.plugin.views.status import status_of
from modelswarm.plugin.wish import Kind, Wish, copies_of, selector_of, task_for

EVERY = 0.5

Content = Annotated[str, typer.Argument(metavar="MODEL_ID | IMAGE", help="ORG/NAME[@REVISION], a URI, or an image.")]
Nodes = Annotated[str, typer.Option(metavar="LABEL=VALUE,...", help="Nodes that should hold it, by their labels.")]
Copies = Annotated[
    str | None, typer.Option(metavar="N|All", help="On how many nodes. Default: 2, with --nodes all of them.")
]
Revision = Annotated[str | None, typer.Option(help="Branch, tag or commit of a model.")]
EngineOption = Annotated[Engine, typer.Option(help="How the bytes are spread.")]
Pin = Annotated[bool, typer.Option("--pin", help="Keep it on the nodes as long as the task exists.")]
Secret = Annotated[str | None, typer.Option(help="Secret in the task's namespace with a token or pull secret.")]
Name = Annotated[str | None, typer.Option(help="Name of the task. Default: made from the content.")]
As = Annotated[
    str | None, typer.Option("--as", metavar="model|image", help="What it is, where the name leaves that open.")
]
Wait = Annotated[bool, typer.Option("--wait", help="Wait until every copy is there.")]
Timeout = Annotated[float, typer.Option(metavar="SECONDS", help="How long --wait waits.")]


def prefetch(
    content: Content,
    nodes: Nodes = "",
    copies: Copies = None,
    revision: Revision = None,
    engine: EngineOption = Engine.AUTO,
    pin: Pin = False,
    secret: Secret = None,
    name: Name = None,
    as_: As = None,
    wait: Wait = False,
    timeout: Timeout = 3600.0,
    namespace: Namespace = None,
    output: Output = Format.TABLE,
    kubeconfig: Kubeconfig = None,
    context: Context = None,
) -> None:
    """Bring a model or an image to nodes ahead of time: creates a P2PTask.

    It is created in the operator's namespace, where agents may read what they need, unless --namespace names another.
    """
    where = Where(kubeconfig, context, namespace)

    wish = checked(
        lambda: Wish(
            content,
            _kind(as_),
            selector_of(nodes),
            copies_of(copies) if copies is not None else None,
            revision,
            engine,
            pin,
            secret,
            name,
        )
    )
    checked(lambda: task_for(wish, ""))

    async def work(cluster: Cluster) -> Exit:
        task = task_for(wish, where.chosen or (await cluster.installation()).namespace)
        made, created = await _create(cluster, task)
        key = key_of(made)
        if output is Format.TABLE:
            print(f"p2ptask/{key.name} {'created' if created else 'exists already'} in {key.namespace}")
            sys.stdout.flush()
        code = Exit.OK
        if wait:
            made, code = await _wait(cluster, made, timeout)
        if output is not Format.TABLE:
            show(P2PTask.model_validate(made).to_json(), output, lambda: "")
        elif wait:
            snapshot = await cluster.moving((key.namespace,))
            rows = [row for row in status_of(snapshot, key.namespace).tasks if row.name == key.name]
            put(views.tasks(rows))
        return code

    run(where, work)


def _kind(text: str | None) -> Kind | None:
    match text:
        case None | "model" | "image":
            return text
    raise usage(f"--as {text}: write model or image")


async def _create(cluster: Cluster, task: JsonObject) -> tuple[JsonObject, bool]:
    """The task, and whether it is new. One of that name with another spec is an error."""
    key = key_of(task)
    try:
        return await cluster.kube.create(task), True
    except NotFound as error:
        if "namespace" in error.message:
            raise
        raise NOT_INSTALLED from None
    except Conflict:
        found = await cluster.kube.get(P2PTASK, key.name, key.namespace)
        if P2PTask.model_validate(found).spec != P2PTask.model_validate(task).spec:
            raise problem(
                f"p2ptask/{key.name} exists in {key.namespace} and asks for something else; choose another --name"
            ) from None
        return found, False


async def _wait(cluster: Cluster, task: JsonObject, seconds: float) -> tuple[JsonObject, Exit]:
    """Until every copy is there, no more can come by themselves, or the time is over."""
    key, deadline = key_of(task), asyncio.get_running_loop().time() + seconds
    while True:
        task = await cluster.kube.get(P2PTASK, key.name, key.namespace)
        found = P2PTask.model_validate(task)
        standing, status = of_task(found), found.status
        if status.phase is Phase.SUCCEEDED:
            return task, Exit.OK
        stuck = bool(status.failed) and status.ready + status.failed >= status.desired
        if status.phase in (Phase.FAILED, Phase.FELL_BACK, Phase.SUSPENDED) or stuck:
            failures = "; ".join(f"{each.node}: {each.reason}: {each.message}" for each in status.failures)
            complain(f"p2ptask/{key.name} does not get on: {failures or f'{standing.reason}: {standing.message}'}")
            return task, Exit.PROBLEM
        if asyncio.get_running_loop().time() > deadline:
            complain(f"p2ptask/{key.name} is not complete within {seconds:g} s ({standing.reason}); it goes on")
            return task, Exit.PROBLEM
        await asyncio.sleep(EVERY)
