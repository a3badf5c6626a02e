"""A registry in a few lines, which can be made to answer anything."""

import hashlib
import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

import httpx

from modelswarm.content.credentials import RegistryAuth
from modelswarm.content.endpoints import Endpoints
from modelswarm.content.registry import ImageResolution, resolve_image
from modelswarm.content.registry_client import DOCKER_INDEX, DOCKER_MANIFEST, OCI_INDEX, OCI_MANIFEST


def sha(data: bytes) -> str:
    return f"sha256:{hashlib.sha256(data).hexdigest()}"


@dataclass
class Registry:
    """Serves documents under ``/v2/a/b/``; ``tags`` name manifests. ``refuse`` may answer in its place."""

    documents: dict[str, tuple[str, bytes]] = field(default_factory=dict)
    tags: dict[str, str] = field(default_factory=dict)
    seen: list[httpx.Request] = field(default_factory=list)
    refuse: Callable[[httpx.Request], httpx.Response | None] = lambda _: None

    def put(self, media_type: str, content: object) -> dict[str, object]:
        data = json.dumps(content).encode()
        self.documents[sha(data)] = (media_type, data)
        return {"mediaType": media_type, "digest": sha(data), "size": len(data)}

    def image(self, *layers: dict[str, object], oci: bool = True, **config: object) -> dict[str, object]:
        manifest, kind = (OCI_MANIFEST, "oci.image") if oci else (DOCKER_MANIFEST, "docker.container.image")
        return self.put(
            manifest,
            {
                "schemaVersion": 2,
                "mediaType": manifest,
                "config": self.put(f"application/vnd.{kind}.config.v1+json", config),
                "layers": list(layers) or [layer("1", 10), layer("2", 20)],
            },
        )

    def index(self, *entries: Mapping[str, object], oci: bool = True) -> dict[str, object]:
        media_type = OCI_INDEX if oci else DOCKER_INDEX
        return self.put(media_type, {"schemaVersion": 2, "mediaType": media_type, "manifests": list(entries)})

    def answer(self, request: httpx.Request) -> httpx.Response:
        self.seen.append(request)
        refused = self.refuse(request)
        if refused is not None:
            return refused
        version = request.url.path.removeprefix("/v2/a/b/").partition("/")[2]
        found = self.documents.get(self.tags.get(version, version))
        if found is None:
            return httpx.Response(404, json={"errors": [{"code": "MANIFEST_UNKNOWN"}]})
        headers = {"Content-Type": found[0], "Docker-Content-Digest": sha(found[1])}
        return httpx.Response(200, headers=headers, content=b"" if request.method == "HEAD" else found[1])

    async def resolve(
        self,
        reference: str = "r.io/a/b:v1",
        platforms: tuple[str, ...] = (),
        auths: Mapping[str, RegistryAuth] | None = None,
        endpoints: Endpoints | None = None,
    ) -> ImageResolution:
        async with httpx.AsyncClient(transport=httpx.MockTransport(self.answer)) as http:
            return await resolve_image(reference, platforms, auths or {}, endpoints or Endpoints(), http)


def layer(digit: str, size: int, **more: object) -> dict[str, object]:
    return {
        "mediaType": "application/vnd.oci.image.layer.v1.tar+gzip",
        "digest": f"sha256:{digit * 64}",
        "size": size,
        **more,
    }


def on(entry: dict[str, object], platform: str) -> dict[str, object]:
    os, architecture, *variant = platform.split("/")
    named: dict[str, object] = {"os": os, "architecture": architecture}
    return {**entry, "platform": named | ({"variant": variant[0]} if variant else {})}


def two_platforms() -> Registry:
    """``v1``: an index for two platforms that share a layer, with an attestation."""
    registry = Registry()
    amd = on(registry.image(layer("1", 10), layer("2", 20), a=1), "linux/amd64")
    arm = on(registry.image(layer("1", 10), layer("3", 30), a=2), "linux/arm64/v8")
    attestation = on(registry.image(layer("9", 1), a=3), "unknown/unknown")
    registry.tags["v1"] = str(registry.index(amd, arm, attestation)["digest"])
    return registry
