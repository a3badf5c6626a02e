"""The metainfo server. Everything is bounded: names, bodies, time, and how many are served at once.

===================================  =====================================================================
``GET /health``                      ``ok``; open to everybody
``GET /metainfo/<model hash>``       the seed's: the torrent of a model that is complete here
``GET /stats``, ``GET /models``      the seed's: four counters; models with whether they are seeded
``POST /v1/contents/<id>/report``    a member's report; answered when there is something to tell
``GET /v1/manifests/<digest>``       the manifest that the holder pinned (its digest is on the Lease)
``POST /v1/blobs``                   several small blobs in one answer
===================================  =====================================================================

Except for ``/health``, requests are signed with the agents' Secret if there is one (401 otherwise).
"""

import asyncio
import logging
import re
import time
from collections.abc import Awaitable, Callable
from dataclasses import asdict
from pathlib import Path

from aiohttp import web
from pydantic import ValidationError

from modelswarm.agent.messages import REPORT_BYTES, Report
from modelswarm.agent.metainfo.routes import (
    BLOB_BYTES,
    BLOB_KEY,
    BLOBS_BYTES,
    MODEL_HASH,
    BlobHead,
    BlobsRequest,
    Contents,
    Misdirected,
)
from modelswarm.agent.metainfo.signing import HEADER, Caller, Request, Signer
from modelswarm.content import manifest as manifests
from modelswarm.errors import CannotListen, NotCoordinator, PeerRefused

BODY_SECONDS = 30.0
"""In which a client must have sent its request."""
PART_BYTES = 256 << 10
PART_SECONDS = 10.0
"""In which it must have read so much of the answer."""
MAX_REQUESTS = 2048
"""At once; reports wait for their answers."""
MAX_READS = 16
"""Answers with blobs, metainfo and manifests at once: each takes up to some ten MiB of memory."""
STOP_SECONDS = 3.0

_HASH = re.compile(MODEL_HASH, re.ASCII)

log = logging.getLogger(__name__)

Handler = Callable[[web.Request], Awaitable[web.StreamResponse]]
Observe = Callable[[int, float, str], None]


class MetainfoServer:
    """``observe`` is told status, seconds and model hash of every request for metainfo (for the metrics)."""

    def __init__(
        self,
        contents: Contents,
        signer: Signer,
        *,
        host: str | None,
        port: int,
        observe: Observe = lambda status, seconds, model_hash: None,
    ) -> None:
        self.port = port
        self._contents = contents
        self._signer = signer
        self._host = host or None
        self._observe = observe
        self._requests = 0
        self._reads = asyncio.Semaphore(MAX_READS)
        self._runner: web.AppRunner | None = None

    async def start(self) -> int:
        """Listen; returns the port. Raises CannotListen."""
        if not self._signer.is_on:
            log.warning("P2P: no Secret is set: whoever reaches port %d can read models, and pose as a peer", self.port)
        app = web.Application(client_max_size=REPORT_BYTES, middlewares=[self._guard])
        app.router.add_get("/health", self._health, allow_head=False)
        app.router.add_get("/metainfo/{hash:.*}", self._metainfo, allow_head=False)
        app.router.add_get("/stats", self._stats, allow_head=False)
        app.router.add_get("/models", self._models, allow_head=False)
        app.router.add_get("/v1/manifests/{hash}", self._manifest, allow_head=False)
        app.router.add_post("/v1/contents/{hash}/report", self._report)
        app.router.add_post("/v1/blobs", self._blobs)
        self._runner = web.AppRunner(
            app, access_log=None, handler_cancellation=True, shutdown_timeout=STOP_SECONDS, keepalive_timeout=60.0
        )
        await self._runner.setup()
        try:
            await web.TCPSite(self._runner, self._host, self.port, backlog=512).start()
        except OSError as error:
            await self._runner.cleanup()
            self._runner = None
            where = f"{self._host or 'all addresses'}, port {self.port}"
            raise CannotListen(f"the metainfo server cannot listen on {where}: {error.strerror or error}") from None
        self.port = int(self._runner.addresses[0][1])
        return self.port

    async def stop(self) -> None:
        """Within ``STOP_SECONDS``, whoever is still connected."""
        if self._runner is not None:
            await self._runner.cleanup()
            self._runner = None

    @web.middleware
    async def _guard(self, request: web.Request, handler: Handler) -> web.StreamResponse:
        """Bounds and signatures for all routes."""
        if request.match_info.route.handler == self._health or request.match_info.http_exception is not None:
            return await handler(request)
        if self._requests >= MAX_REQUESTS:
            return web.Response(status=503, text="too many requests\n", headers={"Retry-After": "1"})
        self._requests += 1
        try:
            try:
                async with asyncio.timeout(BODY_SECONDS):
                    body = await request.read() if request.can_read_body else b""
            except TimeoutError:
                return web.Response(status=408, text="the request took too long\n")
            signed = Request(request.method, request.host, request.raw_path, body)
            try:
                caller = self._signer.check(signed, request.headers.get(HEADER))
            except PeerRefused as error:
                return web.Response(status=401, text=f"{error.message}\n")
            if request.match_info.route.handler in (self._report, self._stats, self._models):
                return await self._send(request, await handler(request), caller)
            async with self._reads:
                return await self._send(request, await handler(request), caller)
        finally:
            self._requests -= 1

    async def _send(self, request: web.Request, found: web.StreamResponse, caller: Caller) -> web.StreamResponse:
        """Sign the answer; in parts if it is large, so that who reads too slowly is left alone."""
        body = found.body if isinstance(found, web.Response) and isinstance(found.body, bytes) else b""
        found.headers.update(self._signer.sign_answer(caller, found.status, body))
        if len(body) <= PART_BYTES:
            return found
        parts = web.StreamResponse(status=found.status, headers=found.headers)
        parts.content_length = len(body)
        view = memoryview(body)
        try:
            async with asyncio.timeout(PART_SECONDS):
                await parts.prepare(request)
            for start in range(0, len(body), PART_BYTES):
                async with asyncio.timeout(PART_SECONDS):
                    await parts.write(view[start : start + PART_BYTES])
            async with asyncio.timeout(PART_SECONDS):
                await parts.write_eof()
        except TimeoutError:
            if request.transport is not None:
                request.transport.abort()
        return parts

    async def _health(self, _: web.Request) -> web.Response:
        return web.Response(text="ok")

    async def _metainfo(self, request: web.Request) -> web.Response:
        began = time.monotonic()
        model_hash = request.match_info["hash"]
        response = await self._find_metainfo(model_hash)
        self._observe(response.status, time.monotonic() - began, model_hash)
        return response

    async def _find_metainfo(self, model_hash: str) -> web.Response:
        if not model_hash:
            return web.Response(status=400, text="Model hash required\n")
        if not _HASH.fullmatch(model_hash):
            return web.Response(status=400, text="Invalid model hash\n")
        found = await self._contents.metainfo(model_hash)
        if found is None:
            return web.Response(status=404, text="Model not found\n")
        disposition = f'attachment; filename="{model_hash}.torrent"'
        return web.Response(
            body=found, content_type="application/x-bittorrent", headers={"Content-Disposition": disposition}
        )

    async def _stats(self, _: web.Request) -> web.Response:
        return web.json_response(asdict(self._contents.stats()))

    async def _models(self, _: web.Request) -> web.Response:
        return web.json_response([asdict(model) for model in self._contents.models()])

    async def _manifest(self, request: web.Request) -> web.Response:
        digest = request.match_info["hash"]
        if not _HASH.fullmatch(digest):
            return web.Response(status=400, text="a manifest is named by 64 hex digits\n")
        found = await self._contents.manifest(digest)
        if found is None:
            return web.Response(status=404, text="the manifest is not known here\n")
        (shard,) = await asyncio.to_thread(manifests.encode, found, shard_bytes=1 << 40)
        return web.Response(body=shard, content_type="application/gzip")

    async def _report(self, request: web.Request) -> web.Response:
        content_id = request.match_info["hash"]
        if not _HASH.fullmatch(content_id):
            return web.Response(status=400, text="a content is named by 64 hex digits\n")
        try:
            report = Report.model_validate_json(await request.read())
        except ValidationError as error:
            return web.Response(status=400, text=f"not a report: {error.error_count()} fields make no sense\n")
        try:
            answer = await self._contents.report(content_id, report)
        except NotCoordinator as error:
            return web.json_response(text=Misdirected(holder=error.holder).model_dump_json(), status=421)
        if answer is None:
            return web.Response(status=404, text="the content is not known here\n")
        return web.json_response(text=answer.model_dump_json(exclude_defaults=True))

    async def _blobs(self, request: web.Request) -> web.Response:
        try:
            wanted = BlobsRequest.model_validate_json(await request.read())
        except ValidationError:
            return web.Response(status=400, text=f"blobs are named {BLOB_KEY}\n")
        parts: list[bytes] = []
        sent = 0
        for key in wanted.keys:
            path = await self._contents.blob(key) if sent < BLOBS_BYTES - BLOB_BYTES else None
            data = await asyncio.to_thread(_read_small, path) if path is not None else None
            head = BlobHead(key=key, size=None if data is None else len(data))
            parts += [head.model_dump_json().encode(), b"\n", data or b""]
            sent += len(data or b"")
        self._contents.sent(sent)
        return web.Response(body=b"".join(parts), content_type="application/octet-stream")


def _read_small(path: Path) -> bytes | None:
    """The file's bytes; None if it is gone, or not small."""
    try:
        with path.open("rb") as file:
            data = file.read(BLOB_BYTES + 1)
    except OSError:
        return None
    return data if len(data) <= BLOB_BYTES else None
