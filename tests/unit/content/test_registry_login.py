"""Log-ins to registries: whom credentials are shown to, and what failures mean."""

import base64
from collections.abc import Callable

import httpx
import pytest

from modelswarm.content.credentials import RegistryAuth
from modelswarm.content.registry_client import (
    parse_challenges,
)
from modelswarm.errors import (
    AccessDenied,
    ContentError,
    RateLimited,
    SourceUnavailable,
)
from tests.unit.content.registry_stub import Registry, two_platforms

AUTH = RegistryAuth("user", "p:ss")
BASIC = "Basic " + base64.b64encode(b"user:p:ss").decode()
BEARER = 'Bearer realm="https://auth.io/token?a=b",service="r.io",scope="repository:a/b:pull"'


@pytest.fixture
def registry() -> Registry:
    return two_platforms()


def wants(
    challenge: str, grants: str, token: Callable[[httpx.Request], httpx.Response] | None = None
) -> Callable[[httpx.Request], httpx.Response | None]:
    def refuse(request: httpx.Request) -> httpx.Response | None:
        if request.url.host != "r.io":
            assert token is not None
            return token(request)
        if request.headers.get("authorization") == grants:
            return None
        return httpx.Response(401, headers={"WWW-Authenticate": challenge})

    return refuse


@pytest.mark.parametrize(
    ("auth", "sent"),
    [
        pytest.param(None, None, id="nobody in particular"),
        pytest.param(AUTH, BASIC, id="a user"),
    ],
)
@pytest.mark.parametrize("name", ["token", "access_token"])
async def test_tokens(registry: Registry, auth: RegistryAuth | None, sent: str | None, name: str) -> None:
    asked: list[httpx.Request] = []

    def token(request: httpx.Request) -> httpx.Response:
        asked.append(request)
        return httpx.Response(200, json={name: "T"})

    registry.refuse = wants(BEARER, "Bearer T", token)
    await registry.resolve(auths={"r.io": auth} if auth else {})
    assert len(asked) == 1
    assert asked[0].headers.get("authorization") == sent
    assert dict(asked[0].url.params) == {"a": "b", "service": "r.io", "scope": "repository:a/b:pull"}


async def test_an_identity_token_is_exchanged(registry: Registry) -> None:
    asked: list[dict[str, str]] = []

    def token(request: httpx.Request) -> httpx.Response:
        asked.append(dict(httpx.QueryParams(request.content.decode())))
        assert request.method == "POST"
        return httpx.Response(200, json={"access_token": "T"})

    registry.refuse = wants(BEARER, "Bearer T", token)
    await registry.resolve(auths={"r.io": RegistryAuth("user", "", "refresh")})
    assert asked[0]["grant_type"] == "refresh_token"
    assert asked[0]["refresh_token"] == "refresh"


async def test_a_registry_with_passwords_only(registry: Registry) -> None:
    registry.refuse = wants('Basic realm="r"', BASIC)
    await registry.resolve(auths={"r.io": AUTH})
    with pytest.raises(AccessDenied, match="pull secret"):
        await registry.resolve()


@pytest.mark.parametrize(
    "challenge",
    [
        BEARER.replace("https://", "http://"),
        BEARER.replace("https://auth.io/token", "/token"),
        BEARER.replace("https://auth.io/token", "file:///etc/passwd"),
        'Negotiate realm="x"',
        "",
    ],
)
async def test_log_ins_that_are_refused(registry: Registry, challenge: str) -> None:
    registry.refuse = wants(challenge, "Bearer T")
    with pytest.raises(AccessDenied):
        await registry.resolve(auths={"r.io": AUTH})
    assert {request.url.host for request in registry.seen} == {"r.io"}
    assert not any("authorization" in request.headers for request in registry.seen)


async def test_a_token_service_may_not_pass_the_password_on(registry: Registry) -> None:
    def token(request: httpx.Request) -> httpx.Response:
        assert request.url.host == "auth.io"
        return httpx.Response(307, headers={"Location": "https://evil/token"})

    registry.refuse = wants(BEARER, "Bearer T", token)
    with pytest.raises(SourceUnavailable, match="307"):
        await registry.resolve(auths={"r.io": AUTH})


async def test_a_redirect_to_a_blob_store_goes_without_token(registry: Registry) -> None:
    registry.tags["s"] = str(registry.image(os="linux", architecture="amd64")["digest"])
    elsewhere: list[httpx.Request] = []

    def refuse(request: httpx.Request) -> httpx.Response | None:
        if request.url.host == "auth.io":
            return httpx.Response(200, json={"token": "T"})
        if request.url.host == "cdn.io":
            elsewhere.append(request)
            return None
        if request.headers.get("authorization") != "Bearer T":
            return httpx.Response(401, headers={"WWW-Authenticate": BEARER})
        if "/blobs/" in request.url.path:
            return httpx.Response(307, headers={"Location": f"https://cdn.io{request.url.path}"})
        return None

    registry.refuse = refuse
    await registry.resolve("r.io/a/b:s", ("linux/amd64",))
    assert len(elsewhere) == 1
    assert "authorization" not in elsewhere[0].headers


@pytest.mark.parametrize(
    ("token", "auth", "error", "says"),
    [
        (httpx.Response(401), AUTH, AccessDenied, "invalid or expired"),
        (httpx.Response(403), None, AccessDenied, "does not exist, or it is private and there is no pull secret"),
        (httpx.Response(400), AUTH, AccessDenied, "invalid or expired"),
        (httpx.Response(404), AUTH, SourceUnavailable, "HTTP 404"),
        (httpx.Response(429), AUTH, RateLimited, "auth.io"),
        (httpx.Response(503), AUTH, SourceUnavailable, "503"),
        (httpx.Response(200, json={}), AUTH, SourceUnavailable, "without a token"),
        (httpx.Response(200, json={"token": "useless"}), AUTH, AccessDenied, "may not pull"),
        (httpx.Response(200, json={"token": "useless"}), None, AccessDenied, "does not exist, or it is private"),
    ],
)
async def test_log_ins_that_fail(
    registry: Registry, token: httpx.Response, auth: RegistryAuth | None, error: type[ContentError], says: str
) -> None:
    registry.refuse = wants(BEARER, "Bearer T", lambda _: token)
    with pytest.raises(error, match=says) as raised:
        await registry.resolve(auths={"r.io": auth} if auth else {})
    assert "p:ss" not in raised.value.message


@pytest.mark.parametrize(
    ("header", "parsed"),
    [
        ("", {}),
        ('Basic realm="x"', {"basic": {"realm": "x"}}),
        (
            'Bearer realm="https://a/t", service=r.io ,scope="repository:a/b:pull,push"',
            {"bearer": {"realm": "https://a/t", "service": "r.io", "scope": "repository:a/b:pull,push"}},
        ),
        (
            'Basic realm="Bearer realm=x", Bearer realm="https://a",error="in\\"valid"',
            {"basic": {"realm": "Bearer realm=x"}, "bearer": {"realm": "https://a", "error": 'in"valid'}},
        ),
        ('bearer realm="a",Bearer realm="b"', {"bearer": {"realm": "a"}}),
        ('Bearer realm=""', {"bearer": {"realm": ""}}),
    ],
)
def test_challenges(header: str, parsed: dict[str, dict[str, str]]) -> None:
    assert parse_challenges(header) == parsed
