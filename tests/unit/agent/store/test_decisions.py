"""The store's pure parts: ranges, room, eviction, names."""

import random
from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import settings as settings_of_hypothesis
from hypothesis import strategies as st

from modelswarm.agent.store.capacity import Disk, human, measure, outstanding, surplus
from modelswarm.agent.store.eviction import Candidate, Protection, choose
from modelswarm.agent.store.keys import blob_keys, is_blob_key
from modelswarm.agent.store.ranges import Ranges
from modelswarm.agent.store.settings import StoreSettings
from modelswarm.content.manifest import Manifest, ManifestFile, Origin, OriginKind
from modelswarm.errors import InvalidReference

GI = 1 << 30
HUB = Origin(OriginKind.HUGGINGFACE, "org/model")
S3 = Origin(OriginKind.S3, "bucket/team/model")


@settings_of_hypothesis(deadline=None)
@given(st.lists(st.tuples(st.booleans(), st.integers(0, 40), st.integers(0, 12)), max_size=30))
def test_ranges_are_a_set_of_offsets(steps: list[tuple[bool, int, int]]) -> None:
    ranges, model = Ranges(), set[int]()
    for add, start, length in steps:
        if add:
            ranges.add(start, start + length)
            model |= set(range(start, start + length))
        else:
            ranges.remove(start, start + length)
            model -= set(range(start, start + length))
    kept = list(ranges)
    assert {offset for start, end in kept for offset in range(start, end)} == model
    assert all(end < start for (_, end), (start, _) in pairwise(kept)), "they must not touch"
    assert ranges.total == len(model)
    gaps = ranges.missing(3, 47)
    assert {offset for start, end in gaps for offset in range(start, end)} == set(range(3, 47)) - model
    for start in range(50):
        reach = next(offset for offset in range(start, 60) if offset not in model)
        assert ranges.reach(start) == reach
        assert ranges.covers(start, start + 5) == (reach >= start + 5)


@pytest.mark.parametrize(
    ("count", "text"),
    [(0, "0"), (1023, "1023"), (40 * GI, "40Gi"), (int(65.5 * GI), "65.5Gi"), (3 << 40, "3Ti"), (812 << 20, "812Mi")],
)
def test_quantities_read_as_in_kubernetes(count: int, text: str) -> None:
    assert human(count) == text


def settings(**values: float) -> StoreSettings:
    return StoreSettings(root=None, **({"reserve": 0} | values))  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("chosen", "free", "used", "reserved", "available"),
    [
        pytest.param(settings(), 100, 10, 0, 100, id="the disk decides without a quota"),
        pytest.param(settings(reserve=30), 100, 10, 0, 70, id="the reserve stays free"),
        pytest.param(settings(), 100, 10, 60, 40, id="what runs already has its room"),
        pytest.param(settings(quota=50), 100, 10, 0, 40, id="a tight quota decides"),
        pytest.param(settings(quota=50), 20, 10, 0, 20, id="a tight disk decides despite a quota"),
        pytest.param(settings(quota=50), 100, 10, 15, 25, id="a quota counts what will come"),
        pytest.param(settings(reserve=200), 100, 10, 0, 0, id="never below zero"),
    ],
)
def test_what_is_available(chosen: StoreSettings, free: int, used: int, reserved: int, available: int) -> None:
    assert measure(chosen, Disk(1000, free), used, reserved).available == available


@pytest.mark.parametrize(
    ("chosen", "free", "used", "over"),
    [
        pytest.param(settings(quota=100), 900, 90, 0, id="at the high watermark nothing happens"),
        pytest.param(settings(quota=100), 900, 95, 15, id="above it, down to the low one"),
        pytest.param(settings(), 100, 0, 0, id="the disk counts where there is no quota"),
        pytest.param(settings(), 50, 0, 150, id="and others' bytes on it, too"),
    ],
)
def test_what_has_to_leave(chosen: StoreSettings, free: int, used: int, over: int) -> None:
    assert surplus(chosen, Disk(1000, free), used) == over


def test_a_blob_of_two_downloads_is_needed_once() -> None:
    assert outstanding([{"a": 10, "b": 5}, {"b": 5, "c": 1}], {"a": 4, "c": 7}) == 6 + 5 + 0


OLD, MID, NEW = (Candidate(name, frozenset({name, "shared"}), at) for name, at in (("old", 1), ("mid", 2), ("new", 3)))
SIZES = {"old": 10, "mid": 20, "new": 30, "shared": 100}


@pytest.mark.parametrize(
    ("protection", "held", "wanted", "leaving", "freed"),
    [
        pytest.param(Protection(), (), 5, ("old",), 10, id="the least recently used leaves"),
        pytest.param(Protection(), (), 11, ("old", "mid"), 30, id="as many as are needed"),
        pytest.param(Protection(), (), 61, ("old", "mid", "new"), 160, id="a shared blob leaves with its last user"),
        pytest.param(Protection(), ("shared",), 61, ("old", "mid", "new"), 60, id="but not under a running download"),
        pytest.param(Protection(pinned=frozenset({"old"})), (), 5, ("mid",), 20, id="a pinned one stays"),
        pytest.param(Protection(in_use=frozenset({"old"})), (), 5, ("mid",), 20, id="one that a pod uses stays"),
        pytest.param(Protection(keep=frozenset({"old"})), (), 5, ("mid",), 20, id="one to keep stays"),
        pytest.param(Protection(wanted=frozenset({"old"})), (), 5, ("mid",), 20, id="the unwanted go first"),
        pytest.param(Protection(wanted=frozenset({"old"})), (), 60, ("mid", "new", "old"), 160, id="then the wanted"),
        pytest.param(Protection(), (), 0, (), 0, id="nothing leaves for nothing"),
    ],
)
def test_who_leaves(
    protection: Protection, held: tuple[str, ...], wanted: int, leaving: tuple[str, ...], freed: int
) -> None:
    choice = choose([NEW, OLD, MID], SIZES, held, protection, wanted)
    assert (choice.contents, choice.freed) == (leaving, freed)


def test_a_watermark_is_no_reason_to_lose_what_is_wanted() -> None:
    choice = choose([NEW, OLD, MID], SIZES, (), Protection(wanted=frozenset({"old", "mid"})), 500, spare_wanted=True)
    assert choice.contents == ("new",)


@settings_of_hypothesis(deadline=None)
@given(st.randoms(use_true_random=False))
def test_whatever_leaves_nothing_protected_does(chance: random.Random) -> None:
    names = [f"c{index}" for index in range(chance.randint(0, 8))]
    blobs = [f"b{index}" for index in range(6)]
    candidates = [Candidate(it, frozenset(chance.sample(blobs, chance.randint(0, 6))), chance.random()) for it in names]
    groups = [frozenset(name for name in names if chance.random() < 0.3) for _ in range(4)]
    protection, held = Protection(*groups), {blob for blob in blobs if chance.random() < 0.3}
    sizes = {blob: chance.randint(0, 10) for blob in blobs}
    choice = choose(candidates, sizes, held, protection, chance.randint(0, 60), spare_wanted=chance.random() < 0.5)
    assert not protection.always & set(choice.contents)
    staying = set().union(held, *(it.blobs for it in candidates if it.content not in choice.contents))
    gone = set().union(*(it.blobs for it in candidates if it.content in choice.contents)) - staying
    assert choice.freed == sum(sizes[blob] for blob in gone)


def manifest(*files: ManifestFile, origin: Origin = HUB) -> Manifest:
    return Manifest(origin, "a" * 40, files)


def test_equal_bytes_have_equal_keys() -> None:
    one, two = "sha256:" + "1" * 64, "git-sha1:" + "2" * 40
    keys = blob_keys(manifest(ManifestFile("a", 1, one), ManifestFile("b/c", 1, one), ManifestFile("d", 2, two)))
    assert keys == {"a": "sha256-" + "1" * 64, "b/c": "sha256-" + "1" * 64, "d": "git-sha1-" + "2" * 40}
    assert all(map(is_blob_key, keys.values()))


def test_an_object_goes_by_where_and_what_it_was() -> None:
    def key(version: str, size: int = 5, origin: Origin = S3) -> str:
        return blob_keys(manifest(ManifestFile("a", size, None, version), origin=origin))["a"]

    assert key("1") == key("1")
    assert len({key("1"), key("2"), key("1", size=6), key("1", origin=Origin(OriginKind.S3, "other/team/model"))}) == 4
    assert is_blob_key(key("1"))


@pytest.mark.parametrize(
    "files",
    [
        pytest.param((ManifestFile(".complete", 1),), id="the marker's own name"),
        pytest.param((ManifestFile("a", 1, "sha512:" + "0" * 128),), id="an image's digest"),
        pytest.param(
            (ManifestFile("a", 1, "sha256:" + "0" * 64), ManifestFile("b", 2, "sha256:" + "0" * 64)),
            id="one digest with two sizes",
        ),
    ],
)
def test_a_manifest_that_no_directory_can_hold_is_refused(files: tuple[ManifestFile, ...]) -> None:
    with pytest.raises(InvalidReference):
        blob_keys(manifest(*files))
