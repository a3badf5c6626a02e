"""When a member complains that nobody gives it what was published."""

from collections.abc import Collection
from typing import cast

import pytest

from modelswarm.agent.exchange import Exchange
from modelswarm.agent.starving import CAUGHT, FORGET_SECONDS, STALLS, Starving
from modelswarm.agent.swarm import Event, PeerBanned, WindowDone, WindowStalled

STALL = WindowStalled("w", 2)
PERIOD = 15.0


class Window:
    """As much of an exchange: one window of two segments, of two publishers."""

    def __init__(self) -> None:
        self.publishers = {3: "p", 4: "q"}
        """Of the segments that are not here."""

    def lacking(self, identity: str, pieces: Collection[int] = ()) -> list[tuple[int, str]]:
        chosen = pieces or self.publishers
        return [each for each in self.publishers.items() if identity == "w" and each[0] in chosen]

    def publisher_of(self, segment: int) -> str | None:
        return self.publishers.get(segment)


def after(*events: Event, window: Window | None = None, period: float = PERIOD) -> Starving:
    now = [0.0]
    starving = Starving(cast(Exchange, window or Window()), clock=lambda: now[0])
    for event in events:
        starving.hear(event)
        now[0] += period
    return starving


@pytest.mark.parametrize(
    ("events", "starved"),
    [
        pytest.param([STALL] * (STALLS - 1), (), id="a window that stands still for a while"),
        pytest.param([STALL] * STALLS, (3, 4), id="a window that stands still for long"),
        pytest.param([WindowStalled("w", 2, (4,))] * STALLS, (4,), id="only what is missing of it"),
        pytest.param([WindowStalled("other", 2)] * STALLS, (), id="a window of another content"),
        pytest.param([PeerBanned("p", "h", "w")], (), id="a publisher that gave wrong bytes once"),
        pytest.param([PeerBanned("p", "h", "w"), STALL], (3,), id="and of whom nobody else has the right ones"),
        pytest.param([PeerBanned("r", "h", "w"), STALL], (), id="somebody else gave wrong bytes"),
        pytest.param([PeerBanned(None, "h", "w"), STALL], (), id="nobody knows who gave wrong bytes"),
        pytest.param([WindowDone("w")] * STALLS, (), id="other events"),
    ],
)
def test_what_counts(events: list[Event], starved: tuple[int, ...]) -> None:
    assert CAUGHT + 1 == STALLS
    assert after(*events).segments == starved


def test_what_came_or_was_told_by_somebody_else_is_no_complaint() -> None:
    window = Window()
    starving = after(*[STALL] * STALLS, window=window)
    window.publishers[3] = "another"
    del window.publishers[4]
    assert starving.segments == ()


def test_stalls_far_apart_do_not_add_up() -> None:
    assert after(*[STALL] * (2 * STALLS), period=FORGET_SECONDS + 1).segments == ()


def test_it_says_when_there_is_something_more_to_complain_of() -> None:
    starving = after(*[STALL] * (STALLS - 1))
    assert starving.hear(STALL)
    assert not starving.hear(STALL)
