"""The ids under which Dragonfly keeps bytes, computed as dfdaemon does (client 1.5, crate dragonfly-client-util).

Preheat and download meet only if they arrive at the same id: the same URL, tag, application, piece length and filtered
query parameters. Headers are not part of it.
"""

import re
from collections.abc import Collection, Sequence
from hashlib import sha256
from urllib.parse import parse_qsl, quote, quote_plus, urlsplit, urlunsplit

DEFAULT_FILTERED: Sequence[str] = (
    *("X-Amz-Algorithm", "X-Amz-Credential", "X-Amz-Date", "X-Amz-Expires", "X-Amz-SignedHeaders"),
    *("X-Amz-Signature", "X-Amz-Security-Token", "X-Amz-User-Agent"),
    *("X-Goog-Algorithm", "X-Goog-Credential", "X-Goog-Date", "X-Goog-Expires", "X-Goog-SignedHeaders"),
    "X-Goog-Signature",
    *("OSSAccessKeyId", "Expires", "Signature", "SecurityToken"),
    *("AccessKeyId", "X-Obs-Date", "X-Obs-Security-Token"),
    *("q-sign-algorithm", "q-ak", "q-sign-time", "q-key-time", "q-header-list", "q-url-param-list", "q-signature"),
    *("x-cos-security-token", "ns"),
)
"""What manager, proxy and dfget leave out of a URL's query unless they are told otherwise."""

_DEFAULT_PORTS = {"http": 80, "https": 443}
_TYPE = "STANDARD"
_DIGEST_URL = re.compile(
    r"(?s)(.*)://(.*)/v2/(.*)/(blobs|manifests)/"
    r"(?:sha256:([0-9a-f]{64})|sha512:([0-9a-f]{128}))(?:\?.*)?",
    re.ASCII,
)


def canonical_url(url: str, filtered: Collection[str] = DEFAULT_FILTERED) -> str:
    """The URL as it goes into the id: filtered parameters dropped, the others sorted by name and encoded anew.

    With nothing to filter dfdaemon takes the URL as it is. Clients before 1.5 kept the order of the parameters; URLs
    with at most one parameter are the same for all.
    """
    if not filtered:
        return url
    parts = urlsplit(url)
    pairs = [
        pair
        for segment in parts.query.split("&")
        if ";" not in segment
        for pair in parse_qsl(segment, keep_blank_values=True)
        if pair[0] not in filtered
    ]
    query = "&".join(f"{quote_plus(key)}={quote_plus(value)}" for key, value in sorted(pairs, key=lambda pair: pair[0]))
    path = quote(_without_dots(parts.path), safe="/%:@!$&'()*+,;=~-._[]|\\^")
    return urlunsplit((parts.scheme, _authority(url), path, query, parts.fragment))


def _without_dots(path: str) -> str:
    """The path with ``.`` and ``..`` resolved, as every URL parser does it (RFC 3986, 5.2.4)."""
    kept: list[str] = []
    segments = path.split("/")
    for index, segment in enumerate(segments):
        last = index == len(segments) - 1
        if segment == "..":
            kept = kept[:-1] if len(kept) > 1 else kept
        elif segment != ".":
            kept.append(segment)
            continue
        if last:
            kept.append("")
    return "/".join(kept)


def _authority(url: str) -> str:
    parts = urlsplit(url)
    user, at, _ = parts.netloc.rpartition("@")
    host = (parts.hostname or "").lower()
    host = f"[{host}]" if ":" in host else host
    port = "" if parts.port in (None, _DEFAULT_PORTS.get(parts.scheme)) else f":{parts.port}"
    return f"{user}{at}{host}{port}"


def url_task_id(
    url: str,
    *,
    tag: str = "",
    application: str = "",
    revision: str = "",
    piece_length: int | None = None,
    filtered: Collection[str] = DEFAULT_FILTERED,
) -> str:
    """The id of what a URL names. ``revision`` is only for dfdaemon's own hub schemes (``hf://``)."""
    piece = "" if piece_length is None else str(piece_length)
    return sha256(
        "".join((canonical_url(url, filtered), tag, application, revision, piece, _TYPE)).encode()
    ).hexdigest()


def digest_task_id(url: str) -> str | None:
    """The id of a blob (or a manifest by digest) where nodes and preheat use the digest itself; None for other URLs.

    It depends on neither registry nor repository: equal layers of different images are one.
    """
    match = _DIGEST_URL.fullmatch(url)
    return None if match is None else match[5] or match[6]
