"""Image references resolved against the real registry: open, with passwords, with tokens, over TLS."""

import json
import ssl

import httpx
import pytest

from dev.registry import Auth, Registry
from modelswarm.content.credentials import RegistryAuth, parse_docker_config
from modelswarm.content.endpoints import Endpoints, file_url
from modelswarm.content.registry_client import ACCEPT
from modelswarm.content.resolve import Resolver, digest_source
from modelswarm.errors import AccessDenied, PlatformNotFound, RevisionNotFound, SourceUnavailable

# The first start on a machine may have to build the programs.
pytestmark = pytest.mark.timeout(600)

PLATFORMS = ("linux/amd64", "linux/arm64/v8")


def client(registry: Registry) -> httpx.AsyncClient:
    verify = ssl.create_default_context(cafile=str(registry.ca_file)) if registry.tls else True
    return httpx.AsyncClient(verify=verify, trust_env=False)


def endpoints(registry: Registry) -> Endpoints:
    return Endpoints(registries={registry.host: registry.url})


@pytest.mark.parametrize(
    ("auth", "tls", "anonymous"),
    [
        pytest.param("none", False, False, id="open"),
        pytest.param("none", True, False, id="open with TLS"),
        pytest.param("basic", False, False, id="password"),
        pytest.param("token", False, False, id="token"),
        pytest.param("token", False, True, id="token for nobody in particular"),
    ],
)
async def test_an_image_is_pinned_with_all_its_blobs(auth: Auth, tls: bool, anonymous: bool) -> None:
    with Registry(auth=auth, tls=tls, anonymous_pull=anonymous) as registry:
        pushed = registry.push_image("team/app", "v1", platforms=PLATFORMS, layer_bytes=(100, 3000))
        config = json.dumps(registry.docker_config()).encode()
        auths = {} if anonymous else parse_docker_config(config)
        async with client(registry) as http:
            resolver = Resolver(http, endpoints(registry), ttl=0)
            everything = await resolver.resolve_image(pushed["reference"], [], auths)
            assert everything.revision == pushed["digest"]
            assert digest_source(everything) == "Registry"
            images = pushed["platforms"].values()
            wanted = {digest for image in images for digest in (image["config"], image["manifest"], *image["layers"])}
            assert {file.digest for file in everything.files} == wanted | {pushed["digest"]}
            with registry.client() as reader:
                for file in everything.files:
                    url = file_url(everything.origin, everything.revision, file.path, endpoints(registry))
                    assert len(reader.get(url, headers={"Accept": ACCEPT}).content) == file.size

            arm = await resolver.resolve_image(pushed["reference"], ["linux/arm64"], auths)
            own = pushed["platforms"]["linux/arm64/v8"]
            assert arm.revision == pushed["digest"]
            assert {file.digest for file in arm.files if file.path.startswith("blobs/")} == {
                own["config"],
                *own["layers"],
            }
            assert await resolver.resolve_digest(pushed["reference"], auths) == pushed["digest"]
            pinned = f"{registry.host}/team/app@{pushed['digest']}"
            assert await resolver.resolve_image(pinned, [], auths) == everything


async def test_an_image_for_one_platform() -> None:
    with Registry() as registry:
        pushed = registry.push_image("app", "v1")
        async with client(registry) as http:
            resolver = Resolver(http, endpoints(registry))
            manifest = await resolver.resolve_image(pushed["reference"], ["linux/amd64"], {})
            assert manifest.revision == pushed["digest"] == pushed["platforms"]["linux/amd64"]["manifest"]
            with pytest.raises(PlatformNotFound, match="linux/amd64"):
                await resolver.resolve_image(pushed["reference"], ["linux/arm64"], {})


async def test_a_mirror_of_docker_hub_and_a_tag_that_moves() -> None:
    with Registry() as registry:
        first = registry.push_image("library/nginx", "latest", seed=1)
        async with client(registry) as http:
            resolver = Resolver(http, Endpoints(registries={"docker.io": registry.url}), ttl=0)
            assert (await resolver.resolve_image("nginx", [], {})).revision == first["digest"]
            second = registry.push_image("library/nginx", "latest", seed=2)
            assert await resolver.resolve_digest("nginx", {}) == second["digest"] != first["digest"]


async def test_what_is_not_there() -> None:
    with Registry() as registry:
        registry.push_image("app", "v1")
        async with client(registry) as http:
            resolver = Resolver(http, endpoints(registry))
            for missing in ("app:v2", "other:v1", f"app@sha256:{'0' * 64}"):
                with pytest.raises(RevisionNotFound, match="check the image's name"):
                    await resolver.resolve_image(f"{registry.host}/{missing}", [], {})
                with pytest.raises(RevisionNotFound):
                    await resolver.resolve_digest(f"{registry.host}/{missing}", {})


@pytest.mark.parametrize("auth", ["basic", "token"])
async def test_who_may_not_pull(auth: Auth) -> None:
    with Registry(auth=auth) as registry:
        pushed = registry.push_image("app", "v1")
        async with client(registry) as http:
            resolver = Resolver(http, endpoints(registry))
            with pytest.raises(AccessDenied, match="pull secret"):
                await resolver.resolve_image(pushed["reference"], [], {})
            with pytest.raises(AccessDenied, match="pull secret"):
                await resolver.resolve_image(pushed["reference"], [], {registry.host: RegistryAuth("swarm", "wrong")})


async def test_plain_http_and_unknown_authorities_are_not_spoken_by_themselves() -> None:
    with Registry() as registry, Registry(tls=True) as secure:
        async with httpx.AsyncClient(trust_env=False) as http:
            for host in (registry.host, secure.host):
                with pytest.raises(SourceUnavailable, match="cannot be reached"):
                    await Resolver(http, Endpoints()).resolve_image(f"{host}/app:v1", [], {})
