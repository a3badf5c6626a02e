"""Hugging Face: a revision becomes a commit and its files, against the hub stand-in on real sockets."""

import asyncio
import hashlib
from collections.abc import Callable
from pathlib import Path

import httpx
import pytest
from huggingface_hub import snapshot_download

from dev.hub import Hub, Kind, RateLimit, Refuse, Repository, ServerError
from modelswarm.api.openmodel import HubName
from modelswarm.content.credentials import Credentials
from modelswarm.content.endpoints import Endpoints, file_url
from modelswarm.content.huggingface import resolve
from modelswarm.content.manifest import ManifestFile, OriginKind
from modelswarm.content.source import HubSource
from modelswarm.errors import (
    AccessDenied,
    ContentError,
    InvalidReference,
    NothingMatches,
    RateLimited,
    RevisionNotFound,
    SourceNotFound,
    SourceUnavailable,
)
from tests.unit.content.conftest import FILES, LARGE, MockClient, add_model


def source(**fields: object) -> HubSource:
    return HubSource(**{"hub": HubName.HUGGINGFACE, "model_id": "org/model", **fields})  # type: ignore[arg-type]


def files_below(folder: Path) -> set[str]:
    return {path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file()}


def git_blob(content: bytes) -> str:
    return "git-sha1:" + hashlib.sha1(b"blob %d\0" % len(content) + content).hexdigest()


def sha256(content: bytes) -> str:
    return "sha256:" + hashlib.sha256(content).hexdigest()


async def test_a_branch_becomes_a_commit_and_its_files(hub: Hub, endpoints: Endpoints, http: httpx.AsyncClient) -> None:
    manifest = await resolve(source(), None, endpoints, http)
    assert manifest.revision == hub.repositories["org/model"].head
    assert (manifest.origin.kind, manifest.origin.id) == (OriginKind.HUGGINGFACE, "org/model")
    assert manifest.files == tuple(
        sorted(
            ManifestFile(path, len(data), sha256(data) if path.endswith(".safetensors") else git_blob(data))
            for path, data in FILES.items()
        )
    )


async def test_every_file_is_read_where_the_manifest_says(
    hub: Hub, endpoints: Endpoints, http: httpx.AsyncClient
) -> None:
    manifest = await resolve(source(), None, endpoints, http)
    for file in manifest.files:
        url = file_url(manifest.origin, manifest.revision, file.path, endpoints)
        body = (await http.get(url, follow_redirects=True)).content
        assert body == FILES[file.path]


async def test_what_snapshot_download_gets(
    hub: Hub, endpoints: Endpoints, http: httpx.AsyncClient, tmp_path: Path
) -> None:
    allow, ignore = ["*.safetensors", "onnx/", "*.txt"], ["*00001*"]
    await asyncio.to_thread(
        snapshot_download,
        "org/model",
        local_dir=tmp_path,
        endpoint=hub.url,
        token=False,
        allow_patterns=allow,
        ignore_patterns=ignore,
    )
    got = {path for path in files_below(tmp_path) if not path.startswith(".cache/")}
    manifest = await resolve(source(allow_patterns=tuple(allow), ignore_patterns=tuple(ignore)), None, endpoints, http)
    assert {file.path for file in manifest.files} == got


@pytest.mark.parametrize("revision", ["v1", "refs/pr/1", "feature/x"])
async def test_other_revisions(hub: Hub, endpoints: Endpoints, http: httpx.AsyncClient, revision: str) -> None:
    repository = hub.repositories["org/model"]
    other = repository.commit({"config.json": b"other"})
    repository.tag(revision, other)
    manifest = await resolve(source(revision=revision), None, endpoints, http)
    assert (manifest.revision, len(manifest.files)) == (other, 1)
    assert (await resolve(source(revision=other), None, endpoints, http)) == manifest


async def test_a_branch_that_moves_meanwhile_does_not_mix(hub: Hub, http: httpx.AsyncClient) -> None:
    repository = hub.repositories["org/model"]
    before = repository.head

    async def move(request: httpx.Request) -> None:
        if "/tree/" in request.url.path:
            repository.move("main", repository.commit({"config.json": b"changed"}))

    http.event_hooks["request"].append(move)
    manifest = await resolve(source(), None, Endpoints(huggingface=hub.url), http)
    assert manifest.revision == before
    assert len(manifest.files) == len(FILES)


async def test_a_filename(hub: Hub, endpoints: Endpoints, http: httpx.AsyncClient) -> None:
    manifest = await resolve(source(filename="onnx/model.onnx"), None, endpoints, http)
    assert [file.path for file in manifest.files] == ["onnx/model.onnx"]


async def test_a_repository_of_3000_files_takes_five_requests(http: httpx.AsyncClient) -> None:
    async with Hub() as hub:
        add_model(hub, "org/big", {f"parts/{index:04}.bin": b"%d" % index for index in range(3000)})
        manifest = await resolve(source(model_id="org/big"), None, Endpoints(huggingface=hub.url), http)
        assert len(manifest.files) == 3000
        assert hub.counters.total(Kind.API).requests == 5


@pytest.mark.parametrize(
    ("fields", "token", "error", "says"),
    [
        pytest.param({"model_id": "org/none"}, None, SourceNotFound, "needs a token.*modelhub-secret", id="missing"),
        pytest.param({"model_id": "org/none"}, "reader", SourceNotFound, "may not read it", id="missing with token"),
        pytest.param({"model_id": "org/private"}, None, SourceNotFound, "private", id="private, asked by nobody"),
        pytest.param({"model_id": "org/private"}, "other", SourceNotFound, "private", id="private, another token"),
        pytest.param({"revision": "v9"}, None, RevisionNotFound, "modelHub.revision", id="no such revision"),
        pytest.param({"revision": "0" * 40}, None, RevisionNotFound, "commit", id="no such commit"),
        pytest.param({"model_id": "org/gated"}, None, AccessDenied, "gated.*accept", id="gated, asked by nobody"),
        pytest.param({"model_id": "org/gated"}, "other", AccessDenied, "gated.*accept", id="gated, not on the list"),
        pytest.param({}, "revoked", AccessDenied, "invalid or expired", id="a token that is none"),
        pytest.param({"allow_patterns": ("*.bin",)}, None, NothingMatches, "allowPatterns", id="no file is left"),
        pytest.param({"allow_patterns": ()}, None, NothingMatches, "allowPatterns", id="nothing is allowed"),
        pytest.param({"filename": "x.gguf"}, None, NothingMatches, "modelHub.filename", id="no such file"),
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
    hub.allow("reader", "org/private", "org/gated")
    hub.allow("other")
    with pytest.raises(error, match=says) as raised:
        await resolve(source(**fields), Credentials(token) if token else None, endpoints, http)
    assert raised.value.reason == error.reason
    assert not raised.value.retryable
    assert (token or "-none-") not in raised.value.message.replace("reader", "-")


@pytest.mark.parametrize("name", ["org/private", "org/gated"])
async def test_a_token_opens_private_and_gated(
    hub: Hub, endpoints: Endpoints, http: httpx.AsyncClient, name: str
) -> None:
    add_model(hub, "org/private", private=True)
    add_model(hub, "org/gated", gated="auto")
    hub.allow("reader", name)
    assert (await resolve(source(model_id=name), Credentials("reader"), endpoints, http)).files
    assert hub.leaked_tokens == []


async def test_an_empty_repository_matches_nothing(hub: Hub, endpoints: Endpoints, http: httpx.AsyncClient) -> None:
    repository = hub.add(Repository("org/empty"))
    repository.move("main", repository.commit({}))
    with pytest.raises(NothingMatches, match="no files"):
        await resolve(source(model_id="org/empty"), None, endpoints, http)


async def test_rate_limits_are_told_with_the_time(hub: Hub, endpoints: Endpoints, http: httpx.AsyncClient) -> None:
    for header in ("retry-after", "ratelimit"):
        hub.reset()
        hub.fail("*", RateLimit(41, header))
        with pytest.raises(RateLimited) as raised:
            await resolve(source(), None, endpoints, http)
        assert (raised.value.retry_after, raised.value.retryable) == (41, True)
        assert hub.counters.total().requests == 1


async def test_passing_failures_do_not_show(hub: Hub, endpoints: Endpoints, http: httpx.AsyncClient) -> None:
    hub.fail("*", ServerError(502), times=1)
    hub.fail("*", Refuse(), times=1, skip=2)
    assert len((await resolve(source(), None, endpoints, http)).files) == len(FILES)


@pytest.mark.parametrize("fault", [ServerError(503), Refuse()])
async def test_lasting_failures(hub: Hub, endpoints: Endpoints, http: httpx.AsyncClient, fault: ServerError) -> None:
    hub.fail("*", fault)
    with pytest.raises(SourceUnavailable):
        await resolve(source(), None, endpoints, http)


async def test_a_hub_that_is_down(hub: Hub, endpoints: Endpoints, http: httpx.AsyncClient) -> None:
    await hub.stop()
    with pytest.raises(SourceUnavailable, match="cannot be reached"):
        await resolve(source(), None, endpoints, http)


MODEL = {"sha": "c" * 40, "gated": False}
ENTRY = {"type": "file", "path": "a", "size": 1, "oid": "b" * 40}


def answers(
    tree: object, headers: dict[str, str] | None = None, model: object = MODEL, seen: list[str] | None = None
) -> Callable[[httpx.Request], httpx.Response]:
    def answer(request: httpx.Request) -> httpx.Response:
        if seen is not None:
            seen.append(f"{request.url.host} {request.headers.get('authorization')}")
        if "/revision/" in request.url.path:
            return httpx.Response(200, json=model)
        return httpx.Response(200, json=tree, headers=headers)

    return answer


@pytest.mark.parametrize(
    ("tree", "headers", "model", "says"),
    [
        pytest.param([ENTRY], {"Link": '<https://evil/x?c=1>; rel="next"'}, MODEL, "an end", id="pages elsewhere"),
        pytest.param([ENTRY], {"Link": '<http://hub/x?c=1>; rel="next"'}, MODEL, "an end", id="pages without TLS"),
        pytest.param([ENTRY], {"Link": '<http://a:b/>; rel="next"'}, MODEL, "no URL", id="a page that is no URL"),
        pytest.param([ENTRY], {"Link": '<?cursor=1>; rel="next"'}, MODEL, "come to an end", id="pages without end"),
        pytest.param({"error": 1}, {}, MODEL, "unexpected form", id="no list"),
        pytest.param([{**ENTRY, "size": None}], {}, MODEL, "sizes or hashes", id="no size"),
        pytest.param([{**ENTRY, "oid": "x"}], {}, MODEL, "sizes or hashes", id="no blob id"),
        pytest.param([{**ENTRY, "lfs": {"size": 1}}], {}, MODEL, "sizes or hashes", id="no sha256"),
        pytest.param([ENTRY], {}, {}, "which commit", id="no commit"),
        pytest.param([ENTRY], {}, {"sha": "main"}, "which commit", id="a commit that is none"),
    ],
)
async def test_a_hub_that_answers_nonsense(
    mock_client: MockClient, tree: object, headers: dict[str, str], model: object, says: str
) -> None:
    seen: list[str] = []
    with pytest.raises(SourceUnavailable, match=says):
        await resolve(
            source(), Credentials("t"), Endpoints("https://hub"), mock_client(answers(tree, headers, model, seen))
        )
    assert set(seen) == {"hub Bearer t"}


async def test_a_mirror_that_leaves_the_links_of_the_original_in(mock_client: MockClient) -> None:
    seen: list[httpx.URL] = []

    def answer(request: httpx.Request) -> httpx.Response:
        seen.append(request.url)
        if "/revision/" in request.url.path:
            return httpx.Response(200, json=MODEL)
        if "cursor" in request.url.params:
            return httpx.Response(200, json=[{**ENTRY, "path": "b"}])
        link = f'<https://huggingface.co/api/models/org/model/tree/{"c" * 40}?recursive=true&cursor=x%2By>; rel="next"'
        return httpx.Response(200, json=[ENTRY], headers={"Link": link})

    manifest = await resolve(source(), Credentials("t"), Endpoints("https://mirror/base"), mock_client(answer))
    assert [file.path for file in manifest.files] == ["a", "b"]
    assert {url.host for url in seen} == {"mirror"}
    assert seen[-1].path.startswith("/base/api/models/org/model/tree/")
    assert seen[-1].params["cursor"] == "x+y"


async def test_a_path_that_climbs_out_is_refused(mock_client: MockClient) -> None:
    with pytest.raises(InvalidReference, match="leave"):
        await resolve(
            source(), None, Endpoints("https://hub"), mock_client(answers([{**ENTRY, "path": "../../etc/passwd"}]))
        )


@pytest.mark.parametrize(
    ("status", "headers", "token", "error"),
    [
        (401, {}, None, SourceNotFound),
        (401, {}, "t", AccessDenied),
        (401, {"X-Error-Message": "Invalid credentials in Authorization header"}, "t", AccessDenied),
        (403, {}, "t", AccessDenied),
        (403, {"X-Error-Message": "Access to this resource is disabled."}, None, AccessDenied),
        (403, {"X-Error-Code": "GatedRepo"}, "t", AccessDenied),
        (404, {}, None, SourceNotFound),
        (404, {"X-Error-Code": "RevisionNotFound"}, None, RevisionNotFound),
        (404, {"X-Error-Code": "EntryNotFound"}, None, SourceUnavailable),
        (400, {}, None, SourceUnavailable),
        (429, {"Retry-After": "1"}, None, RateLimited),
        (500, {}, None, SourceUnavailable),
    ],
)
async def test_what_a_refusal_means(
    mock_client: MockClient, status: int, headers: dict[str, str], token: str | None, error: type[ContentError]
) -> None:
    http = mock_client(lambda _: httpx.Response(status, headers=headers))
    with pytest.raises(ContentError) as raised:
        await resolve(source(), Credentials(token) if token else None, Endpoints("https://hub"), http)
    assert type(raised.value) is error


async def test_large_files_are_found_by_their_sha256(hub: Hub, endpoints: Endpoints, http: httpx.AsyncClient) -> None:
    manifest = await resolve(source(filename="model-00001-of-00002.safetensors"), None, endpoints, http)
    assert manifest.files[0].digest == sha256(LARGE)
