"""Several legs: the first that can gives the bytes, and none of them is trusted."""

import asyncio
import hashlib
import os
from collections.abc import Callable
from pathlib import Path

import pytest

from modelswarm.content.manifest import Manifest, ManifestFile, Origin, OriginKind
from modelswarm.errors import LoadError
from modelswarm.loader.effort import Effort
from modelswarm.loader.leg import Leg, Sink
from modelswarm.loader.load import Load
from modelswarm.loader.outcome import Transient, Unserved
from modelswarm.loader.progress import Meter
from modelswarm.loader.tree import Tree

CONTENT = hashlib.shake_256(b"content").digest(400_000)
FILE = ManifestFile("weights.bin", len(CONTENT), f"sha256:{hashlib.sha256(CONTENT).hexdigest()}")


class Stream:
    """A leg that streams from memory, as it is told."""

    splittable = True

    def __init__(self, name: str, content: bytes = CONTENT, *, fail_at: int | None = None) -> None:
        self.name = name
        self.content = content
        self.fail_at = fail_at
        self.asked: list[tuple[int, int]] = []

    def serves(self, file: ManifestFile) -> bool:
        return True

    async def fetch(self, file: ManifestFile, sink: Sink, start: int, end: int) -> None:
        self.asked.append((start, end))
        await sink.begin()
        for at in range(start, end, 10_000):
            if self.fail_at is not None and at >= self.fail_at:
                raise Transient("SourceUnavailable", "it fell over")
            await sink.write(self.content[at : min(at + 10_000, end)])


class Daemon:
    """A leg whose program writes the whole file by itself."""

    name = "daemon"
    splittable = False

    def __init__(self, content: bytes | None) -> None:
        self.content = content
        self.asked: list[tuple[int, int]] = []

    def serves(self, file: ManifestFile) -> bool:
        return file.size > 10

    async def fetch(self, file: ManifestFile, sink: Sink, start: int, end: int) -> None:
        self.asked.append((start, end))
        if self.content is None:
            raise Unserved("SocketMissing", "there is no daemon")
        beside = sink.path.with_name("beside")
        beside.write_bytes(self.content)
        beside.rename(sink.path)
        await sink.filled()


Run = Callable[..., tuple[Meter, list[str]]]


@pytest.fixture
def run(tmp_path: Path) -> Run:
    def run(*legs: Leg, file: ManifestFile = FILE) -> tuple[Meter, list[str]]:
        manifest = Manifest(Origin(OriginKind.HUGGINGFACE, "org/model"), "c" * 40, (file,))
        meter = Meter(manifest.bytes, 1)
        lines: list[str] = []
        tree = Tree(tmp_path, tmp_path / "model", "key")
        effort = Effort(span_bytes=50_000, attempts=3, first_pause=0.001)
        asyncio.run(Load(manifest, tree, legs, effort, meter, say=lines.append).run())
        return meter, lines

    return run


def test_the_first_leg_that_serves_the_file_is_enough(run: Run, tmp_path: Path) -> None:
    origin = Stream("origin")
    meter, lines = run(Daemon(CONTENT), origin)
    assert (tmp_path / "model" / "weights.bin").read_bytes() == CONTENT
    assert meter.by_source == {"daemon": len(CONTENT)}
    assert origin.asked == []
    assert lines == []


def test_a_leg_that_cannot_is_followed_by_one_that_can_in_ranges(run: Run, tmp_path: Path) -> None:
    origin = Stream("origin")
    meter, lines = run(Daemon(None), origin)
    assert (tmp_path / "model" / "weights.bin").read_bytes() == CONTENT
    assert meter.by_source == {"origin": len(CONTENT)}
    assert len(origin.asked) == 8
    assert lines == ["weights.bin: not from daemon: there is no daemon"]


@pytest.mark.parametrize("content", [CONTENT[:-1] + b"x", CONTENT[:-1], CONTENT + b"x", b""])
def test_wrong_bytes_of_a_leg_are_fetched_from_the_next(run: Run, tmp_path: Path, content: bytes) -> None:
    meter, _ = run(Daemon(content), Stream("origin"))
    assert (tmp_path / "model" / "weights.bin").read_bytes() == CONTENT
    assert meter.by_source["origin"] == len(CONTENT)
    assert meter.done == len(CONTENT)


def test_what_a_failing_leg_has_given_is_kept(run: Run) -> None:
    origin = Stream("origin")
    meter, _ = run(Stream("peers", fail_at=200_000), Daemon(CONTENT), origin)
    assert meter.by_source["peers"] > 0
    assert meter.by_source["peers"] + meter.by_source["origin"] == len(CONTENT)
    assert "daemon" not in meter.by_source, "it would have begun from zero"


def test_a_leg_is_not_asked_for_what_it_does_not_serve(run: Run) -> None:
    daemon = Daemon(b"tiny")
    content = b"tiny"
    file = ManifestFile("tiny.txt", 4, f"sha256:{hashlib.sha256(content).hexdigest()}")
    meter, _ = run(daemon, Stream("origin", content), file=file)
    assert daemon.asked == []
    assert meter.by_source == {"origin": 4}


def test_a_leg_that_sends_too_much_is_cut_off(run: Run) -> None:
    class Generous(Stream):
        async def fetch(self, file: ManifestFile, sink: Sink, start: int, end: int) -> None:
            await sink.begin()
            await sink.write(self.content[start:end] + b"more")

    with pytest.raises(LoadError, match="more bytes than it was asked for"):
        run(Generous("origin"))


def test_an_etag_that_is_no_md5_does_not_fail_the_load(run: Run) -> None:
    file = ManifestFile("weights.bin", len(CONTENT), None, f'"{"0" * 32}"')
    meter, lines = run(Stream("origin"), file=file)
    assert meter.unverified == 1
    assert len(lines) == 1


def test_a_full_disk_is_told_as_such(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(fd: int, buffers: object, offset: int) -> int:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "pwritev", full)
    with pytest.raises(LoadError, match="the volume is full") as caught:
        run(Stream("origin"))
    assert caught.value.reason == "InsufficientCapacity"
