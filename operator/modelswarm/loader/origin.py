"""The origin leg: a hub over HTTP, whose large files lie behind a redirect to another host.

The token goes to the hub's own host and nowhere else: redirects are followed here, request by request, and each one
carries it only if its scheme, host and port are the hub's. Messages name hosts and never URLs (those of a CDN are
signed, which makes them credentials).
"""

import re
from collections.abc import Callable, Mapping

import httpx

from modelswarm.api.labels import HUB_SECRET, HUB_SECRET_KEY
from modelswarm.content.fetch import retry_after
from modelswarm.content.manifest import ManifestFile
from modelswarm.errors import ContentReason, LoadError
from modelswarm.loader.gate import Gate
from modelswarm.loader.leg import Stream
from modelswarm.loader.outcome import Reason, Transient

_MOST_REDIRECTS = 6
_CONTENT_RANGE = re.compile(r"bytes (\d+)-(\d+)/(\d+|\*)")
_SHA256 = re.compile(r'"?([0-9a-f]{64})"?')
_MOVED = (301, 302, 303, 307, 308)


class OriginHTTP:
    """``url_of`` gives a file's address at the hub, at the pinned commit."""

    name = "origin"
    splittable = True

    def __init__(self, http: httpx.AsyncClient, gate: Gate, url_of: Callable[[str], str], token: str | None) -> None:
        self._http = http
        self._gate = gate
        self._url_of = url_of
        self._token = token
        self._locations: dict[str, httpx.URL] = {}
        """Where the hub has sent us for a file: asked once per file and not once per span, until it expires."""

    def serves(self, file: ManifestFile) -> bool:
        return True

    async def fetch(self, file: ManifestFile, sink: Stream, start: int, end: int) -> None:
        hub = httpx.URL(self._url_of(file.path))
        url = self._locations.get(file.path, hub)
        try:
            for _ in range(_MOST_REDIRECTS):
                await self._gate.wait()
                request = self._request(url, hub, None if (start, end) == (0, file.size) else (start, end))
                response = await self._http.send(request, stream=True, follow_redirects=False)
                try:
                    if response.status_code not in _MOVED:
                        await self._receive(response, file, sink, start, at_hub=same_origin(url, hub))
                        return
                    check_linked(response.headers, file)
                    # Read to its end, or the connection cannot be used again.
                    await response.aread()
                    url = url.join(response.headers.get("location", ""))
                finally:
                    await response.aclose()
                if not same_origin(url, hub):
                    self._locations[file.path] = url
        except httpx.InvalidURL:
            self._locations.pop(file.path, None)
            raise _unavailable(f"{hub.host} redirects to nowhere") from None
        except httpx.TransportError as error:
            raise _unavailable(_describe(error, url)) from error
        raise _unavailable(f"{hub.host} redirects in circles")

    def _request(self, url: httpx.URL, hub: httpx.URL, span: tuple[int, int] | None) -> httpx.Request:
        headers = {"Accept-Encoding": "identity"}
        if span is not None:
            headers["Range"] = f"bytes={span[0]}-{span[1] - 1}"
        if self._token and same_origin(url, hub):
            headers["Authorization"] = f"Bearer {self._token}"
        return self._http.build_request("GET", url, headers=headers)

    async def _receive(
        self, response: httpx.Response, file: ManifestFile, sink: Stream, start: int, *, at_hub: bool
    ) -> None:
        try:
            whole = sends_whole(response.status_code, response.headers, file, start)
            if whole is None:
                raise refusal(
                    response.status_code,
                    response.headers,
                    file,
                    at_hub=at_hub,
                    host=response.url.host,
                    token=self._token,
                )
        except Transient as error:
            if not at_hub:
                # The link has expired, or this CDN node is unwell: the next attempt asks the hub for another link.
                self._locations.pop(file.path, None)
            if error.reason == ContentReason.RATE_LIMITED or error.retry_after:
                self._gate.close(error.retry_after, response.url.host)
            raise
        await sink.begin(whole=whole)
        async for data in response.aiter_bytes():
            await sink.write(data)


def same_origin(one: httpx.URL, other: httpx.URL) -> bool:
    """Whether two URLs are of the same scheme, host and port."""
    ports = {"http": 80, "https": 443}
    return (one.scheme, one.host, one.port or ports.get(one.scheme)) == (
        other.scheme,
        other.host,
        other.port or ports.get(other.scheme),
    )


def check_linked(headers: Mapping[str, str], file: ManifestFile) -> None:
    """What the hub says of the file that it redirects to, before a byte of it is read."""
    linked = headers.get("x-linked-size", "")
    if linked.isdigit() and int(linked) != file.size:
        raise _changed(file, f"is {linked} bytes long")
    digest = _SHA256.fullmatch(headers.get("x-linked-etag", ""))
    if digest and file.digest and file.digest.startswith("sha256:") and file.digest != f"sha256:{digest[1]}":
        raise _changed(file, "has another digest")


def sends_whole(status: int, headers: Mapping[str, str], file: ManifestFile, start: int) -> bool | None:
    """Whether the body is the whole file (rather than the range from ``start``); None where there is no body to be had.

    A server may ignore a range (200 and the whole file), or honour it under status 200.
    """
    if status not in (200, 206):
        return None
    found = _CONTENT_RANGE.fullmatch(headers.get("content-range", ""))
    if found is None:
        if status == 206:
            raise _unavailable(f"{file.path}: the answer does not say which part of the file it is")
        length = headers.get("content-length", "")
        if length.isdigit() and int(length) != file.size and "content-encoding" not in headers:
            raise _changed(file, f"is {length} bytes long")
        return True
    if found[3] != "*" and int(found[3]) != file.size:
        raise _changed(file, f"is {found[3]} bytes long")
    if int(found[1]) != start:
        raise _unavailable(f"{file.path}: the answer is another part of the file than the one asked for")
    return False


def refusal(
    status: int, headers: Mapping[str, str], file: ManifestFile, *, at_hub: bool, host: str, token: str | None
) -> LoadError:
    """What a status that brings no bytes means. Only the hub's own word is final: a CDN's links expire."""
    if status == 429:
        wait = retry_after(headers)
        return Transient(
            ContentReason.RATE_LIMITED, f"{host} limits the rate of requests", retry_after=wait, counts=False
        )
    if status == 416:
        return _changed(file, "is shorter")
    if at_hub:
        code = headers.get("x-error-code", "")
        if status in (401, 403):
            return LoadError(ContentReason.ACCESS_DENIED, _denied(file, host, status, code, token))
        if status == 404 and code == "RevisionNotFound":
            return LoadError(ContentReason.REVISION_NOT_FOUND, f"{file.path}: {host} does not have this revision")
        if status in (404, 410):
            return LoadError(ContentReason.SOURCE_NOT_FOUND, f"{file.path}: {host} does not have this file")
    wait = retry_after(headers) if status >= 500 else None
    return Transient(
        ContentReason.SOURCE_UNAVAILABLE, f"{file.path}: {host} answers with status {status}", retry_after=wait
    )


def _denied(file: ManifestFile, host: str, status: int, code: str, token: str | None) -> str:
    secret = f"the Secret {HUB_SECRET} (key {HUB_SECRET_KEY}) of this namespace"
    if token is None:
        return f"{file.path}: {host} wants a token (status {status}); put one into {secret}"
    if code == "GatedRepo":
        return f"{file.path}: the repository is gated; ask {host} for access for the owner of the token in {secret}"
    return f"{file.path}: {host} refuses the token (status {status}); check {secret}"


def _changed(file: ManifestFile, how: str) -> LoadError:
    return LoadError(Reason.SOURCE_CHANGED, f"{file.path}: the file at the origin {how}, not the one that was pinned")


def _unavailable(message: str) -> Transient:
    return Transient(ContentReason.SOURCE_UNAVAILABLE, message)


def _describe(error: httpx.TransportError, url: httpx.URL) -> str:
    match error:
        case httpx.ConnectTimeout() | httpx.ConnectError():
            return f"cannot connect to {url.host}"
        case httpx.TimeoutException():
            return f"no byte from {url.host} for too long"
        case httpx.ProxyError():
            return f"the proxy does not let us reach {url.host}"
        case _:
            return f"the connection to {url.host} broke"
