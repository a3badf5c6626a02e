"""Where the bytes of a range go when the disk refuses some of them."""

import errno
import hashlib
import os
from collections.abc import AsyncIterator, Sequence
from pathlib import Path
from typing import Any

import pytest

from modelswarm.agent.origin import OriginReader
from modelswarm.agent.sinks import BATCH, RangeSink
from modelswarm.agent.store import Filling, Partial, Store, StoreSettings
from modelswarm.errors import DiskFull
from modelswarm.loader.effort import Effort
from tests.unit.agent.fleet import Leg, Origin
from tests.unit.agent.store.conftest import MIB, content, noise

PATH = "model.bin"
DATA = noise("model", 5 * MIB + 123)
PIECE = MIB // 2


@pytest.fixture
async def store(tmp_path: Path) -> AsyncIterator[Store]:
    async with Store(StoreSettings(tmp_path / "store", reserve=0)) as store:
        yield store


@pytest.fixture
async def filling(store: Store) -> AsyncIterator[Filling]:
    async with await store.begin(content({PATH: DATA})) as filling:
        yield filling


def fill_once(partial: Partial, monkeypatch: pytest.MonkeyPatch, *, batch: int) -> None:
    """The disk becomes full in the middle of that batch, and has room again at once."""
    write, calls = partial.write, 0

    def refusing(pieces: Sequence[bytes | memoryview], offset: int) -> None:
        nonlocal calls
        calls += 1
        if calls == batch:
            write([pieces[0][: MIB // 4]], offset)
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        write(pieces, offset)

    monkeypatch.setattr(partial, "write", refusing)


def pieces_of(data: bytes) -> bytes:
    return b"".join(hashlib.sha1(data[at : at + PIECE]).digest() for at in range(0, len(data), PIECE))


@pytest.mark.parametrize("batch", [1, 3, 6])
async def test_no_other_bytes_take_the_place_of_those_that_the_disk_refused(
    store: Store, filling: Filling, monkeypatch: pytest.MonkeyPatch, batch: int
) -> None:
    partial, [file] = await filling.partial(filling.key(PATH)), filling.manifest.files
    fill_once(partial, monkeypatch, batch=batch)
    leg: Any = Leg(Origin({PATH: DATA}))
    reader = OriginReader(leg, store.threads, effort=Effort(attempts=2, first_pause=0.001, longest_pause=0.001))
    with pytest.raises(DiskFull):
        await reader.read(file, partial, 0, file.size, piece_length=PIECE)
    before = (batch - 1) * BATCH
    assert partial.present == ([(0, before)] if before else [])
    assert partial.path.read_bytes()[:before] == DATA[:before]
    hashes = await reader.read(file, partial, 0, file.size, piece_length=PIECE)
    assert hashes == pieces_of(DATA)
    assert partial.path.read_bytes() == DATA
    assert reader.traffic.requests == 2, "a full disk is no reason to ask the origin again at once"


async def test_a_sink_whose_disk_was_full_says_so_until_the_end(
    store: Store, filling: Filling, monkeypatch: pytest.MonkeyPatch
) -> None:
    partial = await filling.partial(filling.key(PATH))
    fill_once(partial, monkeypatch, batch=1)

    async def received(count: int) -> None:
        pass

    sink = RangeSink(partial, 0, len(DATA), PIECE, store.threads, received, None)
    await sink.write(DATA[:BATCH])
    for _ in range(2):
        with pytest.raises(DiskFull):
            await sink.write(DATA[BATCH : 2 * BATCH])
    for _ in range(2):
        with pytest.raises(DiskFull):
            await sink.flush()
    assert (sink.done, partial.present) == (0, [])
