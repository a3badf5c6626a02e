"""A disk that is really full."""

import contextlib
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from modelswarm.agent.store import Protection, Store, StoreSettings, content_id
from modelswarm.errors import DiskFull, InsufficientCapacity
from tests.unit.agent.store.conftest import MIB, content, fill, noise, put, tree

FILES = {"one.bin": noise("one", 3 * MIB), "two.bin": noise("two", 2 * MIB)}


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """8 MiB of memory as a file system."""
    folder = tmp_path / "disk"
    folder.mkdir()
    try:
        subprocess.run(["mount", "-t", "tmpfs", "-o", "size=8m", "tmpfs", str(folder)], check=True, capture_output=True)
    except (OSError, subprocess.CalledProcessError):
        pytest.skip("mounting a tmpfs needs root")
    try:
        yield folder
    finally:
        subprocess.run(["umount", str(folder)], check=True)


def fill_up(path: Path) -> None:
    with path.open("wb", buffering=0) as file, contextlib.suppress(OSError):
        while file.write(bytes(4096)):
            pass


async def test_what_does_not_fit_is_refused_before_the_first_byte(small_disk: Path) -> None:
    async with Store(StoreSettings(small_disk, reserve=MIB)) as store:
        big = content({"big.bin": noise("big", 8 * MIB)})
        with pytest.raises(InsufficientCapacity, match=r"need 8Mi, free [67]\.?\d*Mi"):
            await store.begin(big)
        async with await store.begin(content(FILES)) as filling:
            await fill(filling, FILES)
        assert store.has(filling.content)


async def test_room_is_made_on_a_real_disk(small_disk: Path) -> None:
    other = {"three.bin": noise("three", 4 * MIB)}
    async with Store(StoreSettings(small_disk, reserve=0)) as store:
        async with await store.begin(content(FILES)) as filling:
            await fill(filling, FILES)
        store.protect(Protection())
        async with await store.begin(content(other)) as filling:
            await fill(filling, other)
        assert not store.has(content_id(content(FILES)))
        assert tree(store.directory(filling.content)) == other


async def test_a_disk_that_fills_up_under_way_says_so_and_can_go_on(small_disk: Path) -> None:
    async with Store(StoreSettings(small_disk, reserve=0)) as store, await store.begin(content(FILES)) as filling:
        await put(filling, filling.key("one.bin"), FILES["one.bin"])
        await filling.finish(filling.key("one.bin"))
        key = filling.key("two.bin")
        partial = await filling.partial(key)
        await put(filling, key, FILES["two.bin"], 0, 4096)
        other = small_disk / "others"
        fill_up(other)
        with pytest.raises(InsufficientCapacity, match="the disk is full"):
            await store.threads.run(partial.write, [FILES["two.bin"]], 0)
        with pytest.raises(DiskFull, match=r"the disk is full: need \d[.\d]*Mi, free 0") as caught:
            async with await store.begin(content(FILES)):
                await store.threads.run(partial.write, [FILES["two.bin"]], 0)
        assert caught.value.need == len(FILES["two.bin"]) - 4096
        other.unlink()
        assert partial.present == [(0, 4096)]
        await fill(filling, FILES)
        assert tree(store.directory(filling.content)) == FILES


async def test_who_starts_on_a_full_disk_has_what_is_complete(small_disk: Path) -> None:
    settings = StoreSettings(small_disk, reserve=0)
    async with Store(settings) as store, await store.begin(content(FILES)) as filling:
        await fill(filling, FILES)
    journal = small_disk / ".modelswarm" / "verified.json"
    with journal.open("a") as file:
        file.write('{"key": "half a li')
    whole = journal.read_text().rpartition("\n")[0] + "\n"
    other = small_disk / "others"
    fill_up(other)
    for _ in range(3):
        async with Store(settings) as store:
            assert store.has(content_id(content(FILES)))
            assert tree(store.directory(content_id(content(FILES)))) == FILES
            assert journal.read_text() == whole
    other.unlink()
    async with Store(settings) as store:
        more = {"three.bin": noise("three", MIB)}
        async with await store.begin(content(more)) as filling:
            await fill(filling, more)
    async with Store(settings) as store:
        assert store.has(content_id(content(FILES)))
        assert store.has(content_id(content(more)))
