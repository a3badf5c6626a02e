"""What a node reads from the origin: ranges of large files into partials, small files whole.

One ``OriginReader`` per content; one call is one connection, how many run at once is the caller's choice (the client
that ``open_client`` makes keeps ten). The protocols are the loader's legs: redirects, the token that goes to the hub's
host only, ``If-Match`` and what a status means are decided there.
"""

import asyncio
import random
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from functools import partial as bind

import httpx

from modelswarm import __version__
from modelswarm.agent.sinks import MemorySink, OnPiece, RangeSink, Received
from modelswarm.agent.store.partial import Partial
from modelswarm.agent.store.threads import Threads
from modelswarm.api.labels import AWS_SECRET, OSS_SECRET
from modelswarm.content.credentials import Credentials
from modelswarm.content.endpoints import Endpoints, file_url, object_key
from modelswarm.content.manifest import Manifest, ManifestFile, OriginKind
from modelswarm.content.source import Provider, StoreSource
from modelswarm.errors import (
    AccessDenied,
    ContentError,
    ContentReason,
    DigestMismatch,
    InvalidReference,
    LoadError,
    ModelswarmError,
    RateLimited,
    RevisionNotFound,
    SourceChanged,
    SourceNotFound,
    SourceUnavailable,
)
from modelswarm.loader.effort import Effort
from modelswarm.loader.gate import Gate
from modelswarm.loader.leg import StreamingLeg
from modelswarm.loader.network import open_client as open_large_reads
from modelswarm.loader.origin import OriginHTTP
from modelswarm.loader.outcome import Reason, Transient

_CONNECT_SECONDS = 20.0
_SMALL_TRIES = 3
"""How often a small file with wrong bytes is read before they are called wrong for good."""


@dataclass(slots=True)
class Traffic:
    """Bytes that came from the origin, also those that were read again; ``requests`` counts attempts."""

    bytes: int = 0
    requests: int = 0
    retries: int = 0


@asynccontextmanager
async def open_client(*, stall: float = 60.0) -> AsyncIterator[httpx.AsyncClient]:
    """A client for hubs whose reads fail after ``stall`` seconds without a byte."""
    agent = f"modelswarm-agent/{__version__}"
    async with open_large_reads(stall=stall, connect=_CONNECT_SECONDS, user_agent=agent) as http:
        yield http


async def open_leg(
    manifest: Manifest,
    credentials: Credentials | None,
    endpoints: Endpoints,
    http: httpx.AsyncClient,
    gate: Gate,
    *,
    stall: float = 60.0,
) -> StreamingLeg:
    """How the files of a content are read. The gate should be one for all contents of an origin.

    Raises ``InvalidReference`` for an origin without files of models (an image's).
    """
    origin = manifest.origin
    match origin.kind:
        case OriginKind.HUGGINGFACE | OriginKind.MODELSCOPE:
            token = None
            if credentials is not None:
                is_huggingface = origin.kind is OriginKind.HUGGINGFACE
                token = credentials.hub_token if is_huggingface else credentials.modelscope_token
            return OriginHTTP(http, gate, lambda path: file_url(origin, manifest.revision, path, endpoints), token)
        case OriginKind.S3 | OriginKind.GCS | OriginKind.OSS:
            # Imported here: an agent that only meets hubs does not load the library of the stores.
            from modelswarm.content.objectstore import bucket_region, open_store
            from modelswarm.loader.objects import ObjectStore

            bucket, _, path = origin.id.partition("/")
            source = StoreSource(Provider(origin.kind.upper()), bucket, path, origin.endpoint)
            region = await bucket_region(http, source, endpoints)
            return ObjectStore(
                open_store(source, credentials, endpoints, region=region),
                lambda path: object_key(origin, path)[1],
                bucket,
                OSS_SECRET if source.provider is Provider.OSS else AWS_SECRET,
                stall=stall,
            )
        case OriginKind.IMAGE:
            raise InvalidReference(f"{origin.id} is an image; only models are read by range")


class Origins:
    """Ways to the origins of contents. ``gate`` holds back all reads of an origin that has asked for patience."""

    def __init__(self, http: httpx.AsyncClient, endpoints: Endpoints, gate: Gate) -> None:
        self._http = http
        self._endpoints = endpoints
        self._gate = gate

    async def leg(self, manifest: Manifest, credentials: Credentials | None) -> StreamingLeg:
        """As ``open_leg``."""
        return await open_leg(manifest, credentials, self._endpoints, self._http, self._gate)


class OriginReader:
    """Reads files of one content. ``threads`` are the store's; ``throttle`` is awaited with the bytes that arrive."""

    def __init__(
        self,
        leg: StreamingLeg,
        threads: Threads,
        *,
        effort: Effort | None = None,
        throttle: Received | None = None,
        uniform: Callable[[float, float], float] = random.uniform,
    ) -> None:
        self.traffic = Traffic()
        self._leg = leg
        self._threads = threads
        self._effort = effort or Effort()
        self._throttle = throttle
        self._uniform = uniform

    async def read(
        self,
        file: ManifestFile,
        partial: Partial,
        offset: int,
        length: int,
        *,
        piece_length: int,
        on_piece: OnPiece | None = None,
    ) -> bytes:
        """Fill bytes ``offset`` to ``offset + length`` of ``partial``; returns the SHA-1 hashes of its pieces, joined.

        What is there from ``offset`` on without a gap is read from the disk instead. ``on_piece(index, hash)`` is
        called, in order and in this event loop, for every piece of the range (``index`` counts pieces of the file).
        ``offset`` is a multiple of ``piece_length``, and so is the end unless it is the file's. The range and its
        hashes are noted in the partial's journal at the end, and progress without hashes on the way.

        Passing errors are asked again about with growing pauses, from the byte where they struck, until as many in a
        row as ``Effort`` says have brought no new byte. Raises ``RateLimited`` at once (with ``retry_after``: the
        whole cluster should pause, and what was read stays), ``AccessDenied``, ``SourceNotFound``,
        ``RevisionNotFound``, ``SourceChanged``, ``SourceUnavailable``, and the store's errors.
        """
        end = offset + length
        aligned = offset % piece_length == 0 and (end % piece_length == 0 or end == file.size)
        if not (aligned and 0 <= offset < end <= file.size):
            raise ValueError(f"{offset}+{length} of {file.path} is not a range of whole pieces of {piece_length}")
        sink = RangeSink(partial, offset, end, piece_length, self._threads, self._received, on_piece)
        await sink.take_over()
        await self._persist(bind(self._attempt, file, sink), lambda: sink.done)
        hashes = sink.hashes
        partial.mark(offset, length, piece_length=piece_length, hashes=hashes)
        await self._threads.run(partial.flush)
        return hashes

    async def read_small(
        self,
        files: Sequence[ManifestFile],
        accept: Callable[[ManifestFile, bytes], Awaitable[object]],
        *,
        parallel: int = 4,
    ) -> None:
        """Read whole small files, ``parallel`` at a time; each is handed to ``accept``, which verifies it.

        A file that ``accept`` refuses with ``DigestMismatch`` is read again a few times before that is raised. The
        first error ends all; what was accepted stays. Raises as ``read`` does.
        """
        rest = iter(files)

        async def work() -> None:
            for file in rest:
                await self._read_small(file, accept)

        try:
            async with asyncio.TaskGroup() as group:
                for _ in range(min(parallel, len(files))):
                    group.create_task(work())
        except BaseExceptionGroup as errors:
            raise _first(errors) from None

    async def _read_small(self, file: ManifestFile, accept: Callable[[ManifestFile, bytes], Awaitable[object]]) -> None:
        for attempt in range(_SMALL_TRIES):
            sink = MemorySink(file, self._received)
            if file.size:
                await self._persist(bind(self._attempt_small, file, sink), bind(len, sink.data))
            try:
                await accept(file, bytes(sink.data))
            except DigestMismatch:
                if attempt == _SMALL_TRIES - 1:
                    raise
            else:
                return

    async def _attempt(self, file: ManifestFile, sink: RangeSink) -> None:
        if sink.done == sink.end:
            return
        self.traffic.requests += 1
        try:
            await self._leg.fetch(file, sink, sink.done, sink.end)
        finally:
            await sink.flush()
        if sink.done < sink.end:
            raise Transient(ContentReason.SOURCE_UNAVAILABLE, f"{file.path}: the answer ends before the range does")

    async def _attempt_small(self, file: ManifestFile, sink: MemorySink) -> None:
        self.traffic.requests += 1
        await self._leg.fetch(file, sink, sink.done, file.size)
        if sink.done < file.size:
            raise Transient(ContentReason.SOURCE_UNAVAILABLE, f"{file.path}: the answer ends before the file does")

    async def _persist(self, attempt: Callable[[], Awaitable[None]], done: Callable[[], int]) -> None:
        failures, furthest = 0, done()
        while True:
            try:
                return await attempt()
            except LoadError as error:
                if not isinstance(error, Transient) or error.reason == ContentReason.RATE_LIMITED:
                    raise as_agent_error(error) from error
                if done() > furthest:
                    furthest, failures = done(), 0
                failures += 1
                if failures >= self._effort.attempts:
                    raise as_agent_error(error) from error
                self.traffic.retries += 1
                ceiling = min(self._effort.first_pause * 2 ** (failures - 1), self._effort.longest_pause)
                # Jitter: nodes that met the same outage must not come back in step. An origin that names a time for
                # coming back is waited for at the gate.
                await asyncio.sleep(self._uniform(ceiling / 2, ceiling))

    async def _received(self, count: int) -> None:
        self.traffic.bytes += count
        if self._throttle is not None:
            await self._throttle(count)


_ERRORS: dict[str, type[ContentError]] = {
    ContentReason.ACCESS_DENIED: AccessDenied,
    ContentReason.SOURCE_NOT_FOUND: SourceNotFound,
    ContentReason.REVISION_NOT_FOUND: RevisionNotFound,
    ContentReason.RATE_LIMITED: RateLimited,
}


def as_agent_error(error: LoadError) -> ModelswarmError:
    """What a leg said, as an error with a class of its own."""
    if error.reason == Reason.SOURCE_CHANGED:
        return SourceChanged(error.message)
    wait = error.retry_after if isinstance(error, Transient) else None
    return _ERRORS.get(error.reason, SourceUnavailable)(error.message, retry_after=wait)


def _first(errors: BaseExceptionGroup[BaseException]) -> BaseException:
    error = errors.exceptions[0]
    return _first(error) if isinstance(error, BaseExceptionGroup) else error
