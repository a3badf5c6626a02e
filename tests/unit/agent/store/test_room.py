"""What leaves the disk, and what does not."""

import os
from dataclasses import replace
from pathlib import Path

import pytest

from modelswarm.agent.store import ContentState, Protection, Store, StoreSettings, content_id
from modelswarm.content.manifest import Manifest
from modelswarm.errors import InsufficientCapacity
from tests.unit.agent.store.conftest import MIB, content, fill, noise, put, tree

SHARED = noise("shared", MIB)


def model(name: str) -> tuple[Manifest, dict[str, bytes]]:
    """2 MiB, one of which all of them share."""
    files = {"own.bin": noise(name, MIB), "shared.bin": SHARED}
    return content(files, id=f"org/{name}"), files


class Clock:
    def __init__(self) -> None:
        self.now = 2_000_000_000.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def clock() -> Clock:
    return Clock()


async def bring(store: Store, clock: Clock, *names: str) -> list[str]:
    """Contents in the order in which they were last used."""
    ids = []
    for name in names:
        manifest, files = model(name)
        async with await store.begin(manifest) as filling:
            await fill(filling, files)
        clock.now += 60
        await store.touch(filling.content)
        ids.append(filling.content)
    return ids


async def test_the_least_recently_used_makes_room(settings: StoreSettings, clock: Clock) -> None:
    async with Store(replace(settings, quota=4 * MIB + 100), now=clock) as store:
        old, mid, new = await bring(store, clock, "old", "mid", "new")
        await store.touch(old)
        manifest, files = model("next")
        with pytest.raises(InsufficientCapacity, match="need 1Mi"):
            await store.begin(manifest)
        assert store.has(mid), "nothing is evicted before anybody has said what is protected"
        store.protect(Protection(pinned=frozenset({new})))
        async with await store.begin(manifest) as filling:
            assert [it.content for it in await store.models() if it.state is ContentState.COMPLETE] == sorted(
                [old, new]
            )
            assert not store.directory(mid).exists()
            await fill(filling, files)
        for kept in (old, new, filling.content):
            assert await store.recheck(kept) == ()
        assert tree(store.directory(filling.content)) == files


async def test_nothing_leaves_in_vain(settings: StoreSettings, clock: Clock) -> None:
    async with Store(replace(settings, quota=4 * MIB + 100), now=clock) as store:
        ids = await bring(store, clock, "a", "b", "c")
        store.protect(Protection(in_use=frozenset(ids[1:])))
        big = content({"big.bin": noise("big", 3 * MIB)}, id="org/big")
        with pytest.raises(InsufficientCapacity) as caught:
            await store.begin(big)
        assert caught.value.need == 3 * MIB
        assert all(map(store.has, ids))


@pytest.mark.parametrize("limits", [{"quota": 2 * MIB}, {"reserve": 1 << 60}], ids=["the quota", "the disk"])
async def test_nothing_leaves_in_vain_where_more_is_taken_than_may_be(
    settings: StoreSettings, clock: Clock, limits: dict[str, int]
) -> None:
    async with Store(settings, now=clock) as store:
        ids = await bring(store, clock, "a", "b", "c")
    async with Store(replace(settings, **limits), now=clock) as store:
        store.protect(Protection(in_use=frozenset(ids[1:])))
        with pytest.raises(InsufficientCapacity, match="free 0"):
            await store.begin(model("next")[0])
        assert (await store.capacity()).available == 0
        assert all(map(store.has, ids)), "what the first one has is as much as the next one needs, and not enough"


async def test_what_is_taken_beyond_the_quota_is_freed_as_well(settings: StoreSettings, clock: Clock) -> None:
    async with Store(settings, now=clock) as store:
        old, mid, new = await bring(store, clock, "old", "mid", "new")
    async with Store(replace(settings, quota=3 * MIB), now=clock) as store:
        store.protect(Protection())
        async with await store.begin(model("next")[0]):
            assert [store.has(each) for each in (old, mid, new)] == [False, False, True]


async def test_the_watermark_spares_what_is_wanted(settings: StoreSettings, clock: Clock) -> None:
    async with Store(replace(settings, quota=5 * MIB, high=0.75, low=0.5), now=clock) as store:
        left: list[str] = []
        store.on_evicted(left.append)
        old, mid, new = await bring(store, clock, "old", "mid", "new")
        await store.keep_watermark()
        assert left == []
        store.protect(Protection(wanted=frozenset({old})))
        await store.keep_watermark()
        assert left == [mid, new]
        assert store.has(old)
        await store.keep_watermark()
        assert left == [mid, new]


async def test_who_left_for_a_download_is_told_and_who_is_purged_is_not(settings: StoreSettings, clock: Clock) -> None:
    async with Store(replace(settings, quota=4 * MIB + 100), now=clock) as store:
        left: list[str] = []
        store.on_evicted(lambda content: left.append(content) if not store.has(content) else None)
        old, mid, _ = await bring(store, clock, "old", "mid", "new")
        store.protect(Protection())
        async with await store.begin(model("next")[0]):
            assert left == [old]
        await store.purge(mid)
        assert left == [old]


async def test_what_is_being_filled_is_not_evicted(settings: StoreSettings, clock: Clock) -> None:
    async with Store(replace(settings, quota=4 * MIB + 100), now=clock) as store:
        store.protect(Protection())
        manifest, files = model("slow")
        filling = await store.begin(manifest)
        await put(filling, filling.key("own.bin"), files["own.bin"])
        await filling.finish(filling.key("own.bin"))
        with pytest.raises(InsufficientCapacity):
            await store.begin(content({"big.bin": noise("big", 3 * MIB)}, id="org/big"))
        assert [file.path for file in filling.missing()] == ["shared.bin"]
        await fill(filling, files)
        assert tree(store.directory(filling.content)) == files


async def test_a_partial_of_a_wanted_content_is_kept_and_others_go(
    settings: StoreSettings, clock: Clock, root: Path
) -> None:
    async with Store(replace(settings, orphan_seconds=100), now=clock) as store:
        ids = []
        for name in ("wanted", "dropped"):
            manifest, files = model(name)
            async with await store.begin(manifest) as filling:
                await put(filling, filling.key("own.bin"), files["own.bin"], 0, MIB // 2)
                ids.append(filling.content)
        assert await store.sweep() == 0, "nobody has said yet what is wanted"
        store.protect(Protection(wanted=frozenset(ids[:1])))
        clock.now = 0
        assert await store.sweep() == 0, "too new to be judged"
        clock.now = 2_000_000_000.0
        assert len(os.listdir(root / "partial")) == 4
        await store.sweep()
        assert [it.content for it in await store.models()] == ids[:1]
        assert len(os.listdir(root / "partial")) == 2
        async with await store.begin(model("wanted")[0]) as filling:
            assert (await filling.partial(filling.key("own.bin"))).present == [(0, MIB // 2)]


async def test_orphans_go_and_what_a_content_has_stays(settings: StoreSettings, clock: Clock, root: Path) -> None:
    async with Store(settings, now=clock) as store:
        (kept,) = await bring(store, clock, "kept")
        orphan = root / "blobs" / ("sha256-" + "0" * 64)
        orphan.write_bytes(b"nobody's")
        leftover = root / "partial" / ("sha256-" + "1" * 64 + ".json")
        leftover.write_bytes(b"{}")
        foreign = root / "blobs" / "README"
        foreign.write_bytes(b"somebody's")
        (root / "models" / ("f" * 64)).mkdir()
        store.protect(Protection())
        await store.sweep()
        assert not orphan.exists()
        assert not leftover.exists()
        assert not (root / "models" / ("f" * 64)).exists()
        assert foreign.exists(), "only what has a name of ours is ours"
        assert store.has(kept)
        assert await store.recheck(kept) == ()


async def test_a_purge_under_way_of_a_download_frees_what_nobody_else_needs(
    settings: StoreSettings, clock: Clock, root: Path
) -> None:
    async with Store(settings, now=clock) as store:
        (other,) = await bring(store, clock, "other")
        manifest, files = model("gone")
        filling = await store.begin(manifest)
        partial = await filling.partial(filling.key("own.bin"))
        await put(filling, filling.key("own.bin"), files["own.bin"], 0, 1000)
        await store.purge(filling.content)
        assert os.listdir(root / "partial") == []
        assert [it.content for it in await store.models()] == [other]
        with pytest.raises(OSError, match="closed"):
            partial.write([b"late"], 0)
        assert await store.recheck(other) == ()
        await filling.close()


async def test_an_eviction_that_was_killed_half_way_ends_at_the_next_start(
    settings: StoreSettings, clock: Clock, root: Path
) -> None:
    async with Store(settings, now=clock) as store:
        one, two = await bring(store, clock, "one", "two")
    # The first step of leaving, and then nothing.
    (root / "models" / one).rename(root / ".modelswarm" / "trash" / one)
    async with Store(settings, now=clock) as store:
        assert not store.has(one)
        assert store.has(two)
        assert os.listdir(root / ".modelswarm" / "trash") == []
        store.protect(Protection())
        await store.sweep()
        assert len(os.listdir(root / "blobs")) == 2
        assert await store.recheck(two) == ()
        assert content_id(model("two")[0]) == two
