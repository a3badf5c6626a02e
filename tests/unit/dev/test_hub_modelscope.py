"""The stand-in as ModelScope."""

import hashlib
from collections.abc import AsyncIterator

import httpx
import pytest

from dev.hub import Hub, RangeAsOk, Repository

FILES = {
    ".gitattributes": b"*.gguf filter=lfs -text\n",
    "config.json": b"{}",
    "nested/deep/w.gguf": bytes(range(200)),
}


@pytest.fixture
async def hub() -> AsyncIterator[Hub]:
    repository = Repository("org/model")
    repository.move("main", repository.commit(FILES))
    gated = Repository("org/gated", gated="manual")
    gated.move("main", gated.commit(FILES))
    async with Hub(repository, gated) as hub:
        hub.allow("ms-member", "org/gated")
        yield hub


@pytest.fixture
async def client(hub: Hub) -> AsyncIterator[httpx.AsyncClient]:
    async with httpx.AsyncClient(base_url=f"{hub.url}/api/v1/models", follow_redirects=True) as client:
        yield client


async def test_the_file_list_names_hashes_and_the_head_commit(hub: Hub, client: httpx.AsyncClient) -> None:
    body = (await client.get("/org/model/repo/files", params={"Revision": "master", "Recursive": "True"})).json()
    assert (body["Code"], body["Success"], body["Message"]) == (200, True, "success")
    assert body["RequestId"]
    head = hub.repositories["org/model"].head
    assert body["Data"]["LatestCommitter"]["ShortId"] == head[:8]
    entries = {entry["Path"]: entry for entry in body["Data"]["Files"]}
    assert set(entries) == {*FILES, "nested", "nested/deep"}
    for path, content in FILES.items():
        entry = entries[path]
        assert (entry["Type"], entry["Size"], entry["Name"]) == ("blob", len(content), path.rpartition("/")[2])
        assert entry["Sha256"] == hashlib.sha256(content).hexdigest()
        assert entry["IsLFS"] == path.endswith(".gguf")
        assert entry["Revision"] == head
    assert entries["nested"]["Type"] == "tree"


@pytest.mark.parametrize(
    ("params", "paths"),
    [
        pytest.param({}, [".gitattributes", "config.json", "nested"], id="the top folder"),
        pytest.param({"Root": "nested"}, ["nested/deep"], id="one folder"),
        pytest.param(
            {"Root": "nested", "Recursive": "true"}, ["nested/deep", "nested/deep/w.gguf"], id="a folder and below"
        ),
    ],
)
async def test_what_a_list_covers(client: httpx.AsyncClient, params: dict[str, str], paths: list[str]) -> None:
    body = (await client.get("/org/model/repo/files", params=params)).json()
    assert [entry["Path"] for entry in body["Data"]["Files"]] == paths


async def test_a_file_keeps_the_revision_that_changed_it(hub: Hub, client: httpx.AsyncClient) -> None:
    repository = hub.repositories["org/model"]
    first = repository.head
    second = repository.commit({"config.json": b"[]"}, base="main")
    repository.move("main", second)
    body = (await client.get("/org/model/repo/files", params={"Recursive": "true"})).json()
    revisions = {entry["Path"]: entry["Revision"] for entry in body["Data"]["Files"] if entry["Type"] == "blob"}
    assert revisions == {".gitattributes": first, "config.json": second, "nested/deep/w.gguf": first}
    old = await client.get("/org/model/repo", params={"Revision": first, "FilePath": "config.json"})
    assert old.content == b"{}"


@pytest.mark.parametrize("revision", ["main", "v9"])
async def test_an_unknown_revision_is_a_success_without_files(client: httpx.AsyncClient, revision: str) -> None:
    response = await client.get("/org/model/repo/files", params={"Revision": revision})
    assert response.status_code == 200
    assert response.json()["Success"]
    assert response.json()["Data"]["Files"] is None


async def test_revisions_name_the_default_branch_master(hub: Hub, client: httpx.AsyncClient) -> None:
    repository = hub.repositories["org/model"]
    repository.tag("v1.0", repository.head)
    found = (await client.get("/org/model/revisions")).json()["Data"]["RevisionMap"]
    assert [branch["Revision"] for branch in found["Branches"]] == ["master"]
    assert [tag["Revision"] for tag in found["Tags"]] == ["v1.0"]
    assert (await client.get("/org/model/repo/files", params={"Revision": "v1.0"})).json()["Data"]["Files"]


async def test_a_list_is_cut_without_a_word() -> None:
    repository = Repository("org/wide")
    repository.move("main", repository.commit({f"{number:03}.txt": b"" for number in range(20)}))
    async with Hub(repository, list_limit=7) as hub, httpx.AsyncClient(base_url=hub.url) as client:
        body = (await client.get("/api/v1/models/org/wide/repo/files", params={"Recursive": "True"})).json()
    assert len(body["Data"]["Files"]) == 7
    assert body["Success"]


@pytest.mark.parametrize("path", ["config.json", "nested/deep/w.gguf"])
async def test_downloads_by_both_urls_and_with_ranges(hub: Hub, client: httpx.AsyncClient, path: str) -> None:
    params = {"Revision": "master", "FilePath": path}
    whole = await client.get("/org/model/repo", params=params)
    assert whole.content == FILES[path]
    assert (await client.get(f"{hub.url}/models/org/model/resolve/master/{path}")).content == FILES[path]
    part = await client.get("/org/model/repo", params=params, headers={"Range": "bytes=1-"})
    assert (part.status_code, part.content) == (206, FILES[path][1:])
    hub.fail("*", RangeAsOk())
    part = await client.get("/org/model/repo", params=params, headers={"Range": "bytes=1-"})
    assert (part.status_code, part.content) == (200, FILES[path][1:])
    assert part.headers["content-range"].startswith("bytes 1-")


@pytest.mark.parametrize(
    ("url", "token", "status", "code"),
    [
        pytest.param("/org/absent/repo/files", None, 404, 10010205001, id="no repository"),
        pytest.param("/org/model/repo?FilePath=absent", None, 404, 10990101007, id="no file"),
        pytest.param("/org/model/repo?FilePath=config.json&Revision=main", None, 404, 10990101007, id="no revision"),
        pytest.param("/org/gated/repo?FilePath=config.json", None, 403, 10010103001, id="gated"),
        pytest.param("/org/model/revisions", "ms-bad", 401, 10010103009, id="an unknown token"),
    ],
)
async def test_failures_come_in_the_envelope(
    client: httpx.AsyncClient, url: str, token: str | None, status: int, code: int
) -> None:
    response = await client.get(url, headers={"Authorization": f"Bearer {token}"} if token else {})
    body = response.json()
    assert (response.status_code, body["Code"], body["Success"]) == (status, code, False)
    assert body["Message"]


async def test_a_token_may_come_as_the_session_cookie(client: httpx.AsyncClient) -> None:
    url = "/org/gated/repo?FilePath=config.json"
    assert (await client.get(url, headers={"Authorization": "Bearer ms-member"})).content == b"{}"
    assert (await client.get(url, headers={"Cookie": "m_session_id=ms-member"})).content == b"{}"
