"""Who connects to whom. Every node decides alone, and all decide the same.

Few nodes are a full mesh. Many are a ring in an order of their own for every torrent, with chords: every node reaches
every other in few hops, and no node has more than about twice ``degree`` connections in a torrent.
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
    """The peers that node ``own`` talks to in a torrent, at least ``degree`` of them if there are so many.

    ``holders`` are nodes that had the bytes first: one of them is a neighbour in any case.
    """
    others = sorted({peer.node: peer for peer in peers if peer.node != own}.values())
    if len(others) <= degree:
        return others
    ring = sorted([own, *(peer.node for peer in others)], key=lambda node: _rank(torrent, node))
    here = ring.index(own)
    chosen = {
        ring[(here + step) % len(ring)] for distance in _chords(len(ring), degree) for step in (distance, -distance)
    }
    chosen.update(sorted(set(holders) - {own}, key=lambda node: _rank(torrent + own, node))[:1])
    return [peer for peer in others if peer.node in chosen]


def _rank(torrent: str, node: str) -> bytes:
    return hashlib.sha256(f"{torrent}\n{node}".encode()).digest()


def _chords(count: int, degree: int) -> list[int]:
    """Distances around the ring: 1, and then growing by a constant factor up to half of it."""
    wanted = max(degree // 2, 1)
    reach = count / 2
    return sorted({max(1, round(reach ** (step / wanted))) for step in range(wanted)})
