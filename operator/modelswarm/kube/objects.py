"""Reading the metadata of objects that are plain dicts."""

from typing import Any

from modelswarm.api.meta import JsonObject
from modelswarm.kube.key import Key


def metadata(obj: JsonObject) -> dict[str, Any]:
    """The object's metadata; empty if it has none."""
    found = obj.get("metadata")
    return found if isinstance(found, dict) else {}


def key_of(obj: JsonObject) -> Key:
    meta = metadata(obj)
    return Key(meta.get("namespace") or "", meta.get("name") or "")


def version_of(obj: JsonObject) -> str:
    return metadata(obj).get("resourceVersion") or ""
