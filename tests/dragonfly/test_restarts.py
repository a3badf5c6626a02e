"""A seed peer and the scheduler die in the middle of a download and come back; the manager's death is in test_faults.

A job of a scheduler that died is pending for ever. What it was to bring may be there all the same, and is found.
"""

import time
from collections.abc import Iterator

import pytest

from dev.hub import Kind, Slow
from dev.installation import OperatorProcess
from tests.dragonfly.support import Bench
from tests.dragonfly.support.bench import traces
from tests.integration.support.waiting import eventually

SIZE = 12 << 20
"""Three pieces."""
RATE = 2 << 20
NAMES = ("seed-dies", "scheduler-dies", "no-scheduler")


@pytest.fixture(scope="module")
def operator(bench: Bench) -> Iterator[OperatorProcess]:
    bench.dragonfly.wait_preheatable()
    with bench.operator("--fallback-after-seconds=200", "--stall-seconds=300", asks_seeds=True) as running:
        running.wait_leading()
        yield running


@pytest.fixture(scope="module")
def ended(bench: Bench, operator: OperatorProcess) -> dict[str, float]:
    """All that happens; when each task was Ready, in seconds."""
    began = time.monotonic()
    _begin_download(bench, "seed-dies")
    seed = bench.dragonfly.seeds[0]
    seed.stop()
    bench.hub.faults.clear()
    seed.start()
    # The manager will hear from the scheduler, at its first look, that this job failed; nothing more is needed of it.
    _begin_download(bench, "scheduler-dies")
    bench.dragonfly.kill_scheduler()
    bench.hub.faults.clear()
    bench.task("no-scheduler", bench.model("no-scheduler"))
    bench.wait_said("no-scheduler", "NoScheduler")
    bench.dragonfly.start_scheduler()
    seconds = {}
    for name in NAMES:
        bench.wait_distributed(name)
        seconds[name] = time.monotonic() - began
    return seconds


def _begin_download(bench: Bench, name: str) -> None:
    """Return when the seed has got some of the file, and is far from having all of it."""
    model = bench.model(name, size=SIZE)
    bench.hub.fail(f"{model}/*", Slow(bytes_per_second=RATE), on=Kind.CDN)
    bench.task(name, model)
    eventually(lambda: bench.hub.counters.total(Kind.CDN, f"{model}/*").content > RATE, 60)
    eventually(lambda: bench.condition(name)[0] == "False", 5)


USUAL = ("Resolving", "Running", "Distributed")


@pytest.mark.parametrize("name", NAMES)
def test_the_task_is_ready_in_the_end_and_no_job_was_made_without_a_reason(
    bench: Bench, ended: dict[str, float], name: str
) -> None:
    assert bench.condition(name)[:2] == ("True", "Distributed")
    failed = bench.status(name)["dragonfly"].get("failedAttempts", 0)
    assert 1 <= len(bench.jobs(name)) <= failed + 1, bench.history.of(name)
    reasons = [reason for reason in bench.history.reasons(name) if reason not in USUAL]
    assert bool(reasons) == bool(failed) or name == "no-scheduler", bench.history.of(name)
    assert all(reason.isidentifier() and reason[0].isupper() for reason in reasons)


def test_a_task_that_is_made_afterwards_meets_no_trouble(
    bench: Bench, operator: OperatorProcess, ended: dict[str, float]
) -> None:
    bench.task("next", bench.model("next"))
    bench.wait_distributed("next", 90)
    assert len(bench.jobs("next")) == 1
    assert traces(operator.child.log) == []
