"""The image registry for other tests: what is pushed is what is pulled, and nobody gets in without being asked."""

import hashlib

import httpx
import pytest

from dev.oci_image import INDEX, MANIFEST
from dev.registry import Auth, Registry
from dev.registry_client import RegistryAuth

# The first start on a machine may have to build the programs.
pytestmark = pytest.mark.timeout(600)


@pytest.mark.parametrize(
    ("auth", "tls"),
    [
        pytest.param("none", False, id="open"),
        pytest.param("none", True, id="open with TLS"),
        pytest.param("basic", False, id="password"),
        pytest.param("token", False, id="token"),
    ],
)
def test_pushed_image_is_pulled_with_the_same_digests(auth: Auth, tls: bool) -> None:
    platforms = ("linux/amd64", "linux/arm64/v8")
    with Registry(auth=auth, tls=tls) as registry, registry.client() as client:
        pushed = registry.push_image("team/app", "v1", platforms=platforms, layer_bytes=(100, 300_000), seed=7)

        answer = client.get("/v2/team/app/manifests/v1", headers={"Accept": INDEX})
        assert answer.headers["Docker-Content-Digest"] == pushed["digest"] == digest(answer.content)
        entries = answer.json()["manifests"]
        assert [entry["platform"]["architecture"] for entry in entries] == ["amd64", "arm64"]
        for entry, (platform, image) in zip(entries, pushed["platforms"].items(), strict=True):
            assert "/".join(entry["platform"][part] for part in ("os", "architecture")) in platform
            answer = client.get(f"/v2/team/app/manifests/{entry['digest']}", headers={"Accept": MANIFEST})
            assert digest(answer.content) == entry["digest"] == image["manifest"]
            manifest = answer.json()
            assert manifest["config"]["digest"] == image["config"]
            assert [layer["digest"] for layer in manifest["layers"]] == image["layers"]
            for blob in (manifest["config"], *manifest["layers"]):
                content = client.get(f"/v2/team/app/blobs/{blob['digest']}").content
                assert (digest(content), len(content)) == (blob["digest"], blob["size"])


def test_one_platform_is_a_plain_manifest() -> None:
    with Registry() as registry, registry.client() as client:
        pushed = registry.push_image("app", "v1")
        assert pushed["media_type"] == MANIFEST
        assert pushed["digest"] == pushed["platforms"]["linux/amd64"]["manifest"]
        assert client.get("/v2/app/manifests/v1", headers={"Accept": MANIFEST}).headers["Content-Type"] == MANIFEST


def test_seed_decides_the_digests() -> None:
    with Registry() as registry:
        first, again, other = (registry.push_image("app", "v1", seed=seed) for seed in (1, 1, 2))
    assert first == again
    assert first["digest"] != other["digest"]


@pytest.mark.parametrize("auth", ["basic", "token"])
def test_wrong_and_missing_password_are_refused(auth: Auth) -> None:
    with Registry(auth=auth) as registry:
        registry.push_image("app", "v1")
        with registry.client(authenticated=False) as client:
            for credentials in (httpx.Auth(), RegistryAuth(registry.username, "wrong"), RegistryAuth()):
                answer = client.get("/v2/app/manifests/v1", headers={"Accept": MANIFEST}, auth=credentials)
                assert answer.status_code == 401


def test_anonymous_token_pulls_but_does_not_push() -> None:
    with Registry(auth="token", anonymous_pull=True) as registry, registry.client(authenticated=False) as client:
        registry.push_image("app", "v1")
        client.auth = RegistryAuth()
        assert client.get("/v2/app/manifests/v1", headers={"Accept": MANIFEST}).status_code == 200
        assert client.post("/v2/app/blobs/uploads/").status_code == 401
        assert registry.token_server is not None
        assert registry.token_server.issued > 0


def test_access_log_counts_pulls() -> None:
    with Registry() as registry, registry.client() as client:
        layer = registry.push_image("app", "v1")["platforms"]["linux/amd64"]["layers"][0]
        for _ in range(3):
            client.get(f"/v2/app/blobs/{layer}").raise_for_status()
        client.get("/v2/")  # the log is written in order, so the pulls are in it when this request is
        pulls = [entry for entry in registry.access_log() if entry.method == "GET" and entry.uri.endswith(layer)]
        assert [entry.status for entry in pulls] == [200, 200, 200]
        assert all(entry.size > 4096 for entry in pulls)


def digest(content: bytes) -> str:
    return "sha256:" + hashlib.sha256(content).hexdigest()
