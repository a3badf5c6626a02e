"""When a file that is wrong is read again, and when it is given up."""

import pytest

from modelswarm.agent.rereading import ROUNDS, Rereading
from modelswarm.agent.segments import Segment, plan
from tests.unit.agent.store.conftest import content

SEGMENTS: list[Segment] = list(plan(content({"model.bin": bytes(4 << 20)}), 2 << 20))


@pytest.mark.parametrize(
    ("changes", "hopeless"),
    [
        pytest.param([], False, id="the first round is always worth it"),
        pytest.param([True], False, id="other bytes than before are a reason for another round"),
        pytest.param([False], True, id="the same bytes again are what the origin has"),
        pytest.param([True, False], True, id="the same bytes again in a later round"),
        pytest.param([True] * ROUNDS, True, id="too many rounds"),
    ],
)
def test_rounds(changes: list[bool], hopeless: bool) -> None:
    rereading = Rereading(SEGMENTS)
    for changed in changes:
        assert rereading.begin(0)
        assert not rereading.is_hopeless(0)
        assert not rereading.begin(0), "the round is not over"
        for segment in SEGMENTS:
            rereading.done(segment.index, segment.files, changed=changed)
    assert rereading.begin(0)
    assert rereading.is_hopeless(0) is hopeless
    assert bool(rereading.mask) is not hopeless
