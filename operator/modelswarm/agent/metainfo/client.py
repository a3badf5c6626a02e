"""The metainfo client: what this node asks others. A peer may be dead, slow, hostile or of another version.

Every answer is bounded in bytes and in time, and nothing that a peer says is followed: no redirects, no encodings.
"""

import asyncio
import random
from collections.abc import Sequence
from typing import TypeVar

import aiohttp
from pydantic import BaseModel, ValidationError
from yarl import URL

from modelswarm.agent.messages import ANSWER_BYTES, Answer, Report
from modelswarm.agent.metainfo.routes import (
    BLOBS_BYTES,
    MANIFEST_BYTES,
    MAX_BLOBS,
    METAINFO_BYTES,
    BlobHead,
    BlobsRequest,
    Misdirected,
)
from modelswarm.agent.metainfo.signing import HEADER, Request, Signer
from modelswarm.content import manifest as manifests
from modelswarm.content.manifest import Manifest
from modelswarm.errors import (
    InvalidReference,
    NotCoordinator,
    PeerError,
    PeerMisbehaved,
    PeerRefused,
    PeerUnavailable,
)

CONNECT_SECONDS = 2.0
"""A node of the cluster that is there answers in much less; one packet may be lost, and is sent again after 1 s."""
SILENCE_SECONDS = 10.0
"""In which a peer that answers must send something more."""
TRANSFER_SECONDS = 120.0
"""For metainfo, manifests and blobs."""
REPORT_SECONDS = 40.0
"""The coordinator may take 20 of them to answer."""
PROBE_SECONDS = 10.0
MORE_SECONDS = 1.0
AT_ONCE = 8
"""Peers that are asked for metainfo at once."""
_HEAD_BYTES = 512

M = TypeVar("M", bound=BaseModel)


class MetainfoClient:
    """``host``: the address that requests come from (None: the system chooses)."""

    def __init__(self, signer: Signer, *, host: str | None = None, rng: random.Random | None = None) -> None:
        self._signer = signer
        self._host = host
        self._rng = rng or random.Random()
        self._session: aiohttp.ClientSession | None = None

    async def close(self) -> None:
        if self._session is not None:
            await self._session.close()
            self._session = None

    async def metainfo(self, url: str, model_hash: str) -> bytes | None:
        """The torrent of a model that is complete at the peer; None where it is not. Raises PeerError.

        What it says is the peer's word: it must be read with care, and the files' digests decide.
        """
        return await self._ask("GET", url, f"/metainfo/{model_hash}", METAINFO_BYTES, TRANSFER_SECONDS)

    async def find_seeders(self, urls: Sequence[str], model_hash: str, enough: int = 4) -> dict[str, bytes]:
        """Which peers have all of the model, with the metainfo they tell; up to about ``enough`` of them.

        Asks in a random order, some at once, for ``PROBE_SECONDS`` at most; with an answer in hand, the others have
        ``MORE_SECONDS``. So one that answers slowly, or without an end, delays nobody.
        """
        order = list(urls)
        self._rng.shuffle(order)
        found: dict[str, bytes] = {}
        first = asyncio.Event()
        queue = iter(order)

        async def ask_some() -> None:
            for url in queue:
                if len(found) >= enough:
                    return
                try:
                    answer = await self.metainfo(url, model_hash)
                except PeerError:
                    continue
                if answer is not None:
                    found[url] = answer
                    first.set()

        async def ask_all() -> None:
            await asyncio.gather(*(ask_some() for _ in range(min(AT_ONCE, len(order)))))

        async def until_answered() -> None:
            await first.wait()

        asking, answered = asyncio.create_task(ask_all()), asyncio.create_task(until_answered())
        try:
            await asyncio.wait({asking, answered}, timeout=PROBE_SECONDS, return_when=asyncio.FIRST_COMPLETED)
            if found and not asking.done():
                await asyncio.wait({asking}, timeout=MORE_SECONDS)
            if asking.done():
                asking.result()
        finally:
            asking.cancel()
            answered.cancel()
            await asyncio.gather(asking, answered, return_exceptions=True)
        return dict(found)

    async def is_alive(self, url: str) -> bool:
        try:
            return await self._ask("GET", url, "/health", 64, PROBE_SECONDS, signed=False) == b"ok"
        except PeerError:
            return False

    async def report(self, url: str, content_id: str, report: Report) -> Answer:
        """Raises NotCoordinator, with who is, or another PeerError."""
        body = report.model_dump_json(exclude_defaults=True).encode()
        path = f"/v1/contents/{content_id}/report"
        answer = await self._ask("POST", url, path, ANSWER_BYTES, REPORT_SECONDS, body)
        if answer is None:
            raise NotCoordinator("the peer does not know the content", url=url)
        return _parse(Answer, answer, url)

    async def manifest(self, url: str, digest: str) -> Manifest | None:
        """The manifest with this digest (``sha256:<hex>``), checked; None if the peer does not have it."""
        path = f"/v1/manifests/{digest.removeprefix('sha256:')}"
        answer = await self._ask("GET", url, path, MANIFEST_BYTES, TRANSFER_SECONDS)
        if answer is None:
            return None
        try:
            found = await asyncio.to_thread(manifests.decode, [answer])
        except InvalidReference as error:
            raise PeerMisbehaved(f"a manifest that cannot be read: {error.message}", url=url) from None
        if found.digest != digest:
            raise PeerMisbehaved("a manifest with another digest than was asked for", url=url)
        return found

    async def blobs(self, url: str, keys: Sequence[str]) -> dict[str, bytes]:
        """Those of the small blobs that the peer has (at most ``MAX_BLOBS`` are asked for). Not verified."""
        wanted = tuple(dict.fromkeys(keys))[:MAX_BLOBS]
        body = BlobsRequest(keys=wanted).model_dump_json().encode()
        answer = await self._ask(
            "POST", url, "/v1/blobs", BLOBS_BYTES + MAX_BLOBS * _HEAD_BYTES, TRANSFER_SECONDS, body
        )
        found: dict[str, bytes] = {}
        rest = memoryview(answer or b"")
        while rest:
            line, _, _ = bytes(rest[:_HEAD_BYTES]).partition(b"\n")
            head = _parse(BlobHead, line, url)
            rest = rest[len(line) + 1 :]
            if head.size is None:
                continue
            if len(rest) < head.size or head.key not in wanted:
                raise PeerMisbehaved("blobs that were not asked for, or cut short", url=url)
            found[head.key] = bytes(rest[: head.size])
            rest = rest[head.size :]
        return found

    async def _ask(
        self, method: str, url: str, path: str, limit: int, seconds: float, body: bytes = b"", *, signed: bool = True
    ) -> bytes | None:
        """The body of a 200, None for a 404; everything else is an error."""
        target = _join(url, path)
        headers, nonce = self._signer.sign(Request(method, _host_of(target), path, body)) if signed else ({}, "")
        try:
            async with (
                asyncio.timeout(seconds),
                self._open().request(
                    method, target, data=body or None, headers=headers, allow_redirects=False
                ) as response,
            ):
                answer = await _read(response, limit, url)
                status, mac = response.status, response.headers.get(HEADER)
        except (aiohttp.ClientError, TimeoutError, OSError, ValueError) as error:
            raise PeerUnavailable(f"no answer ({type(error).__name__})", url=url) from None
        if status == 401:
            raise PeerRefused(answer[:200].decode("utf-8", "replace").strip(), url=url)
        if status in (408, 429) or status >= 500:
            raise PeerUnavailable(f"the peer answers {status}", url=url)
        if signed:
            try:
                self._signer.check_answer(nonce, status, answer, mac)
            except PeerRefused as error:
                raise PeerRefused(error.message, url=url) from None
        if status == 421:
            raise NotCoordinator(
                "the peer does not coordinate", url=url, holder=_parse(Misdirected, answer, url).holder
            )
        if status == 404:
            return None
        if status != 200:
            raise PeerMisbehaved(f"the peer answers {status}", url=url)
        return answer

    def _open(self) -> aiohttp.ClientSession:
        if self._session is None:
            connector = aiohttp.TCPConnector(
                limit=256,
                limit_per_host=8,
                keepalive_timeout=45,
                local_addr=(self._host, 0) if self._host else None,
            )
            self._session = aiohttp.ClientSession(
                connector=connector,
                timeout=aiohttp.ClientTimeout(total=None, sock_connect=CONNECT_SECONDS, sock_read=None),
                trust_env=False,
                auto_decompress=False,
                cookie_jar=aiohttp.DummyCookieJar(),
                headers={"Accept-Encoding": "identity", "User-Agent": "modelswarm-agent"},
            )
        return self._session


async def _read(response: aiohttp.ClientResponse, limit: int, url: str) -> bytes:
    """The body, at most ``limit`` bytes of it, and as long as it keeps coming."""
    if response.content_length is not None and response.content_length > limit:
        raise PeerMisbehaved(f"an answer of {response.content_length} bytes", url=url)
    body = bytearray()
    while True:
        async with asyncio.timeout(SILENCE_SECONDS):
            chunk = await response.content.readany()
        if not chunk:
            return bytes(body)
        body += chunk
        if len(body) > limit:
            raise PeerMisbehaved(f"an answer of more than {limit} bytes", url=url)


def _parse(model: type[M], data: bytes, url: str) -> M:
    try:
        return model.model_validate_json(data)
    except ValidationError as error:
        text = f"an answer that is no {model.__name__} ({error.error_count()} errors)"
        raise PeerMisbehaved(text, url=url) from None


def _join(url: str, path: str) -> URL:
    base = URL(url)
    if base.scheme not in ("http", "https") or not base.host or base.path not in ("", "/"):
        raise PeerMisbehaved("a peer's address that is none", url=url)
    return URL(f"{base.scheme}://{base.raw_authority}{path}", encoded=True)


def _host_of(target: URL) -> str:
    """The Host header that aiohttp sends."""
    host = target.raw_host or ""
    if ":" in host:
        host = f"[{host}]"
    return host if target.is_default_port() else f"{host}:{target.port}"
