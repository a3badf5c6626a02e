"""``kubectl swarm doctor``: all checks, in the order in which one would look."""

from collections.abc import Callable, Iterator

from modelswarm.plugin.views import doctor_agents as agents
from modelswarm.plugin.views import doctor_cluster as cluster
from modelswarm.plugin.views.check import Check
from modelswarm.plugin.views.facts import Facts

CHECKS: tuple[Callable[[Facts], Iterator[Check]], ...] = (
    cluster.check_server,
    cluster.check_kinds,
    cluster.check_versions,
    cluster.check_operator,
    cluster.check_leader,
    cluster.check_rights,
    cluster.check_clocks,
    agents.check_mirrors,
    agents.check_agents,
    agents.check_dns,
    agents.check_ports,
    agents.check_secret,
    agents.check_model_leases,
    agents.check_disks,
    cluster.check_tasks,
)


def examine(facts: Facts) -> tuple[Check, ...]:
    return tuple(found for check in CHECKS for found in check(facts))
