"""On which nodes a content belongs. The operator's engine chooses them; agents see for themselves whether a placement
lets their node through.

Copies are placed by rendezvous hashing: every node has a score for every content, and the highest scores hold it. When
a node goes, only what it held moves; when one comes, it takes over only what it scores highest for.
"""

import hashlib
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Literal

Copies = int | Literal["All"]
CONTROL_PLANE = ("node-role.kubernetes.io/control-plane", "node-role.kubernetes.io/master")
"""Labels of the nodes that kubeadm and others taint with the same names."""
HOST = "kubernetes.io/hostname"


@dataclass(frozen=True, slots=True)
class Place:
    """A node, as placement sees it. ``closed_by``: the taint for which no pod comes there now; None: it is open."""

    labels: Mapping[str, str]
    closed_by: str | None = None


def matches(selector: Mapping[str, str], labels: Mapping[str, str]) -> bool:
    """Whether labels have everything that a ``nodeSelector`` asks for; an empty selector asks for nothing."""
    return all(labels.get(key) == value for key, value in selector.items())


def lets_in(place: Place, selector: Mapping[str, str], copies: Copies) -> bool:
    """Whether a placement lets a node through, as far as that node alone decides it.

    A number of copies is not spent on a closed node, where no pod could use them. ``All`` is all, as with a DaemonSet:
    the node has them when it is opened. So has one whose host the ``nodeSelector`` names.
    """
    return matches(selector, place.labels) and (place.closed_by is None or copies == "All" or HOST in selector)


def eligible(nodes: Mapping[str, Place], selector: Mapping[str, str], copies: Copies = "All") -> tuple[str, ...]:
    """The names, in order, of the nodes (by name) among which a number of copies, or all of them, is placed.

    Ordinary pods mostly do not tolerate the control plane's taints, so a number of copies is not spent there, unless
    the ``nodeSelector`` names the role (or the host) or leaves no other node.
    """
    found = sorted(name for name, place in nodes.items() if lets_in(place, selector, copies))
    if copies == "All" or not selector.keys().isdisjoint((*CONTROL_PLANE, HOST)):
        return tuple(found)
    ordinary = [name for name in found if nodes[name].labels.keys().isdisjoint(CONTROL_PLANE)]
    return tuple(ordinary or found)


def holders(content: str, nodes: Iterable[str], copies: Copies) -> tuple[str, ...]:
    """The nodes that hold a content, best first: ``copies`` of the given ones, or all of them if there are fewer.

    ``content`` is a manifest's digest, with or without ``sha256:``. The order of ``nodes`` does not matter.
    """
    digest = content.removeprefix("sha256:")
    ranked = sorted(set(nodes), key=lambda node: (_score(digest, node), node), reverse=True)
    return tuple(ranked if copies == "All" else ranked[: max(copies, 0)])


def _score(digest: str, node: str) -> bytes:
    return hashlib.sha256(f"{digest}\0{node}".encode()).digest()
