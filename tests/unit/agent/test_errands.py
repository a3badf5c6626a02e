"""Errands: each at most once at a time, and none is lost."""

import asyncio

import pytest

from modelswarm.agent.errands import Errands


@pytest.mark.parametrize(
    ("again", "expected"),
    [pytest.param(True, 2, id="once more"), pytest.param(False, 1, id="once, unless it is asked for again")],
)
async def test_an_errand_that_is_asked_for_while_it_runs(again: bool, expected: int) -> None:
    errands = Errands("content", ended=lambda kind: None, refused=lambda error: None)
    gate, runs = asyncio.Event(), 0

    async def work() -> None:
        nonlocal runs
        runs += 1
        await gate.wait()

    errands.start("verify", 1, work)
    await asyncio.sleep(0)
    for _ in range(3):
        errands.start("verify", 1, work, again=again)
        errands.start("verify", 1, work)
    gate.set()
    async with asyncio.timeout(10):
        while errands.has("verify", 1):  # noqa: ASYNC110
            await asyncio.sleep(0)
    assert runs == expected


async def test_nothing_begins_again_after_the_end() -> None:
    errands = Errands("content", ended=lambda kind: None, refused=lambda error: None)
    runs = 0

    async def work() -> None:
        nonlocal runs
        runs += 1
        await asyncio.Event().wait()

    errands.start("verify", 1, work, again=True)
    await asyncio.sleep(0)
    errands.start("verify", 1, work, again=True)
    await errands.close()
    await asyncio.sleep(0)
    assert runs == 1
    assert not errands.has("verify", 1)
