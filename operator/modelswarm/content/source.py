"""Every form of ``source``, parsed; and where its files lie in a pod (loader and renderer must agree on that)."""

import hashlib
import json
import re
from dataclasses import dataclass
from enum import StrEnum

from modelswarm.api.labels import MODEL_PATH
from modelswarm.api.openmodel import HubName, ModelHub, ModelSource
from modelswarm.errors import InvalidReference

_MODEL_ID = re.compile(r"[A-Za-z0-9_][A-Za-z0-9._-]{0,95}(/[A-Za-z0-9_][A-Za-z0-9._-]{0,95})?")
_BAD_REVISION = re.compile(r"[\x00-\x20\x7f~^:?*\[\\]|\.\.|@\{|\.lock$|\.$")
"""What git does not allow in the name of a reference (git-check-ref-format)."""
_BUCKET = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,221}")
_ENDPOINT = re.compile(r"[A-Za-z0-9][A-Za-z0-9.-]*(:[0-9]{1,5})?")


class Provider(StrEnum):
    """Object stores, as in the scheme of a URI, upper case (llmaz's loader reads it like that)."""

    OSS = "OSS"
    S3 = "S3"
    GCS = "GCS"


@dataclass(frozen=True, slots=True)
class HubSource:
    """A repository on a model hub, at a branch, tag or commit; the patterns mean what they mean to huggingface_hub."""

    hub: HubName
    model_id: str
    revision: str = "main"
    filename: str | None = None
    allow_patterns: tuple[str, ...] | None = None
    ignore_patterns: tuple[str, ...] | None = None


@dataclass(frozen=True, slots=True)
class StoreSource:
    """An object, or everything under a prefix, in a bucket. ``endpoint`` only for OSS, whose URI names it."""

    provider: Provider
    bucket: str
    path: str
    endpoint: str | None = None

    @property
    def uri(self) -> str:
        host = f"{self.bucket}.{self.endpoint}" if self.endpoint else self.bucket
        return f"{self.provider.lower()}://{host}/{self.path}"


@dataclass(frozen=True, slots=True)
class OllamaSource:
    """The engine pulls by itself; there is nothing for us to distribute."""

    model: str


@dataclass(frozen=True, slots=True)
class HostSource:
    """A directory that is on the node already."""

    path: str


Source = HubSource | StoreSource | OllamaSource | HostSource


def parse_source(source: ModelSource) -> Source:
    """What ``spec.source`` names. ``modelHub`` wins over ``uri`` (llmaz).

    Raises ``InvalidReference`` with a message that says what is wrong and what it should be.
    """
    if source.model_hub is not None:
        return _parse_hub(source.model_hub)
    if source.uri is None:
        raise InvalidReference("source names neither modelHub nor uri")
    return parse_uri(source.uri)


def _parse_hub(hub: ModelHub) -> HubSource:
    if not hub.model_id or not _MODEL_ID.fullmatch(hub.model_id) or ".." in hub.model_id:
        raise InvalidReference(
            f"modelHub.modelID {hub.model_id or ''!r} is not a model id; write it as ORGANISATION/NAME"
        )
    filename, revision = hub.filename or None, hub.revision or "main"
    if hub.name is HubName.MODELSCOPE and "/" not in hub.model_id:
        raise InvalidReference(f"modelHub.modelID {hub.model_id!r} has no organisation, which ModelScope needs")
    if filename is not None:
        if hub.name is not HubName.HUGGINGFACE:
            raise InvalidReference("modelHub.filename can only be set for Huggingface; use allowPatterns")
        if hub.allow_patterns is not None or hub.ignore_patterns is not None:
            raise InvalidReference("modelHub.filename cannot be combined with allowPatterns or ignorePatterns")
        if not is_inside(filename.removesuffix("/")):
            raise InvalidReference(f"modelHub.filename {filename!r} is not a path inside the repository")
    if _BAD_REVISION.search(revision) or any(part.startswith(".") or not part for part in revision.split("/")):
        raise InvalidReference(f"modelHub.revision {revision!r} is not the name of a branch, a tag or a commit")
    return HubSource(hub.name, hub.model_id, revision, filename, hub.allow_patterns, hub.ignore_patterns)


def is_inside(path: str) -> bool:
    """Whether a relative path with ``/`` names something below the directory that it is put into."""
    return "\0" not in path and "\\" not in path and all(part not in ("", ".", "..") for part in path.split("/"))


def parse_uri(uri: str) -> Source:
    """``oss://bucket.endpoint/path``, ``s3://bucket/path``, ``gcs://bucket/path``, ``ollama://model``, ``host://path``."""
    scheme, separator, address = uri.partition("://")
    if not separator or not address or "://" in address:
        raise InvalidReference(f"the URI {uri!r} is not of the form PROTOCOL://ADDRESS")
    match scheme.lower():
        case "ollama":
            return OllamaSource(address)
        case "host":
            if not address.startswith("/"):
                raise InvalidReference(f"the URI {uri!r} needs an absolute path: host:///PATH")
            return HostSource(address)
        case "oss" | "s3" | "gcs":
            provider = Provider(scheme.upper())
        case _:
            raise InvalidReference(
                f"the URI {uri!r} has an unsupported protocol {scheme!r}; supported are gcs, oss, s3, ollama and host"
            )
    host, _, path = address.partition("/")
    path = path.strip("/")
    bucket, dot, endpoint = host.partition(".") if provider is Provider.OSS else (host, "", "")
    if not bucket or not path or any(part in ("", ".", "..") for part in path.split("/")):
        raise InvalidReference(f"the URI {uri!r} has no bucket or no path; write it as {_FORMS[provider]}")
    if provider is Provider.OSS and (not dot or not endpoint):
        raise InvalidReference(f"the URI {uri!r} has no endpoint; write it as {_FORMS[provider]}")
    if not _BUCKET.fullmatch(bucket) or (endpoint and not _ENDPOINT.fullmatch(endpoint)) or not is_inside(path):
        raise InvalidReference(
            f"the URI {uri!r} has characters that no bucket, endpoint or path has; write it as {_FORMS[provider]}"
        )
    return StoreSource(provider, bucket, path, endpoint or None)


_FORMS = {
    Provider.OSS: "oss://BUCKET.ENDPOINT/PATH",
    Provider.S3: "s3://BUCKET/PATH",
    Provider.GCS: "gcs://BUCKET/PATH",
}


def is_distributable(source: Source) -> bool:
    """Whether there are bytes for us to spread (``ollama://`` and ``host://`` have none)."""
    return isinstance(source, HubSource | StoreSource)


def identity(source: Source) -> str:
    """64 hex digits that name *what is asked for* (not yet pinned): equal requests, equal identity."""
    fields = [type(source).__name__, *(getattr(source, name) for name in source.__slots__)]
    return hashlib.sha256(json.dumps(fields).encode()).hexdigest()


def slug(source: Source) -> str:
    """A readable word for names of objects: the last part of the model id, the path or the model."""
    match source:
        case HubSource():
            return source.model_id.rpartition("/")[2]
        case StoreSource() | HostSource():
            return source.path.rstrip("/").rpartition("/")[2]
        case OllamaSource():
            return source.model


@dataclass(frozen=True, slots=True)
class Layout:
    """Where a source lies in a pod: the loader writes into ``directory``; the engine is told ``model_path``."""

    directory: str
    model_path: str


def layout(source: Source) -> Layout:
    """llmaz's layout, so that BackendRuntimes need no change.

    A store's path is one object when its last segment is a ``.gguf`` file; any other is a prefix.
    """
    match source:
        case HubSource(filename=str(filename)):
            return Layout(MODEL_PATH, MODEL_PATH + filename)
        case HubSource():
            path = f"{MODEL_PATH}models--{source.model_id.replace('/', '--')}"
            return Layout(path, path)
        case StoreSource():
            last = source.path.rpartition("/")[2]
            if is_single_object(source):
                return Layout(MODEL_PATH, MODEL_PATH + last)
            return Layout(f"{MODEL_PATH}models--{last}", f"{MODEL_PATH}models--{last}")
        case HostSource():
            return Layout(source.path, source.path)
        case OllamaSource():
            return Layout(MODEL_PATH, MODEL_PATH)


def is_single_object(source: StoreSource) -> bool:
    """Whether the source names one object rather than everything under a prefix."""
    return names_single_object(source.path)


def names_single_object(path: str) -> bool:
    """Whether a path in a bucket is one object: its last segment ends in ``.gguf``.

    llmaz's loader takes any last segment with a dot for a file, which breaks ``Qwen2.5-7B``; its controller looks for
    ``.gguf``. The controller's rule is the one that works for both.
    """
    return path.lower().endswith(".gguf")
