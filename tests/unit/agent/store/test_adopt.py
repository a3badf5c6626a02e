"""Directories that are there already: hashed, taken over, and never a way out of the root."""

import os
from pathlib import Path

import pytest

from modelswarm.agent.store import Protection, Store, StoreSettings, content_id
from modelswarm.errors import PathOutsideRoot, StorageFailed
from tests.unit.agent.store.conftest import MIB, brought, content, fill, noise, tree

FILES = {"config.json": b"{}", "deep/er/one.bin": noise("one", MIB), "two.bin": noise("two", 1000)}
MODEL = content(FILES)
ID = content_id(MODEL)


def write(folder: Path, files: dict[str, bytes]) -> None:
    for name, data in files.items():
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(data)


def same(one: Path, other: Path) -> bool:
    return one.samefile(other)


@pytest.mark.parametrize("place", [f"models/{ID}", "models--org--model", "meta/llama"])
async def test_what_is_right_is_taken_over_and_the_rest_is_fetched(settings: StoreSettings, place: str) -> None:
    folder = settings.root / place
    wrong = {"two.bin": FILES["two.bin"][:-1] + b"?"}
    write(folder, FILES | wrong | {"mine.txt": b"the user's own"})
    async with Store(settings) as store:
        adopt_from = [settings.root / "meta/llama"]
        async with await store.begin(MODEL, adopt_from) as filling:
            assert [file.path for file in filling.missing()] == ["two.bin"]
            if place.startswith("models/"):
                assert not (folder / "two.bin").exists(), "nobody should read a wrong file in our own directory"
            else:
                assert (folder / "two.bin").read_bytes() == wrong["two.bin"], "others' directories are left alone"
            assert same(folder / "deep/er/one.bin", store.directory(ID) / "deep/er/one.bin")
            await fill(filling, FILES)
        assert {name: tree(store.directory(ID))[name] for name in FILES} == FILES
        assert (folder / "mine.txt").read_bytes() == b"the user's own"


async def test_a_directory_that_is_all_there_is_complete_without_a_download(settings: StoreSettings) -> None:
    write(settings.root / "models" / ID, FILES)
    async with Store(settings) as store:
        assert not store.has(ID), "without a marker nothing is believed"
        assert (await store.begin(MODEL)).is_complete


async def test_an_adopted_directory_does_not_count_as_room_to_be_won(settings: StoreSettings) -> None:
    write(settings.root / "models--org--model", FILES)
    async with Store(settings) as store:
        await (await store.begin(MODEL)).close()
        assert set(store.shelf.freeable().values()) == {0}, "the user's own links keep the bytes"
        store.protect(Protection())
        await store.purge(ID)
    assert tree(settings.root / "models--org--model") == FILES


@pytest.mark.parametrize("depth", ["deep", "deep/er", "deep/er/one.bin"])
async def test_links_that_a_pod_planted_are_not_followed(settings: StoreSettings, tmp_path: Path, depth: str) -> None:
    elsewhere = tmp_path / "elsewhere"
    write(elsewhere, {"er/one.bin": FILES["deep/er/one.bin"], "one.bin": FILES["deep/er/one.bin"]})
    link = settings.root / "models" / ID / depth
    link.parent.mkdir(parents=True)
    link.symlink_to({"deep": elsewhere, "deep/er": elsewhere, "deep/er/one.bin": elsewhere / "one.bin"}[depth])
    before = tree(elsewhere)
    async with Store(settings) as store:
        filling = await store.begin(MODEL)
        assert "deep/er/one.bin" in [file.path for file in filling.missing()]
        if depth == "deep/er/one.bin":
            await fill(filling, FILES)
            assert not link.is_symlink()
            assert tree(store.directory(ID)) == FILES
        else:
            with pytest.raises(PathOutsideRoot, match="deep"):
                await fill(filling, FILES)
    assert tree(elsewhere) == before


@pytest.mark.parametrize(
    "path",
    [
        pytest.param("/etc", id="elsewhere"),
        pytest.param("ROOT", id="the root itself"),
        pytest.param("ROOT/../other", id="dots"),
        pytest.param("ROOT/blobs/x", id="blobs"),
        pytest.param("ROOT/models/x", id="the store's models"),
        pytest.param("ROOT/.modelswarm", id="records"),
        pytest.param("relative/path", id="relative"),
        pytest.param("ROOT-sibling/x", id="a sibling with the same beginning"),
    ],
)
async def test_a_directory_outside_is_refused(settings: StoreSettings, path: str) -> None:
    await brought(settings, MODEL, FILES)
    async with Store(settings) as store:
        target = Path(path.replace("ROOT", str(settings.root)))
        with pytest.raises(PathOutsideRoot):
            await store.materialize(ID, target)
        with pytest.raises(PathOutsideRoot):
            await store.begin(MODEL, [target])


async def test_a_content_lies_where_the_user_wants_it(settings: StoreSettings) -> None:
    await brought(settings, MODEL, FILES)
    path = settings.root / "meta" / "llama"
    async with Store(settings) as store:
        await store.materialize(ID, path)
        assert tree(path) == FILES
        assert same(path / "two.bin", store.directory(ID) / "two.bin")
        assert [entry.name for entry in path.iterdir() if entry.name.startswith(".")] == [".complete"]
        await store.materialize(ID, path)
        assert tree(path) == FILES
        assert (await store.models())[0].placements == (path,)
        assert sorted(entry.name for entry in path.parent.iterdir()) == ["llama"], "nothing is left beside it"


async def test_another_revision_takes_the_place_and_the_users_own_files_stay(settings: StoreSettings) -> None:
    newer = {"config.json": b"{'new': 1}", "two.bin": FILES["two.bin"], "three.bin": b"3"}
    await brought(settings, MODEL, FILES)
    await brought(settings, content(newer), newer)
    path = settings.root / "meta" / "llama"
    write(path, {"mine.txt": b"mine", "config.json": b"an old download", "deep/mine.txt": b"deep"})
    async with Store(settings) as store:
        await store.materialize(ID, path)
        assert tree(path) == FILES | {"mine.txt": b"mine", "deep/mine.txt": b"deep"}
    async with Store(settings) as store:
        await store.materialize(content_id(content(newer)), path)
        assert tree(path) == newer | {"mine.txt": b"mine", "deep/mine.txt": b"deep"}
        assert not (path / "deep" / "er").exists()
        await store.unmaterialize(path)
        assert tree(path) == {"mine.txt": b"mine", "deep/mine.txt": b"deep"}
        assert not (path / ".complete").exists()


async def test_what_a_user_has_changed_is_his(settings: StoreSettings) -> None:
    await brought(settings, MODEL, FILES)
    path = settings.root / "meta" / "llama"
    async with Store(settings) as store:
        await store.materialize(ID, path)
        (path / "two.bin").unlink()
        (path / "two.bin").write_bytes(b"another")
        await store.purge(ID)
        assert tree(path) == {"two.bin": b"another"}


async def test_a_purge_takes_the_users_directory_along(settings: StoreSettings) -> None:
    await brought(settings, MODEL, FILES)
    path = settings.root / "meta" / "llama"
    async with Store(settings) as store:
        await store.materialize(ID, path)
        assert await store.purge(ID) == MODEL.bytes
        assert not path.exists()
        assert os.listdir(settings.root / "blobs") == []


async def test_what_was_evicted_lies_nowhere(settings: StoreSettings, monkeypatch: pytest.MonkeyPatch) -> None:
    await brought(settings, MODEL, FILES)
    path = settings.root / "meta" / "llama"
    async with Store(settings) as store:
        await store.purge(ID)
        with pytest.raises(StorageFailed, match="not complete any more"):
            await store.materialize(ID, path)
        monkeypatch.setattr(store, "has", lambda content: True)
        with pytest.raises(StorageFailed, match="not complete any more"):
            await store.materialize(ID, path)  # it left between the look and the work
        assert not path.exists()


async def test_a_link_on_the_way_is_refused(settings: StoreSettings, tmp_path: Path) -> None:
    await brought(settings, MODEL, FILES)
    (tmp_path / "elsewhere").mkdir()
    (settings.root / "meta").symlink_to(tmp_path / "elsewhere")
    async with Store(settings) as store:
        with pytest.raises(PathOutsideRoot, match="meta"):
            await store.materialize(ID, settings.root / "meta" / "llama")
    assert list((tmp_path / "elsewhere").iterdir()) == []


async def test_a_directory_in_a_files_place_is_said(settings: StoreSettings) -> None:
    await brought(settings, MODEL, FILES)
    path = settings.root / "meta" / "llama"
    (path / "two.bin" / "x").mkdir(parents=True)
    async with Store(settings) as store:
        with pytest.raises(StorageFailed, match=r"two\.bin.*directory is in the file's place"):
            await store.materialize(ID, path)


async def test_a_users_marker_is_not_overwritten(settings: StoreSettings) -> None:
    await brought(settings, MODEL, FILES)
    path = settings.root / "meta" / "llama"
    write(path, {".complete": b"my own"})
    async with Store(settings) as store:
        await store.materialize(ID, path)
        await store.unmaterialize(path)
        assert (path / ".complete").read_bytes() == b"my own"
        assert tree(path) == {}


async def test_a_root_that_is_reached_through_a_link(settings: StoreSettings, tmp_path: Path) -> None:
    settings.root.mkdir()
    (tmp_path / "alias").symlink_to(settings.root)
    aliased = StoreSettings(tmp_path / "alias", reserve=0)
    await brought(aliased, MODEL, FILES)
    async with Store(aliased) as store:
        await store.materialize(ID, tmp_path / "alias" / "here")
        await store.materialize(ID, settings.root / "there")
        assert tree(settings.root / "here") == tree(settings.root / "there") == FILES
