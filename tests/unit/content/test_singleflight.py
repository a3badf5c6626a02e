"""Many who ask the same at the same time are one question."""

import asyncio

import pytest

from modelswarm.content.singleflight import SingleFlight


class Origin:
    """Counts what it is asked; answers when told to."""

    def __init__(self) -> None:
        self.asked = 0
        self.cancelled = 0
        self.go = asyncio.Event()
        self.failure: Exception | None = None

    async def ask(self) -> int:
        self.asked += 1
        mine = self.asked
        try:
            await self.go.wait()
        except asyncio.CancelledError:
            self.cancelled += 1
            raise
        if self.failure is not None:
            raise self.failure
        return mine


async def settle() -> None:
    for _ in range(5):
        await asyncio.sleep(0)


async def test_a_thousand_at_once_are_one() -> None:
    flights: SingleFlight[str, int] = SingleFlight(ttl=60, size=10)
    origin = Origin()
    tasks = [asyncio.ensure_future(flights.get("a", origin.ask)) for _ in range(1000)]
    await settle()
    origin.go.set()
    assert set(await asyncio.gather(*tasks)) == {1}
    assert await flights.get("a", origin.ask) == 1
    assert await flights.get("b", origin.ask) == 2


async def test_answers_are_forgotten_in_time() -> None:
    flights: SingleFlight[str, int] = SingleFlight(ttl=0.01, size=10)
    origin = Origin()
    origin.go.set()
    assert await flights.get("a", origin.ask) == 1
    forgotten = asyncio.Event()
    asyncio.get_running_loop().call_later(0.05, forgotten.set)
    await forgotten.wait()
    assert await flights.get("a", origin.ask) == 2


async def test_without_time_nothing_is_remembered() -> None:
    flights: SingleFlight[str, int] = SingleFlight(ttl=0, size=10)
    origin = Origin()
    origin.go.set()
    assert [await flights.get("a", origin.ask) for _ in range(2)] == [1, 2]


async def test_the_oldest_answer_makes_room() -> None:
    flights: SingleFlight[str, int] = SingleFlight(ttl=60, size=2)
    origin = Origin()
    origin.go.set()
    assert [await flights.get(key, origin.ask) for key in "abc"] == [1, 2, 3]
    assert [await flights.get(key, origin.ask) for key in "bca"] == [2, 3, 4]


async def test_failures_reach_everybody_and_are_not_remembered() -> None:
    flights: SingleFlight[str, int] = SingleFlight(ttl=60, size=10)
    origin = Origin()
    origin.failure = ValueError("no")
    tasks = [asyncio.ensure_future(flights.get("a", origin.ask)) for _ in range(3)]
    await settle()
    origin.go.set()
    assert {type(result) for result in await asyncio.gather(*tasks, return_exceptions=True)} == {ValueError}
    origin.failure = None
    assert await flights.get("a", origin.ask) == 2


async def test_one_who_leaves_does_not_take_the_others_along() -> None:
    flights: SingleFlight[str, int] = SingleFlight(ttl=60, size=10)
    origin = Origin()
    first, second = (asyncio.ensure_future(flights.get("a", origin.ask)) for _ in range(2))
    await settle()
    first.cancel()
    await settle()
    origin.go.set()
    assert await second == 1
    with pytest.raises(asyncio.CancelledError):
        await first
    assert origin.cancelled == 0


async def test_the_last_to_leave_ends_it_and_the_next_starts_anew() -> None:
    flights: SingleFlight[str, int] = SingleFlight(ttl=60, size=10)
    origin = Origin()
    only = asyncio.ensure_future(flights.get("a", origin.ask))
    await settle()
    only.cancel()
    origin_again = asyncio.ensure_future(flights.get("a", origin.ask))
    await settle()
    assert origin.cancelled == 1
    origin.go.set()
    assert await origin_again == 2
