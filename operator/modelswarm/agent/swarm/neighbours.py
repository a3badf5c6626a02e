"""Who connects to whom. Every node decides alone, and all decide the same.

Few nodes are a full mesh. Many stand in some rings at once, each in an order of its own, and talk to those beside them:
that is a random regular graph, in which everybody reaches everybody in few hops, whatever the number of nodes.
"""

import hashlib
from collections.abc import Collection, Iterable
from dataclasses import dataclass


@dataclass(frozen=True, slots=True, order=True)
class Peer:
    """A node's swarm: where it listens. ``host`` is an address, not a name."""

    node: str
    host: str
    port: int


def neighbours(torrent: str, own: str, peers: Collection[Peer], holders: Iterable[str], degree: int) -> list[Peer]:
    """The peers that node ``own`` talks to in a torrent, about ``degree`` (an even number) of them.

    ``holders`` are nodes that had the bytes first: one of them is a neighbour in any case.
    """
    others = sorted({peer.node: peer for peer in peers if peer.node != own}.values())
    if len(others) <= degree:
        return others
    chosen = {min(set(holders) - {own}, key=lambda node: _rank(torrent, own, node), default=own)}
    names = [own, *(peer.node for peer in others)]
    for number in range(degree // 2):
        ring = sorted(names, key=lambda node: _rank(torrent, str(number), node))
        here = ring.index(own)
        chosen |= {ring[here - 1], ring[(here + 1) % len(ring)]}
    return [peer for peer in others if peer.node in chosen]


def _rank(*parts: str) -> bytes:
    return hashlib.sha256("\n".join(parts).encode()).digest()
