"""An image reference becomes the digest of its index, and the blobs that its platforms need."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import httpx

from modelswarm.content.credentials import RegistryAuth, auth_for
from modelswarm.content.endpoints import Endpoints
from modelswarm.content.fetch import number, text
from modelswarm.content.image import ImageReference, is_digest, parse_reference
from modelswarm.content.manifest import Manifest, ManifestFile, Origin, OriginKind
from modelswarm.content.platform import Platform, describe, parse_platform
from modelswarm.content.registry_client import (
    DOCKER_INDEX,
    DOCKER_MANIFEST,
    OCI_INDEX,
    OCI_MANIFEST,
    Document,
    RegistryClient,
)
from modelswarm.errors import InvalidReference, PlatformNotFound, SourceUnavailable

_MAX_DEPTH = 3
"""Indexes may hold indexes; real ones do not go deeper."""
_NOT_HERE = ("nondistributable", "foreign")
"""In the media type of layers that are fetched from elsewhere (Windows base layers)."""


@dataclass(frozen=True, slots=True)
class ImageResolution:
    """``digest`` is what the tag (or digest) names: the index, or the manifest of an image of one platform.

    ``platforms`` are those that were chosen, as ``os/architecture[/variant]``; an image that does not say has none.
    """

    digest: str
    manifest: Manifest
    platforms: tuple[str, ...] = ()


async def resolve_image(
    reference: ImageReference | str,
    platforms: Sequence[str],
    auths: Mapping[str, RegistryAuth],
    endpoints: Endpoints,
    http: httpx.AsyncClient,
) -> ImageResolution:
    """Pin an image. ``platforms`` such as ``linux/arm64``; none means all that the image has.

    The manifest's files are the unique blobs (``blobs/sha256/<hex>``: configs and layers) and the image's own
    documents (``manifests/sha256/<hex>``), each with its digest; its revision is the digest of the index.

    Raises ``InvalidReference``, ``SourceNotFound``, ``RevisionNotFound``, ``AccessDenied``, ``PlatformNotFound`` (the
    message names what exists), ``RateLimited`` and ``SourceUnavailable``.
    """
    image = parse_reference(reference) if isinstance(reference, str) else reference
    wanted = [parse_platform(platform) for platform in platforms]
    client = RegistryClient(image, auth_for(image, auths), endpoints, http)
    root = await client.manifest(image.version)
    gathering = _Gathering(image, client)
    gathering.add_document(root)
    if root.media_type in (OCI_INDEX, DOCKER_INDEX):
        chosen = await gathering.choose(root, wanted)
        for digest, _ in chosen:
            await gathering.add_image(await client.manifest(digest))
        names = [platform for _, platform in chosen]
    else:
        await gathering.add_image(root)
        names = await gathering.check_single(root, wanted)
    manifest = Manifest(
        Origin(OriginKind.IMAGE, f"{image.registry}/{image.repository}"), root.digest, gathering.files()
    )
    return ImageResolution(root.digest, manifest, tuple(dict.fromkeys(map(str, names))))


async def resolve_digest(
    reference: ImageReference | str, auths: Mapping[str, RegistryAuth], endpoints: Endpoints, http: httpx.AsyncClient
) -> str:
    """What a reference points at now, by one HEAD request. Raises as ``resolve_image`` does, save PlatformNotFound."""
    image = parse_reference(reference) if isinstance(reference, str) else reference
    return await RegistryClient(image, auth_for(image, auths), endpoints, http).head_digest(image.version)


class _Gathering:
    def __init__(self, image: ImageReference, client: RegistryClient) -> None:
        self._image = image
        self._client = client
        self._files: dict[str, ManifestFile] = {}

    def files(self) -> tuple[ManifestFile, ...]:
        return tuple(sorted(self._files.values()))

    def add_document(self, document: Document) -> None:
        self._add("manifests", document.digest, document.size)

    def _add(self, kind: str, digest: str, size: int) -> None:
        path = f"{kind}/{digest.replace(':', '/')}"
        self._files[path] = ManifestFile(path, size, digest)

    async def add_image(self, document: Document) -> None:
        """One platform's manifest, its config and its layers."""
        if document.media_type not in (OCI_MANIFEST, DOCKER_MANIFEST):
            raise InvalidReference(
                f"{self._image.canonical} has a manifest of type {document.media_type or 'unknown'!r}, which is not "
                "supported; push the image again with a current tool"
            )
        self.add_document(document)
        layers = document.content.get("layers")
        for entry in [document.content.get("config"), *(layers if isinstance(layers, list) else [])]:
            descriptor = entry if isinstance(entry, dict) else {}
            digest, size = text(descriptor, "digest"), number(descriptor, "size")
            if digest is None or not is_digest(digest) or size is None:
                raise SourceUnavailable(f"the manifest of {self._image.canonical} has a part without digest or size")
            if not any(word in (text(descriptor, "mediaType") or "") for word in _NOT_HERE):
                self._add("blobs", digest, size)

    async def choose(self, index: Document, wanted: Sequence[Platform]) -> list[tuple[str, Platform]]:
        """The manifests of the wanted platforms, each wanted one represented; all real ones if none is wanted."""
        offered = await self._offered(index, _MAX_DEPTH)
        missing = [platform for platform in wanted if not any(has.satisfies(platform) for _, has in offered)]
        if missing or not offered:
            raise self._missing(missing, [has for _, has in offered])
        return [
            (digest, has)
            for digest, has in offered
            if not wanted or any(has.satisfies(platform) for platform in wanted)
        ]

    async def _offered(self, index: Document, depth: int) -> list[tuple[str, Platform]]:
        found: list[tuple[str, Platform]] = []
        entries = index.content.get("manifests")
        for entry in entries if isinstance(entries, list) else []:
            digest = text(entry, "digest") if isinstance(entry, dict) else None
            if digest is None or not is_digest(digest):
                raise SourceUnavailable(f"the index of {self._image.canonical} has an entry without a digest")
            if text(entry, "mediaType") in (OCI_INDEX, DOCKER_INDEX):
                if depth > 0:
                    nested = await self._client.manifest(digest)
                    self.add_document(nested)
                    found += await self._offered(nested, depth - 1)
                continue
            platform = describe(entry.get("platform"))
            if platform is not None:
                found.append((digest, platform))
        return found

    async def check_single(self, document: Document, wanted: Sequence[Platform]) -> list[Platform]:
        """An image without an index says in its config what it runs on; one that does not say is taken as it is."""
        config = document.content.get("config")
        digest = text(config, "digest") if isinstance(config, dict) else None
        if not wanted or digest is None:
            return []
        has = describe((await self._client.blob(digest)).content)
        if has is None:
            return []
        missing = [platform for platform in wanted if not has.satisfies(platform)]
        if missing:
            raise self._missing(missing, [has])
        return [has]

    def _missing(self, missing: Sequence[Platform], has: Sequence[Platform]) -> PlatformNotFound:
        lacks = ", ".join(map(str, missing)) or "any platform"
        offers = ", ".join(sorted(set(map(str, has)))) or "none"
        return PlatformNotFound(f"{self._image.canonical} is not available for {lacks}; it is for: {offers}")
