"""Images: what a registry may answer, and whom credentials are shown to. (The real registry: tests/integration.)"""

import json

import httpx
import pytest

from modelswarm.content.endpoints import Endpoints, file_url
from modelswarm.content.image import parse_reference
from modelswarm.content.registry import ImageResolution, resolve_digest
from modelswarm.content.registry_client import (
    ACCEPT,
    OCI_INDEX,
    OCI_MANIFEST,
)
from modelswarm.errors import (
    AccessDenied,
    ContentError,
    InvalidReference,
    PlatformNotFound,
    RateLimited,
    RevisionNotFound,
    SourceNotFound,
    SourceUnavailable,
)
from tests.unit.content.registry_stub import Registry, layer, on, sha, two_platforms


@pytest.fixture
def registry() -> Registry:
    return two_platforms()


def blobs(resolution: ImageResolution) -> set[str]:
    return {file.path[-1] for file in resolution.manifest.files if file.path.startswith("blobs/") and file.size >= 10}


@pytest.mark.parametrize(
    ("platforms", "chosen"),
    [
        pytest.param((), ("linux/amd64", "linux/arm64"), id="all, without attestations"),
        pytest.param(("linux/arm64",), ("linux/arm64",), id="the default variant need not be named"),
        pytest.param(("linux/arm64/v8", "linux/x86_64"), ("linux/amd64", "linux/arm64"), id="two, by other names"),
    ],
)
async def test_an_index(registry: Registry, platforms: tuple[str, ...], chosen: tuple[str, ...]) -> None:
    resolution = await registry.resolve(platforms=platforms)
    assert resolution.platforms == chosen
    assert resolution.digest == resolution.manifest.revision == registry.tags["v1"]
    assert resolution.manifest.origin.id == "r.io/a/b"
    files = {file.path: file for file in resolution.manifest.files}
    assert f"manifests/{resolution.digest.replace(':', '/')}" in files
    assert len([path for path in files if path.startswith("manifests/")]) == 1 + len(chosen)
    wanted = {"1"} | ({"2"} if "linux/amd64" in chosen else set()) | ({"3"} if "linux/arm64" in chosen else set())
    layers = {path[-1] for path, file in files.items() if path.startswith("blobs/") and file.size in (10, 20, 30)}
    assert layers == wanted
    assert all(file.digest == file.path.partition("/")[2].replace("/", ":") for file in resolution.manifest.files)
    assert registry.seen[0].headers["Accept"] == ACCEPT


async def test_every_file_has_a_url(registry: Registry) -> None:
    manifest = (await registry.resolve()).manifest
    urls = {file_url(manifest.origin, manifest.revision, file.path, Endpoints()) for file in manifest.files}
    assert f"https://r.io/v2/a/b/blobs/sha256:{'1' * 64}" in urls
    assert f"https://r.io/v2/a/b/manifests/{manifest.revision}" in urls


async def test_a_manifest_without_index_and_docker_types(registry: Registry) -> None:
    single = registry.image(oci=False, os="linux", architecture="arm", variant="v7")
    registry.tags["single"] = str(single["digest"])
    assert (await registry.resolve("r.io/a/b:single")).digest == single["digest"]
    assert (await registry.resolve("r.io/a/b:single", ("linux/arm",))).platforms == ("linux/arm",)
    with pytest.raises(PlatformNotFound, match=r"not available for linux/amd64; it is for: linux/arm$"):
        await registry.resolve("r.io/a/b:single", ("linux/amd64",))
    silent = registry.image(x=1)
    assert (await registry.resolve(f"r.io/a/b@{silent['digest']}", ("linux/amd64",))).digest == silent["digest"]
    index = registry.index(on(single, "linux/arm/v7"), oci=False)
    assert (await registry.resolve(f"r.io/a/b@{index['digest']}")).platforms == ("linux/arm",)


async def test_an_index_in_an_index(registry: Registry) -> None:
    outer = registry.index(registry.index(on(registry.image(x=1), "linux/s390x")))
    resolution = await registry.resolve(f"r.io/a/b@{outer['digest']}", ("linux/s390x",))
    assert resolution.platforms == ("linux/s390x",)
    assert len(resolution.manifest.files) == 6


async def test_layers_that_are_elsewhere_are_left_out(registry: Registry) -> None:
    foreign = layer("8", 99, mediaType="application/vnd.docker.image.rootfs.foreign.diff.tar.gzip", urls=["https://x"])
    registry.tags["w"] = str(registry.image(foreign, layer("1", 10))["digest"])
    assert blobs(await registry.resolve("r.io/a/b:w")) >= {"1"}
    assert not any(file.size == 99 for file in (await registry.resolve("r.io/a/b:w")).manifest.files)


async def test_a_missing_platform_names_what_exists(registry: Registry) -> None:
    with pytest.raises(PlatformNotFound) as raised:
        await registry.resolve(platforms=("linux/amd64", "linux/s390x", "windows/amd64"))
    assert raised.value.message == (
        "r.io/a/b:v1 is not available for linux/s390x, windows/amd64; it is for: linux/amd64, linux/arm64"
    )


async def test_docker_hub_and_mirrors(registry: Registry) -> None:
    registry.tags["latest"] = registry.tags["v1"]
    await registry.resolve("a/b")
    assert {request.url.host for request in registry.seen} == {"registry-1.docker.io"}
    registry.seen.clear()
    await registry.resolve("a/b", endpoints=Endpoints(registries={"docker.io": "http://mirror:5000"}))
    assert {str(request.url)[:19] for request in registry.seen} == {"http://mirror:5000/"}


async def test_the_digest_of_a_tag_takes_one_head(registry: Registry) -> None:
    async with httpx.AsyncClient(transport=httpx.MockTransport(registry.answer)) as http:
        digest = await resolve_digest("r.io/a/b:v1", {}, Endpoints(), http)
        assert digest == registry.tags["v1"]
        assert [request.method for request in registry.seen] == ["HEAD"]
        registry.refuse = lambda request: httpx.Response(200) if request.method == "HEAD" else None
        assert await resolve_digest(parse_reference("r.io/a/b:v1"), {}, Endpoints(), http) == digest


# What goes wrong


@pytest.mark.parametrize(
    ("response", "error", "says"),
    [
        (httpx.Response(403), AccessDenied, "no pull secret"),
        (httpx.Response(404, json={"errors": [{"code": "NAME_UNKNOWN"}]}), SourceNotFound, "r.io/a/b does not exist"),
        (httpx.Response(404, json={"errors": [{"code": "MANIFEST_UNKNOWN"}]}), RevisionNotFound, "has no v1"),
        (httpx.Response(404, content=b"<html>"), RevisionNotFound, "has no v1"),
        (httpx.Response(429, headers={"Retry-After": "9"}), RateLimited, "r.io limits"),
        (httpx.Response(503), SourceUnavailable, "503"),
        (httpx.Response(400), SourceUnavailable, "400"),
        (httpx.Response(200, content=b"<html>"), SourceUnavailable, "not JSON"),
        (httpx.Response(200, json=[]), SourceUnavailable, "not a JSON object"),
        (httpx.Response(200, json={"schemaVersion": 1}), InvalidReference, "not supported"),
        (
            httpx.Response(200, json={"mediaType": OCI_MANIFEST, "config": {"digest": "sha256:../x", "size": 1}}),
            SourceUnavailable,
            "without digest",
        ),
        (
            httpx.Response(200, json={"mediaType": OCI_INDEX, "manifests": [{"digest": "../../x"}]}),
            SourceUnavailable,
            "without a digest",
        ),
        (httpx.Response(200, json={"mediaType": OCI_INDEX, "manifests": []}), PlatformNotFound, "none"),
        (
            httpx.Response(200, json={"mediaType": OCI_MANIFEST}, headers={"Docker-Content-Digest": sha(b"other")}),
            SourceUnavailable,
            "other bytes",
        ),
    ],
)
async def test_refusals_and_nonsense(
    registry: Registry, response: httpx.Response, error: type[ContentError], says: str
) -> None:
    registry.refuse = lambda _: response
    with pytest.raises(error, match=says):
        await registry.resolve()


async def test_other_bytes_than_those_of_the_digest_are_refused(registry: Registry) -> None:
    digest = registry.tags["v1"]
    registry.documents[digest] = (OCI_INDEX, b'{"mediaType": "x"}')
    with pytest.raises(SourceUnavailable, match="other bytes"):
        await registry.resolve(f"r.io/a/b@{digest}")


async def test_a_part_that_is_missing(registry: Registry) -> None:
    registry.tags["s"] = str(registry.image(os="linux", architecture="amd64")["digest"])
    config = json.loads(registry.documents[registry.tags["s"]][1])["config"]["digest"]
    del registry.documents[config]
    with pytest.raises(SourceUnavailable, match="lacks a part"):
        await registry.resolve("r.io/a/b:s", ("linux/amd64",))
