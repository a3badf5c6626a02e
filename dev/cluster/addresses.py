"""Who is where: names, ranges and routes of the cluster's network. Pure.

The machines are nodes of a ``dev.netns.Network``, one for the control plane, one for the origin, and one for each node
of the cluster; pods have a range on each. Packets between pods of two nodes travel as they are, by routes.
"""

from collections.abc import Callable, Iterator

from dev.component_flags import SERVICE_RANGE

CONTROL = "control"
"""The machine of the control plane, the cluster's DNS and the registry; programs that use the cluster run there too."""
ORIGIN = "origin"
"""The machine of the hub."""
CLUSTER_DOMAIN = "cluster.local"
PODS = "10.80.0.0/16"

Route = tuple[str, tuple[str, ...]]
"""A machine, and what it tells ``ip route``."""


def node_name(number: int) -> str:
    """``number`` counts from 1."""
    return f"node-{number}"


def machines(nodes: int) -> list[str]:
    return [CONTROL, ORIGIN, *(node_name(number) for number in range(1, nodes + 1))]


def pod_range(number: int) -> str:
    """The pods of one node."""
    return f"10.80.{number}.0/24"


def routes(nodes: int, address: Callable[[str], str]) -> Iterator[Route]:
    """What to add where, so that everybody reaches every pod, and the control plane's machine every Service."""
    every = machines(nodes)
    for number in range(1, nodes + 1):
        node = node_name(number)
        for machine in every:
            if machine != node:
                yield machine, ("add", pod_range(number), "via", address(node))
        # It leads nowhere, but has to exist: the kernel looks for a route before kube-proxy's rules see the packet.
        yield node, ("add", "default", "via", address(CONTROL))
    yield CONTROL, service_route(1, address)


def service_route(number: int, address: Callable[[str], str]) -> tuple[str, ...]:
    """Addresses of Services exist on nodes only, so everybody else lends the kube-proxy of one."""
    return ("replace", SERVICE_RANGE, "via", address(node_name(number)))
