"""ModelScope: a revision becomes a commit and its files, against the hub stand-in on real sockets."""

import hashlib

import httpx
import pytest

from dev.hub import Hub, Kind, RateLimit, Repository, ServerError
from modelswarm.api.openmodel import HubName
from modelswarm.content.credentials import Credentials
from modelswarm.content.endpoints import Endpoints, file_url
from modelswarm.content.manifest import ManifestFile, OriginKind
from modelswarm.content.modelscope import resolve
from modelswarm.content.source import HubSource
from modelswarm.errors import (
    AccessDenied,
    ContentError,
    NothingMatches,
    RateLimited,
    RevisionNotFound,
    SourceNotFound,
    SourceUnavailable,
)
from tests.unit.content.conftest import FILES, MockClient, add_model


def source(**fields: object) -> HubSource:
    return HubSource(**{"hub": HubName.MODELSCOPE, "model_id": "org/model", **fields})  # type: ignore[arg-type]


async def test_main_means_the_default_branch(hub: Hub, endpoints: Endpoints, http: httpx.AsyncClient) -> None:
    manifest = await resolve(source(), None, endpoints, http)
    assert manifest.revision == hub.repositories["org/model"].head
    assert (manifest.origin.kind, manifest.origin.id) == (OriginKind.MODELSCOPE, "org/model")
    assert manifest.files == tuple(
        sorted(
            ManifestFile(path, len(data), f"sha256:{hashlib.sha256(data).hexdigest()}") for path, data in FILES.items()
        )
    )
    for file in manifest.files:
        url = file_url(manifest.origin, manifest.revision, file.path, endpoints)
        assert (await http.get(url, follow_redirects=True)).content == FILES[file.path]


async def test_a_real_main_is_main(hub: Hub, endpoints: Endpoints, http: httpx.AsyncClient) -> None:
    repository = hub.add(Repository("org/both", default_branch="master"))
    repository.move("master", repository.commit({"a": b"master"}))
    repository.move("main", repository.commit({"a": b"main"}))
    manifest = await resolve(source(model_id="org/both"), None, endpoints, http)
    assert manifest.revision == repository.branches["main"]


async def test_the_pinned_commit_has_every_file_as_listed(
    hub: Hub, endpoints: Endpoints, http: httpx.AsyncClient
) -> None:
    repository = hub.repositories["org/model"]
    repository.move("main", repository.commit({"config.json": b"second"}, base="main", message="second"))
    manifest = await resolve(source(revision="master"), None, endpoints, http)
    assert manifest.revision == repository.head
    again = await resolve(source(revision=manifest.revision), None, endpoints, http)
    assert again == manifest
    unchanged = await resolve(source(revision=manifest.revision, allow_patterns=("onnx/",)), None, endpoints, http)
    assert unchanged.revision == manifest.revision


async def test_a_long_list_is_read_folder_by_folder(http: httpx.AsyncClient) -> None:
    files = {f"a/{index}.bin": b"a" for index in range(6)} | {f"b/c/{index}.bin": b"b" for index in range(6)}
    async with Hub(list_limit=8) as hub:
        add_model(hub, "org/model", {"top.json": b"{}", **files})
        endpoints = Endpoints(modelscope=hub.url)
        manifest = await resolve(source(), None, endpoints, http, list_limit=8)
        assert {file.path for file in manifest.files} == {"top.json", *files}
        add_model(hub, "org/flat", {f"{index}.bin": b"" for index in range(9)})
        with pytest.raises(SourceUnavailable, match="one folder"):
            await resolve(source(model_id="org/flat"), None, endpoints, http, list_limit=8)


@pytest.mark.parametrize(
    ("fields", "token", "error", "says"),
    [
        pytest.param({"model_id": "org/none"}, None, SourceNotFound, "does not exist", id="missing"),
        pytest.param({"model_id": "org/private"}, None, SourceNotFound, "private", id="private"),
        pytest.param({"revision": "v9"}, None, RevisionNotFound, "v9", id="no such revision"),
        pytest.param({"model_id": "org/gated"}, None, AccessDenied, "apply for access", id="gated"),
        pytest.param({}, "revoked", AccessDenied, "token", id="a token that is none"),
        pytest.param({"ignore_patterns": ("*",)}, None, NothingMatches, "ignorePatterns", id="nothing is left"),
    ],
)
async def test_typed_reasons(
    hub: Hub,
    endpoints: Endpoints,
    http: httpx.AsyncClient,
    fields: dict[str, object],
    token: str | None,
    error: type[ContentError],
    says: str,
) -> None:
    add_model(hub, "org/private", private=True)
    add_model(hub, "org/gated", gated="manual")
    credentials = Credentials(modelscope_token=token) if token else None
    with pytest.raises(error, match=says):
        await resolve(source(**fields), credentials, endpoints, http)


async def test_an_empty_branch_is_not_a_missing_one(hub: Hub, endpoints: Endpoints, http: httpx.AsyncClient) -> None:
    repository = hub.add(Repository("org/empty", default_branch="master"))
    repository.move("master", repository.commit({}))
    with pytest.raises(NothingMatches, match="no files"):
        await resolve(source(model_id="org/empty", revision="master"), None, endpoints, http)


async def test_the_hub_token_of_another_hub_is_not_sent(
    hub: Hub, endpoints: Endpoints, http: httpx.AsyncClient
) -> None:
    # The stand-in refuses tokens that it does not know.
    assert await resolve(source(), Credentials(hub_token="hf_other"), endpoints, http)


async def test_a_token_opens_private(hub: Hub, endpoints: Endpoints, http: httpx.AsyncClient) -> None:
    add_model(hub, "org/private", private=True)
    hub.allow("reader", "org/private")
    assert await resolve(source(model_id="org/private"), Credentials(modelscope_token="reader"), endpoints, http)
    assert hub.leaked_tokens == []


async def test_rate_limits_and_failures(hub: Hub, endpoints: Endpoints, http: httpx.AsyncClient) -> None:
    rule = hub.fail("*", RateLimit(7), on=Kind.API)
    with pytest.raises(RateLimited) as raised:
        await resolve(source(), None, endpoints, http)
    assert raised.value.retry_after == 7
    assert rule is not None
    hub.reset()
    hub.fail("*", ServerError(500))
    with pytest.raises(SourceUnavailable):
        await resolve(source(), None, endpoints, http)


@pytest.mark.parametrize(
    "body",
    [
        pytest.param({"Success": False, "Code": 500, "Data": {}}, id="a failure with status 200"),
        pytest.param({"Code": 200}, id="no data"),
        pytest.param({"Data": {"Files": [{"Type": "blob", "Path": "a", "Size": 1}]}}, id="no sha256"),
        pytest.param([], id="no object"),
    ],
)
async def test_answers_of_another_form(mock_client: MockClient, body: object) -> None:
    http = mock_client(lambda _: httpx.Response(200, json=body))
    with pytest.raises(SourceUnavailable):
        await resolve(source(), None, Endpoints(modelscope="https://ms"), http)


async def test_the_head_is_the_newest_commit_if_no_file_names_it(mock_client: MockClient) -> None:
    def blob(path: str, commit: str, at: int) -> dict[str, object]:
        sha = hashlib.sha256(path.encode()).hexdigest()
        return {"Type": "blob", "Path": path, "Size": 1, "Sha256": sha, "Revision": commit, "CommittedDate": at}

    files = [blob("a", "a" * 40, 1), blob("b", "b" * 40, 3), blob("c", "c" * 40, 2)]
    data = {"Files": files, "LatestCommitter": {"ShortId": "dddddddd"}}
    http = mock_client(lambda _: httpx.Response(200, json={"Success": True, "Data": data}))
    manifest = await resolve(source(), None, Endpoints(modelscope="https://ms"), http)
    assert manifest.revision == "b" * 40
