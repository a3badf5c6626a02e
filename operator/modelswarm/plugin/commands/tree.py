"""``kubectl swarm tree``."""

from modelswarm.plugin.cluster import Cluster
from modelswarm.plugin.commands import finding
from modelswarm.plugin.exits import Exit
from modelswarm.plugin.options import Context, Format, Kubeconfig, Namespace, Output, Playground, Where
from modelswarm.plugin.reference import What, parse
from modelswarm.plugin.running import checked, note_unread, run, show
from modelswarm.plugin.show import views
from modelswarm.plugin.views.tree import tree_of


def tree(
    playground: Playground,
    namespace: Namespace = None,
    output: Output = Format.TABLE,
    kubeconfig: Kubeconfig = None,
    context: Context = None,
) -> None:
    """Show a Playground, its models and images, their tasks, and the nodes: each with its state and reason."""
    where = Where(kubeconfig, context, namespace)

    name = checked(lambda: parse(playground, (What.PLAYGROUND,), What.PLAYGROUND)).name

    async def work(cluster: Cluster) -> Exit:
        snapshot = await cluster.everything(where.namespaces)
        view = tree_of(finding.playground(snapshot, where.namespace, name), snapshot)
        note_unread(snapshot)
        show(view, output, lambda: views.tree(view))
        return Exit.OK

    run(where, work)
