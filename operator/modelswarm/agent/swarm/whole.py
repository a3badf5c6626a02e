"""Metainfo of a complete model: one BitTorrent v2 torrent of all its files.

It serves nodes that come later, without a coordinator. It is made by whoever has the content, and read from peers, so
reading trusts nothing: names, paths and sizes must be those of the manifest, and nothing else may be in it. The piece
hashes cannot be checked here; the store hashes every file against the manifest after it came.
"""

import hashlib
import hmac
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import cast

import libtorrent as lt

from modelswarm.agent.swarm.bencoding import Bencoded, Dictionary, decode, encode
from modelswarm.content.manifest import Manifest
from modelswarm.errors import BadMetainfo, SwarmError

MIB = 1 << 20
MAX_BYTES = 64 << 20
MAX_PIECES = 65_536
_MAX_DEPTH = 64


@dataclass(frozen=True, slots=True)
class Whole:
    """A torrent that agrees with the manifest. ``files``: libtorrent's number of each file, and its path."""

    content_id: str
    metainfo: bytes
    files: tuple[tuple[int, str], ...]
    ranges: Mapping[int, range]
    pieces: int

    def pieces_of(self, index: int) -> range:
        """The pieces of a file; in BitTorrent v2 no piece belongs to two files."""
        return self.ranges[index]


def piece_length(total: int) -> int:
    """Bytes in a piece: 1 MiB, more where that would be too many pieces (a power of 2)."""
    length = MIB
    while length * MAX_PIECES < total:
        length *= 2
    return length


def source_tag(secret: bytes, content_id: str) -> str:
    """Goes into the info dictionary, so that nobody without the Secret can make the info-hash."""
    return hmac.new(secret, b"modelswarm model\0" + content_id.encode(), hashlib.sha256).hexdigest()


def make_metainfo(manifest: Manifest, content_id: str, directory: Path, secret: bytes) -> bytes:
    """Read and hash the files in ``directory`` (about 1.8 GB/s on two cores): call it in a thread.

    Raises SwarmError if a file cannot be read or has another size. The same files make the same metainfo.
    """
    for file in manifest.files:
        try:
            size = (directory / file.path).stat().st_size
        except OSError as error:
            raise SwarmError(f"{file.path} cannot be read: {error.strerror}") from error
        if size != file.size:
            raise SwarmError(f"{file.path} has {size} bytes instead of {file.size}")
    root = directory.name
    entries = [lt.create_file_entry(f"{root}/{file.path}", file.size) for file in sorted(manifest.files)]
    if manifest.bytes == 0:
        raise SwarmError("a content without a byte needs no torrent")
    torrent = lt.create_torrent(
        entries,
        piece_length(manifest.bytes),
        lt.create_torrent.v2_only | lt.create_torrent.canonical_files_no_tail_padding,
    )
    try:
        lt.set_piece_hashes(torrent, str(directory.parent))
    except RuntimeError as error:
        raise SwarmError(f"the files in {directory} cannot be hashed: {error}") from error
    document = cast(Dictionary, torrent.generate())
    info = cast(Dictionary, document[b"info"])
    info[b"name"] = content_id.encode()
    info[b"source"] = source_tag(secret, content_id).encode()
    return encode({b"info": info, b"piece layers": document.get(b"piece layers", {})})


def read_metainfo(metainfo: bytes, manifest: Manifest, content_id: str, secret: bytes) -> Whole:
    """Raises BadMetainfo unless the torrent is exactly what we would make of the manifest, but for the hashes."""
    if len(metainfo) > MAX_BYTES:
        raise BadMetainfo(f"the metainfo is larger than {MAX_BYTES >> 20} MiB")
    info, layers = _parts(metainfo)
    expected = {
        b"meta version": 2,
        b"name": content_id.encode(),
        b"piece length": piece_length(manifest.bytes),
        b"source": source_tag(secret, content_id).encode(),
    }
    if set(info) != {*expected, b"file tree"} or any(info[key] != value for key, value in expected.items()):
        raise BadMetainfo("the metainfo is not of this content, or of another Secret")
    listed = list(_walk(info[b"file tree"], ()))
    if sorted((file.path, file.size) for file in listed) != sorted((file.path, file.size) for file in manifest.files):
        raise BadMetainfo("the metainfo lists other files than the manifest")
    length = piece_length(manifest.bytes)
    # A smaller file is one piece, and its root is the piece's hash.
    expected_layers = {file.root: 32 * -(-file.size // length) for file in listed if file.size > length}
    if {root: len(layer) if isinstance(layer, bytes) else -1 for root, layer in layers.items()} != expected_layers:
        raise BadMetainfo("the metainfo's piece layers are not those of its files")
    return _load(metainfo, content_id, listed)


@dataclass(frozen=True, slots=True)
class _Listed:
    path: str
    size: int
    root: bytes


def _parts(metainfo: bytes) -> tuple[Dictionary, Dictionary]:
    document = decode(metainfo)
    if not isinstance(document, dict) or set(document) != {b"info", b"piece layers"}:
        raise BadMetainfo("the metainfo has more or less than an info dictionary and its piece layers")
    info, layers = document[b"info"], document[b"piece layers"]
    if not isinstance(info, dict) or not isinstance(layers, dict):
        raise BadMetainfo("the metainfo has no info dictionary or no piece layers")
    return info, layers


def _walk(tree: Bencoded, above: tuple[str, ...]) -> Iterator[_Listed]:
    """Every file, in libtorrent's order (that of the bytes in the document)."""
    if not isinstance(tree, dict) or len(above) > _MAX_DEPTH:
        raise BadMetainfo("the metainfo's file tree is not a tree")
    for name, below in tree.items():
        try:
            path = (*above, name.decode())
        except UnicodeDecodeError as error:
            raise BadMetainfo("the metainfo has a file name that is not UTF-8") from error
        if isinstance(below, dict) and set(below) == {b""}:
            yield _leaf("/".join(path), below[b""])
        else:
            yield from _walk(below, path)


def _leaf(path: str, file: Bencoded) -> _Listed:
    size = file.get(b"length") if isinstance(file, dict) else None
    if not isinstance(file, dict) or not isinstance(size, int) or size < 0:
        raise BadMetainfo("the metainfo has a file without a sensible length")
    root = file.get(b"pieces root", b"")
    if set(file) - {b"length", b"pieces root"} or not isinstance(root, bytes) or len(root) != (32 if size else 0):
        raise BadMetainfo("the metainfo has a file with unknown attributes or without a root")
    return _Listed(path, size, root)


def _load(metainfo: bytes, content_id: str, listed: list[_Listed]) -> Whole:
    try:
        torrent = lt.load_torrent_buffer(metainfo).ti
    except RuntimeError as error:
        raise BadMetainfo(f"the metainfo cannot be used: {error}") from error
    if torrent is None:
        raise BadMetainfo("the metainfo cannot be used")
    layout = torrent.layout()
    numbers = [
        index for index in range(layout.num_files()) if not layout.file_flags(index) & lt.file_storage.flag_pad_file
    ]
    if [layout.file_size(index) for index in numbers] != [file.size for file in listed]:
        raise BadMetainfo("the metainfo's files are in an unexpected order")
    length, ranges = torrent.piece_length(), {}
    for index, file in zip(numbers, listed, strict=True):
        first = layout.file_offset(index) // length
        ranges[index] = range(first, first - (-file.size // length))
    files = tuple((index, file.path) for index, file in zip(numbers, listed, strict=True))
    return Whole(content_id, metainfo, files, ranges, torrent.num_pieces())
