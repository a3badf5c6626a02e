"""Filling contents, restarts, and what is found again."""

import asyncio
import hashlib
import json
import os
import threading
from dataclasses import replace
from pathlib import Path

import pytest

from modelswarm.agent.store import COMPLETE, ContentState, Store, StoreSettings, content_id, files
from modelswarm.agent.store.verify import hash_file
from modelswarm.content.manifest import ManifestFile
from modelswarm.errors import DigestMismatch, InsufficientCapacity, StorageFailed, StoreBusy
from modelswarm.loader.digests import Verdict
from tests.unit.agent.store.conftest import MIB, brought, content, fill, noise, object_content, occupied, put, tree

FILES = {
    "config.json": b"{}",
    "shards/one.bin": noise("one", 3 * MIB + 5),
    "shards/two.bin": noise("two", MIB),
    "empty": b"",
    "copy.bin": noise("two", MIB),
}
MODEL = content(FILES, git=("config.json",))
ID = content_id(MODEL)


async def test_a_content_appears_file_by_file_and_is_complete_at_the_end(settings: StoreSettings, root: Path) -> None:
    async with Store(settings) as store:
        filling = await store.begin(MODEL)
        folder = store.directory(ID)
        assert [file.path for file in filling.missing()] == [
            "config.json", "copy.bin", "shards/one.bin", "shards/two.bin",
        ]  # fmt: skip
        await filling.write_small("config.json", b"{}")
        assert (folder / "config.json").read_bytes() == b"{}"
        one = filling.key("shards/one.bin")
        await put(filling, one, FILES["shards/one.bin"], MIB, 2 * MIB)
        await put(filling, one, FILES["shards/one.bin"], 2 * MIB)
        with pytest.raises(ValueError, match="is not complete"):
            await filling.finish(one)
        assert filling.present_bytes() == 2 + 2 * MIB + 5
        await put(filling, one, FILES["shards/one.bin"], 0, MIB)
        assert (await filling.finish(one)).sha256 == hashlib.sha256(FILES["shards/one.bin"]).hexdigest()
        assert not store.has(ID)
        with pytest.raises(ValueError, match="2 files are missing"):
            await filling.complete()
        await put(filling, filling.key("copy.bin"), FILES["copy.bin"])
        await filling.finish(filling.key("copy.bin"))
        await filling.complete()
        assert store.has(ID)
        await filling.close()
        assert tree(folder) == FILES
        assert (await store.models())[0].state is ContentState.COMPLETE
    assert os.listdir(root / "partial") == []
    assert len(os.listdir(root / "blobs")) == 4, "two files have the same bytes"
    assert all((root / "blobs" / name).stat().st_mode & 0o222 == 0 for name in os.listdir(root / "blobs"))


async def test_what_was_complete_is_trusted_after_a_restart_without_reading_it(
    settings: StoreSettings, monkeypatch: pytest.MonkeyPatch
) -> None:
    await brought(settings, MODEL, FILES)
    monkeypatch.setattr("modelswarm.agent.store.shelf.hash_file", None)
    monkeypatch.setattr("modelswarm.agent.store.adopt.hash_file", None)
    async with Store(settings) as store:
        assert store.has(ID)
        filling = await store.begin(MODEL)
        assert filling.is_complete
        assert filling.verified[filling.key("config.json")].sha256 == hashlib.sha256(b"{}").hexdigest()


@pytest.mark.parametrize("keep_time", [False, True], ids=["changed", "changed under the same date"])
async def test_what_was_changed_behind_our_back_is_noticed(settings: StoreSettings, keep_time: bool) -> None:
    await brought(settings, MODEL, FILES)
    victim = settings.root / "models" / ID / "shards/one.bin"
    before = victim.stat()
    victim.chmod(0o644)
    with victim.open("r+b") as file:
        file.seek(1000)
        file.write(bytes([FILES["shards/one.bin"][1000] ^ 1]))
    if keep_time:
        os.utime(victim, ns=(before.st_atime_ns, before.st_mtime_ns))
    async with Store(settings) as store:
        assert store.has(ID) == keep_time, "size and date are all that is looked at without reading"
        if keep_time:
            assert await store.recheck(ID) == ("shards/one.bin",)
            assert not store.has(ID)
        async with await store.begin(MODEL) as filling:
            assert [file.path for file in filling.missing()] == ["shards/one.bin"]
            assert not victim.exists()
            await fill(filling, FILES)
        assert tree(store.directory(ID)) == FILES
        assert await store.recheck(ID) == ()


async def test_a_download_goes_on_where_it_was(settings: StoreSettings) -> None:
    data = FILES["shards/one.bin"]
    async with Store(settings) as store:
        filling = await store.begin(MODEL)
        key = filling.key("shards/one.bin")
        partial = await filling.partial(key)
        partial.write([data[:MIB]], 0)
        sha1 = hashlib.sha1(data[:MIB]).digest()
        await filling.mark(key, 0, MIB, piece_length=MIB, hashes=sha1)
        await put(filling, key, data, 2 * MIB, 2 * MIB + 77)
    async with Store(settings) as store:
        held = (await store.models())[0]
        assert (held.state, held.bytes) == (ContentState.PARTIAL, MODEL.bytes)
        filling = await store.begin(MODEL)
        partial = await filling.partial(key)
        assert partial.present == [(0, MIB), (2 * MIB, 2 * MIB + 77)]
        assert [(it.offset, it.length, it.hashes) for it in partial.pieces()] == [(0, MIB, sha1)]
        assert partial.missing(0, 2 * MIB) == [(MIB, 2 * MIB)]


async def test_wrong_bytes_from_others_never_become_a_file(settings: StoreSettings) -> None:
    data = FILES["shards/one.bin"]
    wrong = data[:100] + bytes([data[100] ^ 1]) + data[101:]
    async with Store(settings) as store, await store.begin(MODEL) as filling:
        key = filling.key("shards/one.bin")
        partial = await filling.partial(key)
        partial.write([wrong], 0)
        await filling.mark(key, 0, MIB, piece_length=MIB, hashes=hashlib.sha1(wrong[:MIB]).digest())
        await filling.mark(key, MIB, len(data) - MIB)
        with pytest.raises(DigestMismatch, match="is not what it should be") as caught:
            await filling.finish(key)
        assert caught.value.damaged == (), "the disk has what was delivered"
        assert partial.covers(0, len(data)), "what is to be thrown away is the caller's decision"
        assert not (store.directory(ID) / "shards/one.bin").exists()
        partial.drop(0, MIB)
        assert partial.pieces() == []
        await put(filling, key, data, 0, MIB)
        assert (await filling.finish(key)).size == len(data)


async def test_a_disk_that_loses_bytes_is_told_from_a_liar(settings: StoreSettings) -> None:
    data = FILES["shards/one.bin"]
    async with Store(settings) as store, await store.begin(MODEL) as filling:
        key = filling.key("shards/one.bin")
        partial = await filling.partial(key)
        partial.write([data], 0)
        hashes = [hashlib.sha1(data[at : at + MIB]).digest() for at in range(0, len(data), MIB)]
        await filling.mark(key, 0, len(data), piece_length=MIB, hashes=b"".join(hashes))
        partial.write([b"x"], MIB + 9)
        with pytest.raises(DigestMismatch) as caught:
            await filling.finish(key)
        assert caught.value.damaged == ((MIB, 2 * MIB),)
        assert partial.missing() == [(MIB, 2 * MIB)]


async def test_after_another_boot_only_what_still_fits_its_hashes_is_believed(settings: StoreSettings) -> None:
    data = FILES["shards/one.bin"]
    async with Store(settings) as store, await store.begin(MODEL) as filling:
        key = filling.key("shards/one.bin")
        partial = await filling.partial(key)
        partial.write([data], 0)
        for at in (0, MIB):
            await filling.mark(key, at, MIB, piece_length=MIB, hashes=hashlib.sha1(data[at : at + MIB]).digest())
        await filling.mark(key, 2 * MIB, MIB)
        # What a power cut does: the journal is on disk, the bytes are not.
        partial.write([bytes(MIB)], 0)
    store = Store(settings)
    store.shelf.boot = "another"
    async with store:
        partial = await (await store.begin(MODEL)).partial(key)
        assert partial.present == [(MIB, 2 * MIB)]


async def test_hashing_ahead_gives_the_same_verdict(settings: StoreSettings) -> None:
    data = FILES["shards/one.bin"]
    async with Store(settings) as store, await store.begin(MODEL) as filling:
        key = filling.key("shards/one.bin")
        partial = await filling.partial(key)
        await put(filling, key, data[:MIB] + bytes(100), 0)
        await filling.hash_ahead(key)
        partial.drop(MIB, 100)
        await put(filling, key, data, MIB)
        await filling.hash_ahead(key)
        assert (await filling.finish(key)).sha256 == hashlib.sha256(data).hexdigest()


async def test_files_that_two_contents_share_travel_and_lie_once(settings: StoreSettings, root: Path) -> None:
    second_files = FILES | {"config.json": b"{ }"}
    second = content(second_files, git=("config.json",))
    async with Store(settings) as store:
        first = await store.begin(MODEL)
        other = await store.begin(second)
        key = first.key("shards/one.bin")
        assert await first.partial(key) is await other.partial(key)
        elder, younger = sorted((first, other), key=lambda filling: filling.content)
        assert younger.busy()[key] == elder.content, "whoever began first"
        assert elder.busy() == {}
        await put(first, key, FILES["shards/one.bin"])
        await first.finish(key)
        assert "shards/one.bin" not in [file.path for file in other.missing()]
        assert (store.directory(other.content) / "shards/one.bin").exists()
        await fill(first, FILES)
        assert [file.path for file in other.missing()] == ["config.json"]
        await fill(other, second_files)
        await first.close()
        await other.close()
        assert tree(store.directory(other.content)) == second_files
        assert occupied(root) < MODEL.bytes + 20_000
        await store.purge(ID)
        assert not store.directory(ID).exists()
        assert tree(store.directory(other.content)) == second_files
        assert await store.recheck(other.content) == ()


async def test_the_first_reader_decides_where_the_origin_has_no_digest(settings: StoreSettings) -> None:
    files = {"weights.bin": noise("w", MIB), "tag.bin": b"tagged"}
    etag = f'"{hashlib.md5(b"tagged").hexdigest()}"'
    model = object_content(files, {"tag.bin": etag})
    async with Store(settings) as store, await store.begin(model) as filling:
        key = filling.key("weights.bin")
        await put(filling, key, files["weights.bin"])
        with pytest.raises(DigestMismatch):
            await filling.finish(key, "0" * 64)
        found = await filling.finish(key)
        assert (found.sha256, found.etag) == (hashlib.sha256(files["weights.bin"]).hexdigest(), Verdict.UNVERIFIED)
        assert (await filling.write_small("tag.bin", b"tagged")).etag is Verdict.RIGHT
        await filling.complete()
        with pytest.raises(DigestMismatch):
            await filling.finish(key, "0" * 64)
    async with Store(settings) as store:
        filling = await store.begin(model)
        assert filling.is_complete
        assert filling.verified[key].sha256 == found.sha256
        await store.reject(key)
        assert [file.path for file in filling.missing()] == ["weights.bin"]
        assert not (store.directory(filling.content) / "weights.bin").exists()


async def test_wrong_small_files_are_not_written(settings: StoreSettings) -> None:
    async with Store(settings) as store, await store.begin(MODEL) as filling:
        for data in (b"[]", b"{}x", b""):
            with pytest.raises(DigestMismatch):
                await filling.write_small("config.json", data)
        assert not (store.directory(ID) / "config.json").exists()


async def test_a_bundle_is_written_at_once_and_only_what_is_right_of_it(settings: StoreSettings) -> None:
    files = {f"many/{index}.txt": f"file {index // 2}".encode() for index in range(40)}
    model = content(files)
    async with Store(settings) as store, await store.begin(model) as filling:
        with pytest.raises(DigestMismatch, match=r"many/7\.txt"):
            await filling.write_bundle(files | {"many/7.txt": b"fiLe 3", "many/9.txt": b"file 4 and more"})
        assert filling.missing() == [], "the same bytes were there under another name"
        await filling.write_bundle(files)
        await filling.complete()
        assert tree(store.directory(filling.content)) == files


async def test_two_contents_that_write_the_same_file_at_once_share_it(settings: StoreSettings) -> None:
    models = [content({"same.txt": b"same", "own.txt": str(index).encode()}, id=f"org/{index}") for index in range(6)]
    async with Store(settings) as store:
        fillings = await asyncio.gather(*map(store.begin, models))
        await asyncio.gather(*(it.write_small("same.txt", b"same") for it in fillings))
        await asyncio.gather(*(it.write_small("own.txt", str(n).encode()) for n, it in enumerate(fillings)))
        await asyncio.gather(*(it.complete() for it in fillings))
    async with Store(settings) as store:
        assert all(store.has(content_id(model)) for model in models)


async def test_an_empty_file_with_the_digest_of_something_else_stays_missing(settings: StoreSettings) -> None:
    wrong = replace(MODEL, files=(ManifestFile("empty", 0, "sha256:" + "0" * 64),))
    async with Store(settings) as store, await store.begin(wrong) as filling:
        assert [file.path for file in filling.missing()] == ["empty"]


async def test_a_second_agent_on_the_same_directory_is_told_who_is_first(settings: StoreSettings) -> None:
    async with Store(settings):
        with pytest.raises(StoreBusy) as caught:
            await Store(replace(settings, node="node-2")).open()
        assert f"process {os.getpid()} on node node-1" in caught.value.message
        assert str(settings.root) in caught.value.message
    async with Store(settings):
        pass


async def test_it_fits_or_both_numbers_are_told(settings: StoreSettings) -> None:
    async with Store(replace(settings, quota=2 * MIB)) as store:
        with pytest.raises(InsufficientCapacity, match=r"need 4Mi, free 2Mi") as caught:
            await store.begin(MODEL)
        assert (caught.value.need, caught.value.free) == (4 * MIB + 5 + 2, 2 * MIB)
        assert list(store.directory(ID).rglob("*.bin")) == []
        assert (await store.capacity()).reserved == 0


async def test_running_downloads_hold_their_room(settings: StoreSettings) -> None:
    other = {"big.bin": noise("big", 3 * MIB)}
    async with Store(replace(settings, quota=5 * MIB)) as store:
        filling = await store.begin(MODEL)
        assert (await store.capacity()).reserved == 4 * MIB + 5 + 2
        with pytest.raises(InsufficientCapacity) as caught:
            await store.begin(content(other, id="org/other"))
        assert (caught.value.need, caught.value.free) == (3 * MIB, MIB - 7)
        await put(filling, filling.key("copy.bin"), FILES["copy.bin"])
        capacity = await store.capacity()
        assert capacity.available == pytest.approx(MIB - 7, abs=8192), "what is written is not held any more"
        await filling.close()
        async with await store.begin(content(other, id="org/other")) as second:
            await fill(second, other)


async def test_the_same_content_begun_twice_is_one_filling(settings: StoreSettings) -> None:
    async with Store(settings) as store:
        one, two = await asyncio.gather(store.begin(MODEL), store.begin(MODEL))
        assert one is two
        await one.close()
        await put(two, two.key("copy.bin"), FILES["copy.bin"])
        await two.finish(two.key("copy.bin"))
        await two.close()
        assert (await store.models())[0].state is ContentState.PARTIAL


async def test_a_late_thread_cannot_write_into_another_file(settings: StoreSettings) -> None:
    async with Store(settings) as store:
        filling = await store.begin(MODEL)
        partial = await filling.partial(filling.key("copy.bin"))
        await filling.close()
        with pytest.raises(OSError, match="closed"):
            partial.write([b"late"], 0)


async def test_a_file_that_is_written_while_it_is_verified_is_not_believed(
    settings: StoreSettings, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with Store(settings) as store, await store.begin(MODEL) as filling:
        key = filling.key("copy.bin")
        partial = await filling.partial(key)
        await put(filling, key, FILES["copy.bin"])
        original = partial.hash_ahead

        def hash_and_write() -> int:
            reached = original()
            partial.write([FILES["copy.bin"][:1]], 0)
            os.utime(partial.path)
            return reached

        monkeypatch.setattr(partial, "hash_ahead", hash_and_write)
        with pytest.raises(StorageFailed, match="written to"):
            await filling.finish(key)
        assert not (store.directory(ID) / "copy.bin").exists()


async def test_cancelling_leaves_no_thread_behind_and_nothing_half(settings: StoreSettings) -> None:
    async with Store(settings) as store:
        filling = await store.begin(MODEL)
        key = filling.key("shards/one.bin")
        await put(filling, key, FILES["shards/one.bin"])
        for _ in range(20):
            task = asyncio.create_task(filling.finish(key))
            await asyncio.sleep(0)
            await asyncio.sleep(0)
            task.cancel()
            await asyncio.wait([task])
        assert (await filling.finish(key)).size == len(FILES["shards/one.bin"])
        await filling.close()
    async with Store(settings) as store, await store.begin(MODEL) as filling:
        await fill(filling, FILES)
        assert tree(store.directory(ID)) == FILES


async def test_the_marker_has_what_a_reader_wants_to_know(settings: StoreSettings) -> None:
    await brought(settings, MODEL, FILES)
    document = json.loads((settings.root / "models" / ID / COMPLETE).read_text())
    assert document["digest"] == MODEL.digest
    assert document["bytes"] == MODEL.bytes
    assert {path: entry[0] for path, entry in document["files"].items()} == {p: len(d) for p, d in FILES.items()}


async def test_contents_without_their_records_are_still_known(settings: StoreSettings) -> None:
    await brought(settings, MODEL, FILES)
    for path in (settings.root / ".modelswarm" / "contents").iterdir():
        path.unlink()
    async with Store(settings) as store:
        assert store.has(ID)
        held = (await store.models())[0]
        assert (held.bytes, held.manifest) == (MODEL.bytes, None)


async def test_a_damaged_journal_costs_time_and_nothing_else(settings: StoreSettings) -> None:
    await brought(settings, MODEL, FILES)
    (settings.root / ".modelswarm" / "verified.json").write_bytes(b'{"key": "sha256-\nrubbish')
    (settings.root / "models" / ID / COMPLETE).unlink()
    async with Store(settings) as store:
        assert not store.has(ID)
        filling = await store.begin(MODEL)
        assert filling.is_complete, "the blobs were hashed again"


def test_a_file_of_another_size_is_not_even_read(tmp_path: Path) -> None:
    path = tmp_path / "file"
    path.write_bytes(b"abc")
    fd = os.open(path, os.O_RDONLY)
    try:
        assert hash_file(fd, ManifestFile("file", 4), threading.Event()) is None
        assert hash_file(fd, ManifestFile("file", 3), threading.Event()) is not None
    finally:
        os.close(fd)


def test_what_goes_while_a_directory_is_looked_at_is_left_out(tmp_path: Path) -> None:
    for name in ("a", "b", "c"):
        (tmp_path / name).write_bytes(b"xx")
    found = files.statuses(tmp_path)
    first, status = next(found)
    assert status.st_size == 2
    for name in {"a", "b", "c"} - {first}:
        (tmp_path / name).unlink()
    assert list(found) == []


async def test_the_disk_is_measured_while_others_become_complete(settings: StoreSettings) -> None:
    """Names come and go under whoever adds up their sizes."""
    async with Store(settings) as store:

        async def bring(number: int) -> None:
            for turn in range(6):
                data = {f"{each}.bin": noise(f"{number} {turn} {each}", 4096) for each in range(8)}
                async with await store.begin(content(data)) as filling:
                    await fill(filling, data)

        async def measure() -> None:
            while not done:
                await store.capacity()
                await store.models()

        done = False
        measuring = [asyncio.create_task(measure()) for _ in range(4)]
        await asyncio.gather(*(bring(number) for number in range(4)))
        done = True
        await asyncio.gather(*measuring)
        assert len([held for held in await store.models() if held.state is ContentState.COMPLETE]) == 24
