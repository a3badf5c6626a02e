"""The stand-in under the real `huggingface_hub` client."""

import filecmp
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest
from huggingface_hub import HfApi, hf_hub_download, snapshot_download
from huggingface_hub.errors import (
    EntryNotFoundError,
    GatedRepoError,
    HfHubHTTPError,
    RemoteEntryNotFoundError,
    RepositoryNotFoundError,
    RevisionNotFoundError,
)
from huggingface_hub.hf_api import RepoFile, RepoFolder

from dev.hub import Hub, HubThread, Kind, Repository, make_model

MEMBER, STRANGER = "hf_member", "hf_stranger"


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = make_model(tmp_path_factory.mktemp("model"), shards=3, shard_bytes=300_000)
    (folder / "onnx" / "deep").mkdir(parents=True)
    (folder / "onnx" / "deep" / "config.json").write_text("{}")
    return folder


@pytest.fixture(scope="module")
def running(model: Path) -> Iterator[HubThread]:
    hub = Hub(
        Repository.from_folder(model, id="org/model"),
        Repository.from_folder(model, id="gpt2"),
        Repository.from_folder(model, id="org/gated", gated="manual"),
        Repository.from_folder(model, id="org/private", private=True),
        page_size=4,
    )
    hub.allow(MEMBER, "org/*")
    hub.allow(STRANGER)
    with HubThread(hub) as running:
        yield running


@pytest.fixture
def hub(running: HubThread) -> Iterator[Hub]:
    running.hub.reset()
    yield running.hub
    running.hub.reset()


def api(hub: Hub, token: str | bool = False) -> HfApi:
    return HfApi(endpoint=hub.url, token=token)


@pytest.mark.parametrize("id", ["org/model", "gpt2"])
def test_model_info_lists_files_with_their_ids(hub: Hub, model: Path, id: str) -> None:
    info = api(hub).model_info(id, files_metadata=True)
    commit = hub.repositories[id].get("main")
    assert (info.id, info.sha, info.private, info.gated) == (id, commit.id, False, False)
    assert info.last_modified == commit.at
    assert info.siblings is not None
    for sibling in info.siblings:
        blob = commit.files[sibling.rfilename]
        assert (sibling.size, sibling.blob_id) == ((model / sibling.rfilename).stat().st_size, blob.oid)
        assert (sibling.lfs is not None) == sibling.rfilename.endswith(".safetensors")
        if sibling.lfs:
            assert (sibling.lfs.sha256, sibling.lfs.size) == (blob.sha256, blob.size)
            assert sibling.lfs.pointer_size == len(blob.pointer or b"")
    assert len(info.siblings) == len(commit.files)
    plain = api(hub).model_info(id).siblings
    assert plain is not None
    assert all(sibling.size is None for sibling in plain)


def test_a_tree_comes_in_pages(hub: Hub) -> None:
    commit = hub.repositories["org/model"].get("main")
    entries = list(api(hub).list_repo_tree("org/model", recursive=True, revision=commit.id))
    files = [entry for entry in entries if isinstance(entry, RepoFile)]
    folders = [entry for entry in entries if isinstance(entry, RepoFolder)]
    assert {file.path: file.blob_id for file in files} == {path: blob.oid for path, blob in commit.files.items()}
    assert {folder.path: folder.tree_id for folder in folders} == {
        path: oid for path, oid in commit.folders.items() if path
    }
    assert len(entries) == 13
    assert hub.counters.total(Kind.API).requests == 4, "thirteen entries, four to a page"


def test_a_tree_of_a_folder_and_its_last_commits(hub: Hub) -> None:
    shallow = list(api(hub).list_repo_tree("org/model", "onnx", expand=True))
    assert [(entry.path, type(entry)) for entry in shallow] == [("onnx/deep", RepoFolder)]
    assert shallow[0].last_commit is not None
    assert shallow[0].last_commit.oid == hub.repositories["org/model"].head


def test_refs_commits_and_paths_info(hub: Hub) -> None:
    refs = api(hub).list_repo_refs("org/model")
    head = hub.repositories["org/model"].head
    assert [(branch.name, branch.target_commit) for branch in refs.branches] == [("main", head)]
    assert [commit.commit_id for commit in api(hub).list_repo_commits("org/model")] == [head]
    found = api(hub).get_paths_info("org/model", ["config.json", "absent"])
    assert [entry.path for entry in found] == ["config.json"]


@pytest.mark.parametrize("token", [pytest.param(False, id="anonymous"), pytest.param(MEMBER, id="with a token")])
def test_files_arrive_whole_and_tokens_stay_on_the_hub(
    hub: Hub, model: Path, tmp_path: Path, token: str | bool
) -> None:
    for name in ("config.json", "onnx/deep/config.json", "model-00002-of-00003.safetensors"):
        path = hf_hub_download("org/model", name, endpoint=hub.url, token=token, local_dir=tmp_path)
        assert filecmp.cmp(path, model / name, shallow=False)
        assert hub.counters.total(name=f"org/model/{name}").content == (model / name).stat().st_size
    assert hub.counters.total(Kind.CDN).requests == 1
    assert hub.leaked_tokens == []


def test_a_token_sent_to_the_cdn_is_noticed(hub: Hub) -> None:
    headers = {"Authorization": f"Bearer {MEMBER}"}
    redirect = httpx.get(f"{hub.url}/org/model/resolve/main/model-00001-of-00003.safetensors", headers=headers)
    assert redirect.status_code == 302
    assert redirect.headers["location"].startswith(hub.cdn_url)
    httpx.get(redirect.headers["location"], headers=headers)
    assert hub.leaked_tokens == [f"Bearer {MEMBER}"]


def test_a_snapshot_holds_what_the_patterns_allow(hub: Hub, model: Path, tmp_path: Path) -> None:
    folder = snapshot_download(
        "org/model", endpoint=hub.url, token=False, local_dir=tmp_path, allow_patterns=["*.safetensors", "config.json"]
    )
    found = {path.relative_to(folder).as_posix() for path in Path(folder).rglob("*") if path.is_file()}
    wanted = {path.name for path in model.glob("*.safetensors")} | {"config.json"}
    assert {path for path in found if not path.startswith(".cache")} == wanted
    assert all(filecmp.cmp(tmp_path / name, model / name, shallow=False) for name in wanted)


def test_a_moved_branch_shows_and_the_old_commit_stays(tmp_path: Path, running: HubThread) -> None:
    repository = running.hub.add(Repository("org/moving"))
    first = repository.commit({"config.json": b'{"version": 1}'})
    repository.move("main", first)
    client = api(running.hub)
    assert client.model_info("org/moving").sha == first
    second = repository.commit({"config.json": b'{"version": 2}'}, base="main")
    repository.move("main", second)
    repository.move("refs/pr/1", first)
    assert client.model_info("org/moving").sha == second
    for revision, version in ((first, b"1"), ("main", b"2"), ("refs/pr/1", b"1")):
        path = hf_hub_download(
            "org/moving",
            "config.json",
            revision=revision,
            endpoint=running.url,
            token=False,
            local_dir=tmp_path / version.decode() / revision,
        )
        assert version in Path(path).read_bytes()


@pytest.mark.parametrize(
    ("id", "token", "revision", "file", "error", "status"),
    [
        pytest.param(
            "org/absent", False, "main", "config.json", RepositoryNotFoundError, 401, id="no repository, anonymous"
        ),
        pytest.param(
            "org/absent", MEMBER, "main", "config.json", RepositoryNotFoundError, 404, id="no repository, logged in"
        ),
        pytest.param(
            "org/private", False, "main", "config.json", RepositoryNotFoundError, 401, id="private, anonymous"
        ),
        pytest.param(
            "org/private", STRANGER, "main", "config.json", RepositoryNotFoundError, 404, id="private, not a member"
        ),
        pytest.param("org/gated", False, "main", "config.json", GatedRepoError, 401, id="gated, anonymous"),
        pytest.param("org/gated", STRANGER, "main", "config.json", GatedRepoError, 403, id="gated, not on the list"),
        pytest.param("org/model", False, "v9", "config.json", RevisionNotFoundError, 404, id="no revision"),
        pytest.param("org/model", False, "0" * 40, "config.json", RevisionNotFoundError, 404, id="no commit"),
        pytest.param("org/model", False, "main", "absent.json", RemoteEntryNotFoundError, 404, id="no file"),
        pytest.param("org/model", "hf_bad", "main", "config.json", HfHubHTTPError, 401, id="an unknown token"),
    ],
)
def test_refusals_are_those_of_the_hub(
    hub: Hub,
    tmp_path: Path,
    id: str,
    token: str | bool,
    revision: str,
    file: str,
    error: type[HfHubHTTPError],
    status: int,
) -> None:
    with pytest.raises(error) as raised:
        hf_hub_download(id, file, revision=revision, endpoint=hub.url, token=token, local_dir=tmp_path)
    assert type(raised.value) is error
    assert raised.value.response.status_code == status


def test_metadata_of_a_gated_repository_is_public_and_members_read_it(hub: Hub, tmp_path: Path) -> None:
    assert api(hub).model_info("org/gated").gated == "manual"
    assert hf_hub_download("org/gated", "config.json", endpoint=hub.url, token=MEMBER, local_dir=tmp_path)
    assert api(hub, MEMBER).model_info("org/private").private


def test_a_missing_file_still_names_the_commit(hub: Hub) -> None:
    response = httpx.head(f"{hub.url}/org/model/resolve/main/absent.json")
    assert response.headers["x-error-code"] == "EntryNotFound"
    assert response.headers["x-repo-commit"] == hub.repositories["org/model"].head
    with pytest.raises(EntryNotFoundError):
        list(api(hub).list_repo_tree("org/model", "absent"))


def test_a_raw_file_is_the_pointer(hub: Hub) -> None:
    name = "model-00001-of-00003.safetensors"
    text = httpx.get(f"{hub.url}/org/model/raw/main/{name}").text
    assert f"oid sha256:{hub.repositories['org/model'].get('main').files[name].sha256}" in text


def test_small_files_by_relative_redirect(model: Path, tmp_path: Path) -> None:
    repositories = [Repository.from_folder(model, id=id, gated="auto") for id in ("org/model", "gpt2")]
    hub = Hub(*repositories, resolve_cache=True)
    hub.allow(MEMBER, "*")
    with HubThread(hub):
        for repository in repositories:
            first = httpx.head(
                f"{hub.url}/{repository.id}/resolve/main/config.json", headers={"Authorization": f"Bearer {MEMBER}"}
            )
            assert first.status_code == 307
            assert first.headers["location"].startswith(f"/api/resolve-cache/models/{repository.id}/{repository.head}/")
            path = hf_hub_download(
                repository.id, "onnx/deep/config.json", endpoint=hub.url, token=MEMBER, local_dir=tmp_path
            )
            assert Path(path).read_text() == "{}"
            denied = httpx.get(f"{hub.url}/{repository.id}/resolve/main/config.json", follow_redirects=True)
            assert denied.headers["x-error-code"] == "GatedRepo"
