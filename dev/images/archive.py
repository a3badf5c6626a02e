"""An image as one file: an OCI archive, which containerd, skopeo, podman and ``docker load`` read.

Packed by us, so that the same image is the same file, and so that containerd finds the image's whole name in it.
"""

import hashlib
import io
import json
import subprocess
import tarfile
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import IO

from pydantic import BaseModel

NAME = "io.containerd.image.name"
TAG = "org.opencontainers.image.ref.name"
INDEX = "application/vnd.oci.image.index.v1+json"


@dataclass(frozen=True, slots=True)
class Contents:
    """What an archive says about its one image."""

    name: str
    digest: str
    """Of the manifest: what a registry and a pod call the image by."""
    layers: tuple[str, ...]
    """Digests, the lowest first."""
    size: int
    """Bytes to download: layers as compressed, and config."""
    unpacked: int
    """Bytes of the layers' archives, uncompressed."""


class Config(BaseModel):
    """What a container runtime does with the image if the pod says nothing else. Names are OCI's."""

    User: str = ""
    Env: list[str] = []
    Entrypoint: list[str] = []
    Cmd: list[str] = []
    WorkingDir: str = ""
    Labels: dict[str, str] = {}


class _ImageFile(BaseModel):
    config: Config


class _Descriptor(BaseModel):
    digest: str
    size: int
    annotations: dict[str, str] = {}


class _Index(BaseModel):
    manifests: list[_Descriptor]


class _Manifest(BaseModel):
    config: _Descriptor
    layers: list[_Descriptor]


def pack(layout: Path, name: str, archive: Path, *, created: datetime) -> None:
    """Write the OCI layout with one image in ``layout`` to ``archive``, by the name ``REPOSITORY:TAG``.

    ``created`` (in UTC) is put into the image's configuration. Files keep their times, and layers their digests.
    """
    blobs = layout / "blobs" / "sha256"
    (entry,) = json.loads((layout / "index.json").read_text())["manifests"]
    manifest = json.loads(_content(blobs, entry))
    # buildah notes a stage of the Dockerfile there as the base image, which nobody can have.
    manifest.pop("annotations", None)
    image = json.loads(_content(blobs, manifest["config"])) | {"created": f"{created:%Y-%m-%dT%H:%M:%SZ}"}
    config = json.dumps(image, separators=(",", ":")).encode()
    manifest["config"] |= {"digest": _digest(config), "size": len(config)}
    content = json.dumps(manifest, separators=(",", ":")).encode()
    # containerd wants a registry in the name; without one everybody means Docker's.
    annotations = {NAME: f"docker.io/{name}", TAG: name.rpartition(":")[2]}
    descriptor = {"mediaType": entry["mediaType"], "digest": _digest(content), "size": len(content)}
    index = {"schemaVersion": 2, "mediaType": INDEX, "manifests": [{**descriptor, "annotations": annotations}]}
    with tarfile.open(archive, "w") as packed:
        _put(packed, "oci-layout", b'{"imageLayoutVersion":"1.0.0"}')
        _put(packed, "index.json", json.dumps(index).encode())
        _put(packed, _place(_digest(content)), content)
        _put(packed, _place(_digest(config)), config)
        for layer in manifest["layers"]:
            member = tarfile.TarInfo(_place(layer["digest"]))
            member.size = layer["size"]
            with (blobs / member.name.rpartition("/")[2]).open("rb") as file:
                packed.addfile(member, file)


def read(archive: Path) -> Contents:
    with tarfile.open(archive) as packed:
        entry, manifest = _manifest(packed)
        return Contents(
            name=entry.annotations[NAME].removeprefix("docker.io/"),
            digest=entry.digest,
            layers=tuple(layer.digest for layer in manifest.layers),
            size=manifest.config.size + sum(layer.size for layer in manifest.layers),
            unpacked=sum(_unpacked(_blob(packed, layer.digest)) for layer in manifest.layers),
        )


def config(archive: Path) -> Config:
    with tarfile.open(archive) as packed:
        _, manifest = _manifest(packed)
        return _ImageFile.model_validate_json(_blob(packed, manifest.config.digest).read()).config


def unpack(archive: Path, directory: Path) -> None:
    """Put the image's files below ``directory``, layer upon layer. Our layers remove nothing of those below them."""
    command = ["tar", "--extract", "--gzip", "--same-permissions", "--numeric-owner", f"--directory={directory}"]
    with tarfile.open(archive) as packed:
        for layer in _manifest(packed)[1].layers:
            subprocess.run(command, input=_blob(packed, layer.digest).read(), check=True)


def _content(blobs: Path, descriptor: Mapping[str, str]) -> bytes:
    return (blobs / descriptor["digest"].removeprefix("sha256:")).read_bytes()


def _digest(content: bytes) -> str:
    return f"sha256:{hashlib.sha256(content).hexdigest()}"


def _place(digest: str) -> str:
    return "blobs/" + digest.replace(":", "/")


def _put(packed: tarfile.TarFile, name: str, content: bytes) -> None:
    entry = tarfile.TarInfo(name)
    entry.size = len(content)
    packed.addfile(entry, io.BytesIO(content))


def _manifest(packed: tarfile.TarFile) -> tuple[_Descriptor, _Manifest]:
    (entry,) = _Index.model_validate_json(_member(packed, "index.json").read()).manifests
    return entry, _Manifest.model_validate_json(_blob(packed, entry.digest).read())


def _blob(packed: tarfile.TarFile, digest: str) -> IO[bytes]:
    return _member(packed, _place(digest))


def _member(packed: tarfile.TarFile, name: str) -> IO[bytes]:
    file = packed.extractfile(name)
    if file is None:
        raise ValueError(f"{name} of the archive is no file")
    return file


def _unpacked(layer: IO[bytes]) -> int:
    """The last four bytes of a gzip file are the length of its content, for less than 4 GiB."""
    layer.seek(-4, io.SEEK_END)
    return int.from_bytes(layer.read(), "little")
