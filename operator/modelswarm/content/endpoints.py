"""Where origins are reached: the public services, or the mirrors that a site puts in their place."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from types import MappingProxyType
from urllib.parse import quote, urlsplit

from modelswarm.content.image import DOCKER_HUB
from modelswarm.content.manifest import Origin, OriginKind
from modelswarm.content.source import names_single_object
from modelswarm.errors import InvalidReference, SettingsError

_DOCKER_HUB_URL = "https://registry-1.docker.io"


@dataclass(frozen=True, slots=True)
class Endpoints:
    """Base URLs without a trailing ``/``. None means the provider's own (for OSS: the one that the URI names).

    ``s3``, ``gcs`` and ``oss`` are addressed as ``BASE/BUCKET/KEY``. ``registries`` maps the registry of a reference
    (``docker.io``) to the base URL that is asked instead (``https://mirror.internal``, ``http://127.0.0.1:5000``).
    Plain ``http`` is used only where a base URL says so.
    """

    huggingface: str = "https://huggingface.co"
    modelscope: str = "https://modelscope.cn"
    s3: str | None = None
    gcs: str | None = None
    oss: str | None = None
    registries: Mapping[str, str] = field(default_factory=dict)

    def __post_init__(self) -> None:
        for name in ("huggingface", "modelscope", "s3", "gcs", "oss"):
            value = getattr(self, name)
            if value is not None:
                object.__setattr__(self, name, _base_url(f"the endpoint {name}", value))
        registries = {host: _base_url(f"the registry mirror of {host}", url) for host, url in self.registries.items()}
        object.__setattr__(self, "registries", MappingProxyType(registries))

    @classmethod
    def from_env(cls, environ: Mapping[str, str], *, registries: Mapping[str, str] | None = None) -> "Endpoints":
        """From the variables that the providers' own tools read; unset and empty ones leave the default.

        ``HF_ENDPOINT``; ``MODELSCOPE_ENDPOINT``, or ``MODELSCOPE_DOMAIN`` (a host); ``AWS_ENDPOINT_URL_S3``, else
        ``AWS_ENDPOINT_URL``; ``STORAGE_EMULATOR_HOST`` (Google Cloud Storage); ``OSS_ENDPOINT_URL``; and
        ``MODELSWARM_REGISTRIES``, a comma-separated list of ``REGISTRY=URL``, unless ``registries`` are given.

        Raises ``SettingsError`` for a value that is not a URL.
        """
        chosen: dict[str, str] = {}
        for name, variables in _VARIABLES.items():
            value = next((environ[variable].strip() for variable in variables if environ.get(variable, "").strip()), "")
            if value:
                chosen[name] = value if "://" in value else f"{_SCHEMES.get(name, 'https')}://{value}"
        if registries is None:
            registries = _read_registries(environ.get("MODELSWARM_REGISTRIES", ""))
        return cls(**chosen, registries=registries)

    def registry(self, host: str) -> str:
        """The base URL of a registry: its mirror, Docker Hub's real host, or ``https://HOST``."""
        return self.registries.get(host) or (_DOCKER_HUB_URL if host == DOCKER_HUB else f"https://{host}")


_VARIABLES = {
    "huggingface": ("HF_ENDPOINT",),
    "modelscope": ("MODELSCOPE_ENDPOINT", "MODELSCOPE_DOMAIN"),
    "s3": ("AWS_ENDPOINT_URL_S3", "AWS_ENDPOINT_URL"),
    "gcs": ("STORAGE_EMULATOR_HOST",),
    "oss": ("OSS_ENDPOINT_URL",),
}
_SCHEMES = {"gcs": "http"}
"""Google's emulator variable is customarily given without a scheme, and the emulator speaks plain HTTP."""


def _read_registries(value: str) -> dict[str, str]:
    registries: dict[str, str] = {}
    for entry in filter(None, map(str.strip, value.split(","))):
        host, separator, url = entry.partition("=")
        if not separator or not host:
            raise SettingsError("MODELSWARM_REGISTRIES should be a comma-separated list of REGISTRY=URL")
        registries[host] = url
    return registries


def _base_url(what: str, url: str) -> str:
    parsed = urlsplit(url)
    if parsed.scheme not in ("http", "https") or not parsed.hostname or parsed.query or parsed.fragment:
        raise SettingsError(f"{what} is {_without_userinfo(url)!r}; it should be a URL such as https://HOST[:PORT]")
    if parsed.username is not None:
        raise SettingsError(f"{what} has a user or password in its URL; put credentials into the Secret instead")
    return url.rstrip("/")


def _without_userinfo(url: str) -> str:
    head, at, tail = url.rpartition("@")
    return f"...@{tail}" if at and head else url


def file_url(origin: Origin, revision: str | None, path: str, endpoints: Endpoints) -> str:
    """Where one file of a manifest is read, percent-encoded so that any name survives (``#``, ``?``, ``%``, spaces).

    ``revision`` is the manifest's (a commit for the hubs, ignored elsewhere). The URL carries no credentials.

    Raises ``InvalidReference`` for a hub file without a revision, or a path that an image does not have.
    """
    encoded = quote(path, safe="/")
    match origin.kind:
        case OriginKind.HUGGINGFACE:
            return f"{endpoints.huggingface}/{origin.id}/resolve/{_revision(origin, revision)}/{encoded}"
        case OriginKind.MODELSCOPE:
            # The form that ModelScope's own client uses.
            query = f"Revision={_revision(origin, revision)}&FilePath={quote(path, safe='')}"
            return f"{endpoints.modelscope}/api/v1/models/{origin.id}/repo?{query}"
        case OriginKind.IMAGE:
            return _image_url(origin, path, endpoints)
        case OriginKind.S3 | OriginKind.GCS | OriginKind.OSS:
            bucket, key = object_key(origin, path)
            return f"{_bucket_url(origin, bucket, endpoints)}/{quote(key, safe='/')}"


def object_key(origin: Origin, path: str) -> tuple[str, str]:
    """Bucket and key of a manifest's file in an object store. ``origin.id`` is ``BUCKET/PATH`` as the source has it.

    Where PATH names a single object (``is_single_object``) it is the key; otherwise the file lies below it.
    """
    bucket, _, prefix = origin.id.partition("/")
    return bucket, prefix if names_single_object(prefix) else f"{prefix}/{path}"


def _revision(origin: Origin, revision: str | None) -> str:
    if not revision:
        raise InvalidReference(f"{origin.id} has no revision to read files at")
    return quote(revision, safe="")


def _bucket_url(origin: Origin, bucket: str, endpoints: Endpoints) -> str:
    override = {OriginKind.S3: endpoints.s3, OriginKind.GCS: endpoints.gcs, OriginKind.OSS: endpoints.oss}[origin.kind]
    if override:
        return f"{override}/{bucket}"
    if origin.kind is OriginKind.OSS:
        return f"https://{bucket}.{origin.endpoint}"
    if origin.kind is OriginKind.GCS:
        return f"https://storage.googleapis.com/{bucket}"
    # A wildcard certificate covers one label, so a bucket with dots goes into the path.
    return f"https://s3.amazonaws.com/{bucket}" if "." in bucket else f"https://{bucket}.s3.amazonaws.com"


def _image_url(origin: Origin, path: str, endpoints: Endpoints) -> str:
    registry, _, repository = origin.id.partition("/")
    match path.split("/"):
        case ["blobs" | "manifests" as kind, algorithm, hexdigits]:
            return f"{endpoints.registry(registry)}/v2/{repository}/{kind}/{algorithm}:{hexdigits}"
    raise InvalidReference(f"{path!r} is not a blob or manifest of an image")
