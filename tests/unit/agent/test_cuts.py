"""When what was published becomes windows."""

import pytest

from modelswarm.agent.cuts import LONGEST_WAIT, MOST, Cuts
from modelswarm.agent.segments import plan
from tests.unit.agent.coordination import MIB, manifest

SEGMENTS = plan(manifest(a=80 * MIB, b=40 * MIB, c_json=100), 2 * MIB)
RANGES = [segment.index for segment in SEGMENTS if not segment.is_bundle]


def after(done: int, *, of: Cuts | None = None) -> Cuts:
    """So many ranges are in windows already."""
    cuts = of or Cuts(SEGMENTS)
    for segment in RANGES[:done]:
        cuts.settle(segment)
    return cuts


@pytest.mark.parametrize(
    ("done", "gathered", "waited", "due"),
    [
        pytest.param(0, 1, 0.0, True, id="the first is a window at once"),
        pytest.param(5, 1, 0.0, True, id="as long as one is a fifth of what was published"),
        pytest.param(6, 1, 0.0, False, id="then it waits for a second one"),
        pytest.param(6, 2, 0.0, True, id="and two are enough"),
        pytest.param(30, 4, 0.0, False, id="half-way a window is large"),
        pytest.param(30, 4, LONGEST_WAIT, True, id="but nobody waits for ever"),
        pytest.param(58, 1, 0.0, True, id="near the end the windows are small again"),
        pytest.param(59, 1, 0.0, True, id="the last is a window at once"),
        pytest.param(30, 0, 99.0, False, id="of nothing no window is made"),
    ],
)
def test_when_windows_are_cut(done: int, gathered: int, waited: float, due: bool) -> None:
    cuts = after(done)
    for segment in RANGES[done : done + gathered]:
        cuts.gather(segment, 10.0)
    assert bool(cuts.cut(10.0 + waited)) is due


def test_a_window_has_segments_of_one_file_in_order_and_not_too_many() -> None:
    cuts = Cuts(SEGMENTS)
    for segment in reversed(RANGES):
        cuts.gather(segment, 0.0)
    windows = cuts.cut(0.0)
    assert sorted(segment for window in windows for segment in window) == RANGES
    for window in windows:
        assert list(window) == sorted(window)
        assert len({SEGMENTS[segment].file for segment in window}) == 1
        assert len(window) <= MOST
    assert cuts.cut(99.0) == [], "each is cut once"


def test_what_another_window_has_taken_is_not_cut() -> None:
    cuts = after(20)
    cuts.gather(RANGES[20], 0.0)
    cuts.gather(RANGES[21], 0.0)
    cuts.settle(RANGES[21])
    assert cuts.cut(LONGEST_WAIT) == [(RANGES[20],)]


def test_few_windows_are_made_of_many_segments() -> None:
    cuts, windows = Cuts(SEGMENTS), 0
    for segment in RANGES:
        cuts.gather(segment, 0.0)
        windows += len(cuts.cut(0.0))
    assert windows < len(RANGES) / 2
