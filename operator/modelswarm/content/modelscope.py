"""ModelScope: a branch, tag or commit becomes a commit and the list of its files.

The service names the head commit only by its first digits (``LatestCommitter.ShortId``), and each file by the commit
that touched it last (``Revision``). The newest of those commits holds every listed file with exactly the listed
content, so that is what a source is pinned to.
"""

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from urllib.parse import urlencode

import httpx

from modelswarm.content.credentials import Credentials
from modelswarm.content.endpoints import Endpoints, file_url
from modelswarm.content.fetch import Reply, fetch, number, text
from modelswarm.content.huggingface import describe_nothing
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
DEFAULT_BRANCH = "master"
LIST_LIMIT = 3000
"""Entries after which the service cuts a list without saying so; such a list is read again, folder by folder."""
MAX_LISTINGS = 1000


async def resolve(
    source: HubSource,
    credentials: Credentials | None,
    endpoints: Endpoints,
    http: httpx.AsyncClient,
    *,
    list_limit: int = LIST_LIMIT,
) -> Manifest:
    """The files of a repository, pinned to a commit, with ``sha256:`` digests.

    Revision ``main`` (the OpenModel's default, made for Hugging Face) falls back to ``master``, this hub's default
    branch, where there is no ``main``.

    Raises ``SourceNotFound``, ``RevisionNotFound``, ``AccessDenied``, ``NothingMatches``, ``RateLimited`` and
    ``SourceUnavailable``.
    """
    hub = _Hub(source, credentials, endpoints, http, list_limit)
    listing = await hub.read(source.revision)
    if listing is None and source.revision == "main":
        listing = await hub.read(DEFAULT_BRANCH)
    if listing is None:
        # The service lists a missing repository as an error, but a missing revision as a success without files.
        raise RevisionNotFound(f"{source.model_id} has no branch, tag or commit {source.revision!r} on ModelScope")
    wanted = select(
        listing.files,
        filename=source.filename,
        allow_patterns=source.allow_patterns,
        ignore_patterns=source.ignore_patterns,
    )
    if not wanted:
        raise NothingMatches(describe_nothing(source, len(listing.files)))
    manifest = Manifest(
        Origin(OriginKind.MODELSCOPE, source.model_id),
        listing.commit,
        tuple(sorted(listing.files[path] for path in wanted)),
    )
    await hub.check_access(manifest)
    return manifest


@dataclass(frozen=True, slots=True)
class _Listing:
    commit: str
    files: Mapping[str, ManifestFile]


class _Hub:
    def __init__(
        self,
        source: HubSource,
        credentials: Credentials | None,
        endpoints: Endpoints,
        http: httpx.AsyncClient,
        list_limit: int,
    ) -> None:
        self._source = source
        self._endpoints = endpoints
        self._http = http
        self._list_limit = list_limit
        self._listings = 0
        token = credentials.modelscope_token if credentials else None
        self._headers = {"Authorization": f"Bearer {token}"} if token else {}

    async def read(self, revision: str) -> _Listing | None:
        """Everything at ``revision``, or None if there is no such revision."""
        data = await self._list_folder(revision, "", recursive=True)
        entries = _entries(data)
        if not entries and not await self._is_known(revision):
            return None
        if len(entries) >= self._list_limit:
            entries = await self._walk(revision, "")
        blobs = [entry for entry in entries if entry.get("Type") == "blob"]
        files = {file.path: file for file in map(self._file, blobs)}
        pinned = revision if _COMMIT.fullmatch(revision) else _newest_commit(blobs, data)
        return _Listing(pinned or revision, files)

    async def _walk(self, revision: str, root: str) -> list[Mapping[str, object]]:
        entries = _entries(await self._list_folder(revision, root, recursive=False))
        if len(entries) >= self._list_limit:
            raise SourceUnavailable(
                f"{self._source.model_id} has {self._list_limit} or more entries in one folder ({root or 'the top'}), "
                "and ModelScope does not list that many; take the model from another source"
            )
        found = [entry for entry in entries if entry.get("Type") != "tree"]
        for folder in [text(entry, "Path") for entry in entries if entry.get("Type") == "tree"]:
            if folder is None:
                continue
            below = _entries(await self._list_folder(revision, folder, recursive=True))
            found += below if len(below) < self._list_limit else await self._walk(revision, folder)
        return found

    async def _list_folder(self, revision: str, root: str, *, recursive: bool) -> Mapping[str, object]:
        self._listings += 1
        if self._listings > MAX_LISTINGS:
            raise SourceUnavailable(f"{self._source.model_id} has too many folders to list on ModelScope")
        query = {"Revision": revision, "Recursive": "true" if recursive else "false"}
        return await self._get("repo/files", {**query, "Root": root} if root else query)

    async def _is_known(self, revision: str) -> bool:
        data = await self._get("revisions", {})
        revisions = data.get("RevisionMap")
        if not isinstance(revisions, dict):
            return False
        known = [*_records(revisions.get("Branches")), *_records(revisions.get("Tags"))]
        return any(entry.get("Revision") == revision for entry in known)

    def _file(self, entry: Mapping[str, object]) -> ManifestFile:
        path, size, sha256 = text(entry, "Path"), number(entry, "Size"), text(entry, "Sha256")
        if path is None or size is None or sha256 is None or len(sha256) != 64:
            raise SourceUnavailable(
                f"{self._endpoints.modelscope} lists {self._source.model_id} without sizes or sha256"
            )
        return ManifestFile(path, size, f"sha256:{sha256.lower()}")

    async def check_access(self, manifest: Manifest) -> None:
        """Ask for one byte of a file: the listing is public also where downloads need permission."""
        url = file_url(manifest.origin, manifest.revision, manifest.files[0].path, self._endpoints)
        reply = await fetch(
            self._http, "GET", url, headers={**self._headers, "Range": "bytes=0-0"}, follow_redirects=False
        )
        if reply.status in (401, 403):
            raise self._refused(reply)

    async def _get(self, verb: str, query: Mapping[str, str]) -> Mapping[str, object]:
        url = f"{self._endpoints.modelscope}/api/v1/models/{self._source.model_id}/{verb}"
        reply = await fetch(self._http, "GET", f"{url}?{urlencode(query)}" if query else url, headers=self._headers)
        if not reply.is_success:
            raise self._refused(reply)
        envelope = reply.json_object()
        data = envelope.get("Data")
        if envelope.get("Success") is False or not isinstance(data, dict):
            raise SourceUnavailable(f"{reply.url.host} answered without data for {self._source.model_id}")
        return data

    def _refused(self, reply: Reply) -> ContentError:
        name = self._source.model_id
        if reply.status == 404:
            return SourceNotFound(f"{name} does not exist on {self._endpoints.modelscope}, or it is private")
        if reply.status == 401:
            return AccessDenied(f"{self._endpoints.modelscope} wants a valid access token for {name}")
        if reply.status == 403:
            return AccessDenied(f"{name} is restricted: apply for access on {self._endpoints.modelscope}/models/{name}")
        return SourceUnavailable(f"{self._endpoints.modelscope} answers with HTTP {reply.status} for {name}")


def _records(value: object) -> list[Mapping[str, object]]:
    return [entry for entry in value if isinstance(entry, dict)] if isinstance(value, list) else []


def _entries(data: Mapping[str, object]) -> list[Mapping[str, object]]:
    return _records(data.get("Files"))


def _newest_commit(blobs: Sequence[Mapping[str, object]], data: Mapping[str, object]) -> str | None:
    """The head commit if a file names it in full, else the newest commit that touched a file that is still there."""
    latest = data.get("LatestCommitter")
    short = text(latest, "ShortId") if isinstance(latest, dict) else None
    dated = {text(blob, "Revision"): number(blob, "CommittedDate") or 0 for blob in blobs}
    commits = [commit for commit in dated if commit]
    head = next((commit for commit in commits if short and commit.startswith(short)), None)
    return head or max(commits, key=lambda commit: dated[commit], default=None)
