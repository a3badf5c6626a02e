"""What ``dev.netns`` tells ``ip`` and ``tc``, as data, and how it reads what they answer.

A network consists of one namespace with a bridge and one namespace for each node. Interfaces need no unique names:
``eth0`` in the node's namespace, and the node's own name at the bridge's end of the cable.
"""

import ipaddress
import json
import os
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

SUBNET = ipaddress.ip_network("198.18.0.0/24")
"""Of the range that RFC 2544 sets aside for benchmarks; nobody routes it."""
SUBNET6 = ipaddress.ip_network("2001:2::/64")
"""Of the range that RFC 5180 sets aside for benchmarks."""
FIRST_HOST = 11
MOST_NODES = SUBNET.num_addresses - 2 - FIRST_HOST

BRIDGE = "br0"
CARD = "eth0"
BURST = "256kb"
LATENCY = "50ms"
"""The longest that a byte waits in the queue of a shaped link; what does not fit is dropped."""

_PREFIX = "modelswarm"
# Fifteen characters are the kernel's limit for the name of an interface.
_NODE_NAME = re.compile(r"[a-z0-9][a-z0-9.-]{0,14}")
_NAMESPACE = re.compile(rf"{_PREFIX}-(?P<pid>\d+)-(?P<started>\d+)-\d+-(bridge|node-.+)")

Command = tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Traffic:
    """Bytes on a node's link since it was made, headers of Ethernet included, as the node sees them.

    A segment that the card would have split (TSO) counts its headers once, so this is a little less than on a wire.
    """

    received: int = 0
    sent: int = 0

    def __sub__(self, before: "Traffic") -> "Traffic":
        return Traffic(self.received - before.received, self.sent - before.sent)


@dataclass(frozen=True, slots=True)
class Names:
    """Which namespaces belong to one network of one process.

    The start time tells the process from a later one with the same number.
    """

    pid: int
    started: int
    serial: int

    @property
    def bridge(self) -> str:
        return f"{self._stem}-bridge"

    def of(self, node: str) -> str:
        return f"{self._stem}-node-{node}"

    @property
    def _stem(self) -> str:
        return f"{_PREFIX}-{self.pid}-{self.started}-{self.serial}"


def check_nodes(nodes: Sequence[str], rates: Mapping[str, int | None]) -> None:
    """Raises ValueError for names that cannot be interfaces, and for rates of nodes that do not exist."""
    if len(set(nodes)) != len(nodes):
        raise ValueError("two nodes have the same name")
    if len(nodes) > MOST_NODES:
        raise ValueError(f"at most {MOST_NODES} nodes")
    for node in nodes:
        if not _NODE_NAME.fullmatch(node) or node in (BRIDGE, "lo"):
            raise ValueError(f"not the name of a node: {node!r} (at most 15 of a-z, 0-9, '.', '-')")
    if strangers := sorted(set(rates) - set(nodes)):
        raise ValueError(f"no such node: {', '.join(strangers)}")
    if any(rate is not None and rate <= 0 for rate in rates.values()):
        raise ValueError("a rate is a positive number of bits per second, or None")


def address(index: int) -> str:
    return str(SUBNET[FIRST_HOST + index])


def address6(index: int) -> str:
    """Ends in the same digits as the node's other address."""
    return str(SUBNET6[int(str(FIRST_HOST + index), 16)])


def create_bridge(names: Names) -> list[Command]:
    bridge = names.bridge
    return [
        ("ip", "netns", "add", bridge),
        _ip(bridge, "link", "set", "lo", "up"),
        # Without the spanning tree protocol a new port forwards at once.
        _ip(bridge, "link", "add", BRIDGE, "type", "bridge", "stp_state", "0", "forward_delay", "0"),
        _ip(bridge, "link", "set", BRIDGE, "up"),
    ]


def create_node(names: Names, node: str, index: int, *, ipv6: bool) -> list[Command]:
    """A namespace whose only way out is a cable to the bridge; there is no route to anywhere else."""
    bridge, namespace = names.bridge, names.of(node)
    commands = [
        ("ip", "netns", "add", namespace),
        _ip(bridge, "link", "add", node, "type", "veth", "peer", "name", CARD, "netns", namespace),
        _ip(bridge, "link", "set", node, "master", BRIDGE, "up"),
        _ip(namespace, "address", "add", f"{address(index)}/{SUBNET.prefixlen}", "dev", CARD),
        _ip(namespace, "link", "set", "lo", "up"),
        _ip(namespace, "link", "set", CARD, "up"),
    ]
    if ipv6:
        # Nobody else is on this network, so the second in which the kernel looks for the same address is saved.
        own = f"{address6(index)}/{SUBNET6.prefixlen}"
        commands.append(_ip(namespace, "address", "add", own, "dev", CARD, "nodad"))
    return commands


def shape(names: Names, node: str, rate: int | None, *, shaped_before: bool) -> list[Command]:
    """Limit what the node sends (at its own end of the cable) and what it receives (at the bridge's end).

    ``rate`` in bits per second; None takes the limit away.
    """
    ends = ((names.of(node), CARD), (names.bridge, node))
    if rate is None:
        return [_tc(namespace, "delete", device) for namespace, device in ends] if shaped_before else []
    bucket = ("tbf", "rate", f"{rate}bit", "burst", BURST, "latency", LATENCY)
    return [_tc(namespace, "replace", device, *bucket) for namespace, device in ends]


def plug(names: Names, node: str, *, up: bool) -> Command:
    """Pull or plug the node's cable at the bridge."""
    return _ip(names.bridge, "link", "set", node, "up" if up else "down")


def read_traffic(names: Names) -> Command:
    return _ip(names.bridge, "-json", "-statistics", "link", "show", "type", "veth")


def parse_traffic(text: str) -> dict[str, Traffic]:
    """By node, from the answer to ``read_traffic``: what the bridge's end sends is what the node receives."""
    found = {}
    for link in json.loads(text):
        stats = link["stats64"]
        found[link["ifname"]] = Traffic(received=stats["tx"]["bytes"], sent=stats["rx"]["bytes"])
    return found


def abandoned(namespaces: Iterable[str], *, alive: Mapping[int, int]) -> list[str]:
    """Those of the namespaces that were ours and whose process is gone. ``alive``: start times by process id."""
    found = []
    for namespace in namespaces:
        match = _NAMESPACE.fullmatch(namespace)
        if match and alive.get(int(match["pid"])) != int(match["started"]):
            found.append(namespace)
    return sorted(found)


def start_times(proc: Path = Path("/proc")) -> dict[int, int]:
    """When each process of this machine started, in clock ticks since boot."""
    found = {}
    for entry in proc.iterdir():
        if entry.name.isdecimal() and (ticks := start_time(int(entry.name), proc)) is not None:
            found[int(entry.name)] = ticks
    return found


def start_time(pid: int | None = None, proc: Path = Path("/proc")) -> int | None:
    """That of one process, by default of this one; None if it does not exist."""
    try:
        text = (proc / str(pid or os.getpid()) / "stat").read_text()
    except OSError:
        return None
    # The second field is the program's name in brackets, which may contain anything. The start time is the 22nd.
    return int(text.rpartition(")")[2].split()[19])


def _ip(namespace: str, *arguments: str) -> Command:
    return ("ip", "-netns", namespace, *arguments)


def _tc(namespace: str, verb: str, device: str, *arguments: str) -> Command:
    return ("tc", "-netns", namespace, "qdisc", verb, "dev", device, "root", *arguments)
