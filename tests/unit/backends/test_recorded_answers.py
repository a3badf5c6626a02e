"""What the real manager (v2.5.1, with client 1.5.10) answered, and the reason that the engine makes of it.

``recorded_answers.json`` holds the answers as they came; only addresses were replaced, and lists of defaults cut.
"""

import json
import re
from pathlib import Path
from typing import Any

import httpx
import pytest

from modelswarm.backends.dragonfly.answers import Job
from modelswarm.backends.dragonfly.client import ManagerClient
from modelswarm.backends.dragonfly.coverage import is_held, judge
from modelswarm.backends.dragonfly.plan import Entry, Plan
from modelswarm.backends.dragonfly.reasons import DragonflyError, DragonflyReason, JobRefused
from modelswarm.backends.dragonfly.requests import SECOND, Preheat, PreheatArgs
from tests.unit.backends.fake_manager import TOKEN, URL

pytestmark = pytest.mark.looptime
RECORDED: dict[str, Any] = json.loads((Path(__file__).parent / "recorded_answers.json").read_text())
FILE = Preheat(
    bio="x", scheduler_cluster_ids=(1,), args=PreheatArgs(type="file", urls=("http://hub/f",), timeout=60 * SECOND)
)
IMAGE = Preheat(
    bio="x",
    scheduler_cluster_ids=(1,),
    args=PreheatArgs(type="image", url="http://registry/v2/a/manifests/b", timeout=60 * SECOND),
)


def client_that_gets(name: str) -> ManagerClient:
    answer = RECORDED[name]
    body = answer["body"] if isinstance(answer["body"], str) else json.dumps(answer["body"])

    async def token() -> str:
        return TOKEN

    transport = httpx.MockTransport(lambda request: httpx.Response(answer["status"], text=body))
    return ManagerClient(httpx.AsyncClient(transport=transport), URL, token)


async def job_of(name: str) -> Job:
    job = await client_that_gets(name).job(1)
    assert job is not None
    return job


def plan_of(job: Job) -> Plan:
    """The files that the job is about; ids as its error names them, or else something."""
    ids = re.findall(r"\btask ([0-9a-f]{64}) failed", job.error)
    urls = [str(url) for url in job.args["urls"]]
    entries = [
        Entry(url, url, 1, ids[0] if ids and number == 0 else f"{number:064}") for number, url in enumerate(urls)
    ]
    return Plan("plan", tuple(entries))


@pytest.mark.parametrize(
    ("name", "reason", "refused"),
    [
        pytest.param("wrong-token", DragonflyReason.UNAUTHORIZED, False, id="a token that nobody knows"),
        pytest.param("wrong-scope", DragonflyReason.UNAUTHORIZED, False, id="a token for something else"),
        pytest.param("rate-limited", DragonflyReason.RATE_LIMITED, False, id="more than ten jobs a second"),
        pytest.param("unknown-cluster", DragonflyReason.RATE_LIMITED, False, id="no such cluster, called a rate limit"),
        pytest.param("no-scheduler", DragonflyReason.NO_SCHEDULER, False, id="no scheduler"),
        pytest.param("elsewhere", DragonflyReason.MANAGER_UNREACHABLE, False, id="another path, a redirect"),
        pytest.param("timeout-as-text", DragonflyReason.REFUSED, True, id="a field of the wrong type"),
        pytest.param("unknown-type", DragonflyReason.REFUSED, True, id="a field with an unknown value"),
    ],
)
async def test_an_error_has_a_reason(name: str, reason: DragonflyReason, refused: bool) -> None:
    with pytest.raises(DragonflyError) as raised:
        await client_that_gets(name).submit(FILE)
    assert raised.value.reason == reason
    assert isinstance(raised.value, JobRefused) is refused


@pytest.mark.parametrize("name", ["image-on-loopback", "image-url-of-no-image"])
async def test_what_is_said_of_an_image_within_the_post_is_about_the_image(name: str) -> None:
    with pytest.raises(JobRefused) as raised:
        await client_that_gets(name).submit(IMAGE)
    assert raised.value.reason == DragonflyReason.REFUSED


async def test_a_job_that_is_not_there_is_none() -> None:
    assert await client_that_gets("no-such-job").job(1) is None


@pytest.mark.parametrize("name", ["preheat-posted", "pending"])
async def test_a_job_that_was_just_made_says_nothing_yet(name: str) -> None:
    job = await job_of(name)
    verdict = judge(job, plan_of(job), frozenset({0}))
    assert (verdict.over, verdict.confirmed, verdict.reason) == (False, frozenset(), None)
    assert not job.carries_credentials, "empty fields are repeated too"


async def test_a_job_that_did_it_names_the_file() -> None:
    job = await job_of("succeeded")
    verdict = judge(job, plan_of(job), frozenset({0}))
    assert (verdict.over, verdict.confirmed, verdict.reason) == (True, frozenset({0}), None)


@pytest.mark.parametrize(
    ("name", "reason", "blamed"),
    [
        pytest.param("failed-401", DragonflyReason.SOURCE_DENIED, True, id="401"),
        pytest.param("failed-403", DragonflyReason.SOURCE_DENIED, True, id="403"),
        pytest.param("failed-404", DragonflyReason.SOURCE_NOT_FOUND, True, id="404, of one of two files"),
        pytest.param("failed-429", DragonflyReason.RATE_LIMITED, True, id="429"),
        pytest.param("failed-500", DragonflyReason.INCOMPLETE, True, id="500"),
        pytest.param("nobody-there", DragonflyReason.INCOMPLETE, True, id="no origin there: said without a word"),
        pytest.param("timeout", DragonflyReason.TIMEOUT, True, id="the job's own time is over"),
        pytest.param("single-seed-404", DragonflyReason.INCOMPLETE, False, id="success that brought nothing"),
        pytest.param("no-peer", DragonflyReason.NO_SEED_PEER, False, id="no seed peer with this address"),
        pytest.param("no-seed-peer", DragonflyReason.NO_SEED_PEER, False, id="no seed peer at all"),
        pytest.param("seed-just-died", DragonflyReason.NO_SEED_PEER, True, id="the seed peer died a moment ago"),
    ],
)
async def test_a_job_that_failed_has_a_reason(name: str, reason: DragonflyReason, blamed: bool) -> None:
    job = await job_of(name)
    plan = plan_of(job)
    verdict = judge(job, plan, plan.everything)
    assert (verdict.over, verdict.confirmed, verdict.reason) == (True, frozenset(), reason)
    assert verdict.suspects == (frozenset({0}) if blamed else frozenset())
    assert "group_" not in verdict.message


@pytest.mark.parametrize(("name", "held"), [("get-task", True), ("get-task-absent", False)])
async def test_a_get_task_says_who_has_it(name: str, held: bool) -> None:
    job = await job_of(name)
    assert job.is_over
    assert is_held(job) is held
