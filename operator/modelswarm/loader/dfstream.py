"""dfdaemon's own interface (gRPC, on its socket), for files that need a token: the token is part of the message.

That is the only way to hand one over without showing it to every process of the node. Request headers are not part of
a task's id, so this is the task that was preheated. The content comes in the answers, piece by piece in any order; the
daemon sees nothing of our file system.

Needs grpcio and dragonfly-api, which nothing else does: import it where there is a token to hand over.
"""

import asyncio
import os
from collections.abc import Mapping
from pathlib import Path

import grpc
import grpc.aio
from dragonfly_api.common_pb2 import Download, Piece, Priority, SchedulingPolicy, TaskType
from dragonfly_api.dfdaemon_pb2 import DownloadTaskRequest, DownloadTaskResponse
from google.protobuf.duration_pb2 import Duration
from google.protobuf.message import Message

from modelswarm.loader.dfdaemon import Why, shown
from modelswarm.loader.outcome import Unserved
from modelswarm.loader.settings import DfdaemonSettings
from modelswarm.loader.threads import in_thread

_METHOD = "/dfdaemon.v2.DfdaemonDownload/DownloadTask"
_OPTIONS = (
    ("grpc.max_receive_message_length", -1),  # a piece has up to 64 MiB
    ("grpc.default_authority", "localhost"),  # the daemon's HTTP/2 refuses what gRPC makes of a socket's path
    ("grpc.enable_http_proxy", 0),
    ("grpc.enable_retries", 0),
)


class DfdaemonStream:
    """A writer (``dfdaemon.Writer``). ``headers`` go to the origin with the daemon's requests."""

    name = "dfdaemon"

    def __init__(self, settings: DfdaemonSettings, headers: Mapping[str, str]) -> None:
        self._settings = settings
        self._headers = headers

    def request(self, url: str, size: int) -> Download:
        """What is asked for."""
        settings = self._settings
        return Download(
            url=url,
            type=TaskType.STANDARD,
            tag=settings.tag,
            application=settings.application,
            priority=Priority.LEVEL6,
            request_header=self._headers,
            timeout=Duration(seconds=int(settings.limit(size)) + 1),
            need_piece_content=True,
            # Otherwise every node reads small files from the origin, preheated or not.
            scheduling_policy=SchedulingPolicy.ALWAYS,
        )

    async def write(self, url: str, size: int, output: Path) -> None:
        """Return when all pieces are written; otherwise the call is cancelled and ``Unserved`` says why."""
        limit = self._settings.limit(size)
        try:
            async with asyncio.timeout(limit) as whole:
                await self._receive(self.request(url, size), size, output)
        except TimeoutError:
            if not whole.expired():
                stall = self._settings.stall
                raise Unserved(Why.STALLED, f"the daemon sent nothing for {stall:.0f} s") from None
            raise Unserved(Why.TOO_SLOW, f"the daemon was not done after {limit:.0f} s") from None
        except grpc.aio.AioRpcError as error:
            # Neither its text nor its context: headers that an origin answered with may be in there.
            told = f"{error.code().name}: {shown(error.details() or '')}"
            raise Unserved(Why.REFUSED, f"the daemon gave up: {told}") from None

    async def _receive(self, download: Download, size: int, output: Path) -> None:
        fd = os.open(output, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o644)
        try:
            async with grpc.aio.insecure_channel(f"unix:{self._settings.socket}", options=_OPTIONS) as channel:
                ask = channel.unary_stream(
                    _METHOD,
                    request_serializer=DownloadTaskRequest.SerializeToString,
                    response_deserializer=DownloadTaskResponse.FromString,
                )
                call = ask(DownloadTaskRequest(download=download))
                try:
                    await self._pieces(call, size, fd)
                finally:
                    call.cancel()
        finally:
            os.close(fd)

    async def _pieces(
        self, call: "grpc.aio.UnaryStreamCall[Message, DownloadTaskResponse]", size: int, fd: int
    ) -> None:
        seen: set[int] = set()
        got = 0
        while True:
            async with asyncio.timeout(self._settings.stall):
                answer = await call.read()
            if not isinstance(answer, DownloadTaskResponse):
                break
            if answer.HasField("download_task_started_response"):
                found = answer.download_task_started_response.content_length
                if found != size:
                    raise Unserved(Why.WRONG_SIZE, f"the daemon has {found} bytes instead of {size}")
                continue
            piece = answer.download_piece_finished_response.piece
            if not fits(piece, size):
                raise Unserved(Why.WRONG_SIZE, "the daemon sent a piece that is not one of the file's")
            # A piece that comes twice is not written twice: its first bytes may have been read already.
            if piece.offset not in seen:
                seen.add(piece.offset)
                got += len(piece.content)
                await in_thread(_write, fd, piece.content, piece.offset)
        if got != size:
            raise Unserved(Why.WRONG_SIZE, f"the daemon sent {got} bytes instead of {size}")


def fits(piece: Piece, size: int) -> bool:
    """Whether the piece is what it says it is, and lies in a file of ``size`` bytes."""
    return len(piece.content) == piece.length > 0 and piece.offset + piece.length <= size


def _write(fd: int, content: bytes, offset: int) -> None:
    view = memoryview(content)
    while view:
        count = os.pwrite(fd, view, offset)
        view, offset = view[count:], offset + count
