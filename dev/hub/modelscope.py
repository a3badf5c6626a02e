"""ModelScope: its JSON envelope, its file list and its downloads, with the habits clients trip over.

What was observed of the real service and is kept: the default branch is `master`; a file list for a
revision that does not exist is a success without files; a list is cut at 3000 entries without a word; the
head commit shows only as the first digits in `LatestCommitter` and as the `Revision` of the files it
touched.
"""

from collections.abc import Mapping, Sequence
from urllib.parse import quote
from uuid import uuid4

from dev.hub.access import Tokens
from dev.hub.answers import Answer, Call, JsonValue, Kind, json_answer
from dev.hub.links import Links
from dev.hub.repository import Blob, Commit, Repository

MASTER = "master"
LIST_LIMIT = 3000

_NO_RECORD = 10010205001
_NO_FILE = 10990101007
_NO_LOGIN = 10010103009
_FORBIDDEN = 10010103001


class ModelScope:
    """Answers for `/api/v1/models/...` and `/models/<id>/resolve/...`."""

    def __init__(
        self, repositories: Mapping[str, Repository], tokens: Tokens, links: Links, *, list_limit: int = LIST_LIMIT
    ) -> None:
        self._repositories = repositories
        self._tokens = tokens
        self._links = links
        self._list_limit = list_limit

    def answer(self, call: Call) -> Answer | None:
        """The answer, or None for a request that is not one of ModelScope's."""
        match call.segments:
            case ("api", "v1", "models", owner, name, *verb):
                id = f"{owner}/{name}"
                downloads = verb == ["repo"] or verb[:1] == ["resolve"]
            case ("models", owner, name, "resolve", *rest):
                id, verb, downloads = f"{owner}/{name}", ["resolve", *rest], True
            case _:
                return None
        kind = Kind.RESOLVE if downloads else Kind.API
        repository, refusal = self._admit(kind, call, id)
        if repository is None:
            return refusal
        match verb:
            case []:
                return success(_model_json(repository), id)
            case ["revisions"]:
                return success({"RevisionMap": self._revisions(repository)}, id)
            case ["repo", "files"]:
                return self._list(call, repository)
            case ["repo"]:
                return self._download(repository, call.query.get("Revision"), call.query.get("FilePath", ""))
            case ["resolve", revision, *path]:
                return self._download(repository, revision, "/".join(path))
            case _:
                return failure(Kind.API, 404, 404, "not found")

    def _admit(self, kind: Kind, call: Call, id: str) -> tuple[Repository | None, Answer]:
        repository = self._repositories.get(id)
        allowed = self._tokens.may_read(call.token, id)
        if call.token is not None and not self._tokens.knows(call.token):
            return None, failure(kind, 401, _NO_LOGIN, "AccessToken is invalid or expired")
        if repository is None or (repository.private and not allowed):
            return None, failure(kind, 404, _NO_RECORD, "record not found")
        if repository.gated and kind is Kind.RESOLVE and not allowed:
            return None, failure(kind, 403, _FORBIDDEN, f"no permission to access {id}, apply for it first")
        return repository, failure(kind, 404, _NO_RECORD, "record not found")

    def _commit(self, repository: Repository, revision: str | None) -> Commit | None:
        if not revision or revision == MASTER:
            return repository.resolve(MASTER) or repository.get(repository.default_branch)
        if revision == repository.default_branch:
            # The default branch goes by `master` here; "main" is no more known than any other wrong name.
            return None
        return repository.resolve(revision)

    def _revisions(self, repository: Repository) -> dict[str, JsonValue]:
        def listed(names: Mapping[str, str]) -> list[JsonValue]:
            return [
                {
                    "Revision": MASTER if name == repository.default_branch else name,
                    "CreatedAt": int(repository.commits[commit].at.timestamp()),
                }
                for name, commit in names.items()
            ]

        return {"Branches": listed(repository.branches), "Tags": listed(repository.tags)}

    def _list(self, call: Call, repository: Repository) -> Answer:
        commit = self._commit(repository, call.query.get("Revision"))
        if commit is None:
            return success({"Files": None, "IsVisual": 0, "LatestCommitter": None}, repository.id)
        root = call.query.get("Root", "").strip("/")
        recursive = call.query.get("Recursive", "").lower() in ("true", "1")
        inside = f"{root}/" if root else ""
        paths = sorted(path for path in (*commit.files, *commit.folders) if path and path.startswith(inside))
        shown = [path for path in paths if recursive or "/" not in path.removeprefix(inside)]
        files: Sequence[JsonValue] = [_file_json(commit, path) for path in shown[: self._list_limit]]
        latest: dict[str, JsonValue] = {
            "Id": "",
            "ShortId": commit.id[:8],
            "Title": commit.message,
            "Message": commit.message,
            "CommitterName": "stand-in",
            "CommittedDate": int(commit.at.timestamp()),
        }
        return success({"Files": files or None, "IsVisual": 0, "LatestCommitter": latest}, repository.id)

    def _download(self, repository: Repository, revision: str | None, path: str) -> Answer:
        commit = self._commit(repository, revision)
        blob = commit.files.get(path) if commit else None
        if commit is None or blob is None:
            return failure(Kind.RESOLVE, 404, _NO_FILE, f"file {path} not found")
        name = f"{repository.id}/{path}"
        if blob.is_lfs:
            location = self._links.issue(repository.id, path, blob)
            return Answer(Kind.RESOLVE, 302, b"", "text/html", {"Location": location}, name)
        disposition = {"Content-Disposition": f"attachment; filename*=UTF-8''{quote(path.rpartition('/')[2])}"}
        return Answer(Kind.RESOLVE, 200, blob, "application/octet-stream", disposition, name, blob.sha256)


def success(data: JsonValue, name: str) -> Answer:
    """The envelope of an answer."""
    body: dict[str, JsonValue] = {
        "Code": 200,
        "Data": data,
        "Message": "success",
        "RequestId": str(uuid4()),
        "Success": True,
    }
    return json_answer(Kind.API, body, name=name)


def failure(kind: Kind, status: int, code: int, message: str) -> Answer:
    """The envelope of a failure. `Code` is the service's own number, not the status."""
    body: dict[str, JsonValue] = {
        "Code": code,
        "Message": message,
        "RequestId": str(uuid4()),
        "Success": False,
    }
    return json_answer(kind, body, status=status)


def _model_json(repository: Repository) -> dict[str, JsonValue]:
    owner, _, name = repository.id.rpartition("/")
    commit = repository.get(repository.default_branch)
    return {
        "Path": owner,
        "Name": name,
        "Revision": MASTER,
        "LastUpdatedTime": int(commit.at.timestamp()),
        "StorageSize": sum(blob.size for blob in commit.files.values()),
    }


def _file_json(commit: Commit, path: str) -> dict[str, JsonValue]:
    blob: Blob | None = commit.files.get(path)
    return {
        "CommitMessage": commit.message,
        "CommittedDate": int(commit.at.timestamp()),
        "CommitterName": "stand-in",
        "InCheck": False,
        "IsLFS": blob is not None and blob.is_lfs,
        "Mode": "33188" if blob else "16384",
        "Name": path.rpartition("/")[2],
        "Path": path,
        "Revision": commit.touched.get(path, commit.id),
        "Sha256": blob.sha256 if blob else "",
        "Size": blob.size if blob else 0,
        "Type": "blob" if blob else "tree",
    }
