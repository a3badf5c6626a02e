"""Pull secrets are read as the kubelet reads them, and nothing shows what is in them."""

import base64
import json
import traceback

import pytest

from modelswarm.content.credentials import Credentials, RegistryAuth, auth_for, parse_docker_config
from modelswarm.errors import AccessDenied

SECRET = "s3cr3t-v4lue"


def encoded(text: str) -> str:
    return base64.b64encode(text.encode()).decode()


@pytest.mark.parametrize(
    "value",
    [Credentials(SECRET, SECRET, SECRET, SECRET), RegistryAuth("user", SECRET, SECRET), {"a": Credentials(SECRET)}],
)
def test_values_are_never_shown(value: object) -> None:
    for text in (repr(value), str(value), f"{value}", f"{[value]!r}"):
        assert SECRET not in text
        assert "***" in text


def test_fingerprints_compare_without_the_values() -> None:
    assert Credentials("a").fingerprint == Credentials("a").fingerprint
    assert Credentials("a").fingerprint != Credentials(None, "a").fingerprint
    assert Credentials().fingerprint != Credentials("a").fingerprint
    assert SECRET not in Credentials(SECRET).fingerprint


@pytest.mark.parametrize(
    ("document", "found"),
    [
        pytest.param(
            {"auths": {"ghcr.io": {"username": "u", "password": "p"}}},
            {"ghcr.io": RegistryAuth("u", "p")},
            id="dockerconfigjson with user and password",
        ),
        pytest.param(
            {"https://index.docker.io/v1/": {"username": "u", "password": "p", "email": "x@y"}},
            {"https://index.docker.io/v1/": RegistryAuth("u", "p")},
            id="dockercfg",
        ),
        pytest.param(
            {"auths": {"a": {"auth": encoded("u:p:with:colons"), "username": "other", "password": "other"}}},
            {"a": RegistryAuth("u", "p:with:colons")},
            id="auth wins and the password may have colons",
        ),
        pytest.param(
            {"auths": {"a": {"auth": encoded("user:pass1").rstrip("=")}}},
            {"a": RegistryAuth("user", "pass1")},
            id="auth without padding",
        ),
        pytest.param(
            {"auths": {"a": {"auth": encoded("00000000-0000-0000-0000-000000000000:"), "identitytoken": "t"}}},
            {"a": RegistryAuth("00000000-0000-0000-0000-000000000000", "", "t")},
            id="an identity token",
        ),
        pytest.param({"auths": {"a": {}}, "credsStore": "desktop"}, {}, id="credentials kept elsewhere"),
        pytest.param({"credsStore": "desktop"}, {}, id="only a helper"),
        pytest.param({"auths": {}}, {}, id="no registry"),
    ],
)
def test_forms_of_pull_secrets(document: dict[str, object], found: dict[str, RegistryAuth]) -> None:
    assert parse_docker_config(json.dumps(document).encode()) == found


@pytest.mark.parametrize(
    "data",
    [
        pytest.param(SECRET.encode(), id="not JSON"),
        pytest.param(b"\xff\xfe", id="not text"),
        pytest.param(json.dumps([SECRET]).encode(), id="not an object"),
        pytest.param(json.dumps({"auths": [SECRET]}).encode(), id="auths is no object"),
        pytest.param(json.dumps({"auths": {"a": SECRET}}).encode(), id="an entry is no object"),
        pytest.param(json.dumps({"auths": {"a": {"auth": SECRET + "!"}}}).encode(), id="not base64"),
        pytest.param(json.dumps({"auths": {"a": {"auth": encoded(SECRET)}}}).encode(), id="no colon"),
        pytest.param(json.dumps({"auths": {"a": {"password": [SECRET]}}}).encode(), id="not text inside"),
    ],
)
def test_unreadable_pull_secrets_are_refused_without_showing_them(data: bytes) -> None:
    with pytest.raises(AccessDenied, match="pull secret") as raised:
        parse_docker_config(data)
    assert SECRET not in "".join(traceback.format_exception(raised.value))


def auths(*keys: str) -> dict[str, RegistryAuth]:
    return {key: RegistryAuth(key, "p") for key in keys}


@pytest.mark.parametrize(
    ("image", "keys", "chosen"),
    [
        pytest.param("ghcr.io/a/b", ("ghcr.io",), "ghcr.io", id="the host"),
        pytest.param("ghcr.io/a/b", ("https://ghcr.io",), "https://ghcr.io", id="the host with a scheme"),
        pytest.param("ghcr.io/a/b", ("https://ghcr.io/v2/",), "https://ghcr.io/v2/", id="the API's path"),
        pytest.param("ghcr.io/a/b", ("ghcr.io", "ghcr.io/a", "ghcr.io/a/b"), "ghcr.io/a/b", id="the longest path"),
        pytest.param("ghcr.io/a/c", ("ghcr.io", "ghcr.io/a/b"), "ghcr.io", id="another path does not count"),
        pytest.param("r.io:5000/a", ("r.io", "r.io:5000"), "r.io:5000", id="the port counts"),
        pytest.param("r.io/a", ("r.io:5000",), None, id="no port is not any port"),
        pytest.param("x.azurecr.io/a", ("*.azurecr.io",), "*.azurecr.io", id="a glob"),
        pytest.param("x.y.azurecr.io/a", ("*.azurecr.io",), None, id="a glob is for one part"),
        pytest.param("x.azurecr.io/a", ("*", "*.*"), None, id="as many parts"),
        pytest.param("nginx", ("https://index.docker.io/v1/",), "https://index.docker.io/v1/", id="Docker Hub"),
        pytest.param("nginx", ("docker.io",), "docker.io", id="Docker Hub by name"),
        pytest.param("ghcr.io/a", ("index.docker.io",), None, id="another registry"),
        pytest.param("evil-ghcr.io/a", ("ghcr.io",), None, id="a similar host"),
        pytest.param("ghcr.io/a", (), None, id="no pull secret"),
    ],
)
def test_which_entry_is_for_an_image(image: str, keys: tuple[str, ...], chosen: str | None) -> None:
    found = auth_for(image, auths(*keys))
    assert (found.username if found else None) == chosen
