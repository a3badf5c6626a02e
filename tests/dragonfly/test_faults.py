"""What the manager and the origin can do wrong while one operator works on, and how each of it ends.

All of it happens at once, to different tasks, because the manager tells of a job's end after half a minute only.
"""

import re
import threading
from collections.abc import Iterator
from dataclasses import dataclass
from functools import partial

import pytest

from dev.dragonfly.fault_proxy import Fault, FaultProxy, Route, answer, cut, garbage, held, lose_answer, slow
from dev.dragonfly.fault_proxy import Rule as ProxyRule
from dev.dragonfly.stack import DragonflyStack
from dev.hub import Kind, RateLimit, Rule, ServerError
from dev.hub.faults import Fault as OriginFault
from dev.installation import OperatorProcess
from tests.dragonfly.support import Bench, attempts_by_file
from tests.dragonfly.support.bench import TOKEN_SECRET, traces
from tests.integration.support.waiting import eventually

FILES = 10
BAD = "model-03.safetensors"
TWO_DOCUMENTS = b'{"errors":"json: cannot unmarshal"}{"errors":"EOF"}'


@dataclass(frozen=True, slots=True)
class Strike:
    """What happens to the first requests of a kind about a task, and what the task says of it."""

    name: str
    fault: Fault
    reason: str = ""
    """Empty: nothing is wrong."""
    says: str = ""
    on: Route = Route.SUBMIT
    jobs: int = 1
    """How many jobs are made for the files."""


NEVER = threading.Event()
# The first one is over before the others begin, and lasts until the task has said so: after a plain 500 the manager is
# not left alone, so the operator may try again at once, before anybody has seen what the task said of the first try,
# and what it says meanwhile would be another's trouble with the manager.
STRIKES = (
    Strike("error", answer(500, b'{"message":"Internal Server Error"}'), "ManagerUnreachable", "HTTP 500"),
    Strike("redirect", answer(301, headers={"Location": "/"}), "ManagerUnreachable", r"a redirect \(HTTP 301\)"),
    Strike("unprocessable", answer(422, TWO_DOCUMENTS), "Refused", "HTTP 422: json: cannot unmarshal"),
    Strike("gateway", answer(503, b"<html>no backend</html>"), "ManagerUnreachable", "HTTP 503"),
    Strike("limited", answer(429, b"rate limit exceeded"), "RateLimited", "429"),
    Strike("garbage", garbage(), "ManagerUnreachable", "not a job"),
    Strike("cut", cut(), "ManagerUnreachable", "breaks off its answer"),
    Strike("lost", lose_answer(), "ManagerUnreachable", "breaks off its answer"),
    Strike("garbled", Fault(status=200, body=b'{"id":'), "ManagerUnreachable", "not a job"),
    Strike("silent", held(NEVER), "ManagerUnreachable", "does not answer in time"),
    Strike("slow", slow(5.0)),
    Strike("list-error", answer(500, b'{"message":"Internal Server Error"}'), on=Route.LIST),
    Strike("poll-garbage", garbage(), on=Route.JOB),
    Strike("poll-lost", answer(404, b'{"message":"record not found"}'), "JobLost", "no longer knows", Route.JOB, 2),
)


@pytest.fixture(scope="module")
def proxy(dragonfly: DragonflyStack) -> Iterator[FaultProxy]:
    with FaultProxy(dragonfly.manager_url) as running:
        yield running
        NEVER.set()


@dataclass(frozen=True, slots=True)
class Storm:
    """One operator that lives through everything. ``spoiled`` are the origin's faults that will be over."""

    operator: OperatorProcess
    spoiled: list[Rule]
    strikes: dict[str, ProxyRule]


@pytest.fixture(scope="module")
def storm(bench: Bench, proxy: FaultProxy) -> Iterator[Storm]:
    """Begins with a wrong token, and goes on with a restart of the manager."""
    dragonfly = bench.dragonfly
    dragonfly.wait_preheatable()
    bench.secret(TOKEN_SECRET, {"token": "wrong"})
    with bench.operator("--retry-seconds=5", manager_url=proxy.url) as operator:
        operator.wait_leading()
        bench.task("wrong-token", bench.model("wrong-token"))
        bench.wait("wrong-token", "False", "Unauthorized", seconds=30)
        bench.secret(TOKEN_SECRET, {"token": dragonfly.token})
        _restart_manager(bench, proxy)
        faults = _spoil(bench)
        strikes = {}
        for strike in STRIKES:
            is_first = strike is STRIKES[0]
            # A list is about nobody in particular: whoever asks for the next one is struck.
            about = "" if strike.on is Route.LIST else f"org/{strike.name}/"
            rule = proxy.fail(strike.on, strike.fault, mentions=about, times=None if is_first else 1)
            strikes[strike.name] = rule
            bench.task(strike.name, bench.model(strike.name))
            if is_first:
                bench.wait_said(strike.name, strike.reason)
                rule.times = rule.hits
        yield Storm(operator, faults, strikes)
    proxy.heal()


def _restart_manager(bench: Bench, proxy: FaultProxy) -> None:
    """It dies when it knows of one job, has just made another, and has not been asked for a third."""

    died = threading.Event()

    def die() -> None:
        bench.dragonfly.kill_manager()
        proxy.close()
        died.set()

    bench.task("pending", bench.model("pending"))
    bench.wait_submitted("pending")
    proxy.fail(Route.SUBMIT, Fault(cut=True, after=die), mentions="org/posted/", times=1)
    bench.task("posted", bench.model("posted"))
    assert died.wait(120)
    bench.task("unposted", bench.model("unposted"))
    bench.wait_said("unposted", "ManagerUnreachable")
    bench.dragonfly.start_manager()
    proxy.open()


# The origin


SPOILED: dict[str, tuple[str, OriginFault]] = {
    "origin-401": ("SourceDenied", ServerError(401)),
    "origin-404": ("SourceNotFound", ServerError(404)),
    "origin-429": ("RateLimited", RateLimit()),
}
GONE = "origin-404-for-ever"


def _spoil(bench: Bench) -> list[Rule]:
    """Tasks of ten files, one of which the origin does not give; the last one's is never there."""
    rules = []
    for name, fault in {**{name: fault for name, (_, fault) in SPOILED.items()}, GONE: ServerError(404)}.items():
        model = bench.model(name, files=FILES)
        rules.append(bench.hub.fail(f"{model}/{BAD}", fault, on=Kind.RESOLVE))
        bench.task(name, model, backoffLimit=1 if name == GONE else 6)
    for name in (*SPOILED, GONE):
        bench.wait_submitted(name)
    return rules[:-1]


@pytest.fixture(scope="module")
def mended(bench: Bench, storm: Storm) -> None:
    """The origin gives all files, after each task has said what is wrong and has the other nine."""
    for name, (reason, _) in SPOILED.items():
        bench.wait_said(name, reason, seconds=120)
        eventually(partial(_has_the_others, bench, name), 120, every=0.3)
        assert bench.condition(name)[0] == "False"
    for rule in storm.spoiled:
        rule.times = rule.hits


@pytest.mark.parametrize(("name", "reason"), [(name, reason) for name, (reason, _) in SPOILED.items()])
def test_one_file_of_ten_that_the_origin_refuses_holds_up_no_other(
    bench: Bench, mended: None, name: str, reason: str
) -> None:
    bench.wait_distributed(name)
    assert any(BAD in message for message in bench.history.messages(name, reason))
    made = attempts_by_file(bench.jobs(name))
    if bench.lost_seed(name):
        return
    # The others: in the job that failed as a whole, and once more without the bad one.
    assert sorted(made.values())[: FILES - 1] == [2] * (FILES - 1), made


def test_one_file_that_is_gone_for_ever_is_named_when_the_task_falls_back(bench: Bench, mended: None) -> None:
    message = bench.wait(GONE, "True", "FellBackToOrigin")
    assert BAD in message
    assert "SourceNotFound" in message
    assert bench.condition(GONE, "Degraded")[:2] == ("True", "SourceNotFound")
    assert bench.status(GONE)["phase"] == "FellBack"
    eventually(partial(_has_the_others, bench, GONE), 60)


# The manager's answers


@pytest.mark.parametrize("strike", STRIKES, ids=lambda strike: strike.name)
def test_a_wrong_answer_of_the_manager_is_survived_and_doubles_nothing(
    bench: Bench, proxy: FaultProxy, storm: Storm, strike: Strike
) -> None:
    bench.wait_distributed(strike.name)
    if strike.reason:
        messages = [message for _, _, reason, message in bench.history.of(strike.name) if reason == strike.reason]
        assert any(re.search(strike.says, message) for message in messages), bench.history.of(strike.name)
    assert storm.strikes[strike.name].hits > 0
    assert len(proxy.made(mentions=f"org/{strike.name}/")) == strike.jobs or bench.lost_seed(strike.name)
    jobs = bench.jobs(strike.name)
    assert set(attempts_by_file(jobs).values()) == {strike.jobs}


def test_a_wrong_token_is_named_and_its_correction_is_found_without_a_restart(
    bench: Bench, proxy: FaultProxy, storm: Storm
) -> None:
    bench.wait_distributed("wrong-token")
    [message] = bench.history.messages("wrong-token", "Unauthorized")
    assert "personal access token" in message
    # The manager that took its job may have been killed a moment later.
    lost = "JobLost" in bench.history.reasons("wrong-token")
    assert len(proxy.made(mentions="org/wrong-token/")) == (2 if lost else 1) or bench.lost_seed("wrong-token")


# The manager's death


def test_a_task_waits_for_a_manager_that_is_not_there(bench: Bench, proxy: FaultProxy, storm: Storm) -> None:
    bench.wait_distributed("unposted")
    assert len(proxy.made(mentions="org/unposted/")) == 1 or bench.lost_seed("unposted")


@pytest.mark.parametrize("name", ["posted", "pending"])
def test_a_job_that_the_manager_forgot_when_it_died_is_made_once_more_at_most(
    bench: Bench, proxy: FaultProxy, storm: Storm, name: str
) -> None:
    """A manager that comes back leaves its old jobs pending for ever. The bytes may be there all the same."""
    bench.wait_distributed(name)
    made = len(proxy.made(mentions=f"org/{name}/"))
    lost = "JobLost" in bench.history.reasons(name)
    assert made == (2 if lost else 1) or bench.lost_seed(name), bench.history.of(name)
    # None, if it was found to be lost in the same look in which a seed said that it has the file.
    left = set(attempts_by_file(bench.jobs(name)).values())
    assert left <= {1}, "of the lost job nothing is left at the manager"


def test_the_operator_has_no_internal_error_to_tell_of(storm: Storm) -> None:
    assert storm.operator.child.running
    assert traces(storm.operator.child.log) == []


def _has_the_others(bench: Bench, name: str) -> bool:
    return _confirmed(bench, name) == FILES - 1


def _confirmed(bench: Bench, name: str) -> int:
    """How many files the books have as held by a seed peer."""
    found = bench.status(name).get("dragonfly", {}).get("clusters", [])
    parts = [part.partition("-") for cluster in found for part in cluster["confirmed"].split(",") if part]
    return sum(int(last or first) - int(first) + 1 for first, _, last in parts)
