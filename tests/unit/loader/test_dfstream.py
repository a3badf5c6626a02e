"""dfdaemon asked by gRPC: a stand-in of its method on a real socket, and what becomes of what it sends."""

import asyncio
import hashlib
import shutil
import tempfile
from collections.abc import AsyncIterator, Callable, Iterator, Sequence
from pathlib import Path

import pytest

pytest.importorskip("grpc")
pytest.importorskip("dragonfly_api")

import grpc
import grpc.aio
from dragonfly_api.common_pb2 import Download, Piece, SchedulingPolicy
from dragonfly_api.dfdaemon_pb2 import (
    DownloadPieceFinishedResponse,
    DownloadTaskRequest,
    DownloadTaskResponse,
    DownloadTaskStartedResponse,
)

from modelswarm.loader.dfstream import DfdaemonStream
from modelswarm.loader.outcome import Unserved
from modelswarm.loader.settings import DfdaemonSettings

CONTENT = hashlib.shake_256(b"content").digest(1_000_000)
PIECE = 300_000
URL = "https://hub.example/org/model/resolve/c/weights.bin"
HEADERS = {"Authorization": "Bearer hf_planted"}

Answers = Callable[[], AsyncIterator[DownloadTaskResponse]]


def started(size: int = len(CONTENT)) -> DownloadTaskResponse:
    return DownloadTaskResponse(
        download_task_started_response=DownloadTaskStartedResponse(content_length=size, is_finished=False)
    )


def piece(number: int, content: bytes | None = None, *, offset: int | None = None) -> DownloadTaskResponse:
    at = number * PIECE if offset is None else offset
    data = CONTENT[number * PIECE : (number + 1) * PIECE] if content is None else content
    length = len(CONTENT[number * PIECE : (number + 1) * PIECE])
    sent = Piece(number=number, offset=at, length=length, content=data)
    return DownloadTaskResponse(download_piece_finished_response=DownloadPieceFinishedResponse(piece=sent))


class Daemon:
    """Serves ``DownloadTask`` from a thread's event loop; ``asked`` are the messages that it has got."""

    def __init__(self, socket: Path) -> None:
        self.socket = socket
        self.asked: list[Download] = []
        self.cancelled = 0

    def run(self, answers: Answers, output: Path, *, seconds: float = 20.0, stall: float = 5.0) -> None:
        """Serve, and have the loader's side write to ``output``."""

        async def method(request: DownloadTaskRequest, context: object) -> AsyncIterator[DownloadTaskResponse]:
            self.asked.append(request.download)
            try:
                async for answer in answers():
                    yield answer
            except asyncio.CancelledError:
                self.cancelled += 1
                raise

        async def both() -> None:
            server = grpc.aio.server()
            handler = grpc.unary_stream_rpc_method_handler(
                method,
                request_deserializer=DownloadTaskRequest.FromString,
                response_serializer=DownloadTaskResponse.SerializeToString,
            )
            handlers = grpc.method_handlers_generic_handler("dfdaemon.v2.DfdaemonDownload", {"DownloadTask": handler})
            server.add_generic_rpc_handlers((handlers,))
            server.add_insecure_port(f"unix:{self.socket}")
            await server.start()
            try:
                settings = DfdaemonSettings(self.socket, tag="models", application="swarm", stall=stall)
                writer = DfdaemonStream(settings, HEADERS)
                async with asyncio.timeout(seconds):
                    await writer.write(URL, len(CONTENT), output)
            finally:
                await server.stop(None)

        asyncio.run(both())


@pytest.fixture
def daemon() -> Iterator[Daemon]:
    folder = Path(tempfile.mkdtemp(prefix="dfdaemon"))  # the address of a socket has room for 107 characters
    yield Daemon(folder / "dfdaemon.sock")
    shutil.rmtree(folder)


def sends(*answers: DownloadTaskResponse) -> Answers:
    async def send() -> AsyncIterator[DownloadTaskResponse]:
        for answer in answers:
            yield answer

    return send


@pytest.mark.parametrize(
    "order",
    [
        pytest.param([0, 1, 2, 3], id="in order"),
        pytest.param([3, 1, 0, 2], id="in any order"),
        pytest.param([0, 1, 1, 2, 3, 0], id="some twice"),
    ],
)
def test_pieces_are_put_together(daemon: Daemon, tmp_path: Path, order: Sequence[int]) -> None:
    daemon.run(sends(started(), *(piece(number) for number in order)), tmp_path / "out")
    assert (tmp_path / "out").read_bytes() == CONTENT


def test_it_asks_for_what_was_preheated_with_the_token_as_a_header(daemon: Daemon, tmp_path: Path) -> None:
    daemon.run(sends(started(), *map(piece, range(4))), tmp_path / "out")
    (asked,) = daemon.asked
    assert (asked.url, asked.tag, asked.application) == (URL, "models", "swarm")
    assert dict(asked.request_header) == HEADERS
    assert asked.need_piece_content
    assert asked.scheduling_policy == SchedulingPolicy.ALWAYS
    for field in ("output_path", "piece_length", "digest", "content_for_calculating_task_id", "range"):
        assert not asked.HasField(field), "it would be another task, or land where the daemon writes"
    assert not asked.filtered_query_params


@pytest.mark.parametrize(
    ("answers", "reason", "words"),
    [
        pytest.param([], "WrongSize", "sent 0 bytes", id="nothing"),
        pytest.param([started(5)], "WrongSize", "has 5 bytes", id="another file"),
        pytest.param([started(), piece(0), piece(1)], "WrongSize", "sent 600000 bytes", id="an early end"),
        pytest.param([started(), piece(0, b"short")], "WrongSize", "not one of the file's", id="a cut piece"),
        pytest.param([piece(0, b"")], "WrongSize", "not one of the file's", id="a piece without content"),
        pytest.param([piece(0, offset=900_000)], "WrongSize", "not one of the file's", id="beyond the end"),
    ],
)
def test_what_is_not_the_file_is_refused(
    daemon: Daemon, tmp_path: Path, answers: Sequence[DownloadTaskResponse], reason: str, words: str
) -> None:
    with pytest.raises(Unserved) as raised:
        daemon.run(sends(*answers), tmp_path / "out")
    assert raised.value.reason == reason
    assert words in raised.value.message


def test_a_daemon_that_falls_silent_is_left_and_the_call_is_cancelled(daemon: Daemon, tmp_path: Path) -> None:
    async def send() -> AsyncIterator[DownloadTaskResponse]:
        yield started()
        yield piece(0)
        await asyncio.sleep(60)

    with pytest.raises(Unserved) as raised:
        daemon.run(send, tmp_path / "out", stall=2)
    assert (raised.value.reason, raised.value.message) == ("Stalled", "the daemon sent nothing for 2 s")
    assert daemon.cancelled == 1


def test_one_that_never_ends_is_left(daemon: Daemon, tmp_path: Path) -> None:
    async def send() -> AsyncIterator[DownloadTaskResponse]:
        while True:
            yield piece(0)
            await asyncio.sleep(0.05)

    with pytest.raises(Unserved) as raised:
        daemon.run(send, tmp_path / "out", stall=1)
    assert raised.value.reason == "TooSlow"
    assert daemon.cancelled == 1


def test_cancelled_it_cancels_the_call(daemon: Daemon, tmp_path: Path) -> None:
    async def send() -> AsyncIterator[DownloadTaskResponse]:
        yield piece(0)
        await asyncio.sleep(60)

    with pytest.raises(TimeoutError):
        daemon.run(send, tmp_path / "out", seconds=2)
    assert daemon.cancelled == 1


def test_what_an_origin_told_the_daemon_is_told_without_its_links(daemon: Daemon, tmp_path: Path) -> None:
    async def send() -> AsyncIterator[DownloadTaskResponse]:
        yield started()
        text = "backend error: 403 of https://user:planted@cdn.example/file?Signature=planted " + "x" * 1000
        raise grpc.aio.AioRpcError(grpc.StatusCode.INTERNAL, grpc.aio.Metadata(), grpc.aio.Metadata(), text)

    with pytest.raises(Unserved) as raised:
        daemon.run(send, tmp_path / "out")
    assert raised.value.reason == "DaemonFailed"
    assert "planted" not in raised.value.message
    assert raised.value.__cause__ is None
    assert len(raised.value.message) < 300


def test_nobody_there_is_said_at_once(daemon: Daemon, tmp_path: Path) -> None:
    writer = DfdaemonStream(DfdaemonSettings(daemon.socket), HEADERS)
    with pytest.raises(Unserved) as raised:
        asyncio.run(asyncio.wait_for(writer.write(URL, 10, tmp_path / "out"), 10))
    assert raised.value.reason == "DaemonFailed"
    assert "UNAVAILABLE" in raised.value.message
