"""The manifest: what a source was pinned to, file by file. Everything downstream trusts its digests and nothing else.

It is written once, by the p2ptask controller, into immutable ConfigMaps (shards), and read by agents and loaders. It
has no URLs: those follow from the origin and the revision, and an endpoint (a mirror) is the reader's own affair.
"""

import base64
import gzip
import hashlib
import json
import re
import zlib
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from enum import StrEnum

from modelswarm.content.source import is_inside
from modelswarm.errors import InvalidReference

SHARD_KEY = "manifest.json.gz"
SHARD_BYTES = 700_000
"""Compressed bytes in one shard: base64 makes it a third more, and an object may have 1 MiB (etcd: 1.5 MiB)."""
FORMAT = 1

_MAX_DOCUMENT = 256 << 20
_DIGEST = re.compile(r"sha256:[0-9a-f]{64}|git-sha1:[0-9a-f]{40}|sha384:[0-9a-f]{96}|sha512:[0-9a-f]{128}", re.ASCII)


class OriginKind(StrEnum):
    """What kind of place the bytes come from."""

    HUGGINGFACE = "huggingface"
    MODELSCOPE = "modelscope"
    S3 = "s3"
    GCS = "gcs"
    OSS = "oss"
    IMAGE = "image"


@dataclass(frozen=True, slots=True)
class Origin:
    """The place: ``id`` is a model id (``org/name``), ``bucket/prefix``, or ``registry/repository``.

    ``endpoint`` is part of the identity only where the source names it (``oss://bucket.endpoint/path``).
    """

    kind: OriginKind
    id: str
    endpoint: str | None = None


@dataclass(frozen=True, slots=True, order=True)
class ManifestFile:
    """One file. ``path`` is relative, with ``/``, and stays inside the model's directory.

    ``digest`` is ``sha256:<hex>``, or ``git-sha1:<hex>`` (git blob id: small hub files), or None where the origin has
    none. ``version`` is the object store's version or ETag, to notice that the object changed under us.
    """

    path: str
    size: int
    digest: str | None = None
    version: str | None = None

    def __post_init__(self) -> None:
        if not is_inside(self.path):
            raise InvalidReference(f"the file path {self.path!r} would leave the model's directory")
        if not _fits_file_system(self.path):
            raise InvalidReference(f"the file path {self.path!r} cannot be a file's name (not UTF-8, or too long)")
        if isinstance(self.size, bool) or self.size < 0:
            raise InvalidReference(f"the file {self.path!r} has no sensible size")
        if self.digest is not None and not _DIGEST.fullmatch(self.digest):
            raise InvalidReference(f"the file {self.path!r} has a digest of an unknown form, {self.digest!r}")


def _fits_file_system(path: str) -> bool:
    """Linux: 255 bytes for a name; 4,096 for a path, of which the directory it is put into needs some."""
    try:
        encoded = path.encode()
    except UnicodeEncodeError:
        return False
    return len(encoded) <= 3072 and max(map(len, encoded.split(b"/"))) <= 255


@dataclass(frozen=True, slots=True)
class Manifest:
    """The pinned content. ``revision`` is a commit, an image digest, or None for object stores.

    No two files have the same path, and no file's path is a folder of another's (an object store can have that).
    """

    origin: Origin
    revision: str | None
    files: tuple[ManifestFile, ...]

    def __post_init__(self) -> None:
        paths = {file.path for file in self.files}
        if len(paths) != len(self.files):
            raise InvalidReference(f"{self.origin.id} lists a file twice")
        for path in paths:
            while path := path.rpartition("/")[0]:
                if path in paths:
                    raise InvalidReference(f"{self.origin.id} has {path!r} both as a file and as a folder")

    @property
    def bytes(self) -> int:
        return sum(file.size for file in self.files)

    @property
    def digest(self) -> str:
        """``sha256:`` over path, size and digest of every file, in order of path: equal content, equal digest."""
        state = hashlib.sha256()
        for file in sorted(self.files):
            state.update(json.dumps([file.path, file.size, file.digest, file.version]).encode() + b"\n")
        return f"sha256:{state.hexdigest()}"


def encode(manifest: Manifest, *, shard_bytes: int = SHARD_BYTES) -> list[bytes]:
    """The manifest as gzip'ed JSON documents, each at most about ``shard_bytes``; the same input, the same bytes.

    Every shard carries the head (origin, revision, counts), so that each says by itself what it belongs to.
    """
    files = sorted(manifest.files)
    digest = manifest.digest
    count = 1
    while True:
        per_shard = -(-len(files) // count) or 1
        shards = [
            _encode_shard(manifest, digest, files[start : start + per_shard], index, count)
            for index, start in enumerate(range(0, per_shard * count, per_shard))
        ]
        if max(map(len, shards)) <= shard_bytes or per_shard == 1:
            return shards
        count *= 2


def _encode_shard(manifest: Manifest, digest: str, files: Sequence[ManifestFile], index: int, count: int) -> bytes:
    document = {
        "format": FORMAT,
        "origin": {"kind": manifest.origin.kind, "id": manifest.origin.id, "endpoint": manifest.origin.endpoint},
        "revision": manifest.revision,
        "digest": digest,
        "shard": index,
        "shards": count,
        "files": [[file.path, file.size, file.digest, file.version] for file in files],
    }
    return gzip.compress(json.dumps(document, separators=(",", ":")).encode(), mtime=0)


def decode(shards: Iterable[bytes]) -> Manifest:
    """The manifest from its shards, in any order.

    Raises ``InvalidReference`` when they are damaged, incomplete, of a newer format, or of different manifests.
    """
    try:
        documents = sorted((json.loads(_decompress(shard)) for shard in shards), key=lambda d: int(d["shard"]))
        if not documents or any(document["format"] != FORMAT for document in documents):
            raise InvalidReference("the manifest is empty or of a format that this version does not know")
        head = documents[0]
        manifest = Manifest(
            origin=Origin(OriginKind(head["origin"]["kind"]), head["origin"]["id"], head["origin"]["endpoint"]),
            revision=head["revision"],
            files=tuple(ManifestFile(*entry) for document in documents for entry in document["files"]),
        )
    except (OSError, EOFError, ValueError, KeyError, TypeError, AttributeError, RecursionError, zlib.error) as error:
        raise InvalidReference(f"the manifest is damaged ({type(error).__name__})") from error
    if len(documents) != head["shards"] or manifest.digest != head["digest"]:
        raise InvalidReference("the manifest is incomplete: a shard is missing or belongs to another manifest")
    return manifest


def _decompress(shard: bytes) -> bytes:
    """At most ``_MAX_DOCUMENT`` bytes, however well they compress."""
    inflater = zlib.decompressobj(wbits=zlib.MAX_WBITS | 16)
    document = inflater.decompress(shard, _MAX_DOCUMENT)
    if not inflater.eof or inflater.unused_data:
        raise ValueError("not one complete gzip document")
    return document


def shard_name(base: str, index: int) -> str:
    """Name of a shard's ConfigMap: ``base``, ``base-1``, ``base-2``..."""
    return base if index == 0 else f"{base}-{index}"


def to_binary_data(shard: bytes) -> dict[str, str]:
    """A ConfigMap's ``binaryData`` for one shard."""
    return {SHARD_KEY: base64.b64encode(shard).decode()}


def from_binary_data(data: dict[str, str]) -> bytes:
    """The shard in a ConfigMap's ``binaryData``; ``InvalidReference`` when it is not there."""
    try:
        return base64.b64decode(data[SHARD_KEY], validate=True)
    except (KeyError, ValueError) as error:
        raise InvalidReference(f"the ConfigMap has no readable {SHARD_KEY}") from error
