"""The one way from a source or an image to a manifest: cached for seconds, limited per origin."""

import asyncio
from collections.abc import Awaitable, Callable, Mapping, Sequence
from typing import Literal, TypeVar
from urllib.parse import urlsplit

import httpx

from modelswarm.api.openmodel import HubName
from modelswarm.content import access, huggingface, modelscope, registry
from modelswarm.content.credentials import Credentials, RegistryAuth, auth_for
from modelswarm.content.endpoints import Endpoints
from modelswarm.content.image import parse_reference
from modelswarm.content.manifest import Manifest, OriginKind
from modelswarm.content.singleflight import SingleFlight
from modelswarm.content.source import HubSource, Provider, Source, StoreSource, identity
from modelswarm.errors import ContentError, InvalidReference, RateLimited

_T = TypeVar("_T")
DigestSource = Literal["Hub", "Registry", "Store", "FirstRead"]

TTL_SECONDS = 10.0
"""How long an answer is good for others who ask the same: a thousand models of one repository are one listing."""
CACHED = 128
PER_ORIGIN = 16
"""Resolutions under way at once per origin host."""


def digest_source(manifest: Manifest) -> DigestSource:
    """Who vouches for the digests. ``FirstRead`` as soon as one file has none: whoever reads it first decides."""
    match manifest.origin.kind:
        case OriginKind.IMAGE:
            return "Registry"
        case OriginKind.HUGGINGFACE | OriginKind.MODELSCOPE:
            return "Hub"
    return "Store" if all(file.digest is not None for file in manifest.files) else "FirstRead"


class Resolver:
    """Resolves sources and images through one client. For use within one event loop.

    Equal questions with equal credentials that are asked at the same time, or within ``ttl`` seconds, are asked of the
    origin once. Failures are not remembered, but an origin that said 429 is left alone (for these credentials) until
    the time it named.
    """

    def __init__(
        self,
        http: httpx.AsyncClient,
        endpoints: Endpoints,
        *,
        ttl: float = TTL_SECONDS,
        per_origin: int = PER_ORIGIN,
    ) -> None:
        self._http = http
        self._endpoints = endpoints
        self._ttl = ttl
        self._per_origin = per_origin
        self._manifests: SingleFlight[tuple[str, ...], Manifest] = SingleFlight(ttl=ttl, size=CACHED)
        self._digests: SingleFlight[tuple[str, ...], str] = SingleFlight(ttl=ttl, size=CACHED)
        self._public: SingleFlight[tuple[str, ...], bool] = SingleFlight(ttl=ttl, size=CACHED)
        self._limits: dict[str, asyncio.Semaphore] = {}
        self._blocked: dict[tuple[str, str], tuple[float, str]] = {}

    async def resolve_model(self, source: Source, credentials: Credentials | None) -> Manifest:
        """The manifest of a model.

        Raises ``ContentError``; ``InvalidReference`` for ``ollama://`` and ``host://``, which have no files.
        """
        match source:
            case HubSource(hub=HubName.MODELSCOPE):
                token = credentials.modelscope_token if credentials else None
                effective = Credentials(modelscope_token=token)
                host = _host(self._endpoints.modelscope)

                async def ask() -> Manifest:
                    return await modelscope.resolve(source, effective, self._endpoints, self._http)

            case HubSource():
                effective = Credentials(hub_token=credentials.hub_token if credentials else None)
                host = _host(self._endpoints.huggingface)

                async def ask() -> Manifest:
                    return await huggingface.resolve(source, effective, self._endpoints, self._http)

            case StoreSource():
                # Not loaded for hub models: the loader stays small.
                from modelswarm.content import objectstore

                effective = Credentials(
                    access_key_id=credentials.access_key_id if credentials else None,
                    access_key_secret=credentials.access_key_secret if credentials else None,
                )
                host = self._store_host(source)

                async def ask() -> Manifest:
                    return await objectstore.resolve(source, effective, self._endpoints, self._http)

            case _:
                raise InvalidReference("ollama:// and host:// sources have no files to distribute")
        asker = effective.fingerprint
        return await self._manifests.get(
            ("model", identity(source), asker), lambda: self._within_limits(host, asker, ask)
        )

    async def is_public(self, manifest: Manifest) -> bool | None:
        """Whether anybody may read the files of a hub's manifest: one request without credentials, never repeated.

        None where the origin did not say (429, 5xx, no answer).
        """
        nobody = Credentials().fingerprint

        async def ask() -> bool:
            return await access.is_public(manifest, self._endpoints, self._http)

        host = _host(access.probe_url(manifest, self._endpoints))
        key = (manifest.origin.kind, manifest.origin.id, str(manifest.revision), manifest.digest)
        try:
            return await self._public.get(key, lambda: self._within_limits(host, nobody, ask))
        except ContentError:
            return None

    async def resolve_image(
        self, reference: str, platforms: Sequence[str], auths: Mapping[str, RegistryAuth]
    ) -> Manifest:
        """The manifest of an image (see ``registry.resolve_image``). Raises ``ContentError``."""
        image = parse_reference(reference)
        auth = auth_for(image, auths)
        host, asker = _host(self._endpoints.registry(image.registry)), auth.fingerprint if auth else ""

        async def ask() -> Manifest:
            return (await registry.resolve_image(image, platforms, auths, self._endpoints, self._http)).manifest

        key = ("image", image.canonical, asker, *sorted(set(platforms)))
        return await self._manifests.get(key, lambda: self._within_limits(host, asker, ask))

    async def resolve_digest(self, reference: str, auths: Mapping[str, RegistryAuth]) -> str:
        """The digest that an image reference points at now: one HEAD, which registries do not count as a pull.

        Raises ``ContentError``.
        """
        image = parse_reference(reference)
        auth = auth_for(image, auths)
        host, asker = _host(self._endpoints.registry(image.registry)), auth.fingerprint if auth else ""

        async def ask() -> str:
            return await registry.resolve_digest(image, auths, self._endpoints, self._http)

        return await self._digests.get((image.canonical, asker), lambda: self._within_limits(host, asker, ask))

    async def _within_limits(self, host: str, asker: str, ask: Callable[[], Awaitable[_T]]) -> _T:
        clock = asyncio.get_running_loop().time
        async with self._limits.setdefault(host, asyncio.Semaphore(self._per_origin)):
            until, message = self._blocked.get((host, asker), (0.0, ""))
            if clock() < until:
                raise RateLimited(message, retry_after=until - clock())
            self._blocked.pop((host, asker), None)
            try:
                return await ask()
            except RateLimited as error:
                wait = self._ttl if error.retry_after is None else error.retry_after
                self._blocked[host, asker] = (clock() + wait, error.message)
                raise

    def _store_host(self, source: StoreSource) -> str:
        override = {
            Provider.S3: self._endpoints.s3,
            Provider.GCS: self._endpoints.gcs,
            Provider.OSS: self._endpoints.oss,
        }[source.provider]
        return _host(override) if override else source.endpoint or source.provider


def _host(url: str) -> str:
    return urlsplit(url).netloc
