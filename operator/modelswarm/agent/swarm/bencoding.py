"""libtorrent's bencoding with types that say what is in a document that comes from a peer: anything."""

from collections.abc import Callable
from typing import TypeAlias, cast

import libtorrent as lt

from modelswarm.errors import BadMetainfo

Bencoded: TypeAlias = "int | bytes | list[Bencoded] | dict[bytes, Bencoded]"
Dictionary: TypeAlias = dict[bytes, Bencoded]

_encode = cast("Callable[[Dictionary], bytes]", lt.bencode)


def encode(document: Dictionary) -> bytes:
    return _encode(document)


def decode(data: bytes) -> Bencoded:
    """Raises BadMetainfo if it is not bencoded."""
    try:
        document = lt.bdecode(data)
    except RuntimeError as error:
        raise BadMetainfo("the metainfo is not bencoded") from error
    return cast(Bencoded, document)
