"""Reports that wait, on a clock that only moves when everyone waits."""

import asyncio

import pytest

from modelswarm.agent.coordinator import HOLD_SECONDS, SILENT_SECONDS, Coordinator
from modelswarm.agent.messages import Answer, Publication, Report
from modelswarm.agent.metainfo.desk import Desk
from modelswarm.agent.segments import plan
from modelswarm.errors import NotCoordinator
from tests.unit.agent.coordination import MIB, hashes_of, manifest, report

pytestmark = pytest.mark.looptime

CONTENT = manifest(a=8 * MIB)
SEGMENTS = plan(CONTENT, 2 * MIB)
EPOCH = 3


class Office:
    def __init__(self, origin_nodes: int | None = None) -> None:
        self.holds = True
        self.coordinator = Coordinator(
            CONTENT, SEGMENTS, segment_bytes=2 * MIB, epoch=EPOCH, now=time(), origin_nodes=origin_nodes
        )
        self.desk = Desk(self.coordinator, holds=lambda: self.holds)
        self.task = asyncio.create_task(self.desk.run())


def time() -> float:
    return asyncio.get_running_loop().time()


def done(node: str, *segments: int, working: dict[int, int] | None = None, wants: int = 1, cursor: int = 0) -> Report:
    sizes = [8 * MIB]
    news = tuple(
        Publication(segments=(index,), hashes=hashes_of(SEGMENTS[index], sizes), publisher=node) for index in segments
    )
    return report(
        node, epoch=EPOCH, cursor=cursor, have=segments, published=news, working=working or {}, wants=wants
    )  # fmt: skip


async def timed(office: Office, what: Report) -> tuple[Answer, float]:
    began = time()
    return await office.desk.report(what), time() - began


async def test_the_first_report_is_answered_at_once() -> None:
    office = Office()
    answer, seconds = await timed(office, report("a", wants=0))
    assert seconds == 0
    assert answer.epoch == EPOCH


async def test_without_news_a_report_waits() -> None:
    office = Office()
    first, _ = await timed(office, report("a", wants=0))
    _, seconds = await timed(office, report("a", epoch=EPOCH, cursor=first.cursor, wants=0))
    assert seconds == HOLD_SECONDS


async def test_a_reader_is_answered_before_it_would_count_as_silent() -> None:
    office = Office()
    first, _ = await timed(office, report("a", wants=1))
    same = report("a", epoch=EPOCH, cursor=first.cursor, wants=1, working={0: 1})
    answer, seconds = await timed(office, same)
    assert 0 < seconds < SILENT_SECONDS / 2
    assert answer.assign == (0,)


async def test_work_is_given_at_once_and_news_a_moment_later() -> None:
    office = Office(origin_nodes=1)
    first, _ = await timed(office, report("a", wants=1))
    assert first.assign == (0,)
    await office.desk.report(report("c", wants=0))
    news = asyncio.create_task(
        timed(office, report("c", epoch=EPOCH, cursor=office.coordinator._journal.head, wants=0))
    )
    await asyncio.sleep(1)
    answer, seconds = await timed(office, done("a", 0))
    assert seconds == 0
    assert answer.assign == (1,)
    told, seconds = await news
    assert [each.segments for each in told.published] == [(0,)]
    assert 1 < seconds < 1.2


async def test_news_within_a_moment_are_one_answer() -> None:
    office = Office()
    for node in ("a", "b", "c"):
        await office.desk.report(report(node, wants=1))
    cursor = office.coordinator._journal.head
    listening = asyncio.create_task(timed(office, report("d", epoch=EPOCH, cursor=cursor + 1, wants=0)))
    await asyncio.sleep(0.5)
    pairs = (("a", 0), ("b", 1), ("c", 2))
    await asyncio.gather(*(office.desk.report(done(node, segment, wants=0)) for node, segment in pairs))
    answer, seconds = await listening
    assert sorted(each.segments for each in answer.published) == [(0,), (1,), (2,)]
    assert 0.5 < seconds < 0.7


async def test_a_later_report_of_a_node_sends_the_earlier_home() -> None:
    office = Office()
    first, _ = await timed(office, report("a", wants=0))
    again = report("a", epoch=EPOCH, cursor=first.cursor, wants=0)
    earlier = asyncio.create_task(timed(office, again))
    await asyncio.sleep(3)
    later = asyncio.create_task(timed(office, again))
    assert (await earlier)[1] == 3
    assert (await later)[1] == HOLD_SECONDS


async def test_who_is_overtaken_goes_home_and_does_not_send_the_later_one() -> None:
    office = Office()
    first, _ = await timed(office, report("a", life=1, number=1, wants=0))
    later = asyncio.create_task(timed(office, report("a", life=1, number=3, epoch=EPOCH, cursor=first.cursor, wants=0)))
    await asyncio.sleep(3)
    overtaken = report("a", life=1, number=2, epoch=EPOCH, cursor=first.cursor, wants=0)
    assert (await timed(office, overtaken))[1] == 0
    assert (await later)[1] == HOLD_SECONDS


async def test_what_a_silent_node_held_wakes_another() -> None:
    office = Office(origin_nodes=1)
    await office.desk.report(report("a", wants=1))
    first, _ = await timed(office, report("b", wants=1))
    assert first.assign == ()
    answer, seconds = await timed(office, report("b", epoch=EPOCH, cursor=first.cursor, wants=1))
    assert answer.assign == (0,)
    assert seconds == pytest.approx(SILENT_SECONDS, abs=2)


async def test_who_loses_the_lease_sends_everybody_away() -> None:
    office = Office()
    first, _ = await timed(office, report("a", wants=0))
    waiting = asyncio.create_task(timed(office, report("a", epoch=EPOCH, cursor=first.cursor, wants=0)))
    await asyncio.sleep(1)
    office.holds = False
    with pytest.raises(NotCoordinator):
        await waiting
    assert time() < 5
    with pytest.raises(NotCoordinator):
        await office.desk.report(report("b"))


async def test_the_end_is_told_at_once() -> None:
    office = Office()
    everything = done("a", 0, 1, 2, 3, wants=0, cursor=99).model_copy(update={"complete": True})
    await office.desk.report(report("b", wants=0))
    await office.desk.report(everything)
    waiting = asyncio.create_task(timed(office, everything))
    await asyncio.sleep(1)
    last, seconds = await timed(office, report("b", epoch=EPOCH, wants=0, complete=True))
    assert (last.open, seconds) == (False, 0)
    answer, seconds = await waiting
    assert answer.open is False
    assert seconds < 1.1


async def test_orders_that_are_not_followed_are_repeated_and_not_without_pause() -> None:
    office = Office()
    first, _ = await timed(office, report("a", wants=1, have=(3,)))
    assert (first.assign, first.asked) == ((0,), (3,))
    stubborn = report("a", epoch=EPOCH, cursor=first.cursor, wants=1, have=(3,))
    for _ in range(5):
        answer, seconds = await timed(office, stubborn)
        assert (answer.assign, answer.asked) == ((0,), (3,))
        assert seconds >= 1
