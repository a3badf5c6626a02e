"""Whether strangers may read a model: what may be handed on to whoever knows its URL is decided by this."""

import httpx

from modelswarm.content.endpoints import Endpoints, file_url
from modelswarm.content.fetch import fetch
from modelswarm.content.manifest import Manifest, OriginKind
from modelswarm.errors import SourceUnavailable


async def is_public(manifest: Manifest, endpoints: Endpoints, http: httpx.AsyncClient) -> bool:
    """Ask for the largest file at the pinned commit without credentials: a listing says nothing of the files.

    One request, not repeated. Redirects are not followed: a hub sends only those to its storage who may read.

    Raises ``SourceUnavailable`` and ``RateLimited`` where the answer says nothing about access.
    """
    url = probe_url(manifest, endpoints)
    if manifest.origin.kind is OriginKind.HUGGINGFACE:
        reply = await fetch(http, "HEAD", url, follow_redirects=False, attempts=1)
    else:  # ModelScope's download address knows no HEAD
        reply = await fetch(http, "GET", url, headers={"Range": "bytes=0-0"}, follow_redirects=False, attempts=1)
    if reply.status < 400:
        return True
    if reply.status in (401, 403, 404):
        return False
    raise SourceUnavailable(f"{reply.url.host} answers with HTTP {reply.status}")


def probe_url(manifest: Manifest, endpoints: Endpoints) -> str:
    """The largest file of a hub's manifest."""
    largest = max(manifest.files, key=lambda file: (file.size, file.path))
    return file_url(manifest.origin, manifest.revision, largest.path, endpoints)
