"""The controller loop: what each outcome of a reconcile leads to, resync, and the way it stops."""

import asyncio
import itertools
import logging
import socket
import urllib.request
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager

import pytest

from modelswarm.controllers.queue import Key
from modelswarm.controllers.runner import Controller, Result, current_reconcile
from modelswarm.errors import Conflict, NotFound, Unavailable
from modelswarm.logs import AboutFilter
from modelswarm.metrics import Metrics

pytestmark = pytest.mark.looptime

A, B = Key("ns", "a"), Key("ns", "b")
Step = Callable[[], Awaitable[Result | None]]


class Script:
    """A reconcile function that does one step after the other, and remembers when it was called."""

    def __init__(self, *steps: Step | Exception | Result | None) -> None:
        self.steps = list(steps)
        self.calls: list[tuple[float, Key]] = []

    @property
    def times(self) -> list[float]:
        return [moment for moment, _ in self.calls]

    async def __call__(self, key: Key) -> Result | None:
        self.calls.append((asyncio.get_running_loop().time(), key))
        step = self.steps.pop(0) if self.steps else None
        if isinstance(step, Exception):
            raise step
        if callable(step):
            return await step()
        return step


@asynccontextmanager
async def running(controller: Controller) -> AsyncIterator[asyncio.Task[None]]:
    task = asyncio.create_task(controller.run())
    try:
        yield task
    finally:
        controller.stop()
        await asyncio.wait([task])


def value(metrics: Metrics, name: str, **labels: str) -> float:
    return metrics.registry.get_sample_value(f"modelswarm_{name}", labels) or 0.0


async def test_a_success_waits_for_the_next_event() -> None:
    script, metrics = Script(), Metrics()
    controller = Controller("c", script, metrics=metrics)
    async with running(controller):
        controller.queue.add(A)
        await asyncio.sleep(100)
        controller.queue.add(A)
        await asyncio.sleep(1)
    assert [key for _, key in script.calls] == [A, A]
    assert value(metrics, "reconcile_total", controller="c", result="success") == 2
    assert value(metrics, "reconcile_time_seconds_count", controller="c") == 2


async def test_requeue_after_brings_the_key_back_in_time() -> None:
    script = Script(Result(requeue_after=30), Result())
    controller = Controller("c", script)
    async with running(controller):
        controller.queue.add(A)
        await asyncio.sleep(100)
    assert len(script.times) == 2
    assert script.times[1] - script.times[0] == pytest.approx(30)


async def test_a_conflict_is_tried_again_at_once_and_makes_no_noise(caplog: pytest.LogCaptureFixture) -> None:
    script, metrics = Script(Conflict("somebody was faster", status=409)), Metrics()
    controller = Controller("c", script, metrics=metrics)
    with caplog.at_level(logging.INFO):
        async with running(controller):
            controller.queue.add(A)
            await asyncio.sleep(10)
    assert len(script.times) == 2
    assert script.times[1] - script.times[0] <= 0.2
    assert not caplog.records
    assert value(metrics, "reconcile_errors_total", controller="c") == 0
    assert value(metrics, "reconcile_total", controller="c", result="conflict") == 1


async def test_a_conflict_that_stays_is_logged_and_backs_off(caplog: pytest.LogCaptureFixture) -> None:
    script = Script(*[Conflict("mine", status=409)] * 1000)
    controller = Controller("c", script)
    async with running(controller):
        controller.queue.add(A)
        await asyncio.sleep(120)
    assert len(script.calls) < 20
    assert any("mine" in record.message for record in caplog.records)


async def test_an_unavailable_server_is_asked_again_when_it_said_so() -> None:
    script = Script(Unavailable("too many requests", status=429, retry_after=20))
    controller = Controller("c", script)
    async with running(controller):
        controller.queue.add(A)
        await asyncio.sleep(60)
    assert 20 <= script.times[1] - script.times[0] <= 20.2


async def test_a_defect_is_logged_with_its_traceback_once_and_other_keys_go_on(
    caplog: pytest.LogCaptureFixture,
) -> None:
    metrics = Metrics()
    good: list[Key] = []

    async def reconcile(key: Key) -> None:
        if key == A:
            raise RuntimeError("broken")
        good.append(key)

    controller = Controller("c", reconcile, workers=1, metrics=metrics)
    async with running(controller):
        controller.queue.add(A)
        controller.queue.add(B)
        await asyncio.sleep(60)
    errors = [record for record in caplog.records if "broken" in record.getMessage()]
    assert len(errors) > 3
    assert [bool(record.exc_info) for record in errors] == [True] + [False] * (len(errors) - 1)
    assert good == [B]
    assert value(metrics, "reconcile_errors_total", controller="c") == len(errors)
    assert value(metrics, "workqueue_retries_total", controller="c") == len(errors)


async def test_the_traceback_comes_again_after_a_success(caplog: pytest.LogCaptureFixture) -> None:
    script = Script(RuntimeError("broken"), None, RuntimeError("broken"))
    controller = Controller("c", script)
    async with running(controller):
        for _ in range(2):
            controller.queue.add(A)
            await asyncio.sleep(10)
    assert [bool(record.exc_info) for record in caplog.records] == [True, True]


async def test_what_the_server_refused_is_one_line_without_traceback(caplog: pytest.LogCaptureFixture) -> None:
    controller = Controller("c", Script(NotFound('namespaces "x" not found', status=404)))
    async with running(controller):
        controller.queue.add(A)
        await asyncio.sleep(10)
    (record,) = caplog.records
    assert not record.exc_info
    assert "c ns/a" in record.getMessage()
    assert 'namespaces "x" not found' in record.getMessage()


async def test_a_reconcile_that_hangs_is_cut_off(caplog: pytest.LogCaptureFixture) -> None:
    async def hang() -> None:
        await asyncio.sleep(1000)

    script, metrics = Script(hang), Metrics()
    controller = Controller("c", script, timeout=60, metrics=metrics)
    async with running(controller):
        controller.queue.add(A)
        await asyncio.sleep(45)
        assert controller.oldest_in_flight() == pytest.approx(45)
        await asyncio.sleep(45)
        assert controller.oldest_in_flight() == 0
    assert len(script.calls) == 2
    assert value(metrics, "reconcile_total", controller="c", result="timeout") == 1
    assert "took longer than 60 s" in caplog.text


async def test_resync_adds_every_key_now_and_then_with_jitter() -> None:
    script = Script()
    controller = Controller("c", script, resync=lambda: [A, B], resync_seconds=600)
    async with running(controller):
        await asyncio.sleep(6000)
    moments = sorted({round(moment, 3) for moment in script.times})
    gaps = [second - first for first, second in itertools.pairwise(moments)]
    assert 8 <= len(moments) <= 12
    assert all(480 <= gap <= 720 for gap in gaps)
    assert len({round(gap) for gap in gaps}) > 2
    assert {key for _, key in script.calls} == {A, B}


async def test_resync_may_ask_the_server_and_survives_its_failure() -> None:
    answers: list[Exception | list[Key]] = [Unavailable("no answer"), [A]]

    async def resync() -> list[Key]:
        answer = answers.pop(0) if answers else []
        if isinstance(answer, Exception):
            raise answer
        return answer

    script = Script()
    controller = Controller("c", script, resync=resync, resync_seconds=100)
    async with running(controller):
        await asyncio.sleep(1000)
    assert [key for _, key in script.calls] == [A]


@pytest.mark.parametrize("how", ["stop", "cancel"])
async def test_stopping_lets_what_is_in_flight_finish_and_starts_nothing_new(how: str) -> None:
    finished: list[Key] = []

    async def reconcile(key: Key) -> None:
        await asyncio.sleep(5)
        finished.append(key)

    controller = Controller("c", reconcile, workers=1)
    task = asyncio.create_task(controller.run())
    controller.queue.add(A)
    controller.queue.add(B)
    await asyncio.sleep(1)
    started = asyncio.get_running_loop().time()
    if how == "stop":
        controller.stop()
    else:
        task.cancel()
    await asyncio.wait([task])
    assert asyncio.get_running_loop().time() - started == pytest.approx(4)
    assert finished == [A]
    assert task.cancelled() == (how == "cancel")


async def test_stopping_cuts_off_what_does_not_end(caplog: pytest.LogCaptureFixture) -> None:
    async def reconcile(key: Key) -> None:
        await asyncio.sleep(50)

    controller = Controller("c", reconcile, drain_seconds=15)
    task = asyncio.create_task(controller.run())
    controller.queue.add(A)
    await asyncio.sleep(1)
    started = asyncio.get_running_loop().time()
    controller.stop()
    await asyncio.wait([task])
    assert asyncio.get_running_loop().time() - started == pytest.approx(15)
    assert "cut off 1 reconciles" in caplog.text


async def test_one_reconcile_has_one_id_in_all_its_log_lines() -> None:
    seen: list[tuple[str, str, str]] = []

    async def reconcile(key: Key) -> None:
        await asyncio.sleep(1)
        for _ in range(2):
            record = logging.makeLogRecord({"msg": "inside"})
            assert AboutFilter().filter(record)
            seen.append((record.__dict__["controller"], record.__dict__["object"], record.__dict__["reconcile_id"]))

    controller = Controller("c", reconcile)
    async with running(controller):
        controller.queue.add(A)
        controller.queue.add(B)
        await asyncio.sleep(5)
    assert [(controller_name, obj) for controller_name, obj, _ in seen] == [("c", "ns/a")] * 2 + [("c", "ns/b")] * 2
    assert len({reconcile_id for _, _, reconcile_id in seen}) == 2
    assert current_reconcile.get() is None


@pytest.mark.parametrize("host", ["127.0.0.1", "[::1]"])
async def test_the_metrics_are_there_on_addresses_of_both_families(host: str) -> None:
    if ":" in host and not socket.has_dualstack_ipv6():
        pytest.skip("this machine has no IPv6")
    metrics = Metrics()
    port = metrics.serve(0)
    try:
        text = await asyncio.to_thread(lambda: urllib.request.urlopen(f"http://{host}:{port}/metrics").read().decode())
    finally:
        metrics.close()
    assert "modelswarm_build_info{" in text


async def test_the_metrics_show_queue_and_tasks_over_http() -> None:
    metrics = Metrics()
    controller = Controller("c", Script(), metrics=metrics)
    controller.queue.add(A)
    metrics.watch_tasks(lambda: {("Running", "Direct"): 3})
    metrics.api_request("apply", "Deployment", 201)
    port = metrics.serve(0, "127.0.0.1")
    try:
        url = f"http://127.0.0.1:{port}/metrics"
        text = await asyncio.to_thread(lambda: urllib.request.urlopen(url).read().decode())
    finally:
        metrics.close()
    assert 'modelswarm_workqueue_depth{controller="c"} 1.0' in text
    assert 'modelswarm_p2ptasks{engine="Direct",phase="Running"} 3.0' in text
    assert 'modelswarm_api_requests_total{code="201",kind="Deployment",verb="apply"} 1.0' in text
    assert "modelswarm_build_info{" in text
