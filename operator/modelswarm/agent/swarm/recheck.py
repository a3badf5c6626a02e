"""What is on the disk of a model that was being fetched, piece by piece: whoever was killed goes on from there.

Progress is written down now and then only, and the store's partial files may have come another way. So the bytes that
are there are hashed, and a piece counts if it has the hash that the metainfo says. Holes in the files cost nothing.
"""

import contextlib
import hashlib
import os
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import cast

import libtorrent as lt

from modelswarm.agent.swarm import resume as progress
from modelswarm.agent.swarm.bencoding import Bencoded, Dictionary, decode
from modelswarm.agent.swarm.torrents import earlier_pieces
from modelswarm.agent.swarm.whole import Whole

BLOCK = 16 << 10
_HASH = 32
_NOTHING = bytes(_HASH)


def recheck(whole: Whole, paths: Mapping[str, Path], resume: Path) -> int:
    """Hash what is there of the files at ``paths``, by their paths in the model, and write down in ``resume`` which
    pieces are right; returns how many of them were not known. What ``resume`` says already is believed.

    Blocks for as long as it takes to read what is there. A file that cannot be read has nothing.
    """
    params = lt.load_torrent_buffer(whole.metainfo)
    assert params.ti is not None
    known = pieces_of(progress.read(resume), whole)
    here, length = list(known), params.ti.piece_length()
    document = cast(Dictionary, decode(whole.metainfo))
    for index, path in whole.files:
        if path not in paths:
            continue
        hashes = _piece_hashes(document, path)
        unknown = {number for number in range(len(hashes)) if not known[whole.pieces_of(index)[number]]}
        with contextlib.suppress(OSError):
            for number in _right_pieces(paths[path], hashes, length, unknown):
                here[whole.pieces_of(index)[number]] = True
    found = sum(here) - sum(known)
    if found:
        params.have_pieces = here
        progress.write(resume, lt.write_resume_data_buf(params))
    return found


def pieces_of(resume: bytes | None, whole: Whole) -> list[bool]:
    """Which pieces of the model an earlier run has written down."""
    info = lt.load_torrent_buffer(whole.metainfo).ti
    assert info is not None
    return earlier_pieces(resume, info)


def _piece_hashes(document: Dictionary, path: str) -> list[bytes]:
    """Of the file's pieces, in order; a file of one piece has its root only. The document was read before."""
    entry: Bencoded = cast(Dictionary, document[b"info"])[b"file tree"]
    for name in (*path.split("/"), ""):
        entry = cast(Dictionary, entry)[name.encode()]
    root = cast(bytes | None, cast(Dictionary, entry).get(b"pieces root"))
    if root is None:
        return []
    layer = cast(Dictionary, document[b"piece layers"]).get(root)
    joined = cast(bytes, layer) if layer is not None else root
    return [joined[at : at + _HASH] for at in range(0, len(joined), _HASH)]


def _right_pieces(path: Path, hashes: list[bytes], length: int, unknown: set[int]) -> Iterator[int]:
    fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NOFOLLOW)
    try:
        size = os.fstat(fd).st_size
        whole = length // BLOCK if len(hashes) > 1 else _power_above(-(-size // BLOCK))
        for number in _with_data(fd, size, length):
            if number in unknown:
                data = os.pread(fd, min(length, size - number * length), number * length)
                if piece_root(data, whole) == hashes[number]:
                    yield number
    finally:
        os.close(fd)


def _with_data(fd: int, size: int, length: int) -> Iterator[int]:
    """The pieces that are not holes from end to end."""
    at = 0
    while at < size:
        try:
            at = os.lseek(fd, at, os.SEEK_DATA)
        except OSError:
            return  # nothing but a hole from here on
        number = at // length
        yield number
        at = (number + 1) * length


def _power_above(count: int) -> int:
    return 1 << (max(count, 1) - 1).bit_length()


def piece_root(data: bytes, blocks: int) -> bytes:
    """The root of the Merkle tree over a piece's blocks of 16 KiB; ``blocks``: how many a whole one has (BEP 52)."""
    view = memoryview(data)
    layer = [hashlib.sha256(view[at : at + BLOCK]).digest() for at in range(0, len(view), BLOCK)]
    layer += [_NOTHING] * (blocks - len(layer))
    while len(layer) > 1:
        layer = [hashlib.sha256(layer[at] + layer[at + 1]).digest() for at in range(0, len(layer), 2)]
    return layer[0]
