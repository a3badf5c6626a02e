"""Small but complete OCI images, built in memory. Pure: the same arguments give the same digests everywhere.

The layers are real tar archives with one file of pseudo-random bytes each. Any runtime can unpack them, and nothing
on the way can make them smaller by compressing.
"""

import hashlib
import io
import json
import random
import tarfile
from collections.abc import Sequence
from dataclasses import dataclass

MANIFEST = "application/vnd.oci.image.manifest.v1+json"
INDEX = "application/vnd.oci.image.index.v1+json"
CONFIG = "application/vnd.oci.image.config.v1+json"
LAYER = "application/vnd.oci.image.layer.v1.tar"

CREATED = "2024-01-01T00:00:00Z"
"""A fixed time, because the time is part of what the digest covers."""


@dataclass(frozen=True, slots=True)
class Blob:
    media_type: str
    content: bytes
    digest: str

    @classmethod
    def of(cls, media_type: str, content: bytes) -> "Blob":
        return cls(media_type, content, "sha256:" + hashlib.sha256(content).hexdigest())

    @classmethod
    def of_json(cls, media_type: str, value: object) -> "Blob":
        return cls.of(media_type, json.dumps(value, separators=(",", ":")).encode())

    def descriptor(self) -> dict[str, object]:
        return {"mediaType": self.media_type, "digest": self.digest, "size": len(self.content)}


@dataclass(frozen=True, slots=True)
class PlatformImage:
    """The image of one platform."""

    platform: str
    manifest: Blob
    config: Blob
    layers: tuple[Blob, ...]


@dataclass(frozen=True, slots=True)
class Image:
    """What a tag points to: an index of several platforms, or the manifest of the only one."""

    root: Blob
    platforms: tuple[PlatformImage, ...]


def build_image(platforms: Sequence[str], layer_bytes: Sequence[int], seed: int | str) -> Image:
    """An image for ``platforms`` (``os/arch`` or ``os/arch/variant``) with one layer per entry of ``layer_bytes``.

    Every platform has layers of its own, and images of different seeds share nothing.
    """
    if not platforms:
        raise ValueError("an image needs at least one platform")
    images = tuple(_build_platform(platform, layer_bytes, seed) for platform in platforms)
    if len(images) == 1:
        return Image(images[0].manifest, images)
    manifests = [{**image.manifest.descriptor(), "platform": _platform_fields(image.platform)} for image in images]
    return Image(Blob.of_json(INDEX, {"schemaVersion": 2, "mediaType": INDEX, "manifests": manifests}), images)


def _build_platform(platform: str, layer_bytes: Sequence[int], seed: int | str) -> PlatformImage:
    layers = tuple(
        Blob.of(LAYER, _tar(f"layer-{number}", random.Random(f"{seed}/{platform}/{number}").randbytes(size)))
        for number, size in enumerate(layer_bytes)
    )
    config = Blob.of_json(
        CONFIG,
        {
            "created": CREATED,
            **_platform_fields(platform),
            "config": {"Labels": {"seed": str(seed)}},
            # The layers are not compressed, so the digest of the content is the digest of the blob.
            "rootfs": {"type": "layers", "diff_ids": [layer.digest for layer in layers]},
            "history": [{"created": CREATED, "created_by": f"layer {number}"} for number in range(len(layers))],
        },
    )
    manifest = Blob.of_json(
        MANIFEST,
        {
            "schemaVersion": 2,
            "mediaType": MANIFEST,
            "config": config.descriptor(),
            "layers": [layer.descriptor() for layer in layers],
        },
    )
    return PlatformImage(platform, manifest, config, layers)


def _platform_fields(platform: str) -> dict[str, str]:
    system, architecture, *variant = platform.split("/")
    return {"os": system, "architecture": architecture, **({"variant": variant[0]} if variant else {})}


def _tar(name: str, content: bytes) -> bytes:
    archive = io.BytesIO()
    with tarfile.open(fileobj=archive, mode="w", format=tarfile.USTAR_FORMAT) as tar:
        entry = tarfile.TarInfo(name)  # its defaults carry no time and no user of this machine
        entry.size = len(content)
        tar.addfile(entry, io.BytesIO(content))
    return archive.getvalue()
