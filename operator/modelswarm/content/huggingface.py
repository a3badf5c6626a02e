"""The Hugging Face Hub: a branch, tag or commit becomes a commit and the list of its files.

Two requests, as ``huggingface_hub`` makes them: the model at a revision, which gives the commit, and that commit's
tree in pages of 1,000. The model's own ``siblings`` with ``blobs=true`` would be one request, but it is one unpaged
document that the Hub does not promise to be complete for large repositories, and a mirror may answer it without
sizes. The tree is read at the commit, so a branch that moves in between cannot mix two versions.
"""

import re
from collections.abc import Mapping
from urllib.parse import quote

import httpx

from modelswarm.api.labels import HUB_SECRET, HUB_SECRET_KEY
from modelswarm.content.credentials import Credentials
from modelswarm.content.endpoints import Endpoints, file_url
from modelswarm.content.fetch import Reply, fetch, number, text
from modelswarm.content.manifest import Manifest, ManifestFile, Origin, OriginKind
from modelswarm.content.patterns import select
from modelswarm.content.source import HubSource
from modelswarm.errors import (
    AccessDenied,
    ContentError,
    NothingMatches,
    RevisionNotFound,
    SourceNotFound,
    SourceUnavailable,
)

_COMMIT = re.compile(r"[0-9a-f]{40}", re.ASCII)
_SHA256 = re.compile(r"[0-9a-f]{64}", re.ASCII)
_SECRET = f"the Secret {HUB_SECRET} (key {HUB_SECRET_KEY})"
_BAD_TOKEN = "Invalid credentials in Authorization header"
MAX_PAGES = 200
"""Of a listing: 200,000 entries. More is a hub that goes round in circles."""


async def resolve(
    source: HubSource, credentials: Credentials | None, endpoints: Endpoints, http: httpx.AsyncClient
) -> Manifest:
    """The files that ``snapshot_download`` would get (``.gitattributes`` included), pinned to a commit.

    Digests are ``sha256:`` for LFS files and ``git-sha1:`` (git blob ids) for those kept in git itself.

    Raises ``SourceNotFound``, ``RevisionNotFound``, ``AccessDenied`` (also when the files are gated, which the listing
    does not show), ``NothingMatches``, ``RateLimited`` and ``SourceUnavailable``.
    """
    hub = _Hub(source, credentials, endpoints, http)
    commit, gated = await hub.pin()
    listed = await hub.list(commit)
    wanted = select(
        listed, filename=source.filename, allow_patterns=source.allow_patterns, ignore_patterns=source.ignore_patterns
    )
    if not wanted:
        raise NothingMatches(describe_nothing(source, len(listed)))
    manifest = Manifest(
        Origin(OriginKind.HUGGINGFACE, source.model_id), commit, tuple(sorted(listed[path] for path in wanted))
    )
    if gated:
        await hub.check_access(manifest)
    return manifest


def describe_nothing(source: HubSource, count: int) -> str:
    """Why a selection is empty, for a person."""
    if not count:
        return f"{source.model_id} has no files at revision {source.revision!r}"
    if source.filename is not None:
        return (
            f"{source.model_id} has no file {source.filename!r} at revision {source.revision!r}; "
            "check modelHub.filename"
        )
    return (
        f"none of the {count} files of {source.model_id} is left by allowPatterns and ignorePatterns; "
        "patterns match the whole path, and '*' also matches '/'"
    )


class _Hub:
    def __init__(
        self, source: HubSource, credentials: Credentials | None, endpoints: Endpoints, http: httpx.AsyncClient
    ) -> None:
        self._source = source
        self._endpoints = endpoints
        self._http = http
        self._api = f"{endpoints.huggingface}/api/models/{source.model_id}"
        token = credentials.hub_token if credentials else None
        self._headers = {"Authorization": f"Bearer {token}"} if token else {}

    async def pin(self) -> tuple[str, bool]:
        """The commit that the revision is now, and whether reading the files needs somebody's permission."""
        model = (await self._get(f"{self._api}/revision/{quote(self._source.revision, safe='')}")).json_object()
        commit = text(model, "sha")
        if commit is None or not _COMMIT.fullmatch(commit):
            raise SourceUnavailable(
                f"{self._endpoints.huggingface} did not say which commit {self._source.revision!r} is"
            )
        return commit, bool(model.get("gated"))

    async def list(self, commit: str) -> dict[str, ManifestFile]:
        url = httpx.URL(f"{self._api}/tree/{commit}", params={"recursive": "true"})
        files: dict[str, ManifestFile] = {}
        for _ in range(MAX_PAGES):
            reply = await self._get(url)
            entries = reply.json()
            if not isinstance(entries, list):
                raise SourceUnavailable(f"{url.host} answered a listing of an unexpected form; check the endpoint")
            for entry in entries:
                if isinstance(entry, dict) and entry.get("type") == "file":
                    file = self._file(entry)
                    files[file.path] = file
            query = _next_page(reply)
            if query is None:
                return files
            # Only the query is taken from the link: the token stays with this host, and a mirror that leaves the
            # original's links in still works.
            url = url.copy_with(query=query)
        raise SourceUnavailable(f"{url.host} does not come to an end of its listing of {self._source.model_id}")

    def _file(self, entry: Mapping[str, object]) -> ManifestFile:
        path, size, blob = text(entry, "path"), number(entry, "size"), text(entry, "oid")
        lfs = entry.get("lfs")
        if isinstance(lfs, dict):
            size, sha256 = number(lfs, "size"), text(lfs, "oid") or text(lfs, "sha256") or ""
            digest = f"sha256:{sha256}" if _SHA256.fullmatch(sha256) else None
        else:
            digest = f"git-sha1:{blob}" if blob is not None and _COMMIT.fullmatch(blob) else None
        if path is None or size is None or digest is None:
            raise SourceUnavailable(
                f"{self._endpoints.huggingface} lists {self._source.model_id} without sizes or hashes; "
                "a mirror that leaves them out cannot be used"
            )
        return ManifestFile(path, size, digest)

    async def check_access(self, manifest: Manifest) -> None:
        """Ask for one file's headers: metadata of a gated repository is public, its files are not."""
        url = file_url(manifest.origin, manifest.revision, manifest.files[0].path, self._endpoints)
        reply = await fetch(self._http, "HEAD", url, headers=self._headers, follow_redirects=False)
        if reply.status >= 400:
            raise self._refused(reply)

    async def _get(self, url: str | httpx.URL) -> Reply:
        reply = await fetch(self._http, "GET", url, headers=self._headers)
        if not reply.is_success:
            raise self._refused(reply)
        return reply

    def _refused(self, reply: Reply) -> ContentError:
        """The Hub says what is wrong in ``X-Error-Code``; to strangers it answers 401 for missing and private alike."""
        name, hub = self._source.model_id, self._endpoints.huggingface
        code, message = reply.headers.get("x-error-code", ""), reply.headers.get("x-error-message", "")
        has_token = bool(self._headers)
        match reply.status, code:
            case _, "GatedRepo":
                return AccessDenied(
                    f"{name} is gated: accept its conditions on {hub}/{name} "
                    f"and put a token of that account into {_SECRET}"
                )
            case _, "RevisionNotFound":
                return RevisionNotFound(
                    f"{name} has no branch, tag or commit {self._source.revision!r}; check modelHub.revision"
                )
            case _, "EntryNotFound":
                return SourceUnavailable(f"{name} lacks a file that it lists; the hub or the mirror is inconsistent")
            case 401, _ if message == _BAD_TOKEN or (has_token and code != "RepoNotFound"):
                return AccessDenied(f"{hub} refuses the token in {_SECRET}; it is invalid or expired, replace it")
            case (401 | 404, _) | (_, "RepoNotFound"):
                hint = f"the token in {_SECRET} may not read it" if has_token else f"needs a token in {_SECRET}"
                return SourceNotFound(f"{name} does not exist on {hub}, or it is private and {hint}")
            case 403, _:
                return AccessDenied(
                    f"{hub} does not let {f'the token in {_SECRET}' if has_token else 'us'} read {name}"
                )
        return SourceUnavailable(f"{hub} answers with HTTP {reply.status} for {name}")


def _next_page(reply: Reply) -> bytes | None:
    """The query of the link to the next page."""
    link = httpx.Response(200, headers=reply.headers).links.get("next", {}).get("url")
    try:
        return reply.url.join(link).query if link else None
    except httpx.InvalidURL:
        raise SourceUnavailable(f"{reply.url.host} links to a next page that is no URL") from None
