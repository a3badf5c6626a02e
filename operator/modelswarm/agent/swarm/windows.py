"""Windows: pieces of a file that is still on its way, as a BitTorrent torrent of their own.

A window is a BitTorrent v1 torrent of the *whole* file: its piece hashes are real where the window has parts and
filler elsewhere, and nothing elsewhere is asked for. So all windows of a file read and write the same partial file in
place, at the right offsets, and no byte is copied when the file is complete. What travels between the nodes is only
the parts with their hashes; everybody who has the Secret makes the same torrent from them, and nobody else can guess
its info-hash.

SHA-1 protects the way from one node to the next. Whether the file is right is decided by its digest from the hub.
"""

import hashlib
import hmac
from collections.abc import Iterator
from dataclasses import dataclass

from modelswarm.agent.swarm.bencoding import Dictionary, encode
from modelswarm.errors import BadMetainfo

HASH_BYTES = 20
MIB = 1 << 20
MAX_PIECES = 8192
"""Of a window's torrent. It names a hash for every piece of the file, so this bounds it to 160 KiB."""
_FILLER = bytes(HASH_BYTES)


def piece_length(size: int) -> int:
    """Bytes in a piece of a file: 1 MiB, more where that would make too many pieces (a power of 2)."""
    length = MIB
    while length * MAX_PIECES < size:
        length *= 2
    return length


@dataclass(frozen=True, slots=True, order=True)
class Part:
    """A range of the file: whole pieces, but for the file's last. ``hashes``: 20 bytes per piece."""

    offset: int
    length: int
    hashes: bytes


@dataclass(frozen=True, slots=True)
class Window:
    """Parts of one file that were published together. ``blob`` is the file's key; equal windows are the same torrent.

    The parts are in order and do not overlap. They come from peers: BadMetainfo is raised where they make no sense.
    """

    blob: str
    size: int
    piece_length: int
    parts: tuple[Part, ...]

    def __post_init__(self) -> None:
        if self.piece_length != piece_length(self.size) or not self.parts:
            raise BadMetainfo(f"a window of {self.blob} has no parts or an unexpected piece length")
        end = 0
        for part in self.parts:
            stop = part.offset + part.length
            if part.offset < end or part.length <= 0 or stop > self.size:
                raise BadMetainfo(f"a window of {self.blob} has parts that overlap or leave the file")
            if part.offset % self.piece_length or (stop % self.piece_length and stop != self.size):
                raise BadMetainfo(f"a window of {self.blob} has a part that cuts through a piece")
            if len(part.hashes) != HASH_BYTES * -(-part.length // self.piece_length):
                raise BadMetainfo(f"a window of {self.blob} has the wrong number of hashes")
            end = stop

    @classmethod
    def of_range(cls, blob: str, size: int, offset: int, length: int, hashes: bytes) -> "Window":
        return cls(blob, size, piece_length(size), (Part(offset, length, hashes),))

    @property
    def id(self) -> str:
        """Names the window in events and calls; it says nothing about the info-hash."""
        state = hashlib.sha256(f"{self.blob}\n{self.size}\n{self.piece_length}\n".encode())
        for part in self.parts:
            state.update(f"{part.offset} {part.length}\n".encode() + part.hashes)
        return state.hexdigest()[:32]

    @property
    def bytes(self) -> int:
        return sum(part.length for part in self.parts)

    @property
    def pieces(self) -> int:
        """Pieces of the whole file."""
        return -(-self.size // self.piece_length)

    def piece_numbers(self) -> Iterator[int]:
        """The pieces that the window is about."""
        for part in self.parts:
            first = part.offset // self.piece_length
            yield from range(first, first + len(part.hashes) // HASH_BYTES)

    def pieces_in(self, offset: int, length: int) -> range:
        """The pieces that lie wholly inside a range of the file."""
        stop = offset + length
        last = self.pieces if stop >= self.size else stop // self.piece_length
        return range(-(-offset // self.piece_length), last)


def torrent_name(secret: bytes, blob: str) -> str:
    """The torrent's name (not a file's): without the Secret nobody can make it, nor the info-hash."""
    return hmac.new(secret, b"modelswarm window\0" + blob.encode(), hashlib.sha256).hexdigest()


def to_metainfo(window: Window, secret: bytes) -> bytes:
    """The bencoded torrent; the same on every node with the same Secret."""
    hashes = bytearray(_FILLER * window.pieces)
    for part in window.parts:
        start = part.offset // window.piece_length * HASH_BYTES
        hashes[start : start + len(part.hashes)] = part.hashes
    info: Dictionary = {
        b"length": window.size,
        b"name": torrent_name(secret, window.blob).encode(),
        b"piece length": window.piece_length,
        b"pieces": bytes(hashes),
    }
    return encode({b"info": info})


def piece_hashes(chunk: bytes, length: int) -> bytes:
    """The hashes of the pieces in ``chunk``, which begins with a piece."""
    view = memoryview(chunk)
    return b"".join(hashlib.sha1(view[at : at + length]).digest() for at in range(0, len(view), length))
