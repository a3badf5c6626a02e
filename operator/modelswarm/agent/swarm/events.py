"""What the swarm tells: each event is one thing that happened, in the order in which it did."""

from dataclasses import dataclass
from typing import TypeAlias


@dataclass(frozen=True, slots=True)
class WindowDone:
    """All parts of the window are here and agree with their hashes."""

    window_id: str


@dataclass(frozen=True, slots=True)
class WindowStalled:
    """Nothing of the window came for a while; ``peers``: how many are connected, ``missing``: pieces that it waits
    for, as far as is known."""

    window_id: str
    peers: int
    missing: tuple[int, ...] = ()


@dataclass(frozen=True, slots=True)
class ModelDone:
    """All files of the content are here and agree with the metainfo."""

    content_id: str


@dataclass(frozen=True, slots=True)
class ModelStalled:
    content_id: str
    peers: int


@dataclass(frozen=True, slots=True)
class PeerBanned:
    """A peer sent pieces that do not agree with their hashes, and is not talked to any more in that torrent.

    ``node`` is None if nobody with this address was named to the swarm. ``torrent``: a window's or a content's id.
    """

    node: str | None
    host: str
    torrent: str


@dataclass(frozen=True, slots=True)
class TorrentFailed:
    """The disk refused, or the files are not what was promised. The torrent stands still until it is dropped.

    ``full``: there is no space left.
    """

    torrent: str
    message: str
    full: bool = False


Event: TypeAlias = WindowDone | WindowStalled | ModelDone | ModelStalled | PeerBanned | TorrentFailed
