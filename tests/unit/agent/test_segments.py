import pytest
from hypothesis import given
from hypothesis import strategies as st

from modelswarm.agent import bits
from modelswarm.agent.segments import (
    BUNDLE_BYTES,
    BUNDLE_FILES,
    MAX_SEGMENTS,
    SMALL_FILE,
    choose_segment_bytes,
    plan,
    same_as,
)
from modelswarm.agent.swarm.windows import piece_length
from modelswarm.content.manifest import Manifest, ManifestFile, Origin, OriginKind
from modelswarm.errors import InvalidReference
from tests.unit.agent.coordination import MIB, digest_of, manifest

GIB = 1 << 30


@pytest.mark.parametrize(
    ("total", "nodes", "expected"),
    [
        pytest.param(0, 1, MIB, id="an empty content has the smallest"),
        pytest.param(270 * 10**6, 8, MIB, id="a small model on eight nodes has the smallest"),
        pytest.param(GIB, 8, MIB, id="1 GiB on eight nodes"),
        pytest.param(GIB, 1, 8 * MIB, id="1 GiB on one node"),
        pytest.param(16 * 10**9, 8, 15 * MIB, id="a model of some size on eight nodes"),
        pytest.param(140 * 10**9, 8, 64 * MIB, id="a large model has the largest"),
        pytest.param(140 * 10**9, 1000, 9 * MIB, id="many nodes, limited by the number of segments"),
        pytest.param(2 * 10**12, 8, 117 * MIB, id="a huge model: not too many segments"),
        pytest.param(GIB, 0, 8 * MIB, id="nobody is as one"),
    ],
)
def test_segment_bytes(total: int, nodes: int, expected: int) -> None:
    assert choose_segment_bytes(total, nodes) == expected


sizes = st.one_of(
    st.integers(0, 3), st.integers(SMALL_FILE - 1, SMALL_FILE + 1), st.integers(0, 40 * MIB), st.just(20 * GIB)
)


@given(st.lists(sizes, max_size=30), st.integers(1, 80))
def test_every_byte_is_in_one_segment(lengths: list[int], megabytes: int) -> None:
    content = manifest(**{f"f{number:03}": size for number, size in enumerate(lengths)})
    if content.bytes // (megabytes * MIB) > 2 * MAX_SEGMENTS:
        return
    files = sorted(content.files)
    covered: dict[int, list[tuple[int, int]]] = {}
    for index, segment in enumerate(plan(content, megabytes * MIB)):
        assert segment.index == index
        assert segment.length > 0
        if segment.is_bundle:
            assert segment.offset == 0
            assert len(segment.files) <= BUNDLE_FILES
            assert segment.length == sum(files[number].size for number in segment.files) <= BUNDLE_BYTES
            for number in segment.files:
                assert files[number].size <= SMALL_FILE
                covered.setdefault(number, []).append((0, files[number].size))
        else:
            size = files[segment.file].size
            assert segment.offset % piece_length(size) == 0
            assert segment.end == size or segment.length % piece_length(size) == 0
            covered.setdefault(segment.file, []).append((segment.offset, segment.end))
    for number, file in enumerate(files):
        end = 0
        for start, stop in sorted(covered.get(number, [])):
            assert start == end
            end = stop
        assert end == file.size


def test_bundles_come_first_then_large_files_by_size() -> None:
    segments = plan(manifest(a=3 * MIB, b=5 * MIB, c=10, d=20, e=0), 2 * MIB)
    assert [(segment.files, segment.offset, segment.length) for segment in segments] == [
        ((2, 3), 0, 30),
        ((1,), 0, 2 * MIB),
        ((1,), 2 * MIB, 2 * MIB),
        ((1,), 4 * MIB, MIB),
        ((0,), 0, 2 * MIB),
        ((0,), 2 * MIB, MIB),
    ]


def test_the_plan_does_not_depend_on_the_order_of_the_files() -> None:
    content = manifest(a=3 * MIB, b=5 * MIB, c=10)
    turned = Manifest(content.origin, content.revision, content.files[::-1])
    assert plan(content, 2 * MIB) == plan(turned, 2 * MIB)


def test_equal_bytes_travel_once() -> None:
    files = (
        ManifestFile("a", 2 * MIB, digest_of("x")),
        ManifestFile("b", 2 * MIB, digest_of("x")),
        ManifestFile("c", 2 * MIB, None),
        ManifestFile("d", 2 * MIB, None),
        ManifestFile("e", 0, digest_of("x")),
    )
    content = Manifest(Origin(OriginKind.S3, "bucket/prefix"), None, files)
    assert [segment.files for segment in plan(content, 2 * MIB)] == [(0,), (2,), (3,)]
    assert same_as(sorted(files)) == {1: 0}


def test_many_small_files_are_a_few_bundles() -> None:
    segments = plan(manifest(**{f"f{number}": 1000 for number in range(3000)}), 2 * MIB)
    assert len(segments) == 47
    assert all(segment.is_bundle for segment in segments)


@pytest.mark.parametrize("segment_bytes", [0, -MIB, MIB - 1, MIB + 1])
def test_a_segment_size_that_makes_no_sense_is_refused(segment_bytes: int) -> None:
    with pytest.raises(InvalidReference):
        plan(manifest(a=3 * MIB), segment_bytes)


def test_too_many_segments_are_refused() -> None:
    with pytest.raises(InvalidReference, match="too small"):
        plan(manifest(a=100 * GIB), MIB)


@given(st.sets(st.integers(0, 3000)))
def test_bits(numbers: set[int]) -> None:
    mask = bits.mask_of(numbers)
    assert list(bits.members(mask)) == sorted(numbers)
    assert bits.from_bytes(bits.to_bytes(mask)) == mask
    assert mask & ~bits.full(3001) == 0
