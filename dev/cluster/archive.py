"""Images as archives (OCI image layout in a tar): making a small one, and pushing any to a registry."""

import gzip
import io
import json
import tarfile
from collections.abc import Sequence
from pathlib import Path

from dev.oci_image import CONFIG, CREATED, INDEX, LAYER, MANIFEST, Blob
from dev.registry import Registry
from dev.registry_client import push_blob, push_manifest

_NAME = "io.containerd.image.name"
"""The annotation by which containerd names what it imports."""
_PLATFORM = {"os": "linux", "architecture": "amd64"}
_MANIFESTS = frozenset({MANIFEST, "application/vnd.docker.distribution.manifest.v2+json"})


def program_image(
    path: Path, program: Path, entrypoint: Sequence[str], name: str, architecture: str, *, place: str | None = None
) -> Path:
    """Write an archive of an image with one static program, and return it.

    The program lies at ``/`` under its own name, or at ``place``, a path without a slash at its beginning.
    """
    layer_bytes = _layer(program, place or program.name)
    packed = Blob.of(f"{LAYER}+gzip", gzip.compress(layer_bytes, 1, mtime=0))
    config = Blob.of_json(
        CONFIG,
        {
            "created": CREATED,
            **_PLATFORM,
            "architecture": architecture,
            "config": {"Entrypoint": list(entrypoint), "User": "65532"},
            "rootfs": {"type": "layers", "diff_ids": [Blob.of(LAYER, layer_bytes).digest]},
        },
    )
    manifest = Blob.of_json(
        MANIFEST,
        {
            "schemaVersion": 2,
            "mediaType": MANIFEST,
            "config": config.descriptor(),
            "layers": [packed.descriptor()],
        },
    )
    entry = {**manifest.descriptor(), "annotations": {_NAME: name}}
    root = {"schemaVersion": 2, "mediaType": INDEX, "manifests": [entry]}
    files = {"oci-layout": b'{"imageLayoutVersion":"1.0.0"}', "index.json": json.dumps(root).encode()}
    files |= {_blob_path(blob.digest): blob.content for blob in (config, packed, manifest)}
    with tarfile.open(path, "w") as archive:
        for file, content in files.items():
            _add(archive, file, content)
    return path


def push(archive: Path, registry: Registry, repository: str, tag: str) -> str:
    """Push the only image of an archive; returns its reference, ``host:port/repository:tag``."""
    with tarfile.open(archive) as tar, registry.client() as client:

        def content(path: str) -> bytes:
            stream = tar.extractfile(members[path])
            assert stream is not None
            return stream.read()

        members = {member.name.removeprefix("./"): member for member in tar}
        [descriptor] = json.loads(content("index.json"))["manifests"]
        manifest = Blob.of(descriptor["mediaType"], content(_blob_path(descriptor["digest"])))
        if manifest.media_type not in _MANIFESTS:
            raise ValueError(f"{archive} holds {manifest.media_type}, not the image of one platform")
        parts = json.loads(manifest.content)
        for part in (parts["config"], *parts["layers"]):
            push_blob(client, repository, Blob.of(part["mediaType"], content(_blob_path(part["digest"]))))
        push_manifest(client, repository, tag, manifest)
    return f"{registry.host}/{repository}:{tag}"


def _layer(program: Path, place: str) -> bytes:
    layer = io.BytesIO()
    with tarfile.open(fileobj=layer, mode="w", format=tarfile.USTAR_FORMAT) as tar:
        _add(tar, place, program.read_bytes(), mode=0o755)
    return layer.getvalue()


def _add(archive: tarfile.TarFile, name: str, content: bytes, mode: int = 0o644) -> None:
    entry = tarfile.TarInfo(name)  # its defaults carry no time and no user of this machine
    entry.size, entry.mode = len(content), mode
    archive.addfile(entry, io.BytesIO(content))


def _blob_path(digest: str) -> str:
    return f"blobs/{digest.replace(':', '/')}"
