"""``kubectl swarm status``."""

from typing import Annotated

import typer

from modelswarm.plugin.cluster import Cluster
from modelswarm.plugin.exits import Exit, usage
from modelswarm.plugin.following import follow_status
from modelswarm.plugin.options import Context, Format, Kubeconfig, Namespace, Output, Where
from modelswarm.plugin.running import checked, note_unread, run, show
from modelswarm.plugin.show import views
from modelswarm.plugin.views.status import status_of

Watch = Annotated[bool, typer.Option("--watch", "-w", help="Go on showing it as it changes, until Ctrl-C.")]
Everywhere = Annotated[
    bool, typer.Option("--all-namespaces", "-A", help="Tasks of all namespaces: the default without --namespace.")
]


def status(
    watch: Watch = False,
    namespace: Namespace = None,
    all_namespaces: Everywhere = False,
    output: Output = Format.TABLE,
    kubeconfig: Kubeconfig = None,
    context: Context = None,
) -> None:
    """Show tasks and nodes: bytes, rate, ETA. With --watch: live."""
    where = Where(kubeconfig, context, None if all_namespaces else namespace)

    checked(lambda: _exclude(namespace, all_namespaces))

    async def work(cluster: Cluster) -> Exit:
        snapshot = await cluster.moving(where.namespaces)
        note_unread(snapshot)
        if watch:
            await follow_status(cluster.kube, where.chosen, output)
            return Exit.OK
        view = status_of(snapshot, where.chosen)
        show(view, output, lambda: views.status(view, namespaces=where.chosen is None))
        return Exit.OK

    run(where, work)


def _exclude(namespace: str | None, all_namespaces: bool) -> None:
    if namespace is not None and all_namespaces:
        raise usage("--namespace and --all-namespaces exclude each other")
