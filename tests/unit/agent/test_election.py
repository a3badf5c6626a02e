"""What to do next, as a table: every row is a state of the Lease and of the node, and what follows."""

from dataclasses import replace

import pytest

from modelswarm.agent.election import (
    DURATION,
    GIVE_UP,
    LOOK,
    LOOK_JOINED,
    RENEW,
    REOPEN,
    TELL,
    TELL_FIRST,
    Acquire,
    Complete,
    Decision,
    Fetch,
    Hold,
    Join,
    Record,
    Release,
    Renew,
    StandDown,
    Term,
    View,
    Wait,
    decide,
)

NOW = 1000.0
URL = "http://10.0.0.2:8081"
OTHER = Record(holder="other", renewed="t", coordinator=URL, epoch=5)
MINE = Record(holder="me", renewed="t", coordinator="http://10.0.0.1:8081", epoch=9)
NAMING = replace(MINE, readers=("n1",))
TERM = Term(epoch=9, renewed_at=NOW)
DONE = Record(holder="other", complete=True, epoch=5)


def view(record: Record | None, term: Term | None = None, **changes: object) -> View:
    return replace(View(me="me", now=NOW, record=record, changed_at=NOW, term=term, jitter=0.5), **changes)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("given", "expected"),
    [
        # A node that lacks the content.
        pytest.param(view(None), Acquire, id="no Lease: acquire"),
        pytest.param(view(None, joined=True), Wait(LOOK), id="deleted, and the coordinator answers: it makes it again"),
        pytest.param(
            view(None, joined=True, changed_at=NOW - 2 * RENEW), Acquire, id="it has not made it again: acquire"
        ),
        pytest.param(view(Record()), Acquire, id="nobody holds it: acquire"),
        pytest.param(view(MINE), Acquire, id="held by this node before a restart: acquire at once"),
        pytest.param(view(OTHER), Join(URL, "other", 5, LOOK), id="held by another: join, look again soon"),
        pytest.param(view(OTHER, joined=True), Join(URL, "other", 5, LOOK_JOINED), id="and later when it answers"),
        pytest.param(view(replace(OTHER, coordinator="")), Wait(LOOK), id="held, and no coordinator is named: wait"),
        pytest.param(
            view(OTHER, changed_at=NOW - DURATION + 0.1), Join(URL, "other", 5, pytest.approx(0.1)), id="nearly expired"
        ),
        pytest.param(view(OTHER, changed_at=NOW - DURATION), Acquire, id="not renewed for its duration: acquire"),
        pytest.param(
            view(replace(OTHER, duration=600), changed_at=NOW - DURATION), Join, id="the Lease's own duration counts"
        ),
        pytest.param(view(OTHER, seeders=1), Fetch, id="a complete seeder is known: fetch"),
        pytest.param(view(None, seeders=1), Fetch, id="also without a Lease"),
        pytest.param(view(DONE, seeders=1), Fetch, id="complete, with seeders: fetch"),
        pytest.param(view(DONE), Wait, id="complete, and nobody has looked for seeders yet: wait"),
        pytest.param(view(DONE, unseeded_since=NOW - REOPEN), Wait, id="complete, no seeder for a moment: wait"),
        pytest.param(
            view(DONE, unseeded_since=NOW - 1.5 * REOPEN), Acquire, id="complete, no seeder for a while: re-open"
        ),
        pytest.param(view(None, wanted=False), Wait, id="not wanted here: nothing"),
        pytest.param(view(Record(), failed=True), Wait, id="it failed: nothing until the session tries again"),
        # A node that has it.
        pytest.param(view(None, have=True), Wait, id="has it, and there is no Lease: nothing"),
        pytest.param(view(OTHER, have=True), Wait, id="has it, another coordinates: nothing"),
        pytest.param(view(MINE, have=True), Acquire, id="has it, held the Lease before a restart: finish that"),
        pytest.param(view(replace(MINE, complete=True), have=True), Wait, id="has it, and it is marked: nothing"),
        # The holder.
        pytest.param(view(MINE, TERM), Hold(RENEW), id="just renewed: hold"),
        pytest.param(view(MINE, TERM, now=NOW + RENEW - 1), Hold(1), id="until the next renewal"),
        pytest.param(view(MINE, TERM, now=NOW + RENEW), Renew, id="renewal is due"),
        pytest.param(view(MINE, TERM, now=NOW + DURATION * GIVE_UP - 1), Renew, id="overdue, but nobody can have it"),
        pytest.param(view(MINE, TERM, now=NOW + DURATION * GIVE_UP), StandDown, id="not renewed in time: stand down"),
        pytest.param(view(OTHER, TERM), StandDown, id="another holds it: stand down"),
        pytest.param(view(replace(MINE, epoch=10), TERM), StandDown, id="another process of this node holds it"),
        pytest.param(view(replace(MINE, holder=""), TERM), StandDown, id="somebody cleared it: stand down"),
        pytest.param(view(None, TERM), Renew, id="the Lease was deleted: make it again, in the same term"),
        pytest.param(view(None, TERM, failed=True), Release, id="not for what cannot be had"),
        pytest.param(view(None, TERM, now=NOW + DURATION * GIVE_UP), StandDown, id="nor when it is too late"),
        pytest.param(
            view(MINE, TERM, news=True), Hold(TELL_FIRST), id="somebody reads the origin, and nobody is named: soon"
        ),
        pytest.param(view(MINE, TERM, news=True, now=NOW + TELL_FIRST), Renew, id="now"),
        pytest.param(
            view(NAMING, TERM, news=True, now=NOW + TELL_FIRST),
            Hold(RENEW * TELL - TELL_FIRST),
            id="others are named than read the origin: a little later",
        ),
        pytest.param(view(NAMING, TERM, news=True, now=NOW + RENEW * TELL), Renew, id="then"),
        pytest.param(view(MINE, TERM, finished=True, have=True), Complete, id="everybody has everything: complete"),
        pytest.param(view(None, TERM, finished=True, have=True), Complete, id="also if the Lease is gone"),
        pytest.param(view(OTHER, TERM, finished=True, have=True), StandDown, id="but not if another holds it"),
        pytest.param(view(MINE, TERM, failed=True), Release, id="it failed: let the next one try"),
        pytest.param(view(MINE, TERM, wanted=False), Release, id="not wanted here any more: let another coordinate"),
    ],
)
def test_decide(given: View, expected: Decision | type[Decision]) -> None:
    decision = decide(given)
    if isinstance(expected, type):
        assert type(decision) is expected
    else:
        assert decision == expected


def test_waiting_nodes_do_not_look_all_at_once() -> None:
    looks = {decide(view(OTHER, jitter=jitter / 10)) for jitter in range(10)}
    assert len(looks) == 10
