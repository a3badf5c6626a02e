"""A file that another program writes is hashed while it grows, and judged by what lies there in the end."""

import asyncio
import hashlib
import os
from collections.abc import Sequence
from pathlib import Path

import pytest

from modelswarm.content.manifest import Manifest, ManifestFile, Origin, OriginKind
from modelswarm.loader import bring
from modelswarm.loader.ahead import Ahead
from modelswarm.loader.digests import HashState
from modelswarm.loader.effort import Effort
from modelswarm.loader.leg import Leg, Sink
from modelswarm.loader.load import Load
from modelswarm.loader.progress import Meter
from modelswarm.loader.tree import Tree

PIECE = 1 << 16
CONTENT = hashlib.shake_256(b"content").digest(8 * PIECE + 100)
FILE = ManifestFile("weights.bin", len(CONTENT), f"sha256:{hashlib.sha256(CONTENT).hexdigest()}")
SLOW = 5.0


def put(fd: int, *pieces: int, content: bytes = CONTENT) -> None:
    for piece in pieces:
        os.pwrite(fd, content[piece * PIECE : (piece + 1) * PIECE], piece * PIECE)


def look(ahead: Ahead) -> int:
    """Twice: what the first look finds counts at the second."""
    ahead.end()
    return ahead.end()


def test_fresh_bytes_are_left_alone_for_a_moment(tmp_path: Path) -> None:
    (tmp_path / "beside").write_bytes(CONTENT[:PIECE])
    ahead = Ahead(tmp_path / "beside", len(CONTENT), settled=1000)
    assert (look(ahead), ahead.read) == (0, False)
    ahead.close()


@pytest.fixture(params=["reserved", "sparse"])
def growing(request: pytest.FixtureRequest, tmp_path: Path) -> int:
    fd = os.open(tmp_path / "beside", os.O_RDWR | os.O_CREAT)
    request.addfinalizer(lambda: os.close(fd))  # noqa: PT021  (one line)
    if request.param == "reserved":
        os.posix_fallocate(fd, 0, len(CONTENT))
    return fd


def test_only_what_is_written_without_a_gap_can_be_read(growing: int, tmp_path: Path) -> None:
    ahead = Ahead(tmp_path / "beside", len(CONTENT), settled=0)
    assert (look(ahead), ahead.read) == (0, False)
    put(growing, 2, 1)
    assert look(ahead) == 0
    put(growing, 0)
    assert (look(ahead), ahead.read) == (3 * PIECE, True)
    # What was read must not make what follows look written.
    assert os.pread(ahead.fd, 3 * PIECE, 0) == CONTENT[: 3 * PIECE]
    assert look(ahead) == 3 * PIECE
    put(growing, 8, 4, 3)
    assert look(ahead) == 5 * PIECE
    put(growing, 5, 6, 7)
    assert look(ahead) == len(CONTENT)
    assert ahead.is_file(growing)
    ahead.close()


def test_a_file_that_is_whole_at_the_first_look_is_not_read_ahead(tmp_path: Path) -> None:
    (tmp_path / "beside").write_bytes(CONTENT)
    ahead = Ahead(tmp_path / "beside", len(CONTENT), settled=0)
    assert (look(ahead), look(ahead), ahead.read) == (0, 0, False)
    ahead.close()


@pytest.mark.parametrize("kind", ["missing", "directory", "link"])
def test_what_is_not_a_file_is_not_read(tmp_path: Path, kind: str) -> None:
    path = tmp_path / "beside"
    if kind == "directory":
        path.mkdir()
    elif kind == "link":
        path.symlink_to("/etc/passwd")
    assert Ahead(path, 10).end() == 0


async def hashed_up_to(hashed: list[int], count: int) -> None:
    async with asyncio.timeout(SLOW):
        while sum(hashed) < count:  # noqa: ASYNC110  (threads of the loader count)
            await asyncio.sleep(0.001)


class Program:
    """A leg whose program writes the pieces in this order, each after the hash has come as far as it can."""

    name = "program"
    splittable = False

    def __init__(self, order: Sequence[int], hashed: list[int], *, last: bytes | None = None) -> None:
        self.order = order
        self.hashed = hashed
        self.last = last
        self.while_growing = 0

    def serves(self, file: ManifestFile) -> bool:
        return True

    async def fetch(self, file: ManifestFile, sink: Sink, start: int, end: int) -> None:
        beside = sink.path.with_name("beside")
        sink.growing(beside)
        fd = os.open(beside, os.O_RDWR | os.O_CREAT)
        os.posix_fallocate(fd, 0, len(CONTENT))
        written: set[int] = set()
        for piece in self.order:
            put(fd, piece)
            written.add(piece)
            front = next(number for number in range(10) if number not in written)
            await hashed_up_to(self.hashed, min(front, 7) * PIECE)
        self.while_growing = sum(self.hashed)
        if self.last is not None:
            os.pwrite(fd, self.last, 0)
        os.close(fd)
        beside.rename(sink.path)
        await sink.filled()


class FromMemory:
    name = "origin"
    splittable = True

    def serves(self, file: ManifestFile) -> bool:
        return True

    async def fetch(self, file: ManifestFile, sink: Sink, start: int, end: int) -> None:
        await sink.begin()
        await sink.write(CONTENT[start:end])


@pytest.fixture
def hashed(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    counts: list[int] = []
    real = bring.hash_range

    def count(fd: int, state: HashState, start: int, end: int) -> int:
        reached = real(fd, state, start, end)
        counts.append(reached - start)
        return reached

    monkeypatch.setattr(bring, "hash_range", count)
    return counts


def load(folder: Path, *legs: Leg) -> Meter:
    manifest = Manifest(Origin(OriginKind.HUGGINGFACE, "org/model"), "c" * 40, (FILE,))
    meter = Meter(manifest.bytes, 1)
    asyncio.run(Load(manifest, Tree(folder, folder / "model", "key"), legs, Effort(), meter, say=lambda _: None).run())
    assert (folder / "model" / "weights.bin").read_bytes() == CONTENT
    return meter


@pytest.mark.parametrize(
    "order",
    [pytest.param(range(9), id="in order"), pytest.param([2, 1, 0, 4, 3, 8, 6, 5, 7], id="in any order")],
)
def test_most_of_it_is_hashed_when_the_program_ends(tmp_path: Path, hashed: list[int], order: Sequence[int]) -> None:
    program = Program(order, hashed)
    meter = load(tmp_path, program, FromMemory())
    assert meter.by_source == {"program": len(CONTENT)}
    assert program.while_growing >= 7 * PIECE
    assert sum(hashed) == len(CONTENT), "nothing is hashed twice"


def test_what_was_read_too_early_is_read_again_before_it_is_called_wrong(tmp_path: Path, hashed: list[int]) -> None:
    """No program that we know does so; but a good file must not be thrown away for the time of our looking at it."""

    class Rewrites(Program):
        async def fetch(self, file: ManifestFile, sink: Sink, start: int, end: int) -> None:
            beside = sink.path.with_name("beside")
            beside.write_bytes(b"x" * PIECE)
            sink.growing(beside)
            await hashed_up_to(self.hashed, PIECE)
            with beside.open("r+b") as stream:
                stream.write(CONTENT)
            beside.rename(sink.path)
            await sink.filled()

    meter = load(tmp_path, Rewrites([], hashed), FromMemory())
    assert meter.by_source == {"program": len(CONTENT)}
    assert sum(hashed) > len(CONTENT)


def test_another_file_than_the_one_that_grew_is_hashed_from_the_start(tmp_path: Path, hashed: list[int]) -> None:
    class Swaps(Program):
        async def fetch(self, file: ManifestFile, sink: Sink, start: int, end: int) -> None:
            beside = sink.path.with_name("beside")
            beside.write_bytes(CONTENT[:PIECE])
            sink.growing(beside)
            await hashed_up_to(self.hashed, PIECE)
            beside.unlink()
            sink.path.with_name("other").write_bytes(b"x" * len(CONTENT))
            sink.path.with_name("other").rename(sink.path)
            await sink.filled()

    meter = load(tmp_path, Swaps([], hashed), FromMemory())
    assert meter.by_source["origin"] == len(CONTENT), "the bytes that are there count, not those that were read"
