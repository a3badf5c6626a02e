"""Several models of one node that are the same content."""

from modelswarm.agent.turns import Turns


def test_who_asks_alone_brings_it() -> None:
    turns = Turns()
    turns.ask("b", "content")
    assert not turns.is_taken("content")
    assert turns.take("b")
    assert turns.take("b")
    assert turns.is_taken("content")


def test_of_several_the_least_key_brings_it_whoever_looks_first() -> None:
    turns = Turns()
    for key in ("c", "a", "b"):
        turns.ask(key, "content")
    assert [turns.take(key) for key in ("c", "b", "a", "c")] == [False, False, True, False]


def test_nobody_is_interrupted_and_the_next_one_follows() -> None:
    turns = Turns()
    turns.ask("b", "content")
    assert turns.take("b")
    turns.ask("a", "content")
    assert not turns.take("a")
    turns.leave("b")
    assert not turns.is_taken("content")
    assert turns.take("a")


def test_who_gives_up_waiting_changes_nothing() -> None:
    turns = Turns()
    turns.ask("a", "content")
    turns.ask("b", "content")
    assert turns.take("a")
    turns.leave("b")
    turns.leave("b")
    assert turns.is_taken("content")
    turns.leave("a")
    turns.ask("b", "content")
    assert turns.take("b")


def test_other_contents_do_not_matter() -> None:
    turns = Turns()
    turns.ask("a", "one")
    turns.ask("b", "another")
    assert turns.take("a")
    assert turns.take("b")
