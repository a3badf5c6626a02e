"""Complete models as BitTorrent v2: metainfo, its hostile variants, and fetching between real sessions."""

from collections.abc import Callable
from pathlib import Path

import pytest

from modelswarm.agent.swarm import ModelDone, Peer, TorrentFailed, Whole, make_metainfo, read_metainfo, torrents
from modelswarm.agent.swarm.bencoding import Bencoded, Dictionary, decode, encode
from modelswarm.agent.swarm.settings import MAX_CONNECTIONS
from modelswarm.agent.swarm.whole import MAX_BYTES, MAX_PIECES, MIB, piece_length, source_tag
from modelswarm.content.manifest import Manifest, ManifestFile, Origin, OriginKind
from modelswarm.errors import BadMetainfo, SwarmError
from tests.unit.agent.swarm.conftest import SECRET, StartNode, eventually, random_bytes

CONTENT_ID = "c" * 64
FILES = {
    "config.json": b"{}",
    "a/b/c.bin": random_bytes(MIB + 7, 3),
    "a/empty": b"",
    "a.bin": random_bytes(3 * MIB, 4),
    "weights with spaces ü.bin": random_bytes(100_000, 5),
}


def manifest_of(files: dict[str, bytes]) -> Manifest:
    listed = tuple(ManifestFile(path, len(content)) for path, content in files.items())
    return Manifest(Origin(OriginKind.HUGGINGFACE, "org/model"), "0" * 40, listed)


def write(directory: Path, files: dict[str, bytes]) -> Path:
    for path, content in files.items():
        (directory / path).parent.mkdir(parents=True, exist_ok=True)
        (directory / path).write_bytes(content)
    return directory


def made(tmp_path: Path, files: dict[str, bytes] = FILES) -> bytes:
    return make_metainfo(manifest_of(files), CONTENT_ID, write(tmp_path / "made", files), SECRET)


def paths_in(directory: Path, files: dict[str, bytes]) -> dict[str, Path]:
    return {path: directory / path for path in files}


def sparse_in(directory: Path, files: dict[str, bytes]) -> dict[str, Path]:
    """Places that have nothing to do with the model's own paths, as in a store."""
    directory.mkdir(exist_ok=True)
    paths = {}
    for number, (path, content) in enumerate(sorted(files.items())):
        paths[path] = directory / f"partial-{number}"
        with paths[path].open("wb") as file:
            file.truncate(len(content))
    return paths


# Metainfo


def test_what_is_made_is_accepted_and_names_every_file(tmp_path: Path) -> None:
    whole = read_metainfo(made(tmp_path), manifest_of(FILES), CONTENT_ID, SECRET)
    assert sorted(path for _, path in whole.files) == sorted(FILES)
    pieces = [number for index, _ in whole.files for number in whole.pieces_of(index)]
    assert sorted(pieces) == list(range(whole.pieces))


def test_the_same_files_make_the_same_metainfo_wherever_they_are(tmp_path: Path) -> None:
    (tmp_path / "made").mkdir()
    (tmp_path / "made" / ".complete").touch()
    elsewhere = write(tmp_path / "else" / "where", FILES)
    assert made(tmp_path) == make_metainfo(manifest_of(FILES), CONTENT_ID, elsewhere, SECRET)


def test_a_missing_file_and_one_of_another_size_are_errors(tmp_path: Path) -> None:
    directory = write(tmp_path / "m", FILES)
    (directory / "a.bin").write_bytes(b"short")
    with pytest.raises(SwarmError, match=r"a\.bin has 5 bytes"):
        make_metainfo(manifest_of(FILES), CONTENT_ID, directory, SECRET)
    (directory / "a.bin").unlink()
    with pytest.raises(SwarmError, match=r"a\.bin cannot be read"):
        make_metainfo(manifest_of(FILES), CONTENT_ID, directory, SECRET)


def test_a_content_without_bytes_needs_no_torrent(tmp_path: Path) -> None:
    with pytest.raises(SwarmError, match="without a byte"):
        made(tmp_path, {"empty": b""})


@pytest.mark.parametrize(
    ("total", "expected"),
    [
        pytest.param(1, MIB, id="small"),
        pytest.param(64 << 30, MIB, id="64 GiB"),
        pytest.param(140 << 30, 4 * MIB, id="140"),
    ],
)
def test_pieces_are_bounded(total: int, expected: int) -> None:
    assert piece_length(total) == expected
    assert total // expected <= MAX_PIECES


Change = Callable[[Dictionary, Dictionary], None]


def tree(info: Dictionary) -> Dictionary:
    files = info[b"file tree"]
    assert isinstance(files, dict)
    return files


def leaf(info: Dictionary, name: bytes) -> Dictionary:
    below = tree(info)[name]
    assert isinstance(below, dict)
    file = below[b""]
    assert isinstance(file, dict)
    return file


def put(key: bytes, value: Bencoded) -> Change:
    return lambda document, info: info.__setitem__(key, value)


def rename(name: bytes) -> Change:
    return lambda document, info: tree(info).__setitem__(name, tree(info).pop(b"a.bin"))


def outside(key: bytes, value: Bencoded) -> Change:
    return lambda document, info: document.__setitem__(key, value)


def of_file(key: bytes, value: Bencoded) -> Change:
    return lambda document, info: leaf(info, b"a.bin").__setitem__(key, value)


def nested(document: Dictionary, info: Dictionary) -> None:
    deep: Dictionary = {}
    for _ in range(80):
        deep = {b"d": deep}
    tree(info)[b"deep"] = deep


@pytest.mark.parametrize(
    "change",
    [
        pytest.param(put(b"name", b"d" * 64), id="another content's name"),
        pytest.param(put(b"name", b".."), id="a name that climbs"),
        pytest.param(put(b"source", b"x" * 64), id="made without the Secret"),
        pytest.param(lambda document, info: info.pop(b"source"), id="no source"),
        pytest.param(put(b"piece length", 16384), id="tiny pieces"),
        pytest.param(put(b"piece length", 1 << 30), id="huge pieces"),
        pytest.param(put(b"piece length", 0), id="pieces of nothing"),
        pytest.param(put(b"piece length", b"x"), id="pieces of text"),
        pytest.param(put(b"meta version", 1), id="another version"),
        pytest.param(put(b"private", 1), id="an unknown key in the info"),
        pytest.param(put(b"pieces", bytes(20)), id="a hybrid torrent"),
        pytest.param(put(b"file tree", b"x"), id="a file tree that is text"),
        pytest.param(put(b"file tree", {}), id="no files"),
        pytest.param(outside(b"url-list", [b"http://203.0.113.1/"]), id="web seeds"),
        pytest.param(outside(b"announce", b"http://203.0.113.1/"), id="a tracker"),
        pytest.param(outside(b"announce-list", [[b"http://203.0.113.1/"]]), id="trackers"),
        pytest.param(outside(b"nodes", [[b"203.0.113.1", 6881]]), id="DHT nodes"),
        pytest.param(lambda document, info: document.pop(b"piece layers"), id="no piece layers"),
        pytest.param(outside(b"piece layers", {}), id="empty piece layers"),
        pytest.param(outside(b"piece layers", {bytes(32): bytes(64)}), id="the layers of another file"),
        pytest.param(outside(b"info", b"x"), id="an info that is text"),
        pytest.param(rename(b".."), id="a file named dot dot"),
        pytest.param(rename(b"../../etc/passwd"), id="a file that climbs"),
        pytest.param(rename(b"/etc/passwd"), id="an absolute file"),
        pytest.param(rename(b"\xff\xfe"), id="a name that is not UTF-8"),
        pytest.param(rename(b""), id="no name"),
        pytest.param(rename(b"b.bin"), id="a file that the manifest does not have"),
        pytest.param(lambda document, info: tree(info).pop(b"a.bin"), id="a file is missing"),
        pytest.param(of_file(b"length", 3 * MIB + 1), id="a file of another size"),
        pytest.param(of_file(b"length", -1), id="a file of a negative size"),
        pytest.param(of_file(b"length", 1 << 62), id="a file of an absurd size"),
        pytest.param(of_file(b"length", b"x"), id="a file whose size is text"),
        pytest.param(of_file(b"attr", b"l"), id="a symlink"),
        pytest.param(of_file(b"pieces root", b"short"), id="a root that is no hash"),
        pytest.param(of_file(b"pieces root", bytes(32)), id="a root of nothing"),
        pytest.param(of_file(b"pieces root", 5), id="a root that is a number"),
        pytest.param(nested, id="a very deep tree"),
    ],
)
def test_hostile_metainfo_is_refused(tmp_path: Path, change: Change) -> None:
    document = decode(made(tmp_path))
    assert isinstance(document, dict)
    info = document[b"info"]
    assert isinstance(info, dict)
    change(document, info)
    with pytest.raises(BadMetainfo):
        read_metainfo(encode(document), manifest_of(FILES), CONTENT_ID, SECRET)


@pytest.mark.parametrize(
    "data",
    [
        pytest.param(b"", id="nothing"),
        pytest.param(b"<html>", id="something else"),
        pytest.param(b"i1e", id="a number"),
        pytest.param(b"d4:infod", id="cut short"),
        pytest.param(b"l" * 100_000, id="very deep"),
        pytest.param(b"d" + b"0" * MAX_BYTES, id="very large"),
    ],
)
def test_what_is_no_metainfo_is_refused(data: bytes) -> None:
    with pytest.raises(BadMetainfo):
        read_metainfo(data, manifest_of(FILES), CONTENT_ID, SECRET)


def test_cut_anywhere_it_is_refused(tmp_path: Path) -> None:
    data = made(tmp_path)
    for length in range(0, len(data), 37):
        with pytest.raises(BadMetainfo):
            read_metainfo(data[:length], manifest_of(FILES), CONTENT_ID, SECRET)


def test_the_tag_depends_on_the_secret_and_on_the_content() -> None:
    assert len({source_tag(b"a", "x"), source_tag(b"b", "x"), source_tag(b"a", "y")}) == 3


# Between sessions


def whole_of(tmp_path: Path, files: dict[str, bytes]) -> Whole:
    return read_metainfo(made(tmp_path, files), manifest_of(files), CONTENT_ID, SECRET)


async def test_a_model_with_folders_and_empty_files_travels_to_other_paths(
    tmp_path: Path, start_node: StartNode
) -> None:
    one, two = await start_node("one"), await start_node("two")
    whole = whole_of(tmp_path, FILES)
    one.swarm.seed_model(whole, paths_in(tmp_path / "made", FILES))
    paths = sparse_in(two.directory / "partials", FILES)
    two.swarm.fetch_model(whole, paths, have=(), peers=[one.peer])
    assert await two.wait(ModelDone) == ModelDone(CONTENT_ID)
    assert {path: place.read_bytes() for path, place in paths.items()} == FILES
    assert sorted(place.name for place in two.directory.iterdir()) == ["partials"]
    await eventually(lambda: one.swarm.counters.seeding == 1)


async def test_whoever_has_it_is_connected_to_first_and_the_others_when_it_stands_still(
    tmp_path: Path, start_node: StartNode
) -> None:
    one, two = await start_node("one"), await start_node("two")
    three = await start_node("three", widen_seconds=0.2)
    whole = whole_of(tmp_path, FILES)
    deaf = [Peer(f"deaf-{number}", f"127.9.8.{number + 1}", one.peer.port) for number in range(MAX_CONNECTIONS)]
    one.swarm.seed_model(whole, paths_in(tmp_path / "made", FILES))
    paths = sparse_in(two.directory / "partials", FILES)
    two.swarm.fetch_model(whole, paths, have=(), peers=[*deaf, one.peer], holders=["one"])
    assert two.swarm._torrents[CONTENT_ID].asked == {one.peer}
    await two.wait(ModelDone)
    # Who is told to have it is not there any more, and among the others there is one.
    paths = sparse_in(three.directory / "partials", FILES)
    three.swarm.fetch_model(whole, paths, have=(), peers=[*deaf, one.peer], holders=["deaf-7"])
    await three.wait(ModelDone)


async def test_whom_a_busy_seed_does_not_take_gets_it_from_those_that_it_took(
    tmp_path: Path, start_node: StartNode, monkeypatch: pytest.MonkeyPatch
) -> None:
    nodes = [await start_node(f"n{number}", widen_seconds=0.5) for number in range(4)]
    whole = whole_of(tmp_path, FILES)
    with monkeypatch.context() as patch:
        patch.setattr(torrents, "MAX_CONNECTIONS", 1)
        nodes[0].swarm.seed_model(whole, paths_in(tmp_path / "made", FILES))
    peers = [node.peer for node in nodes]
    for node in nodes[1:]:
        paths = sparse_in(node.directory / "p", FILES)
        node.swarm.fetch_model(whole, paths, have=(), peers=peers, holders=["n0"])
    for node in nodes[1:]:
        await node.wait(ModelDone)
    await eventually(lambda: nodes[0].swarm.counters.connections == 1)


async def test_files_that_are_here_do_not_travel_and_are_served(tmp_path: Path, start_node: StartNode) -> None:
    one, two, three = await start_node("one"), await start_node("two"), await start_node("three")
    whole = whole_of(tmp_path, FILES)
    one.swarm.seed_model(whole, paths_in(tmp_path / "made", FILES))
    paths = sparse_in(two.directory / "partials", FILES)
    paths["a.bin"].write_bytes(FILES["a.bin"])
    two.swarm.fetch_model(whole, paths, have=["a.bin"], peers=[one.peer])
    await two.wait(ModelDone)
    assert {path: place.read_bytes() for path, place in paths.items()} == FILES
    await eventually(lambda: two.swarm.counters.total.downloaded > 0)
    assert two.swarm.counters.total.downloaded < 2 * MIB
    # Nobody but node two is named to node three.
    await one.swarm.stop()
    target = sparse_in(three.directory / "partials", FILES)
    three.swarm.fetch_model(whole, target, have=(), peers=[two.peer])
    await three.wait(ModelDone)
    assert target["a.bin"].read_bytes() == FILES["a.bin"]


async def test_a_restarted_node_goes_on_from_its_pieces(tmp_path: Path, start_node: StartNode) -> None:
    files = {"big.bin": random_bytes(12 * MIB, 6)}
    one, two = await start_node("one", upload_rate=4 * MIB), await start_node("two")
    whole = whole_of(tmp_path, files)
    one.swarm.seed_model(whole, paths_in(tmp_path / "made", files))
    paths, resume = sparse_in(two.directory / "partials", files), two.directory / "resume"
    two.swarm.fetch_model(whole, paths, have=(), peers=[one.peer], resume=resume)
    await eventually(lambda: two.swarm.counters.total.downloaded > 4 * MIB)
    await two.swarm.stop()
    assert resume.stat().st_size > 0
    again = await start_node("two")
    again.swarm.fetch_model(whole, paths, have=(), peers=[one.peer], resume=resume)
    await again.wait(ModelDone)
    assert paths["big.bin"].read_bytes() == files["big.bin"]
    await eventually(lambda: again.swarm.counters.total.downloaded > 0)
    assert again.swarm.counters.total.downloaded < 10 * MIB


@pytest.mark.parametrize("content", [b"", b"nonsense", b"d4:infoi1ee"], ids=["empty", "nonsense", "something else"])
async def test_damaged_resume_data_is_ignored(tmp_path: Path, start_node: StartNode, content: bytes) -> None:
    one, two = await start_node("one"), await start_node("two")
    whole = whole_of(tmp_path, FILES)
    one.swarm.seed_model(whole, paths_in(tmp_path / "made", FILES))
    resume = two.file(content, "resume")
    paths = sparse_in(two.directory / "partials", FILES)
    two.swarm.fetch_model(whole, paths, have=(), peers=[one.peer], resume=resume)
    await two.wait(ModelDone)
    assert paths["a.bin"].read_bytes() == FILES["a.bin"]


async def test_a_file_that_rotted_since_does_not_spread(tmp_path: Path, start_node: StartNode) -> None:
    rotten, sound, node = await start_node("rotten"), await start_node("sound"), await start_node("node")
    whole = whole_of(tmp_path, FILES)
    bad = write(rotten.directory / "m", FILES)
    with (bad / "a.bin").open("r+b") as file:
        file.seek(MIB + 5)
        file.write(b"not what was there")
    rotten.swarm.seed_model(whole, paths_in(bad, FILES))
    paths = sparse_in(node.directory / "partials", FILES)
    node.swarm.fetch_model(whole, paths, have=(), peers=[rotten.peer])
    await eventually(lambda: node.swarm.counters.total.downloaded > 0)
    sound.swarm.seed_model(whole, paths_in(tmp_path / "made", FILES))
    node.swarm.add_peers(CONTENT_ID, [sound.peer])
    await node.wait(ModelDone)
    assert {path: place.read_bytes() for path, place in paths.items()} == FILES


async def test_three_thousand_small_files(tmp_path: Path, start_node: StartNode) -> None:
    files = {f"d{number % 30}/f{number}": b"%d" % number * (number % 50) for number in range(3000)}
    one, two = await start_node("one"), await start_node("two")
    whole = whole_of(tmp_path, files)
    one.swarm.seed_model(whole, paths_in(tmp_path / "made", files))
    paths = sparse_in(two.directory / "partials", files)
    two.swarm.fetch_model(whole, paths, have=(), peers=[one.peer])
    await two.wait(ModelDone, timeout=120)
    assert {path: place.read_bytes() for path, place in paths.items()} == files


async def test_a_model_finds_more_peers_by_exchange_with_those_it_has(tmp_path: Path, start_node: StartNode) -> None:
    nodes = [await start_node(f"n{number}") for number in range(3)]
    whole = whole_of(tmp_path, FILES)
    nodes[0].swarm.seed_model(whole, paths_in(tmp_path / "made", FILES))
    for node in nodes[1:]:
        known: list[Peer] = [nodes[0].peer]
        node.swarm.fetch_model(whole, sparse_in(node.directory / "p", FILES), have=(), peers=known)
    for node in nodes[1:]:
        await node.wait(ModelDone)
        assert not any(isinstance(event, TorrentFailed) for event in node.events)
