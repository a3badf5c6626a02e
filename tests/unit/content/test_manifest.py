"""The manifest: what is written is what is read, damaged ones are refused, and big ones fit."""

import gzip
import hashlib
import json
import random
import tracemalloc

import pytest
from hypothesis import given
from hypothesis import strategies as st

from modelswarm.content.manifest import (
    SHARD_BYTES,
    SHARD_KEY,
    Manifest,
    ManifestFile,
    Origin,
    OriginKind,
    decode,
    encode,
    from_binary_data,
    shard_name,
    to_binary_data,
)
from modelswarm.errors import InvalidReference

ORIGIN = Origin(OriginKind.HUGGINGFACE, "org/model")
COMMIT = "c" * 40
SHA = "sha256:" + "0" * 64


def manifest(*files: ManifestFile) -> Manifest:
    return Manifest(ORIGIN, COMMIT, files or (ManifestFile("a", 1, SHA), ManifestFile("b", 2, None, '"etag"')))


def many(count: int) -> Manifest:
    digests = [hashlib.sha256(str(index).encode()).hexdigest() for index in range(count)]
    return manifest(
        *(
            ManifestFile(f"shards/{index % 7}/model-{index:05}-of-{count:05}.safetensors", 5 << 30, f"sha256:{digest}")
            for index, digest in enumerate(digests)
        )
    )


_PARTS = st.text(st.characters(exclude_characters="/\\\0", exclude_categories=["Cs"]), min_size=1, max_size=30).filter(
    lambda part: part not in (".", "..")
)
_FILES = st.builds(
    ManifestFile,
    path=st.lists(_PARTS, min_size=1, max_size=3).map("/".join),
    size=st.integers(0, 1 << 50),
    digest=st.none()
    | st.binary(min_size=32, max_size=32).map(lambda raw: f"sha256:{raw.hex()}")
    | st.binary(min_size=20, max_size=20).map(lambda raw: f"git-sha1:{raw.hex()}"),
    version=st.none() | st.text(st.characters(exclude_categories=["Cs"])),
)


def is_consistent(files: list[ManifestFile]) -> bool:
    paths = [file.path for file in files]
    return not any(other.startswith(f"{path}/") for path in paths for other in paths)


@given(
    st.lists(_FILES, unique_by=lambda file: file.path).filter(is_consistent),
    st.integers(1, 2000),
    st.sampled_from(list(OriginKind)),
    st.none() | st.just(COMMIT),
    st.randoms(use_true_random=False),
)
def test_shards_in_any_order_give_the_manifest(
    files: list[ManifestFile], shard_bytes: int, kind: OriginKind, revision: str | None, shuffle: random.Random
) -> None:
    written = Manifest(Origin(kind, "a/b", "endpoint"), revision, tuple(files))
    shards = encode(written, shard_bytes=shard_bytes)
    shuffle.shuffle(shards)
    read = decode(from_binary_data(to_binary_data(shard)) for shard in shards)
    assert read == Manifest(written.origin, revision, tuple(sorted(files, key=lambda file: file.path)))
    assert read.digest == written.digest


def test_3000_files_fit_into_one_configmap() -> None:
    (shard,) = encode(many(3000))
    assert len(to_binary_data(shard)[SHARD_KEY]) < 1 << 20
    assert len(decode([shard]).files) == 3000


def test_more_files_become_shards_below_the_limit() -> None:
    whole = many(20_000)
    shards = encode(whole)
    assert len(shards) > 1
    assert all(len(shard) <= SHARD_BYTES for shard in shards)
    assert decode(reversed(shards)).digest == whole.digest


def test_the_same_manifest_gives_the_same_bytes_and_order_does_not_matter() -> None:
    files = many(50).files
    assert encode(manifest(*files)) == encode(manifest(*reversed(files)))


def test_digest_is_of_content_not_of_place() -> None:
    one = manifest(ManifestFile("a", 1, SHA))
    assert one.digest == Manifest(Origin(OriginKind.S3, "x/y"), None, one.files).digest
    assert one.digest != manifest(ManifestFile("a", 2, SHA)).digest
    assert one.digest != manifest(ManifestFile("a", 1, SHA, "etag")).digest
    assert manifest().bytes == 3


def shard(**changes: object) -> bytes:
    document = json.loads(gzip.decompress(encode(manifest())[0]))
    return gzip.compress(json.dumps({**document, **changes}).encode())


@pytest.mark.parametrize(
    "shards",
    [
        pytest.param([], id="none"),
        pytest.param([b""], id="empty"),
        pytest.param([b"not gzip"], id="not gzip"),
        pytest.param([encode(manifest())[0][:-9]], id="cut off"),
        pytest.param([encode(manifest())[0] + b"x"], id="something appended"),
        pytest.param([encode(manifest())[0].replace(b"\x00", b"\xff")], id="bytes changed"),
        pytest.param([gzip.compress(b"[]")], id="another document"),
        pytest.param([gzip.compress(b"[" * 100_000)], id="nested without end"),
        pytest.param([shard(format=2)], id="a newer format"),
        pytest.param([shard(files=[["a", 1, SHA, None]])], id="a file missing"),
        pytest.param([shard(files=[["a", 2, SHA, None], ["b", 2, None, '"etag"']])], id="a size changed"),
        pytest.param([shard(files=[["../a", 1, SHA, None]])], id="a path outside"),
        pytest.param([shard(files=[[5, 1, SHA, None]])], id="a path that is no text"),
        pytest.param([shard(files=[["a", "1", SHA, None]])], id="a size that is no number"),
        pytest.param([shard(files=[["a", 1]] * 2)], id="a file twice"),
        pytest.param([shard(origin={"kind": "ftp", "id": "x", "endpoint": None})], id="an unknown origin"),
        pytest.param([shard(shards=2)], id="a shard missing"),
        pytest.param([shard(), shard()], id="a shard twice"),
        pytest.param([*encode(manifest()), *encode(many(3))], id="shards of two manifests"),
        pytest.param(encode(many(40), shard_bytes=1000)[:-1], id="the last of several missing"),
    ],
)
def test_damaged_shards_are_refused(shards: list[bytes]) -> None:
    with pytest.raises(InvalidReference):
        decode(shards)


def test_a_shard_that_inflates_without_end_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("modelswarm.content.manifest._MAX_DOCUMENT", 8 << 20)
    bomb = gzip.compress(b"\0" * (50 << 20), 1)
    tracemalloc.start()
    with pytest.raises(InvalidReference):
        decode([bomb])
    assert tracemalloc.get_traced_memory()[1] < 20 << 20
    tracemalloc.stop()


@pytest.mark.parametrize(
    "path",
    ["", "/etc/passwd", "../a", "a/../../b", "a//b", "a/", "./a", "a/.", "a\\..\\b", "a\0b", "x" * 256, "\ud800"],
)
def test_paths_that_cannot_be_files_are_refused(path: str) -> None:
    with pytest.raises(InvalidReference):
        ManifestFile(path, 1)


@pytest.mark.parametrize("path", ["a", "a/b c/#?%.bin", "…/模型.safetensors", "..a/b..", ".gitattributes", "x" * 255])
def test_odd_paths_that_are_fine(path: str) -> None:
    assert ManifestFile(path, 0).path == path


@pytest.mark.parametrize("digest", ["", "sha256:", "sha256:" + "g" * 64, "md5:" + "0" * 32, "0" * 64, SHA.upper()])
def test_digests_of_unknown_form_are_refused(digest: str) -> None:
    with pytest.raises(InvalidReference):
        ManifestFile("a", 1, digest)


def test_a_size_below_zero_is_refused() -> None:
    with pytest.raises(InvalidReference):
        ManifestFile("a", -1)


def test_a_file_that_is_also_a_folder_is_refused() -> None:
    with pytest.raises(InvalidReference, match="both as a file and as a folder"):
        manifest(ManifestFile("a", 1), ManifestFile("a/b", 1))


def test_names_of_shards() -> None:
    assert [shard_name("task", index) for index in range(3)] == ["task", "task-1", "task-2"]


@pytest.mark.parametrize("data", [{}, {SHARD_KEY: "not base64!"}, {"other": "aGk="}])
def test_a_configmap_without_a_shard_is_refused(data: dict[str, str]) -> None:
    with pytest.raises(InvalidReference, match="ConfigMap"):
        from_binary_data(data)
