"""The work queue: client-go's promises, on a clock that only moves when everyone waits."""

import asyncio
import random

import pytest

from modelswarm.controllers.queue import Key, WorkQueue

pytestmark = pytest.mark.looptime

A, B, C = Key("ns", "a"), Key("ns", "b"), Key("", "c")


class Recorder:
    def __init__(self) -> None:
        self.adds = 0
        self.retries = 0
        self.waited: list[float] = []
        self.worked: list[float] = []

    def added(self) -> None:
        self.adds += 1

    def retried(self) -> None:
        self.retries += 1

    def started(self, waited: float) -> None:
        self.waited.append(waited)

    def finished(self, worked: float) -> None:
        self.worked.append(worked)


class NoJitter(random.Random):
    """Full jitter at its upper end."""

    def uniform(self, a: float, b: float) -> float:
        return b


def now() -> float:
    return asyncio.get_running_loop().time()


async def taken(queue: WorkQueue) -> Key | None:
    """The next key if there is one now."""
    try:
        return await asyncio.wait_for(queue.get(), 0.001)
    except TimeoutError:
        return None


async def test_a_key_that_waits_is_not_added_twice() -> None:
    queue = WorkQueue()
    for key in (A, B, A, A):
        queue.add(key)
    assert len(queue) == 2
    assert [await queue.get(), await queue.get()] == [A, B]
    assert await taken(queue) is None


async def test_a_key_that_is_added_while_in_work_comes_back_after_done_and_not_before() -> None:
    queue = WorkQueue()
    queue.add(A)
    assert await queue.get() == A
    queue.add(A)
    queue.add(A)
    assert await taken(queue) is None
    queue.done(A)
    assert await taken(queue) == A
    queue.done(A)
    assert await taken(queue) is None


async def test_no_two_workers_have_the_same_key() -> None:
    queue, rng = WorkQueue(), random.Random(1)
    busy: set[Key] = set()
    handled = 0

    async def worker() -> None:
        nonlocal handled
        while (key := await queue.get()) is not None:
            assert key not in busy
            busy.add(key)
            await asyncio.sleep(rng.uniform(0, 0.1))
            busy.discard(key)
            handled += 1
            queue.done(key)

    workers = [asyncio.create_task(worker()) for _ in range(8)]
    for _ in range(500):
        queue.add(rng.choice((A, B, C)))
        await asyncio.sleep(rng.uniform(0, 0.02))
    await asyncio.sleep(1)
    queue.shutdown()
    await asyncio.gather(*workers)
    assert 50 < handled < 500


async def test_every_waiting_worker_is_woken_for_its_own_key() -> None:
    queue = WorkQueue()
    getters = [asyncio.create_task(queue.get()) for _ in range(3)]
    await asyncio.sleep(0)
    for key in (A, B, C):
        queue.add(key)
    assert set(await asyncio.gather(*getters)) == {A, B, C}


async def test_a_cancelled_worker_does_not_take_a_key_with_it() -> None:
    queue = WorkQueue()
    first, second = asyncio.create_task(queue.get()), asyncio.create_task(queue.get())
    await asyncio.sleep(0)
    queue.add(A)
    first.cancel()
    assert await asyncio.wait_for(second, 1) == A


async def test_add_after_keeps_the_earliest_moment() -> None:
    queue = WorkQueue()
    queue.add_after(A, 10)
    queue.add_after(A, 3)
    queue.add_after(A, 7)
    assert queue.pending == 1
    started = now()
    assert await queue.get() == A
    assert now() - started == pytest.approx(3)
    queue.done(A)
    with pytest.raises(TimeoutError):
        await asyncio.wait_for(queue.get(), 60)


async def test_add_after_no_time_is_add() -> None:
    queue = WorkQueue()
    queue.add_after(A, 0)
    assert len(queue) == 1


async def test_retries_are_spaced_exponentially_up_to_the_cap_until_forgotten() -> None:
    queue = WorkQueue(retry_base=0.2, retry_cap=300, rng=NoJitter())
    delays = []
    for _ in range(14):
        delays.append(queue.retry(A))
        assert await queue.get() == A
        queue.done(A)
    assert delays[:4] == pytest.approx([0.2, 0.4, 0.8, 1.6])
    assert delays[-3:] == [300, 300, 300]
    assert queue.failures(A) == 14
    queue.forget(A)
    assert queue.retry(A) == pytest.approx(0.2)


async def test_back_off_is_jittered_over_its_whole_range_and_never_below_what_the_server_asked_for() -> None:
    queue = WorkQueue(rng=random.Random(3))
    for _ in range(5):
        queue.retry(A)
    delays = []
    for index in range(200):
        key = Key("", str(index))
        for _ in range(6):
            queue.retry(key)
        delays.append(queue.retry(key))
    assert max(delays) <= 0.2 * 2**6
    assert min(delays) < 1
    assert max(delays) > 11
    assert queue.retry(Key("", "asked"), at_least=9) >= 9


async def test_latency_is_counted_from_the_moment_a_key_is_due() -> None:
    recorder = Recorder()
    queue = WorkQueue(observer=recorder)
    queue.add(A)
    queue.add_after(B, 2)
    await asyncio.sleep(5)
    assert [await queue.get(), await queue.get()] == [A, B]
    assert recorder.waited == pytest.approx([5, 3])
    await asyncio.sleep(1)
    assert queue.unfinished_seconds() == pytest.approx([1, 1])
    queue.done(A)
    assert recorder.worked == pytest.approx([1])
    queue.retry(B)
    assert (recorder.adds, recorder.retries) == (2, 1)


async def test_shutdown_sends_the_workers_home_and_takes_nothing_more() -> None:
    queue = WorkQueue()
    waiting = asyncio.create_task(queue.get())
    await asyncio.sleep(0)
    queue.add_after(B, 1)
    queue.shutdown()
    assert await waiting is None
    queue.add(A)
    queue.add_after(A, 1)
    await asyncio.sleep(5)
    assert len(queue) == 0
    assert queue.pending == 0
    assert await queue.get() is None


async def test_a_key_added_during_work_is_not_offered_after_shutdown() -> None:
    queue = WorkQueue()
    queue.add(A)
    assert await queue.get() == A
    queue.add(A)
    queue.shutdown()
    queue.done(A)
    assert await queue.get() is None
