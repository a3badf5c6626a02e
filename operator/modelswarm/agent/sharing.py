"""Windows that several contents of this node share: a file that is in two of them has the same windows.

The swarm knows a window once. Here it is noted who has joined it, so that it is left when the last one leaves, and
that whoever joins a window that is done already hears so too.
"""

from collections.abc import Callable, Collection, Iterable
from pathlib import Path
from typing import NotRequired, Protocol, TypedDict, Unpack

from modelswarm.agent.swarm import Event, Peer, TorrentFailed, Window, WindowDone


class Joining(TypedDict):
    """How a window is joined, as ``Swarm.share`` takes it."""

    content: str
    have: Collection[int]
    peers: Collection[Peer]
    holders: NotRequired[Iterable[str]]


class SwarmPort(Protocol):
    """What is needed of the swarm."""

    def share(self, window: Window, path: Path, **joining: Unpack[Joining]) -> None: ...

    def drop(self, torrent: str) -> None: ...

    def add_peers(self, torrent: str, peers: Iterable[Peer]) -> None: ...


class WindowPort(SwarmPort, Protocol):
    """What an exchange needs."""

    def abandon(self, torrent: str) -> None:
        """Leave a window whose bytes are not here after all: for all contents of this node, until one joins again."""
        ...


class NoSwarm:
    """For a node without peers."""

    def share(self, window: Window, path: Path, **joining: Unpack[Joining]) -> None:
        """Nobody is there."""

    def drop(self, torrent: str) -> None:
        """Nothing is shared."""

    def abandon(self, torrent: str) -> None:
        """Nothing is shared."""

    def add_peers(self, torrent: str, peers: Iterable[Peer]) -> None:
        """There are none."""


class Sharing:
    """``swarm`` is the node's only one. ``report`` takes events as the swarm's own does: it returns at once."""

    def __init__(self, swarm: SwarmPort, report: Callable[[Event], None]) -> None:
        self.swarm = swarm
        self.report = report
        self.joined: dict[str, set[object]] = {}
        """Windows, and who is in them."""
        self.done: set[str] = set()

    def port(self) -> WindowPort:
        """The swarm for one content."""
        return _Port(self)

    def hear(self, event: Event) -> None:
        """To be called with every event of the swarm."""
        match event:
            case WindowDone(window_id=identity) if identity in self.joined:
                self.done.add(identity)
            case TorrentFailed(torrent=identity):
                self.done.discard(identity)


class _Port:
    def __init__(self, sharing: Sharing) -> None:
        self._sharing = sharing

    def share(self, window: Window, path: Path, **joining: Unpack[Joining]) -> None:
        sharing, identity = self._sharing, window.id
        sharing.joined.setdefault(identity, set()).add(self)
        sharing.swarm.share(window, path, **joining)
        if len(joining["have"]) >= sum(1 for _ in window.piece_numbers()):
            sharing.done.add(identity)
        elif identity in sharing.done:
            sharing.report(WindowDone(identity))

    def drop(self, torrent: str) -> None:
        sharing = self._sharing
        owners = sharing.joined.get(torrent, set())
        owners.discard(self)
        if not owners:
            sharing.joined.pop(torrent, None)
            sharing.done.discard(torrent)
            sharing.swarm.drop(torrent)

    def abandon(self, torrent: str) -> None:
        self._sharing.done.discard(torrent)
        self._sharing.swarm.drop(torrent)

    def add_peers(self, torrent: str, peers: Iterable[Peer]) -> None:
        self._sharing.swarm.add_peers(torrent, peers)
