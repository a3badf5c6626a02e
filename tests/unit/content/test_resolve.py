"""The resolver: one listing for many, an origin that said 429 left alone, nobody else's answers."""

import asyncio
import time

import httpx
import pytest

from dev.hub import Hub, Kind, RateLimit, ServerError
from modelswarm.api.openmodel import HubName
from modelswarm.content.credentials import Credentials, RegistryAuth
from modelswarm.content.endpoints import Endpoints
from modelswarm.content.manifest import Manifest, ManifestFile, Origin, OriginKind
from modelswarm.content.resolve import Resolver, digest_source
from modelswarm.content.source import HostSource, HubSource, OllamaSource, Provider, Source, StoreSource
from modelswarm.errors import AccessDenied, InvalidReference, RateLimited, SourceNotFound, SourceUnavailable
from tests.unit.content.conftest import FILES, MockClient, add_model

MODEL = HubSource(HubName.HUGGINGFACE, "org/model")


async def test_a_thousand_models_of_one_repository_are_one_listing(
    hub: Hub, endpoints: Endpoints, http: httpx.AsyncClient
) -> None:
    resolver = Resolver(http, endpoints)
    manifests = await asyncio.gather(*(resolver.resolve_model(MODEL, None) for _ in range(1000)))
    assert len(manifests[0].files) == len(FILES)
    assert len(set(map(id, manifests))) == 1
    assert hub.counters.total().requests == 5
    await resolver.resolve_model(MODEL, Credentials())
    assert hub.counters.total().requests == 5
    await resolver.resolve_model(HubSource(HubName.MODELSCOPE, "org/model"), None)
    assert hub.counters.total().requests > 5


async def test_a_branch_that_moved_is_seen_when_the_time_is_over(
    hub: Hub, endpoints: Endpoints, http: httpx.AsyncClient
) -> None:
    resolver = Resolver(http, endpoints, ttl=0.05)
    repository = hub.repositories["org/model"]
    before = (await resolver.resolve_model(MODEL, None)).revision
    repository.move("main", repository.commit({"config.json": b"new"}))
    deadline = time.monotonic() + 5
    while (await resolver.resolve_model(MODEL, None)).revision == before:
        assert time.monotonic() < deadline
        await asyncio.sleep(0.02)


async def test_nobody_gets_what_another_token_may_read(hub: Hub, endpoints: Endpoints, http: httpx.AsyncClient) -> None:
    add_model(hub, "org/private", private=True)
    hub.allow("reader", "org/private")
    private = HubSource(HubName.HUGGINGFACE, "org/private")
    resolver = Resolver(http, endpoints)
    assert await resolver.resolve_model(private, Credentials("reader"))
    with pytest.raises(SourceNotFound):
        await resolver.resolve_model(private, None)
    with pytest.raises(AccessDenied):
        await resolver.resolve_model(private, Credentials("other"))


async def test_failures_are_not_remembered(hub: Hub, endpoints: Endpoints, http: httpx.AsyncClient) -> None:
    resolver = Resolver(http, endpoints)
    hub.fail("*", ServerError())
    with pytest.raises(SourceUnavailable):
        await resolver.resolve_model(MODEL, None)
    hub.reset()
    assert await resolver.resolve_model(MODEL, None)


async def test_an_origin_that_said_429_is_left_alone(hub: Hub, endpoints: Endpoints, http: httpx.AsyncClient) -> None:
    add_model(hub, "org/other")
    hub.allow("reader")
    resolver = Resolver(http, endpoints)
    hub.fail("*", RateLimit(300), times=1)
    with pytest.raises(RateLimited):
        await resolver.resolve_model(MODEL, None)
    requests = hub.counters.total(Kind.API).requests
    with pytest.raises(RateLimited) as raised:
        await resolver.resolve_model(HubSource(HubName.HUGGINGFACE, "org/other"), None)
    assert raised.value.retry_after is not None
    assert 290 < raised.value.retry_after <= 300
    assert hub.counters.total(Kind.API).requests == requests
    # Limits are per token, or per address for those who have none.
    assert await resolver.resolve_model(MODEL, Credentials("reader"))


async def test_nobody_is_kept_away_for_longer_than_an_hour(
    hub: Hub, endpoints: Endpoints, http: httpx.AsyncClient
) -> None:
    resolver = Resolver(http, endpoints)
    hub.fail("*", RateLimit(10**9), times=1)
    for _ in range(2):
        with pytest.raises(RateLimited) as raised:
            await resolver.resolve_model(MODEL, None)
        assert raised.value.retry_after is not None
        assert 3590 < raised.value.retry_after <= 3600


async def test_it_is_asked_again_after_the_time_it_named(
    hub: Hub, endpoints: Endpoints, http: httpx.AsyncClient
) -> None:
    resolver = Resolver(http, endpoints, ttl=0.05)
    hub.fail("*", RateLimit(0), times=1)
    with pytest.raises(RateLimited):
        await resolver.resolve_model(MODEL, None)
    assert await resolver.resolve_model(MODEL, None)


async def test_not_more_than_so_many_at_once_per_origin(mock_client: MockClient) -> None:
    active = peak = 0

    async def answer(request: httpx.Request) -> httpx.Response:
        nonlocal active, peak
        active += 1
        peak = max(peak, active)
        await asyncio.sleep(0.001)
        active -= 1
        return httpx.Response(404, headers={"X-Error-Code": "RepoNotFound"})

    http = httpx.AsyncClient(transport=httpx.MockTransport(answer))
    resolver = Resolver(http, Endpoints(), per_origin=3)
    sources = [HubSource(HubName.HUGGINGFACE, f"org/{index}") for index in range(20)]
    results = await asyncio.gather(*(resolver.resolve_model(s, None) for s in sources), return_exceptions=True)
    assert {type(result) for result in results} == {SourceNotFound}
    assert peak == 3


@pytest.mark.parametrize("source", [OllamaSource("qwen2"), HostSource("/mnt")])
async def test_what_has_no_files(http: httpx.AsyncClient, source: Source) -> None:
    with pytest.raises(InvalidReference, match="no files"):
        await Resolver(http, Endpoints()).resolve_model(source, None)


async def test_stores_that_cannot_be_reached(http: httpx.AsyncClient) -> None:
    resolver = Resolver(http, Endpoints(s3="http://127.0.0.1:9"))
    with pytest.raises(SourceUnavailable):
        await resolver.resolve_model(StoreSource(Provider.S3, "bkt", "a"), None)


async def test_images_are_cached_per_credentials_and_platforms(mock_client: MockClient) -> None:
    seen: list[str] = []

    def answer(request: httpx.Request) -> httpx.Response:
        seen.append(request.method)
        return httpx.Response(404)

    resolver = Resolver(mock_client(answer), Endpoints())
    with pytest.raises(InvalidReference):
        await resolver.resolve_image("ghcr.io/A/b", [], {})
    for platforms, auths in (([], {}), (["linux/amd64"], {}), ([], {"ghcr.io": RegistryAuth("u", "p")})):
        results = await asyncio.gather(
            *(resolver.resolve_image("ghcr.io/a/b", platforms, auths) for _ in range(5)), return_exceptions=True
        )
        assert all(isinstance(result, Exception) for result in results)
    assert seen == ["GET"] * 3
    with pytest.raises(Exception, match=r"ghcr\.io/a/b"):
        await resolver.resolve_digest("ghcr.io/a/b", {})
    assert seen[-1] == "HEAD"


@pytest.mark.parametrize(
    ("kind", "digest", "word"),
    [
        (OriginKind.HUGGINGFACE, "git-sha1:" + "0" * 40, "Hub"),
        (OriginKind.MODELSCOPE, "sha256:" + "0" * 64, "Hub"),
        (OriginKind.IMAGE, "sha256:" + "0" * 64, "Registry"),
        (OriginKind.S3, "sha256:" + "0" * 64, "Store"),
        (OriginKind.S3, None, "FirstRead"),
        (OriginKind.OSS, None, "FirstRead"),
        (OriginKind.GCS, None, "FirstRead"),
    ],
)
def test_who_vouches(kind: OriginKind, digest: str | None, word: str) -> None:
    files = (ManifestFile("a", 1, "sha256:" + "1" * 64), ManifestFile("b", 1, digest))
    assert digest_source(Manifest(Origin(kind, "a/b"), None, files)) == word
