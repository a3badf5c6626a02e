"""The names under which the store keeps things."""

import hashlib
import json
import re

from modelswarm.content.endpoints import object_key
from modelswarm.content.manifest import Manifest, ManifestFile, Origin
from modelswarm.errors import InvalidReference

COMPLETE = ".complete"
"""The file in a content's directory that says that everything is there; written last."""

_KEY = re.compile(r"sha256-[0-9a-f]{64}|git-sha1-[0-9a-f]{40}|object-[0-9a-f]{64}", re.ASCII)
_CONTENT = re.compile(r"[0-9a-f]{64}", re.ASCII)


def content_id(manifest: Manifest) -> str:
    """64 hex digits: the manifest's digest."""
    return manifest.digest.partition(":")[2]


def is_content_id(name: str) -> bool:
    return _CONTENT.fullmatch(name) is not None


def is_blob_key(name: str) -> bool:
    return _KEY.fullmatch(name) is not None


def blob_key(origin: Origin, file: ManifestFile) -> str:
    """The name of a file's bytes: equal keys, equal bytes, whichever content they are of.

    A file without a digest (object stores) goes by where it was read: bucket, key, version and size.
    Raises ``InvalidReference`` for a digest that files of models never have.
    """
    algorithm, _, digest = (file.digest or "").partition(":")
    match algorithm:
        case "sha256" | "git-sha1":
            return f"{algorithm}-{digest}"
        case "":
            bucket, key = object_key(origin, file.path)
            identity = [origin.kind, origin.endpoint, bucket, key, file.version, file.size]
            return f"object-{hashlib.sha256(json.dumps(identity).encode()).hexdigest()}"
    raise InvalidReference(f"{file.path} has a digest of a kind that no model's file has, {algorithm}")


def blob_keys(manifest: Manifest) -> dict[str, str]:
    """Path to key, for every file of a content.

    Raises ``InvalidReference`` where a file has the name of the store's own marker, or where one key would stand for
    two sizes.
    """
    keys: dict[str, str] = {}
    sizes: dict[str, int] = {}
    for file in manifest.files:
        if file.path == COMPLETE:
            raise InvalidReference(f"{manifest.origin.id} has a file {COMPLETE}, which is the name of our own marker")
        key = keys[file.path] = blob_key(manifest.origin, file)
        if sizes.setdefault(key, file.size) != file.size:
            raise InvalidReference(f"{manifest.origin.id} lists {file.path} with the digest of a file of another size")
    return keys
