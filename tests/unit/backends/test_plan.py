"""Plans, how they are cut, what answers cover, and when to look: tables and properties."""

import random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from modelswarm.backends.dragonfly import pace
from modelswarm.backends.dragonfly.answers import Job
from modelswarm.backends.dragonfly.coverage import judge
from modelswarm.backends.dragonfly.items import format_items, parse_items
from modelswarm.backends.dragonfly.plan import cut, plan_image, plan_model, split
from modelswarm.backends.dragonfly.reasons import DragonflyReason
from modelswarm.backends.dragonfly.taskid import url_task_id
from modelswarm.content.endpoints import Endpoints
from modelswarm.content.manifest import Manifest, ManifestFile, Origin, OriginKind
from tests.unit.backends.scene import BLOBS, DIGEST, image_manifest, model_manifest, url_of

sizes = st.lists(st.integers(1, 100), min_size=1, max_size=60)


@given(st.sets(st.integers(0, 999)))
def test_items_are_read_as_they_were_written(items: set[int]) -> None:
    assert parse_items(format_items(items), below=1000) == items


@pytest.mark.parametrize(
    ("text", "expected"),
    [("0-2,7", {0, 1, 2, 7}), ("", set()), ("8-", set()), ("x", set()), ("5-999999", {5, 6, 7, 8, 9}), ("3-1", set())],
)
def test_items_of_a_bad_form_are_none(text: str, expected: set[int]) -> None:
    assert parse_items(text, below=10) == expected


@given(sizes, st.integers(1, 10), st.integers(1, 300))
def test_jobs_hold_every_file_once_within_their_bounds(sizes: list[int], files: int, size: int) -> None:
    plan = plan_model("p", model_manifest(*sizes), Endpoints())
    chunks = cut(plan, plan.everything, max_files=files, max_bytes=size)
    assert sorted(number for chunk in chunks for number in chunk) == list(range(len(sizes)))
    for chunk in chunks:
        assert 0 < len(chunk) <= files
        assert plan.size_of(chunk) <= size or len(chunk) == 1


@given(sizes, st.data())
def test_parts_hold_every_file_once_and_suspects_go_alone(sizes: list[int], data: st.DataObject) -> None:
    plan = plan_model("p", model_manifest(*sizes), Endpoints())
    items = data.draw(st.sets(st.integers(0, len(sizes) - 1), min_size=1).map(frozenset))
    suspects = data.draw(st.sets(st.sampled_from(sorted(items))).map(frozenset))
    parts = split(plan, items, suspects)
    assert sorted(number for part in parts for number in part) == sorted(items)
    assert all(len(part) == 1 for part in parts if part & suspects)
    assert len(items) == 1 or all(len(part) < len(items) for part in parts)


def test_files_have_one_url_each_at_the_pinned_commit_and_empty_ones_are_left_out() -> None:
    plan = plan_model("p", model_manifest(5, 0, 7), Endpoints(), tag="t", application="a")
    assert [entry.url for entry in plan.entries] == [url_of(0), url_of(2)]
    assert plan.entries[0].task_id == url_task_id(url_of(0), tag="t", application="a")
    assert plan.bytes == 12


def test_modelscope_files_are_told_apart_by_their_query() -> None:
    files = (ManifestFile("a b.bin", 1, None), ManifestFile("c.bin", 1, None))
    manifest = Manifest(Origin(OriginKind.MODELSCOPE, "org/name"), "f" * 40, files)
    plan = plan_model("p", manifest, Endpoints())
    assert len({entry.task_id for entry in plan.entries}) == 2


def test_layers_of_an_image_are_by_digest_and_shared_ones_are_there_once() -> None:
    manifests = {"linux/amd64": image_manifest(), "linux/arm64": image_manifest()}
    plan = plan_image("p", manifests, "https://index.docker.io", "vllm/vllm-openai", DIGEST, digest_ids=True)
    assert [entry.name for entry in plan.entries] == BLOBS
    assert [entry.task_id for entry in plan.entries] == [digest.removeprefix("sha256:") for digest in BLOBS]
    assert plan.key(f"https://mirror/v2/x/blobs/{BLOBS[0]}?ns=docker.io") == BLOBS[0]
    by_url = plan_image("p", manifests, "https://index.docker.io", "vllm/vllm-openai", DIGEST, digest_ids=False)
    assert by_url.entries[0].task_id == url_task_id(by_url.entries[0].url)


def answer(
    state: str, *, result: str | None = None, error: str = "", success: list[int] | None = None, **more: object
) -> Job:
    tasks = None if success is None else [{"url": url_of(number)} for number in success]
    results = [{"success_tasks": tasks, **more}] if success is not None or more else None
    body = {"state": result or state, "job_states": [{"state": state, "error": error, "results": results}]}
    moment = "2026-06-01T00:00:00Z"
    return Job.model_validate({"id": 1, "state": state, "created_at": moment, "updated_at": moment, "result": body})


PLAN = plan_model("p", model_manifest(1, 1, 1), Endpoints())
FAILED_1 = [{"url": url_of(1), "description": "task x failed: 404 Not Found"}]


@pytest.mark.parametrize(
    ("job", "confirmed", "reason", "suspects"),
    [
        pytest.param(answer("PENDING"), set(), None, set(), id="pending"),
        pytest.param(answer("SUCCESS", success=[0, 1, 2]), {0, 1, 2}, None, set(), id="everything"),
        pytest.param(
            answer("SUCCESS", success=[0, 0, 2, 9]), {0, 2}, DragonflyReason.INCOMPLETE, set(), id="one missing"
        ),
        pytest.param(answer("SUCCESS"), set(), DragonflyReason.INCOMPLETE, set(), id="success with nothing"),
        pytest.param(
            answer("SUCCESS", success=[0, 2], failure_tasks=FAILED_1),
            {0, 2},
            DragonflyReason.SOURCE_NOT_FOUND,
            {1},
            id="partial success",
        ),
        pytest.param(
            answer("SUCCESS", success=[0, 1, 2], failure_tasks=FAILED_1),
            {0, 1, 2},
            None,
            set(),
            id="failed on one peer only",
        ),
        pytest.param(
            answer("FAILURE", error=f"all peers preheat failed: task {PLAN.entries[2].task_id} failed: 403 Forbidden"),
            set(),
            DragonflyReason.SOURCE_DENIED,
            {2},
            id="failure that names a task",
        ),
        pytest.param(
            answer("FAILURE", error="cluster 1 scheduler 10.0.0.2 no available seed peer"),
            set(),
            DragonflyReason.NO_SEED_PEER,
            set(),
            id="no seed peer",
        ),
        pytest.param(
            answer("FAILURE", result="PENDING"), set(), DragonflyReason.TIMEOUT, set(), id="the manager gave up looking"
        ),
        pytest.param(answer("FAILURE"), set(), DragonflyReason.INCOMPLETE, set(), id="failure without a word"),
    ],
)
def test_what_an_answer_means(
    job: Job, confirmed: set[int], reason: DragonflyReason | None, suspects: set[int]
) -> None:
    verdict = judge(job, PLAN, PLAN.everything)
    assert (verdict.confirmed, verdict.reason, verdict.suspects) == (confirmed, reason, suspects)
    assert verdict.over == (job.state != "PENDING")


@pytest.mark.parametrize(
    ("age", "expected"), [(0, 30), (29, 30), (30, 90), (91, 210), (449, 450), (450, 750), (751, 1050), (1050, 1350)]
)
def test_the_managers_next_look(age: float, expected: float) -> None:
    assert pace.next_look(age) == expected


@given(st.floats(0, 5000), st.integers())
def test_a_job_is_asked_about_just_after_the_managers_look_and_at_least_once_a_minute(age: float, seed: int) -> None:
    wait = pace.look_in(age, random.Random(seed))
    assert 1 <= wait <= 60
    assert wait >= min(48, pace.next_look(age) - age)


@pytest.mark.parametrize(
    ("updated", "age", "expected"),
    [
        pytest.param(0, 60, False, id="the first look may be late"),
        pytest.param(0, 125, True, id="nobody looked for two minutes"),
        pytest.param(30, 95, False, id="before the third look"),
        pytest.param(60, 200, False, id="versions whose first look is after a minute"),
        pytest.param(90, 215, False, id="just after the fourth look"),
        pytest.param(210, 455, False, id="just after the fifth look"),
        pytest.param(210, 575, True, id="the fifth look did not come"),
        pytest.param(450, 755, False, id="every five minutes"),
        pytest.param(750, 1115, True, id="no longer every five minutes"),
    ],
)
def test_a_job_that_nobody_looks_at_is_forgotten(updated: float, age: float, expected: bool) -> None:
    assert pace.is_forgotten(updated, age) is expected


@pytest.mark.parametrize(
    ("attempt", "reason", "expected"),
    [(1, "Incomplete", 10), (3, "Incomplete", 40), (99, "Incomplete", 600), (1, "SourceDenied", 60), (1, "JobLost", 0)],
)
def test_back_off(attempt: int, reason: str, expected: float) -> None:
    assert pace.backoff(attempt, reason) == expected
