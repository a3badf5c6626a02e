"""A small file for which the origin delivers wrong bytes: who has to say so before nobody reads it any more."""

import asyncio
from pathlib import Path

import pytest

from modelswarm.agent.coordinator import Coordinator
from modelswarm.agent.members import GONE_SECONDS
from modelswarm.agent.messages import Failure, Publication
from modelswarm.agent.refusals import MAX_BAR, WRONG_BYTES
from modelswarm.agent.rereading import ROUNDS
from modelswarm.agent.segments import plan
from modelswarm.api.nodecache import ModelState
from tests.unit.agent.company import company_of
from tests.unit.agent.coordination import MIB, manifest, report
from tests.unit.agent.store.conftest import content, noise

EPOCH = 7
CONTENT = manifest(a_bin=8 * MIB, b_bin=8 * MIB, c_json=100)
BUNDLE = 0
WRONG = Failure(reason="DigestMismatch", message="c.json: expected x, found y")
UNAVAILABLE = Failure(reason="SourceUnavailable", message="502")
DENIED = Failure(reason="AccessDenied", message="gated", retryable=False)


def coordinator(*others: str, origin_nodes: int | None = None, own: str = "") -> Coordinator:
    """``others`` are members that do not read at present."""
    desk = Coordinator(
        CONTENT, plan(CONTENT, 2 * MIB), segment_bytes=2 * MIB, epoch=EPOCH, now=0.0, origin_nodes=origin_nodes, own=own
    )
    for node in others:
        desk.report(report(node, wants=0), 0.0)
    return desk


def read(desk: Coordinator, node: str, now: float, failure: Failure = WRONG) -> bool:
    """Whether it was given the bundle, which it could not read then."""
    given = desk.report(report(node, epoch=EPOCH, wants=1), now).assign == (BUNDLE,)
    if given:
        desk.report(report(node, epoch=EPOCH, wants=1, failed={BUNDLE: failure}), now)
    desk.tick(now)
    return given


def test_two_nodes_that_were_given_wrong_bytes_speak_for_all() -> None:
    desk = coordinator()
    desk.report(report("a", wants=1), 0.0)
    desk.report(report("b", wants=1), 0.0)
    assert read(desk, "a", 0.0)
    assert desk.failure is None
    desk.report(report("b", epoch=EPOCH, wants=1, failed={1: WRONG}), 0.1)
    desk.tick(0.1)
    assert desk.failure is None, "each speaks of another segment"
    assert read(desk, "b", 2.0)
    assert desk.failure == WRONG_BYTES
    answer = desk.report(report("c", wants=1), 2.1)
    assert (answer.assign, answer.failure) == ((), WRONG_BYTES)


@pytest.mark.parametrize("origin_nodes", [None, 1])
def test_it_is_not_read_for_ever(origin_nodes: int | None) -> None:
    desk, times, nodes = coordinator(origin_nodes=origin_nodes, own="a"), 0, ("a", "b", "c")
    for node in nodes:
        desk.report(report(node, wants=0), 0.0)
    for second in range(1800):
        times += sum(read(desk, node, float(second)) for node in nodes)
    assert desk.failure == WRONG_BYTES
    assert times <= len(nodes)


def test_one_nodes_word_does_not_end_it_while_another_may_have_better_luck() -> None:
    desk, now = coordinator(), 0.0
    for _ in range(2 * ROUNDS):
        assert read(desk, "broken", now)
        assert read(desk, "cut-off", now, UNAVAILABLE)
        now += GONE_SECONDS - 10.0
    assert desk.failure is None


def test_the_only_node_has_to_be_given_them_a_few_times() -> None:
    desk, now = coordinator("full"), 0.0
    for _ in range(ROUNDS):
        assert desk.failure is None
        assert read(desk, "a", now)
        now += MAX_BAR + 1
        desk.report(report("full", epoch=EPOCH, wants=0), now)
    assert desk.failure == WRONG_BYTES


def test_whom_the_origin_refuses_everything_has_no_say_and_is_not_waited_for() -> None:
    desk, now = coordinator(), 0.0
    desk.report(report("denied", wants=1), now)
    desk.report(report("denied", epoch=EPOCH, wants=1, failed={BUNDLE: DENIED}), now)
    for _ in range(ROUNDS):
        assert read(desk, "a", now)
        assert not read(desk, "denied", now)
        now += MAX_BAR + 1
    assert desk.failure == WRONG_BYTES


def test_what_somebody_was_given_right_is_not_wrong_for_all() -> None:
    desk = coordinator()
    for node in "ab":
        assert desk.report(report(node, wants=1), 0.0).assign == (BUNDLE,)
        desk.report(report(node, epoch=EPOCH, wants=1, failed={BUNDLE: WRONG}), 0.0)
    right = (Publication(segments=(BUNDLE,), publisher="c"),)
    desk.report(report("c", wants=1, have=(BUNDLE,), published=right), 0.5)
    desk.tick(1.0)
    assert desk.failure is None


def test_other_troubles_do_not_count() -> None:
    desk, now = coordinator(), 0.0
    for _ in range(2 * ROUNDS):
        for node in "ab":
            read(desk, node, now, UNAVAILABLE)
        now += MAX_BAR + 1
    assert desk.failure is None


def test_who_is_gone_has_no_say() -> None:
    desk = coordinator()
    assert read(desk, "a", 0.0)
    now = GONE_SECONDS + 1
    assert read(desk, "b", now)
    assert desk.failure is None


FILES = {"model.bin": noise("model", 3 * MIB), "config.json": b"{}"}
MODEL = content(FILES)


@pytest.mark.looptime
@pytest.mark.parametrize("origin_nodes", [None, 1])
async def test_all_nodes_fail_and_say_so_until_the_origin_is_right_again(
    tmp_path: Path, origin_nodes: int | None
) -> None:
    async with company_of(tmp_path, {**FILES, "config.json": b"[]"}, MODEL) as company:
        agents = company.add("a", "b", "c")
        for agent in agents:
            await agent.start(MODEL, origin_nodes=origin_nodes)

        def failed() -> bool:
            found = [agent.standing(MODEL) for agent in agents]
            return all((each.state, each.reason) == (ModelState.FAILED, "DigestMismatch") for each in found)

        await company.until(failed, 60.0)
        given = company.origin.given["config.json"]
        await asyncio.sleep(120.0)
        requests = (company.origin.given["config.json"] - given) / len(FILES["config.json"])
        assert requests < 60, "it is tried again, but not all the time"
        company.origin.files["config.json"] = FILES["config.json"]
        await company.until_ready(MODEL)


@pytest.mark.looptime
async def test_a_broken_node_that_is_the_first_to_read_does_not_end_it_for_those_that_come(tmp_path: Path) -> None:
    async with company_of(tmp_path, FILES, MODEL) as company:
        broken, *others = company.add("broken", "a", "b")
        broken.leg.flips["config.json"] = 99
        await broken.start(MODEL)
        await asyncio.sleep(1.5)
        for agent in others:
            await agent.start(MODEL)
        await company.until_ready(MODEL, seconds=20.0)
