"""Bytes by content, for as long as somebody may ask."""

from modelswarm.agent.swarm.counters import Counters, Traffic


def test_what_is_not_here_any_more_is_forgotten_and_the_total_stays() -> None:
    counters = Counters()
    counters.add("a", uploaded=1, downloaded=2)
    counters.add("b", uploaded=3, downloaded=4)
    counters.keep({"b", "c"})
    assert counters.contents == {"b": Traffic(3, 4)}
    assert counters.total == Traffic(4, 6)
    counters.add("a", uploaded=5, downloaded=0)
    assert counters.contents["a"] == Traffic(5, 0)
