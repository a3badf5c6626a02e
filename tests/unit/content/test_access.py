"""Who may read a model's files is found out by asking for one as a stranger."""

import httpx
import pytest

from dev.hub import Hub, ServerError
from modelswarm.api.openmodel import HubName
from modelswarm.content.credentials import Credentials
from modelswarm.content.endpoints import Endpoints
from modelswarm.content.manifest import Manifest, ManifestFile, Origin, OriginKind
from modelswarm.content.resolve import Resolver
from modelswarm.content.source import HubSource
from tests.unit.content.conftest import MockClient, add_model

COMMIT = "7ae557604adf67be50417f59c2c2f167def9a775"
MANIFEST = Manifest(
    Origin(OriginKind.HUGGINGFACE, "org/name"), COMMIT, (ManifestFile("a", 1), ManifestFile("b large", 9))
)


@pytest.mark.parametrize("hub_name", [HubName.HUGGINGFACE, HubName.MODELSCOPE])
@pytest.mark.parametrize(
    ("options", "public"),
    [
        pytest.param({}, True, id="an open one"),
        pytest.param({"private": True}, False, id="a private one"),
        pytest.param({"gated": "auto"}, False, id="a gated one, whose listing everybody may see"),
    ],
)
async def test_the_hub_says_it_to_a_stranger(
    hub: Hub,
    endpoints: Endpoints,
    http: httpx.AsyncClient,
    hub_name: HubName,
    options: dict[str, object],
    public: bool,
) -> None:
    add_model(hub, "org/asked", **options)
    hub.allow("reader", "org/asked")
    resolver = Resolver(http, endpoints)
    credentials = Credentials(hub_token="reader", modelscope_token="reader")
    manifest = await resolver.resolve_model(HubSource(hub_name, "org/asked"), credentials)
    before = hub.counters.total().requests
    assert await resolver.is_public(manifest) is public
    assert hub.counters.total().requests == before + 1
    assert await resolver.is_public(manifest) is public
    assert hub.counters.total().requests == before + 1, "a thousand tasks of one model ask once"


@pytest.mark.parametrize(
    ("status", "public"),
    [
        pytest.param(200, True, id="a small file"),
        pytest.param(302, True, id="a large one, which lies elsewhere"),
        pytest.param(401, False, id="unauthorized"),
        pytest.param(403, False, id="forbidden"),
        pytest.param(404, False, id="hidden"),
        pytest.param(429, None, id="too many requests"),
        pytest.param(500, None, id="an error of the hub"),
        pytest.param(451, None, id="something else"),
    ],
)
async def test_one_request_without_a_token_decides(mock_client: MockClient, status: int, public: bool | None) -> None:
    asked: list[httpx.Request] = []

    def answer(request: httpx.Request) -> httpx.Response:
        asked.append(request)
        return httpx.Response(status, headers={"Location": "https://cdn.invalid/x"})

    assert await Resolver(mock_client(answer), Endpoints()).is_public(MANIFEST) is public
    [request] = asked
    assert request.method == "HEAD"
    assert str(request.url) == f"https://huggingface.co/org/name/resolve/{COMMIT}/b%20large"
    assert "authorization" not in request.headers


async def test_a_hub_that_does_not_answer_leaves_it_open(mock_client: MockClient) -> None:
    def answer(request: httpx.Request) -> httpx.Response:
        raise httpx.ConnectError("planted", request=request)

    assert await Resolver(mock_client(answer), Endpoints()).is_public(MANIFEST) is None


async def test_what_is_not_known_is_asked_anew(hub: Hub, endpoints: Endpoints, http: httpx.AsyncClient) -> None:
    resolver = Resolver(http, endpoints)
    manifest = await resolver.resolve_model(HubSource(HubName.HUGGINGFACE, "org/model"), None)
    hub.fail("*", ServerError())
    assert await resolver.is_public(manifest) is None
    hub.reset()
    assert await resolver.is_public(manifest) is True
