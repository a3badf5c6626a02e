"""``kubectl swarm doctor``."""

from modelswarm.plugin.cluster import Cluster
from modelswarm.plugin.examining import gather
from modelswarm.plugin.exits import Exit
from modelswarm.plugin.options import Context, Format, Kubeconfig, Output, Where
from modelswarm.plugin.running import run, show
from modelswarm.plugin.show.checks import checks
from modelswarm.plugin.views.check import Verdict
from modelswarm.plugin.views.doctor import examine


def doctor(output: Output = Format.TABLE, kubeconfig: Kubeconfig = None, context: Context = None) -> None:
    """Examine the installation: DNS, ports, Leases, mirrors, versions, clocks, permissions.

    Exit code 1: there is a problem. What cannot be seen for want of rights is said, and is no problem.
    """
    where = Where(kubeconfig, context)

    async def work(cluster: Cluster) -> Exit:
        found = examine(await gather(cluster))
        show(found, output, lambda: checks(found))
        return Exit.PROBLEM if any(each.verdict is Verdict.PROBLEM for each in found) else Exit.OK

    run(where, work)
