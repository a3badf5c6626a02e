"""The BitTorrent side of the agent, on libtorrent.

``windows`` (files in flight) and ``whole`` (complete models) say what a torrent is, ``neighbours`` who connects to
whom, ``session`` runs them, ``events`` and ``counters`` tell. Only this package imports libtorrent.
"""

from modelswarm.agent.swarm.counters import Counters, Traffic
from modelswarm.agent.swarm.events import (
    Event,
    ModelDone,
    ModelStalled,
    PeerBanned,
    TorrentFailed,
    WindowDone,
    WindowStalled,
)
from modelswarm.agent.swarm.neighbours import Peer, neighbours
from modelswarm.agent.swarm.session import Swarm
from modelswarm.agent.swarm.settings import Encryption, SwarmSettings
from modelswarm.agent.swarm.whole import Whole, make_metainfo, read_metainfo
from modelswarm.agent.swarm.windows import Part, Window, piece_hashes, piece_length

__all__ = [
    "Counters",
    "Encryption",
    "Event",
    "ModelDone",
    "ModelStalled",
    "Part",
    "Peer",
    "PeerBanned",
    "Swarm",
    "SwarmSettings",
    "TorrentFailed",
    "Traffic",
    "Whole",
    "Window",
    "WindowDone",
    "WindowStalled",
    "make_metainfo",
    "neighbours",
    "piece_hashes",
    "piece_length",
    "read_metainfo",
]
