"""Where the bytes of a span go when the disk refuses some of them."""

import asyncio
import errno
import os
from pathlib import Path

import pytest

from modelswarm.loader import sink as sinks
from modelswarm.loader.part import Part
from modelswarm.loader.progress import Meter
from modelswarm.loader.sink import BATCH, SpanSink


async def test_no_other_bytes_take_the_place_of_those_that_the_disk_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    calls, write = 0, sinks._write

    def refusing(part: Part, pieces: list[bytes | memoryview], offset: int) -> None:
        nonlocal calls
        calls += 1
        if calls == 2:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        write(part, pieces, offset)

    monkeypatch.setattr(sinks, "_write", refusing)
    part = Part(tmp_path / "file", 4 * BATCH, 4 * BATCH, Meter(4 * BATCH, 1))
    part.open()
    sink = SpanSink(part, part.spans[0], "origin", begun=asyncio.Event(), alone=True)
    await sink.begin()
    await sink.write(b"a" * BATCH)
    await sink.write(b"b" * BATCH)
    with pytest.raises(OSError, match="No space left"):
        await sink.write(b"c" * BATCH)
    with pytest.raises(OSError, match="No space left"):
        await sink.flush()
    assert part.done == BATCH
    assert part.path.read_bytes() == b"a" * BATCH
    os.close(part.fd)
