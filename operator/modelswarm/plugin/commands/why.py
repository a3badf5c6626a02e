"""``kubectl swarm why``."""

from modelswarm.api.remedies import Grade
from modelswarm.plugin.cluster import Cluster
from modelswarm.plugin.commands import finding
from modelswarm.plugin.exits import Exit
from modelswarm.plugin.options import Context, Format, Kubeconfig, Namespace, Object, Output, Where
from modelswarm.plugin.reference import Reference, What, parse
from modelswarm.plugin.running import checked, note_unread, run, show
from modelswarm.plugin.show import views
from modelswarm.plugin.snapshot import Snapshot
from modelswarm.plugin.views.why import Answer, why_model, why_node, why_playground, why_task


def why(
    object_: Object,
    namespace: Namespace = None,
    output: Output = Format.TABLE,
    kubeconfig: Kubeconfig = None,
    context: Context = None,
) -> None:
    """Say in one sentence why something is as it is, and in one more what helps.

    Exit code 1: somebody has to act. 0: all is well, or it goes on by itself.
    """
    where = Where(kubeconfig, context, namespace)

    reference = checked(lambda: parse(object_, What))

    async def work(cluster: Cluster) -> Exit:
        snapshot = await cluster.everything(where.namespaces)
        view = answer(reference, snapshot, where)
        note_unread(snapshot)
        show(view, output, lambda: views.answer(view))
        return Exit.PROBLEM if view.grade is Grade.ACT else Exit.OK

    run(where, work)


def answer(reference: Reference, snapshot: Snapshot, where: Where) -> Answer:
    match reference.what:
        case What.PLAYGROUND:
            return why_playground(finding.playground(snapshot, where.namespace, reference.name), snapshot)
        case What.TASK:
            found = finding.task(snapshot, where.namespace, reference.name, anywhere=where.chosen is None)
            return why_task(found, snapshot)
        case What.MODEL:
            return why_model(finding.model(snapshot, reference.name), snapshot)
        case What.NODE:
            return why_node(finding.node(snapshot, reference.name), snapshot)
