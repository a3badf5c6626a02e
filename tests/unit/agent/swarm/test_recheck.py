"""Bytes on the disk that nobody has written down: hashed again, they are believed, and travel no second time."""

from pathlib import Path

import pytest

from modelswarm.agent.swarm import ModelDone, Whole
from modelswarm.agent.swarm.recheck import pieces_of, recheck
from modelswarm.agent.swarm.whole import MIB
from tests.unit.agent.swarm.conftest import StartNode, eventually, random_bytes
from tests.unit.agent.swarm.test_whole import FILES, paths_in, sparse_in, whole_of


def put(paths: dict[str, Path], path: str, start: int, end: int, files: dict[str, bytes] = FILES) -> None:
    with paths[path].open("r+b") as file:
        file.seek(start)
        file.write(files[path][start:end])


def right(whole: Whole, resume: Path) -> dict[str, list[int]]:
    """The pieces of each file that are written down, counted from the file's first."""
    pieces = pieces_of(resume.read_bytes(), whole)
    return {path: [each for each, has in enumerate(pieces[_slice(whole, index)]) if has] for index, path in whole.files}


def _slice(whole: Whole, index: int) -> slice:
    found = whole.pieces_of(index)
    return slice(found.start, found.stop)


@pytest.fixture
def whole(tmp_path: Path) -> Whole:
    return whole_of(tmp_path, FILES)


def test_pieces_that_are_whole_and_right_count(tmp_path: Path, whole: Whole) -> None:
    paths, resume = sparse_in(tmp_path / "partials", FILES), tmp_path / "resume"
    put(paths, "a.bin", 0, MIB)
    put(paths, "a.bin", 2 * MIB, 3 * MIB - 1)
    put(paths, "a/b/c.bin", MIB, MIB + 7)
    put(paths, "weights with spaces ü.bin", 0, 100_000)
    assert recheck(whole, paths, resume) == 3
    assert right(whole, resume) == {
        "a.bin": [0], "a/b/c.bin": [1], "a/empty": [], "config.json": [], "weights with spaces ü.bin": [0],
    }  # fmt: skip


def test_wrong_bytes_do_not(tmp_path: Path, whole: Whole) -> None:
    paths, resume = sparse_in(tmp_path / "partials", FILES), tmp_path / "resume"
    put(paths, "a.bin", 0, 3 * MIB)
    with paths["a.bin"].open("r+b") as file:
        file.seek(MIB + 5)
        file.write(b"rot")
    recheck(whole, paths, resume)
    assert right(whole, resume)["a.bin"] == [0, 2]


def test_what_is_known_is_not_read_again_and_stays(tmp_path: Path, whole: Whole) -> None:
    paths, resume = sparse_in(tmp_path / "partials", FILES), tmp_path / "resume"
    put(paths, "a.bin", 0, MIB)
    recheck(whole, paths, resume)
    put(paths, "a.bin", MIB, 2 * MIB)
    assert recheck(whole, {"a.bin": paths["a.bin"]}, resume) == 1
    assert recheck(whole, paths, resume) == 0
    assert right(whole, resume)["a.bin"] == [0, 1]


@pytest.mark.parametrize("content", [b"", b"nonsense", b"d4:infoi1ee"], ids=["empty", "nonsense", "something else"])
def test_what_was_written_down_makes_no_sense(tmp_path: Path, whole: Whole, content: bytes) -> None:
    paths, resume = sparse_in(tmp_path / "partials", FILES), tmp_path / "resume"
    resume.write_bytes(content)
    assert recheck(whole, paths, resume) == 0
    put(paths, "a.bin", 0, MIB)
    assert recheck(whole, paths, resume) == 1


def test_files_that_are_not_there_or_empty_have_nothing(tmp_path: Path, whole: Whole) -> None:
    paths, resume = sparse_in(tmp_path / "partials", FILES), tmp_path / "resume"
    paths["a.bin"].unlink()
    paths["a/b/c.bin"].write_bytes(b"")
    assert recheck(whole, paths, resume) == 0
    assert not resume.exists()


@pytest.mark.parametrize("have", [5, 12], ids=["some", "all of it"])
async def test_killed_before_anything_was_written_down_a_node_goes_on_from_its_disk(
    tmp_path: Path, start_node: StartNode, have: int
) -> None:
    files = {"big.bin": random_bytes(12 * MIB, 6)}
    one, two = await start_node("one"), await start_node("two")
    whole = whole_of(tmp_path, files)
    one.swarm.seed_model(whole, paths_in(tmp_path / "made", files))
    paths, resume = sparse_in(two.directory / "partials", files), two.directory / "resume"
    put(paths, "big.bin", 0, have * MIB, files)
    assert recheck(whole, paths, resume) == have
    two.swarm.fetch_model(whole, paths, have=(), peers=[one.peer], resume=resume)
    await two.wait(ModelDone)
    assert paths["big.bin"].read_bytes() == files["big.bin"]
    if have < 12:
        await eventually(lambda: two.swarm.counters.total.downloaded > 0)
    assert two.swarm.counters.total.downloaded < (12 - have) * MIB + MIB
