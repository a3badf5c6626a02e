"""What a node has of a content."""

from modelswarm.agent import bits
from modelswarm.agent.holdings import Holdings
from modelswarm.agent.segments import plan
from modelswarm.content.manifest import Manifest, ManifestFile, Origin, OriginKind

MIB = 1 << 20


def file(path: str, size: int, digest: str) -> ManifestFile:
    return ManifestFile(path, size, f"sha256:{digest * 64}")


FILES = (
    file("a.bin", 5 * MIB, "a"),
    file("b.json", 10, "b"),
    file("c.json", 20, "c"),
    file("copy-of-a.bin", 5 * MIB, "a"),
    file("empty", 0, "e"),
)


def holdings() -> Holdings:
    manifest = Manifest(Origin(OriginKind.HUGGINGFACE, "org/model"), "c0ffee", FILES)
    return Holdings(sorted(FILES), plan(manifest, 2 * MIB))


def test_a_file_is_filled_when_its_last_range_arrives_and_not_verified_by_that() -> None:
    node = holdings()
    ranges = node.segments_of(0)
    assert [(each.offset, each.length) for each in ranges] == [(0, 2 * MIB), (2 * MIB, 2 * MIB), (4 * MIB, MIB)]
    assert [node.arrived(each.index) for each in (ranges[2], ranges[0])] == [False, False]
    assert node.arrived(ranges[1].index)
    assert not node.is_verified(0)
    node.lost(ranges[1].index)
    assert not node.is_filled(0)


def test_a_verified_file_has_all_its_ranges_and_speaks_for_its_copy() -> None:
    node = holdings()
    node.verify(0)
    assert all(node.has(each.index) for each in node.segments_of(0))
    assert node.is_verified(3)
    assert not node.is_filled(0), "it is past that"


def test_a_bundle_is_whole_with_its_last_file() -> None:
    node = holdings()
    [bundle] = node.segments_of(1)
    assert bundle.is_bundle
    node.verify(1)
    assert not node.has(bundle.index)
    node.verify(2)
    assert node.has(bundle.index)


def test_it_is_complete_when_every_file_is_verified_empty_ones_too() -> None:
    node = holdings()
    for number in (0, 1, 2):
        node.verify(number)
    assert not node.complete
    node.verify(4)
    assert node.complete
    assert node.have == bits.full(len(node.segments))


def test_ranges_that_overlap_with_bytes_of_a_file() -> None:
    node = holdings()
    assert [each.offset for each in node.ranges_in(0, 3 * MIB, MIB + 1)] == [2 * MIB, 4 * MIB]
    assert list(node.ranges_in(1, 0, 10)) == []
