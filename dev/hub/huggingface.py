"""The Hugging Face Hub: metadata API, paged trees, and files by redirect, as `huggingface_hub` reads them."""

import hashlib
import json
from base64 import urlsafe_b64decode, urlsafe_b64encode
from collections.abc import Iterator, Mapping, Sequence
from datetime import datetime
from urllib.parse import quote, urlencode

from dev.hub.access import Tokens
from dev.hub.answers import Answer, Call, JsonValue, Kind, json_answer
from dev.hub.links import Links
from dev.hub.repository import Blob, Commit, Repository

_EXPANDED_PAGE = 50
_VERBS = frozenset({"revision", "tree", "refs", "commits", "paths-info", "resolve", "raw"})


class _Refusal(Exception):
    def __init__(self, answer: Answer) -> None:
        super().__init__(answer.status)
        self.answer = answer


def refuse(kind: Kind, status: int, code: str | None, message: str, commit: str | None = None) -> _Refusal:
    """An error as the hub words it: the code and message clients act on are in headers, also for HEAD."""
    headers = {"X-Error-Message": message}
    if code:
        headers["X-Error-Code"] = code
    if commit:
        headers["X-Repo-Commit"] = commit
    if status == 401:
        headers["WWW-Authenticate"] = 'Bearer realm="Authentication required", charset="UTF-8"'
    return _Refusal(json_answer(kind, {"error": message}, status=status, headers=headers))


class HuggingFace:
    """Answers for `/api/models/...`, `/<id>/resolve/...` and `/<id>/raw/...`.

    With `resolve_cache`, small files are answered as the Hub does since 2025: a relative 307 to
    `/api/resolve-cache/...` that a client has to follow with its token.
    """

    def __init__(
        self,
        repositories: Mapping[str, Repository],
        tokens: Tokens,
        links: Links,
        *,
        page_size: int = 1000,
        resolve_cache: bool = False,
    ) -> None:
        self.origin = ""
        self._repositories = repositories
        self._tokens = tokens
        self._links = links
        self._page_size = page_size
        self._resolve_cache = resolve_cache

    def answer(self, call: Call) -> Answer:
        """The hub's answer; requests that are none of its own get its 404."""
        try:
            match call.segments:
                case ("api", "whoami-v2"):
                    return self._whoami(call)
                case ("api", "resolve-cache", "models", *rest):
                    return self._resolve_cached(call, rest)
                case ("api", "models", *rest):
                    return self._api(call, rest)
                case _:
                    return self._file(call)
        except _Refusal as refusal:
            return refusal.answer

    def _whoami(self, call: Call) -> Answer:
        if call.token is None or not self._tokens.knows(call.token):
            raise refuse(Kind.API, 401, None, "Invalid credentials in Authorization header")
        return json_answer(Kind.API, {"type": "user", "name": "stand-in", "auth": {"type": "access_token"}})

    def _api(self, call: Call, rest: Sequence[str]) -> Answer:
        id, verb, tail = _split_id(rest)
        repository = self._repository(Kind.API, id, call.token)
        if verb == "refs":
            return json_answer(Kind.API, _refs(repository), name=id)
        commit = self._commit(Kind.API, repository, tail[0] if tail else repository.default_branch)
        if verb in ("", "revision"):
            return json_answer(Kind.API, model_json(repository, commit, blobs=_flag(call, "blobs")), name=id)
        if verb == "tree":
            return self._tree(call, repository, commit, "/".join(tail[1:]).strip("/"), tail[0])
        if verb == "paths-info":
            paths = call.form.get("paths", ())
            entries = [e for e in tree_entries(commit, "", recursive=True, expand=False) if e["path"] in paths]
            return json_answer(Kind.API, entries, name=id)
        if verb == "commits":
            listed = [_commit_json(found) for found in reversed(repository.commits.values()) if found.at <= commit.at]
            return json_answer(Kind.API, listed, headers={"X-Total-Count": str(len(listed))}, name=id)
        raise refuse(Kind.API, 404, None, "Sorry, we can't find the page you are looking for.")

    def _tree(self, call: Call, repository: Repository, commit: Commit, folder: str, revision: str) -> Answer:
        if folder not in commit.folders:
            message = f'{folder} does not exist on "{revision}"'
            raise refuse(Kind.API, 404, "EntryNotFound", message, commit.id)
        expand = _flag(call, "expand")
        most = min(self._page_size, _EXPANDED_PAGE) if expand else self._page_size
        asked = call.query.get("limit", "")
        limit = min(int(asked), most) if asked.isdigit() and int(asked) > 0 else most
        entries = list(tree_entries(commit, folder, recursive=_flag(call, "recursive"), expand=expand))
        start = 0
        if cursor := call.query.get("cursor"):
            try:
                after = json.loads(urlsafe_b64decode(cursor))["file_name"]
            except (ValueError, KeyError, TypeError):
                raise refuse(Kind.API, 400, None, "Invalid cursor") from None
            start = next((at + 1 for at, entry in enumerate(entries) if entry["path"] == after), len(entries))
        page = entries[start : start + limit]
        headers: dict[str, str] = {}
        if start + limit < len(entries):
            cursor = urlsafe_b64encode(json.dumps({"file_name": page[-1]["path"]}).encode()).decode()
            query = urlencode({**call.query, "limit": str(limit), "cursor": cursor})
            path = "/".join(quote(segment, safe="") for segment in call.segments)
            headers["Link"] = f'<{self.origin}/{path}?{query}>; rel="next"'
        return json_answer(Kind.API, page, headers=headers, name=repository.id)

    def _file(self, call: Call) -> Answer:
        id, verb, tail = _split_id(call.segments)
        if verb not in ("resolve", "raw") or len(tail) < 2:
            raise refuse(Kind.API, 404, None, "Sorry, we can't find the page you are looking for.")
        repository, commit, path, blob = self._entry(call, id, tail[0], "/".join(tail[1:]))
        if verb == "raw" and blob.pointer is not None:
            return Answer(
                Kind.RESOLVE, body=blob.pointer, content_type="text/plain", etag=blob.oid, name=f"{id}/{path}"
            )
        if verb == "resolve" and blob.is_lfs:
            return self._redirect(
                repository, commit, path, blob, 302, self._links.issue(id, path, blob), linked=blob.sha256
            )
        if verb == "resolve" and self._resolve_cache:
            target = f"/api/resolve-cache/models/{quote(id)}/{commit.id}/{quote(path)}"
            etag = quote('"' + blob.oid + '"', safe="")
            return self._redirect(
                repository,
                commit,
                path,
                blob,
                307,
                f"{target}?{quote('/' + id, safe='')}=&etag={etag}",
                linked=blob.oid,
            )
        return _direct(repository, commit, path, blob)

    def _resolve_cached(self, call: Call, rest: Sequence[str]) -> Answer:
        width = next((at for at, part in enumerate(rest[:3]) if len(part) == 40 and at), 0)
        if not width or len(rest) < width + 2:
            raise refuse(Kind.RESOLVE, 404, "EntryNotFound", "Entry not found")
        entry = self._entry(call, "/".join(rest[:width]), rest[width], "/".join(rest[width + 1 :]))
        return _direct(*entry)

    def _redirect(
        self, repository: Repository, commit: Commit, path: str, blob: Blob, status: int, location: str, *, linked: str
    ) -> Answer:
        headers = {
            "Location": location,
            "X-Repo-Commit": commit.id,
            "X-Linked-ETag": f'"{linked}"',
            "X-Linked-Size": str(blob.size),
            "Accept-Ranges": "bytes",
            "Vary": "Origin, Accept",
        }
        words = {302: "Found", 307: "Temporary Redirect"}[status]
        body = f"{words}. Redirecting to {location}".encode()
        return Answer(Kind.RESOLVE, status, body, "text/plain; charset=utf-8", headers, f"{repository.id}/{path}")

    def _entry(self, call: Call, id: str, revision: str, path: str) -> tuple[Repository, Commit, str, Blob]:
        repository = self._repository(Kind.RESOLVE, id, call.token)
        if repository.gated and not self._tokens.may_read(call.token, id):
            message = f"Access to model {id} is restricted"
            if call.token is None:
                message += ". You must have access to it and be authenticated to access it. Please log in."
                raise refuse(Kind.RESOLVE, 401, "GatedRepo", message)
            message += f" and you are not in the authorized list. Visit {self.origin}/{id} to ask for access."
            raise refuse(Kind.RESOLVE, 403, "GatedRepo", message)
        commit = self._commit(Kind.RESOLVE, repository, revision)
        blob = commit.files.get(path)
        if blob is None:
            raise refuse(Kind.RESOLVE, 404, "EntryNotFound", "Entry not found", commit.id)
        return repository, commit, path, blob

    def _repository(self, kind: Kind, id: str, token: str | None) -> Repository:
        if token is not None and not self._tokens.knows(token):
            raise refuse(kind, 401, None, "Invalid credentials in Authorization header")
        repository = self._repositories.get(id)
        if repository is None or (repository.private and not self._tokens.may_read(token, id)):
            # The Hub does not tell a stranger whether a repository exists.
            if token is None:
                raise refuse(kind, 401, "RepoNotFound", "Invalid username or password.")
            raise refuse(kind, 404, "RepoNotFound", "Repository not found")
        return repository

    def _commit(self, kind: Kind, repository: Repository, revision: str) -> Commit:
        commit = repository.resolve(revision)
        if commit is None:
            raise refuse(kind, 404, "RevisionNotFound", f"Invalid rev id: {revision}")
        return commit


def _direct(repository: Repository, commit: Commit, path: str, blob: Blob) -> Answer:
    filename = path.rpartition("/")[2]
    headers = {
        "X-Repo-Commit": commit.id,
        "Content-Disposition": f"inline; filename*=UTF-8''{quote(filename)}; filename=\"{filename}\";",
    }
    return Answer(
        Kind.RESOLVE,
        body=blob,
        content_type="text/plain; charset=utf-8",
        headers=headers,
        name=f"{repository.id}/{path}",
        etag=blob.oid,
    )


def _split_id(segments: Sequence[str]) -> tuple[str, str, Sequence[str]]:
    """The id, which has one part or two, the verb after it and what follows that."""
    for width in (1, 2):
        if len(segments) > width and segments[width] in _VERBS:
            return "/".join(segments[:width]), segments[width], segments[width + 1 :]
    return "/".join(segments), "", ()


def _flag(call: Call, name: str) -> bool:
    return call.query.get(name, "").lower() in ("1", "true")


def _time(at: datetime) -> str:
    return at.strftime("%Y-%m-%dT%H:%M:%S.000Z")


def model_json(repository: Repository, commit: Commit, *, blobs: bool) -> dict[str, JsonValue]:
    """What `/api/models/<id>` says; sizes and hashes of the files only when `blobs` are asked for."""
    siblings: list[JsonValue] = []
    for path, blob in commit.files.items():
        sibling: dict[str, JsonValue] = {"rfilename": path}
        if blobs:
            sibling |= {"blobId": blob.oid, "size": blob.size}
            if blob.pointer is not None:
                sibling["lfs"] = {"sha256": blob.sha256, "size": blob.size, "pointerSize": len(blob.pointer)}
        siblings.append(sibling)
    namespace, _, _ = repository.id.rpartition("/")
    first = next(iter(repository.commits.values()))
    return {
        "_id": hashlib.sha256(repository.id.encode()).hexdigest()[:24],
        "id": repository.id,
        "modelId": repository.id,
        **({"author": namespace} if namespace else {}),
        "sha": commit.id,
        "createdAt": _time(first.at),
        "lastModified": _time(commit.at),
        "private": repository.private,
        "gated": repository.gated,
        "disabled": False,
        "downloads": 0,
        "likes": 0,
        "tags": [],
        "siblings": siblings,
        "spaces": [],
        "usedStorage": sum(blob.size for blob in commit.files.values()),
    }


def tree_entries(commit: Commit, folder: str, *, recursive: bool, expand: bool) -> Iterator[dict[str, JsonValue]]:
    """Files and folders under `folder`, by path; folders are listed too, also when listing recursively."""
    inside = f"{folder}/" if folder else ""
    paths = [path for path in (*commit.files, *commit.folders) if path and path.startswith(inside)]
    for path in sorted(paths):
        if not recursive and "/" in path.removeprefix(inside):
            continue
        blob = commit.files.get(path)
        entry: dict[str, JsonValue]
        if blob is None:
            entry = {"type": "directory", "oid": commit.folders[path], "size": 0, "path": path}
        else:
            entry = {"type": "file", "oid": blob.oid, "size": blob.size, "path": path}
            if blob.pointer is not None:
                entry["lfs"] = {"oid": blob.sha256, "size": blob.size, "pointerSize": len(blob.pointer)}
        if expand:
            entry["lastCommit"] = {
                "id": commit.touched.get(path, commit.id),
                "title": commit.message,
                "date": _time(commit.at),
            }
        yield entry


def _commit_json(commit: Commit) -> dict[str, JsonValue]:
    author: dict[str, JsonValue] = {"user": "stand-in"}
    return {
        "id": commit.id,
        "title": commit.message,
        "message": "",
        "authors": [author],
        "date": _time(commit.at),
    }


def _refs(repository: Repository) -> dict[str, JsonValue]:
    def listed(kind: str, names: Mapping[str, str]) -> list[JsonValue]:
        return [{"name": name, "ref": f"refs/{kind}/{name}", "targetCommit": commit} for name, commit in names.items()]

    return {"branches": listed("heads", repository.branches), "converts": [], "tags": listed("tags", repository.tags)}
