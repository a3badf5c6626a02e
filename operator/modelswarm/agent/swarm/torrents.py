"""One torrent of the session: what it is for, and the parameters that libtorrent adds it with."""

import enum
from collections.abc import Collection, Mapping
from dataclasses import dataclass, field
from pathlib import Path

import libtorrent as lt

from modelswarm.agent.swarm.neighbours import Peer, neighbours
from modelswarm.agent.swarm.settings import MAX_CONNECTIONS
from modelswarm.agent.swarm.whole import Whole
from modelswarm.agent.swarm.windows import Window, to_metainfo

WANTED = 4
NOT_WANTED = 0


class Kind(enum.Enum):
    WINDOW = "window"
    MODEL = "model"


@dataclass(slots=True)
class Torrent:
    """What the swarm remembers of a torrent. ``handle`` is None until libtorrent has added it.

    ``uploaded`` and ``downloaded`` are bytes of payload, as of the last reading.
    """

    id: str
    kind: Kind
    content: str
    info_hash: str
    peers: dict[str, Peer]
    """Everybody who has the content or wants it, by node."""
    asked: set[Peer]
    """Those of them that libtorrent has been told of."""
    holders: frozenset[str]
    done: bool
    """All of it is here; ``told``: and in the file, which was reported."""
    told: bool
    moved: float
    """When something of it last came."""
    handle: lt.torrent_handle | None = None
    dropped: bool = False
    held: bool = False
    """It waits for its turn: what it has is served, and nothing is asked for."""
    resume: Path | None = None
    waiting: list[Peer] = field(default_factory=list)
    connected: int = 0
    here: int = 0
    uploaded: int = 0
    downloaded: int = 0

    def first_choice(self, own: str, degree: int) -> list[Peer]:
        """Of the peers, those that node ``own`` connects to as long as something moves."""
        known = list(self.peers.values())
        if self.kind is Kind.MODEL and self.holders:
            return [peer for peer in known if peer.node in self.holders]
        return neighbours(self.id, own, known, self.holders, degree)


def info_hash(hashes: lt.info_hash_t) -> str:
    return str(hashes.get_best())


def of_window(window: Window, path: Path, secret: bytes, *, have: Collection[int]) -> lt.add_torrent_params:
    """``path``: the file, at its full length, sparse as it may be; ``have``: the pieces that are in it already."""
    params = lt.load_torrent_buffer(to_metainfo(window, secret))
    pieces = window.pieces
    wanted = [NOT_WANTED] * pieces
    here = [False] * pieces
    for number in window.piece_numbers():
        wanted[number] = WANTED
        here[number] = number in have
    params.piece_priorities = wanted
    params.have_pieces = here
    params.renamed_files = {0: str(path)}
    params.save_path = str(path.parent)
    params.max_connections = MAX_CONNECTIONS
    # Who talks to whom is decided for every window, so there is nothing for peer exchange to add.
    params.flags = _FLAGS | lt.torrent_flags.disable_pex
    return params


def of_model(
    whole: Whole, paths: Mapping[str, Path], *, have: Collection[str], resume: bytes | None
) -> lt.add_torrent_params:
    """``paths``: where each file is, or is to be; ``have``: those that are there, complete.

    What ``resume`` (of an earlier run) says about the pieces of the others is believed; their files have to be there.
    """
    params = lt.load_torrent_buffer(whole.metainfo)
    params.renamed_files = {index: str(paths[path]) for index, path in whole.files}
    params.save_path = str(next(iter(paths.values())).parent)
    params.max_connections = MAX_CONNECTIONS
    params.flags = _FLAGS
    if all(path in have for _, path in whole.files):
        # Pieces are hashed when they are first asked for: a file that rotted is noticed before it spreads.
        params.flags |= lt.torrent_flags.seed_mode
        return params
    assert params.ti is not None
    here = earlier_pieces(resume, params.ti)
    priorities = [WANTED] * whole.pieces
    for index, path in whole.files:
        if path in have:
            for number in whole.pieces_of(index):
                here[number] = True
                priorities[number] = NOT_WANTED
    params.have_pieces = here
    params.piece_priorities = priorities
    return params


def missing_pieces(record: Torrent) -> tuple[int, ...]:
    """Pieces that are wanted and not here. Asks libtorrent's thread and waits for it: not for every day."""
    if record.handle is None or not record.handle.is_valid():
        return ()
    try:
        here = record.handle.status(lt.torrent_handle.query_pieces).pieces
        wanted = record.handle.get_piece_priorities()
    except RuntimeError:
        # It is being removed.
        return ()
    return tuple(number for number, (has, how) in enumerate(zip(here, wanted, strict=False)) if how and not has)


def earlier_pieces(resume: bytes | None, info: lt.torrent_info) -> list[bool]:
    """Which pieces of a torrent an earlier run has written down."""
    nothing = [False] * info.num_pieces()
    if resume is None:
        return nothing
    try:
        earlier = lt.read_resume_data(resume)
    except RuntimeError:
        return nothing
    same = info_hash(earlier.info_hashes) == info_hash(info.info_hashes())
    # Written in whole bytes.
    pieces = list(earlier.have_pieces)[: len(nothing)]
    return pieces if same and len(pieces) == len(nothing) else nothing


_FLAGS = lt.torrent_flags.no_verify_files | lt.torrent_flags.update_subscribe | lt.torrent_flags.apply_ip_filter
