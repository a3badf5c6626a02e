"""The turnstile: never too many, never stuck, first come first served."""

from dataclasses import dataclass

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import Bundle, RuleBasedStateMachine, initialize, invariant, rule

from modelswarm.turnstile import LEASE_SECONDS, MOST_WAITING, Turnstile

OPENED = LEASE_SECONDS


def opened(limit: int = 2) -> Turnstile:
    """One that has been there for long."""
    return Turnstile(limit, -LEASE_SECONDS)


def test_so_many_are_let_through_and_the_others_are_told_where_they_stand() -> None:
    turnstile = opened()
    assert [turnstile.ask(who, 0).granted for who in ("a", "b", "c")] == [True, True, False]
    answer = turnstile.ask("d", 0)
    assert (answer.granted, answer.position, answer.waiting) == (False, 2, 2)
    assert answer.ask_again > 0
    assert turnstile.counts(0) == (2, 2)


def test_first_come_first_served_whoever_asks_first_again() -> None:
    turnstile = opened(1)
    turnstile.ask("a", 0)
    for number, who in enumerate("bcd"):
        assert turnstile.ask(who, number).position == number + 1
    turnstile.leave("a")
    assert not turnstile.ask("d", 3).granted
    assert not turnstile.ask("c", 3).granted
    assert turnstile.ask("b", 3).granted
    assert turnstile.ask("c", 3).position == 1


def test_who_stops_renewing_is_forgotten() -> None:
    turnstile = opened(1)
    turnstile.ask("dead", 0)
    assert turnstile.ask("a", 1).position == 1
    assert not turnstile.ask("a", LEASE_SECONDS - 1, waited=28).granted
    assert turnstile.ask("a", LEASE_SECONDS, waited=29).granted


def test_who_renews_is_not() -> None:
    turnstile = opened(1)
    turnstile.ask("a", 0)
    for now in range(1, 200, 10):
        assert turnstile.ask("a", now, holding=True).granted
        assert not turnstile.ask("b", now, waited=now).granted


def test_a_dead_one_at_the_head_of_the_queue_does_not_hold_up_the_others_for_long() -> None:
    turnstile = opened(1)
    turnstile.ask("a", 0)
    pause = turnstile.ask("dead", 0).ask_again
    turnstile.ask("b", 0)
    turnstile.leave("a")
    assert not turnstile.ask("b", 1).granted
    assert not turnstile.ask("b", pause + 9).granted
    assert turnstile.ask("b", pause + 10).granted


def test_who_left_the_queue_is_not_waited_for() -> None:
    turnstile = opened(1)
    turnstile.ask("a", 0)
    turnstile.ask("b", 0)
    turnstile.ask("c", 0)
    turnstile.leave("b")
    turnstile.leave("a")
    turnstile.leave("never heard of")
    assert turnstile.ask("c", 0).granted


def test_a_new_turnstile_first_lets_those_in_who_read_already() -> None:
    turnstile = Turnstile(2, 0)
    assert not turnstile.ask("new", 1).granted
    assert all(turnstile.ask(who, 2, holding=True).granted for who in ("a", "b", "c"))
    assert turnstile.counts(2) == (3, 1), "more than two, for they are reading and cannot be stopped"
    for now in range(3, 40):
        for who in ("a", "b", "c"):
            turnstile.ask(who, now, holding=True)
        assert not turnstile.ask("new", now).granted
    for who in ("a", "b"):
        turnstile.leave(who)
    assert turnstile.ask("new", 40).granted


def test_a_new_turnstile_keeps_the_order_of_the_old_one() -> None:
    turnstile = Turnstile(1, 0)
    assert turnstile.ask("late", 5, waited=10).position == 1
    assert turnstile.ask("early", 6, waited=60).position == 1
    assert turnstile.ask("late", 6).position == 2
    for now in range(7, int(OPENED)):
        turnstile.ask("late", now)
        turnstile.ask("early", now)
    assert not turnstile.ask("late", OPENED).granted
    assert turnstile.ask("early", OPENED).granted


def test_more_than_it_remembers_wait_all_the_same() -> None:
    turnstile = opened(1)
    turnstile.ask("a", 0)
    for number in range(MOST_WAITING):
        turnstile.ask(f"{number}", 0)
    answer = turnstile.ask("one more", 0)
    assert (answer.granted, answer.position) == (False, MOST_WAITING + 1)
    assert turnstile.counts(0) == (1, MOST_WAITING)


@pytest.mark.parametrize(("position", "pause"), [(1, 1.0), (3, 1.0), (9, 4.0), (100, 10.0)])
def test_the_further_back_the_seldomer_one_asks(position: int, pause: float) -> None:
    turnstile = opened(1)
    for number in range(position):
        turnstile.ask(f"{number:04}", 0)
    assert turnstile.ask("zzzz", 0).ask_again == pause


@dataclass
class _Loader:
    """What a loader knows."""

    name: str
    holds: bool = False
    renewed: float = 0.0
    began: float = 0.0
    next: float = 0.0
    alive: bool = True


class Machine(RuleBasedStateMachine):
    """Loaders come, read, end and die, and the operator is started anew; time passes in between."""

    loaders: Bundle[_Loader] = Bundle("loaders")

    @initialize(limit=st.integers(1, 3))
    def begin(self, limit: int) -> None:
        self.limit = limit
        self.now = 0.0
        self.turnstile = opened(limit)
        self.all: list[_Loader] = []

    def act(self) -> None:
        """Everybody who is alive does what is due, in the order of names."""
        for each in self.all:
            if not each.alive:
                continue
            if each.holds and self.now - each.renewed >= LEASE_SECONDS / 3:
                assert self.turnstile.ask(each.name, self.now, holding=True).granted
                each.renewed = self.now
            elif not each.holds and self.now >= each.next:
                answer = self.turnstile.ask(each.name, self.now, waited=self.now - each.began)
                if answer.granted:
                    earlier = [other for other in self.all if other.alive and not other.holds and other is not each]
                    # At most so many places were free as stand before it: nobody was passed over.
                    assert sum(other.began < each.began for other in earlier) < self.limit
                    each.holds, each.renewed = True, self.now
                else:
                    each.next = self.now + answer.ask_again

    @rule(target=loaders)
    def come(self) -> _Loader:
        self.now += 1
        loader = _Loader(f"{len(self.all):04}", began=self.now, next=self.now)
        self.all.append(loader)
        self.act()
        return loader

    @rule(seconds=st.integers(1, 60))
    def wait(self, seconds: int) -> None:
        for _ in range(seconds):
            self.now += 1
            self.act()

    @rule(loader=loaders)
    def end(self, loader: _Loader) -> None:
        if loader.alive:
            loader.alive = False
            self.turnstile.leave(loader.name)

    @rule(loader=loaders)
    def die(self, loader: _Loader) -> None:
        loader.alive = False

    @rule()
    def restart(self) -> None:
        self.turnstile = Turnstile(self.limit, self.now)

    @invariant()
    def never_too_many(self) -> None:
        if hasattr(self, "all"):
            assert sum(each.alive and each.holds for each in self.all) <= self.limit

    def teardown(self) -> None:
        """Never stuck: everybody who is alive has a turn, when those before it end."""
        if not hasattr(self, "all"):
            return
        for _ in range(2000):
            if not any(each.alive for each in self.all):
                return
            for each in self.all:
                if each.alive and each.holds:
                    self.end(each)
            self.now += 1
            self.act()
        raise AssertionError("somebody waits for ever")


TestMachine = Machine.TestCase
TestMachine.settings = settings(max_examples=60, stateful_step_count=25, deadline=None)
