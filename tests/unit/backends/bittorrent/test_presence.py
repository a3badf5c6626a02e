"""For how long a node whose agent went away is waited for."""

import pytest

from modelswarm.backends.bittorrent.presence import Presence

GRACE = 300.0


def after(*looks: tuple[float, str], grace: float = GRACE) -> Presence:
    """What looks make of it: when, and the nodes that were live then, one letter each."""
    presence = Presence()
    for now, live in looks:
        presence = presence.after(frozenset(live), now, grace)
    return presence


@pytest.mark.parametrize(
    ("looks", "live", "awaited"),
    [
        pytest.param([(0, "ab")], "ab", "c", id="one that is not live at the first look may be restarting"),
        pytest.param([(0, "ab"), (299, "ab")], "ab", "c", id="it has its grace from the first look on"),
        pytest.param([(0, "ab"), (300, "ab")], "ab", "", id="then it is a node without an agent"),
        pytest.param([(0, "abc"), (400, "ab")], "ab", "c", id="one that was live has its grace from its last look on"),
        pytest.param([(0, "abc"), (400, "ab"), (699, "ab")], "ab", "c", id="the grace is not started again by a look"),
        pytest.param([(0, "abc"), (400, "ab"), (700, "ab")], "ab", "", id="the grace ends"),
        pytest.param([(0, "abc"), (400, "ab"), (700, "ab"), (705, "ab")], "ab", "", id="and stays ended"),
        pytest.param([(0, "abc"), (400, "ab"), (410, "abc")], "abc", "", id="it comes back"),
        pytest.param([(0, "abc"), (400, "ab"), (410, "abc"), (700, "ab")], "ab", "c", id="and goes again: a new grace"),
        pytest.param([(0, "abc"), (400, ""), (410, "a")], "a", "bc", id="all go, one comes back"),
        pytest.param([(400, "ab"), (699, "ab")], "ab", "c", id="the clock need not start at zero"),
    ],
)
def test_who_is_awaited(looks: list[tuple[float, str]], live: str, awaited: str) -> None:
    presence = after(*looks)
    assert presence.live == frozenset(live)
    assert [node for node in "abc" if presence.is_awaited(node)] == list(awaited)


def test_without_a_grace_nobody_is_awaited() -> None:
    assert not after((0, "ab"), (1, "a"), grace=0).is_awaited("b")
    assert not after((0, "a"), grace=0).is_awaited("b")


def test_a_look_that_shows_nothing_new_changes_nothing() -> None:
    before = after((0, "ab"), (400, "a"))
    assert before.after(frozenset("a"), 500, GRACE) == before
    assert before.after(frozenset("a"), 700, GRACE) != before
