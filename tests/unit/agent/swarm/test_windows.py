import hashlib

import libtorrent as lt
import pytest

from modelswarm.agent.swarm import Part, Window, piece_hashes, piece_length
from modelswarm.agent.swarm.windows import MAX_PIECES, MIB, to_metainfo
from modelswarm.errors import BadMetainfo

GIB = 1 << 30
BLOB = "sha256-" + "a" * 64


@pytest.mark.parametrize(
    ("size", "expected"),
    [
        pytest.param(1, MIB, id="a tiny file has the smallest pieces"),
        pytest.param(8 * GIB, MIB, id="8 GiB are as many pieces as there may be"),
        pytest.param(8 * GIB + 1, 2 * MIB, id="one byte more doubles them"),
        pytest.param(140 * GIB, 32 * MIB, id="a model of 140 GiB in one file"),
    ],
)
def test_piece_length(size: int, expected: int) -> None:
    assert piece_length(size) == expected
    assert -(-size // expected) <= MAX_PIECES


def part(offset: int, length: int, pieces: int) -> Part:
    return Part(offset * MIB, length, bytes(20 * pieces))


@pytest.mark.parametrize(
    "parts",
    [
        pytest.param((), id="no parts"),
        pytest.param((part(0, MIB, 2),), id="too many hashes"),
        pytest.param((part(0, 2 * MIB, 1),), id="too few hashes"),
        pytest.param((Part(5, MIB, bytes(20)),), id="begins inside a piece"),
        pytest.param((part(0, MIB + 1, 2),), id="ends inside a piece"),
        pytest.param((part(0, 0, 0),), id="an empty part"),
        pytest.param((part(0, -MIB, 0),), id="a negative length"),
        pytest.param((Part(-MIB, MIB, bytes(20)),), id="before the file"),
        pytest.param((part(9, 2 * MIB, 2),), id="beyond the file"),
        pytest.param((part(2, MIB, 1), part(0, MIB, 1)), id="out of order"),
        pytest.param((part(0, 2 * MIB, 2), part(1, MIB, 1)), id="overlapping"),
    ],
)
def test_a_window_that_makes_no_sense_is_refused(parts: tuple[Part, ...]) -> None:
    with pytest.raises(BadMetainfo):
        Window(BLOB, 10 * MIB + 10, MIB, parts)


def test_another_piece_length_than_ours_is_refused() -> None:
    with pytest.raises(BadMetainfo):
        Window(BLOB, 10 * MIB, 2 * MIB, (Part(0, 2 * MIB, bytes(20)),))


def test_the_last_piece_of_a_file_may_be_short() -> None:
    window = Window.of_range(BLOB, 10 * MIB + 10, 9 * MIB, MIB + 10, bytes(40))
    assert list(window.piece_numbers()) == [9, 10]
    assert window.bytes == MIB + 10
    assert window.pieces == 11


def test_pieces_in_a_range_are_those_wholly_inside() -> None:
    window = Window.of_range(BLOB, 3 * MIB + 10, 0, MIB, bytes(20))
    assert window.pieces_in(0, 2 * MIB) == range(2)
    assert window.pieces_in(1, 2 * MIB) == range(1, 2)
    assert window.pieces_in(2 * MIB, MIB + 10) == range(2, 4)


def test_the_torrent_has_real_hashes_inside_and_filler_outside() -> None:
    chunk = bytes(MIB) + b"x" * MIB
    window = Window.of_range(BLOB, 5 * MIB, MIB, 2 * MIB, piece_hashes(chunk, MIB))
    torrent = lt.load_torrent_buffer(to_metainfo(window, b"secret")).ti
    assert torrent is not None
    hashes = [torrent.hash_for_piece(index) for index in range(5)]
    assert hashes[1:3] == [hashlib.sha1(bytes(MIB)).digest(), hashlib.sha1(b"x" * MIB).digest()]
    assert hashes[0] == hashes[3] == hashes[4] == bytes(20)
    assert (torrent.total_size(), torrent.num_files()) == (5 * MIB, 1)


def test_the_torrent_follows_from_window_and_secret_alone() -> None:
    window = Window.of_range(BLOB, 5 * MIB, MIB, MIB, bytes(20))
    same = Window(BLOB, 5 * MIB, MIB, (Part(MIB, MIB, bytes(20)),))
    assert to_metainfo(window, b"secret") == to_metainfo(same, b"secret")
    assert window.id == same.id
    assert to_metainfo(window, b"secret") != to_metainfo(window, b"other")
    assert BLOB.encode() not in to_metainfo(window, b"secret")


def test_windows_of_other_bytes_have_other_ids() -> None:
    windows = [
        Window.of_range(BLOB, 5 * MIB, MIB, MIB, bytes(20)),
        Window.of_range(BLOB, 5 * MIB, MIB, MIB, b"x" * 20),
        Window.of_range(BLOB, 5 * MIB, 2 * MIB, MIB, bytes(20)),
        Window.of_range(BLOB, 6 * MIB, MIB, MIB, bytes(20)),
        Window.of_range("sha256-" + "b" * 64, 5 * MIB, MIB, MIB, bytes(20)),
    ]
    assert len({window.id for window in windows}) == 5
