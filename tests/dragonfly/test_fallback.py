"""No usable manager for too long: the gate opens (or stays closed, if asked to), and later the manager is used again.

One operator lives through all of it, in the order of the tests.
"""

from collections.abc import Iterator
from functools import partial

import pytest

from dev.dragonfly.fault_proxy import Fault, FaultProxy, Route, answer, garbage
from dev.dragonfly.stack import DragonflyStack
from dev.installation import NAMESPACE, OperatorProcess
from tests.dragonfly.support import Bench
from tests.dragonfly.support.bench import traces
from tests.integration.support.api import Manifest
from tests.integration.support.objects import open_model, playground
from tests.integration.support.waiting import eventually, throughout

HOME = "default"
FALL_BACK_SECONDS = 12
"""Longer than a manager that did not answer is left alone: what it did before is forgotten then."""


@pytest.fixture(scope="module")
def proxy(dragonfly: DragonflyStack) -> Iterator[FaultProxy]:
    with FaultProxy(dragonfly.manager_url) as running:
        yield running


@pytest.fixture(scope="module")
def impatient(bench: Bench, proxy: FaultProxy) -> Iterator[OperatorProcess]:
    flags = (f"--fallback-after-seconds={FALL_BACK_SECONDS}", "--stall-seconds=120")
    with bench.operator(*flags, manager_url=proxy.url, asks_seeds=True) as operator:
        operator.wait_leading()
        yield operator


@pytest.mark.parametrize(
    ("name", "fault", "says"),
    [
        ("all-redirect", answer(301, headers={"Location": "/"}), "a redirect (HTTP 301)"),
        ("all-errors", answer(500, b'{"message":"Internal Server Error"}'), "HTTP 500"),
        ("all-garbage", garbage(), "check the manager's URL"),
        ("dead", None, "cannot be reached"),
    ],
)
def test_without_a_usable_manager_a_task_falls_back_or_fails_and_says_why(
    bench: Bench, proxy: FaultProxy, impatient: OperatorProcess, name: str, fault: Fault | None, says: str
) -> None:
    if fault is None:
        bench.dragonfly.kill_manager()
        proxy.close()
    else:
        proxy.fail(Route.ANY, fault)
    try:
        model = bench.model(name)
        bench.task(name, model)
        bench.task(f"{name}-closed", model, fallback="Fail")
        opened = bench.wait(name, "True", "FellBackToOrigin", seconds=45)
        closed = bench.wait(f"{name}-closed", "False", "ManagerUnreachable", seconds=45)
        eventually(lambda: bench.status(f"{name}-closed")["phase"] == "Failed", 45)
        closed = bench.condition(f"{name}-closed")[2]
    finally:
        proxy.heal()
        if fault is None:
            bench.dragonfly.start_manager()
            proxy.open()
    assert "ManagerUnreachable" in opened
    assert any(says in message for message in (opened, *bench.history.messages(name, "ManagerUnreachable"))), opened
    assert bench.condition(name, "Degraded")[:2] == ("True", "ManagerUnreachable")
    assert "fallback: Fail" in closed

    def told() -> bool:
        events = [event["note"] for event in bench.api.all("Event", NAMESPACE) if event["regarding"]["name"] == name]
        assert any("FellBackToOrigin" in note or "Consumers read the origin" in note for note in events), events
        return True

    eventually(told)
    assert proxy.made(mentions=model) == []


def test_the_gate_opens_for_who_fell_back_and_stays_closed_for_who_may_not(
    bench: Bench, proxy: FaultProxy, impatient: OperatorProcess
) -> None:
    proxy.fail(Route.ANY, answer(500))
    for name in ("gate-open", "gate-closed"):
        bench.api.apply(open_model(name, bench.model(name)))
        task = eventually(partial(_tasks, bench, name))
        if name == "gate-closed":
            closed = {"spec": {"fallback": "Fail"}}
            bench.api.patch("P2PTask", task[0]["metadata"]["name"], NAMESPACE, closed)
        obj = playground(name, name)
        bench.api.apply({**obj, "metadata": {**obj["metadata"], "namespace": HOME}})
    try:
        eventually(lambda: _phases(bench, "gate-closed") == ["Failed"], 60)
        # The images' tasks fall back too: the registry is not there.
        eventually(lambda: bench.api.find("Deployment", "gate-open", HOME), 60)
        assert _phases(bench, "gate-open") == ["FellBack"]
        throughout(lambda: bench.api.find("Deployment", "gate-closed", HOME) is None, 2.0)
        said = {c["reason"] for c in bench.api.get("Playground", "gate-closed", HOME)["status"]["conditions"]}
        assert "WaitingForModel" in said, said
    finally:
        proxy.heal()
        for name in ("gate-open", "gate-closed"):
            bench.api.delete("Playground", name, HOME)
            bench.api.delete("OpenModel", name)


def test_when_the_manager_is_back_a_new_task_uses_it_again(
    bench: Bench, proxy: FaultProxy, impatient: OperatorProcess
) -> None:
    pid = impatient.child.pid
    model = bench.model("afterwards")
    bench.task("afterwards", model)
    bench.wait_distributed("afterwards", 90)
    assert len(proxy.made(mentions=model)) == 1 or bench.lost_seed("afterwards")
    assert len(bench.jobs("afterwards")) == 1
    # Who fell back has its consumers at the origin by now; nothing is sent after them.
    assert bench.condition("dead")[:2] == ("True", "FellBackToOrigin")
    assert impatient.child.running
    assert impatient.child.pid == pid
    assert traces(impatient.child.log) == []


def _tasks(bench: Bench, model: str) -> list[Manifest]:
    return bench.api.all("P2PTask", NAMESPACE, labels=f"llmaz.io/model-name={model}")


def _phases(bench: Bench, model: str) -> list[str]:
    return [task.get("status", {}).get("phase", "") for task in _tasks(bench, model)]
