"""The Dragonfly benchmark's decisions: the order of files, what counts as the whole model, and what the table says."""

import hashlib
from pathlib import Path

import pytest

from dev.bench.dragonfly_bed import Shape
from dev.bench.dragonfly_fetch import FetchFailed, File, Order, arrange, verify
from dev.bench.dragonfly_report import Case, Measured, Ready, Report

SHARD = 16 << 20


def files(*sizes: int) -> list[File]:
    return [File(f"f{number}", size, "", "") for number, size in enumerate(sizes)]


@pytest.mark.parametrize(
    ("order", "place", "names"),
    [
        pytest.param(Order.SAME, 3, "f1 f2 f3 f4 f0", id="the same for all, small ones last"),
        pytest.param(Order.ROTATED, 0, "f1 f2 f3 f4 f0", id="the first node begins with the first"),
        pytest.param(Order.ROTATED, 3, "f4 f1 f2 f3 f0", id="the last node begins with the last"),
    ],
)
def test_order_of_files(order: Order, place: int, names: str) -> None:
    found = arrange(files(100, SHARD, SHARD, SHARD, SHARD), order, place, 4)
    assert " ".join(file.path for file in found) == names


def test_more_nodes_than_files_still_get_all_of_them() -> None:
    for place in range(5):
        assert {file.path for file in arrange(files(SHARD, SHARD), Order.ROTATED, place, 5)} == {"f0", "f1"}


def test_wrong_and_missing_files_are_found(tmp_path: Path) -> None:
    (tmp_path / "a").write_bytes(b"right")
    good = File("a", 5, hashlib.sha256(b"right").hexdigest(), "")
    verify(tmp_path, [good])
    with pytest.raises(FetchFailed, match="/a is"):
        verify(tmp_path, [File("a", 5, "0" * 64, "")])
    with pytest.raises(FetchFailed, match="/b is missing"):
        verify(tmp_path, [good, File("b", 1, "", "")])


def test_table_compares_medians_of_one_run() -> None:
    case = Case(Shape(nodes=4, seeds=1, rate=200), size=1000, one_copy=10.0, goodput=192e6)
    case.runs["cold"] = [Measured(last, 1, 1020) for last in (30, 50, 32)]
    case.runs["dfget"] = [Measured(16, 1, 1020, seed_sent=1500, preheat=11.0)]
    case.runs["loader"] = [Measured(17.6, 1, 1020, seed_sent=1500, preheat=11.0)]
    case.ready = [Ready(False, 12.0, 31.0, 1000), Ready(True, 12.0, 14.0, 1000)]
    report = Report({"order": "same"}, [case])
    text = report.text()
    lines = text.splitlines()
    assert "32.0 s (30.0 to 50.0, 3 runs)  3.20 x one copy" in text
    assert "0.960 of its rate" in text
    assert "1.020 x the model" in text
    assert any("our loader over bare dfget" in line and "1.10 x" in line for line in lines)
    assert any("preheated over cold" in line and "0.50 x" in line and "-16.0 s" in line for line in lines)
    assert [line.split()[-2] for line in lines if "to Ready=True" in line] == ["19.0", "2.0"]
    document = report.to_json()
    assert document["order"] == "same"
    assert len(document["cases"][0]["runs"]["cold"]) == 3
    assert document["cases"][0]["ready"][1]["askScheduler"] is True
