"""The stand-in's repositories: ids as git computes them, revisions that stay."""

import hashlib
import json
import os
import struct
from pathlib import Path

import pytest

from dev.hub import ContentChanged, Repository, make_gguf, make_model
from dev.hub.gitobjects import blob_oid, lfs_pointer, tree_oids


def test_ids_are_those_git_computes() -> None:
    # The expected ids were printed by `git hash-object` and `git ls-tree -r -t` over these files.
    files = {"a/x": b"one\n", "a/b/y": b"two", "a.d/z": b"", "a-": b"r"}
    blobs = {path: blob_oid(content) for path, content in files.items()}
    assert blobs["a/x"] == "5626abf0f72e58d7a153368ba57db4c673c0e171"
    assert tree_oids(blobs) == {
        "": "bb8d668773814e1a8bbe90e9fe5d8dc5abe046cf",
        "a": "15b1d9d9e0347776b9b6a7e7f3fa6beb86ab9f79",
        "a.d": "08c56681eceec443b14ad503fa7ebf1c46652c50",
        "a/b": "cefef285c5125704a42f4c1f91c7e95e5465c76a",
    }


@pytest.mark.parametrize(
    ("files", "large"),
    [
        pytest.param({"w.bin": b"x" * 100, "c.json": b"{}"}, {"w.bin"}, id="a file at the threshold is large"),
        pytest.param({"w.bin": b"x" * 99}, set(), id="a file below the threshold is not"),
        pytest.param(
            {".gitattributes": b"*.gguf filter=lfs -text\n", "sub/w.gguf": b"x"},
            {"sub/w.gguf"},
            id="a small file is large when .gitattributes says so",
        ),
    ],
)
def test_which_files_are_large(files: dict[str, bytes], large: set[str]) -> None:
    repository = Repository("org/model", lfs_threshold=100)
    commit = repository.get(repository.commit(files))
    assert {path for path, blob in commit.files.items() if blob.is_lfs} == large


def test_a_large_file_goes_by_the_id_of_its_pointer() -> None:
    repository = Repository("org/model", lfs_threshold=1)
    blob = repository.get(repository.commit({"w.bin": b"weights"})).files["w.bin"]
    assert blob.sha256 == hashlib.sha256(b"weights").hexdigest()
    assert blob.pointer == lfs_pointer(blob.sha256, 7)
    assert blob.oid == blob_oid(blob.pointer)


def test_the_same_content_is_the_same_commit() -> None:
    first, second = Repository("org/a"), Repository("org/b")
    ids = [repository.commit({"a": b"1", "b": b"2"}) for repository in (first, second)]
    assert ids[0] == ids[1]
    assert len(ids[0]) == 40
    assert first.commit({"a": b"1", "b": b"3"}) != ids[0]


def test_a_branch_moves_and_the_commit_it_left_stays() -> None:
    repository = Repository("org/model")
    first = repository.commit({"a": b"1", "b": b"2"})
    repository.move("main", first)
    second = repository.commit({"b": b"3"}, base="main")
    assert repository.head == first, "a commit moves no branch"
    repository.move("main", second)
    repository.tag("v1", first)
    assert repository.get("main").files["a"].source == b"1", "the base is laid under"
    assert repository.get(first).files["b"].source == b"2"
    assert repository.get("v1").id == repository.get("refs/tags/v1").id == first
    assert repository.get("refs/heads/main").id == second
    assert repository.get(second).touched == {"a": first, "b": second}
    assert repository.resolve("nope") is None


def test_content_changed_under_a_commit_is_refused(tmp_path: Path) -> None:
    (tmp_path / "config.json").write_text("{}")
    repository = Repository.from_folder(tmp_path, id="org/model")
    blob = repository.get("main").files["config.json"]
    os.close(blob.open_fd())
    (tmp_path / "config.json").write_text("[ ]")
    with pytest.raises(ContentChanged):
        blob.open_fd()


def test_a_made_model_has_valid_safetensors(tmp_path: Path) -> None:
    make_model(tmp_path, shards=3, shard_bytes=1000, seed=7)
    index = json.loads((tmp_path / "model.safetensors.index.json").read_text())
    assert index["metadata"]["total_size"] == 3000
    shards = sorted(set(index["weight_map"].values()))
    assert len(shards) == 3
    for shard in shards:
        data = (tmp_path / shard).read_bytes()
        (length,) = struct.unpack("<Q", data[:8])
        header = json.loads(data[8 : 8 + length])
        assert header.pop("__metadata__") == {"format": "pt"}
        assert {name for name, file in index["weight_map"].items() if file == shard} == set(header)
        end = 0
        for tensor in header.values():
            assert tensor["data_offsets"] == [end, end + tensor["shape"][0] * 2]
            end = tensor["data_offsets"][1]
        assert len(data) == 8 + length + end


def test_a_made_model_depends_on_its_seed_only(tmp_path: Path) -> None:
    ids = [
        Repository.from_folder(make_model(tmp_path / name, seed=seed), id="org/model").head
        for name, seed in (("a", 1), ("b", 1), ("c", 2))
    ]
    assert ids[0] == ids[1] != ids[2]


def test_a_made_gguf_has_its_tensor_where_the_format_puts_it(tmp_path: Path) -> None:
    data = make_gguf(tmp_path / "m.gguf", tensor_bytes=4096).read_bytes()
    magic, version, tensors, pairs = struct.unpack("<4sIQQ", data[:24])
    assert (magic, version, tensors, pairs) == (b"GGUF", 3, 1, 2)
    assert (len(data) - 4096) % 32 == 0
