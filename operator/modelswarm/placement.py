"""On which nodes a content belongs. The operator's engine chooses them; agents see for themselves whether a selector
lets their node through.

Copies are placed by rendezvous hashing: every node has a score for every content, and the highest scores hold it. When
a node goes, only what it held moves; when one comes, it takes over only what it scores highest for.
"""

import hashlib
from collections.abc import Iterable, Mapping
from typing import Literal

Copies = int | Literal["All"]


def matches(selector: Mapping[str, str], labels: Mapping[str, str]) -> bool:
    """Whether labels have everything that a ``nodeSelector`` asks for; an empty selector asks for nothing."""
    return all(labels.get(key) == value for key, value in selector.items())


def eligible(nodes: Mapping[str, Mapping[str, str]], selector: Mapping[str, str]) -> tuple[str, ...]:
    """The names, in order, of the nodes (labels by name) that a ``nodeSelector`` lets through."""
    return tuple(sorted(name for name, labels in nodes.items() if matches(selector, labels)))


def holders(content: str, nodes: Iterable[str], copies: Copies) -> tuple[str, ...]:
    """The nodes that hold a content, best first: ``copies`` of the given ones, or all of them if there are fewer.

    ``content`` is a manifest's digest, with or without ``sha256:``. The order of ``nodes`` does not matter.
    """
    digest = content.removeprefix("sha256:")
    ranked = sorted(set(nodes), key=lambda node: (_score(digest, node), node), reverse=True)
    return tuple(ranked if copies == "All" else ranked[: max(copies, 0)])


def _score(digest: str, node: str) -> bytes:
    return hashlib.sha256(f"{digest}\0{node}".encode()).digest()
