"""``kubectl swarm cache``."""

from typing import Annotated

import typer

from modelswarm.plugin.cluster import Cluster
from modelswarm.plugin.commands import finding
from modelswarm.plugin.complete import complete_node
from modelswarm.plugin.exits import Exit
from modelswarm.plugin.options import Context, Format, Kubeconfig, Output, Where
from modelswarm.plugin.running import note_unread, run, show
from modelswarm.plugin.show import views
from modelswarm.plugin.views.cache import contents_of

Node = Annotated[str | None, typer.Argument(metavar="[NODE]", autocompletion=complete_node)]


def cache(
    node: Node = None, output: Output = Format.TABLE, kubeconfig: Kubeconfig = None, context: Context = None
) -> None:
    """Show what is on the nodes; with a NODE, its models one by one."""
    where = Where(kubeconfig, context)

    async def work(cluster: Cluster) -> Exit:
        snapshot = await cluster.moving(where.namespaces)
        note_unread(snapshot)
        if node is not None:
            one = contents_of(finding.node(snapshot, node.removeprefix("node/")), snapshot)
            show(one, output, lambda: views.contents(one))
        else:
            every = [contents_of(each, snapshot) for each in snapshot.caches]
            show(every, output, lambda: views.caches(every))
        return Exit.OK

    run(where, work)
