"""The engine against a fake manager: what goes well, and everything that does not."""

import itertools
import json
from dataclasses import replace
from typing import Any

import httpx
import pytest

from modelswarm.api.labels import FINALIZER
from modelswarm.backends.dragonfly.reasons import DragonflyReason
from modelswarm.backends.dragonfly.settings import DragonflySettings
from modelswarm.backends.engine import EngineState
from modelswarm.content.credentials import Credentials, RegistryAuth
from modelswarm.errors import EngineError
from tests.unit.backends.fake_manager import URL, FakeManager
from tests.unit.backends.scene import (
    BLOBS,
    IMAGE_MANIFEST_URL,
    Scene,
    blob_url,
    image_manifest,
    image_scene,
    model_manifest,
    url_of,
)

pytestmark = pytest.mark.looptime
SECRET = "hf_planted-secret"
GATED = replace(DragonflySettings(URL), allow_gated=True)


def posts(manager: FakeManager) -> list[dict[str, Any]]:
    return [json.loads(request.content) for request in manager.requests if request.method == "POST"]


async def test_files_become_one_job_and_are_ready_when_each_is_confirmed() -> None:
    scene = Scene()
    first = await scene.step()
    assert (first.state, first.done_bytes, first.total_bytes, first.ready, first.desired) == (
        EngineState.RUNNING,
        0,
        600,
        0,
        1,
    )
    [body] = posts(scene.manager)
    assert body["args"] == {
        "type": "file",
        "urls": [url_of(0), url_of(1), url_of(2)],
        "scope": "all_seed_peers",
        "count": 1,
        "tag": "",
        "application": "",
        "timeout": 2700 * 10**9,
        "concurrent_task_count": 8,
    }
    assert body["scheduler_cluster_ids"] == [1]
    assert body["type"] == "preheat"
    assert first.poll_after is not None
    assert 30 < first.poll_after < 35, "the manager itself looks after 30 seconds"
    scene.later(first.poll_after)
    last = await scene.step()
    assert (last.state, last.done_bytes, last.ready, last.holds) == (EngineState.READY, 600, 1, False)
    assert scene.status.complete
    assert [job.state for job in scene.status.jobs] == ["SUCCESS"]
    assert scene.status.examples[0].name == "file-02.bin"


async def test_once_complete_nobody_is_asked_again() -> None:
    scene = Scene()
    await scene.run()
    scene.process()
    before, status = len(scene.manager.requests), scene.status
    assert (await scene.step()).state is EngineState.READY
    assert len(scene.manager.requests) == before
    assert scene.status == status


async def test_looking_again_too_early_asks_nothing_and_changes_nothing() -> None:
    scene = Scene()
    await scene.step()
    before, status = len(scene.manager.requests), scene.status
    for _ in range(5):
        assert (await scene.step()).state is EngineState.RUNNING
    assert len(scene.manager.requests) == before
    assert scene.status == status


async def test_jobs_are_bounded_and_only_so_many_run_at_once() -> None:
    settings = replace(DragonflySettings(URL), job_files=2, jobs_in_flight=2, clusters=(1, 2))
    scene = Scene(manifest=model_manifest(*[10] * 9), settings=settings)
    await scene.step()
    assert len(scene.manager.live()) == 4
    last = await scene.run()
    assert last.state is EngineState.READY
    assert (last.desired, last.ready, last.done_bytes) == (2, 2, 180)
    assert len(scene.manager.made) == 10
    assert all(len(record.urls) <= 2 for record in scene.manager.made)
    assert {tuple(record.body["scheduler_cluster_ids"]) for record in scene.manager.made} == {(1,), (2,)}


async def test_success_that_names_no_file_is_not_success() -> None:
    scene = Scene()
    scene.manager.silent = {url_of(0), url_of(1), url_of(2)}
    await scene.step()
    scene.later(35)
    observation = await scene.step()
    assert (observation.state, observation.reason) == (EngineState.FAILED, DragonflyReason.INCOMPLETE)
    assert observation.done_bytes == 0


async def test_one_bad_file_does_not_keep_the_others_away() -> None:
    scene = Scene(manifest=model_manifest(*[10] * 10))
    scene.manager.errors = {url_of(3): "404 Not Found"}
    # Half a minute to hear of it, and half a minute for the others: they do not wait with the bad one.
    assert (await scene.run(seconds=75)).done_bytes == 90
    last = await scene.run(seconds=225)
    assert last.state is EngineState.RUNNING or last.state is EngineState.FAILED
    assert last.reason == DragonflyReason.SOURCE_NOT_FOUND
    assert last.done_bytes == 90
    assert "9 of 10 files" in last.message
    assert "file-03.bin" in last.message
    assert [record.urls for record in scene.manager.made[-1:]] == [[url_of(3)]]
    scene.manager.errors = {}
    assert (await scene.run()).state is EngineState.READY


async def test_a_job_that_was_refused_is_tried_again_in_parts_and_not_file_by_file() -> None:
    scene = Scene(manifest=model_manifest(*[10] * 8))
    refusals = [httpx.Response(422, text='{"errors":"bad"}')]
    scene.manager.answer = lambda request: refusals.pop() if refusals and request.method == "POST" else None
    assert (await scene.run()).state is EngineState.READY
    assert [len(record.urls) for record in scene.manager.made] == [2] * 4


async def test_a_bad_file_that_nobody_names_is_found_by_halving() -> None:
    scene = Scene(manifest=model_manifest(*[10] * 30))
    scene.manager.errors = {url_of(7): "connection reset"}
    original = scene.manager._ids
    scene.manager._ids = lambda record, urls: ["?"] if urls == [url_of(7)] else original(record, urls)  # type: ignore[method-assign]
    last = await scene.run(seconds=900)
    assert last.done_bytes == 290
    assert len(scene.manager.made) < 30


@pytest.mark.parametrize(
    ("error", "reason"),
    [
        ("403 Forbidden", DragonflyReason.SOURCE_DENIED),
        ("401 Unauthorized", DragonflyReason.SOURCE_DENIED),
        ("404 Not Found", DragonflyReason.SOURCE_NOT_FOUND),
        ("429 Too Many Requests", DragonflyReason.RATE_LIMITED),
        ("error decoding response body", DragonflyReason.INCOMPLETE),
        ("context deadline exceeded", DragonflyReason.TIMEOUT),
    ],
)
async def test_a_failure_says_why_and_is_counted_once(error: str, reason: DragonflyReason) -> None:
    scene = Scene(manifest=model_manifest(10))
    scene.manager.errors = {url_of(0): f"{error} https://cdn/x?Signature=planted"}
    await scene.step()
    scene.later(35)
    observation = await scene.step()
    assert (observation.state, observation.reason) == (EngineState.FAILED, reason)
    assert "planted" not in observation.message
    assert "00000000" not in observation.message, "nothing that differs from job to job"
    again = await scene.step()
    assert again.state is not EngineState.FAILED
    assert again.reason == reason
    assert again.failures[0].node == "scheduler-cluster-1"


async def test_back_off_grows() -> None:
    scene = Scene(manifest=model_manifest(10))
    scene.manager.errors = {url_of(0): "boom"}
    await scene.run(seconds=1200)
    times = [record.created for record in scene.manager.made]
    gaps = [(later - earlier).total_seconds() for earlier, later in itertools.pairwise(times)]
    assert gaps == sorted(gaps)
    assert gaps[0] >= 40
    assert len(times) <= 8


async def test_without_seed_peers_the_engine_is_unable_and_says_so() -> None:
    scene = Scene()
    scene.manager.seeds = False
    await scene.step()
    scene.later(35)
    assert (await scene.step()).state is EngineState.FAILED
    waiting = await scene.step()
    assert (waiting.state, waiting.reason) == (EngineState.UNREACHABLE, DragonflyReason.NO_SEED_PEER)
    scene.manager.seeds = True
    assert (await scene.run()).state is EngineState.READY


async def test_a_manager_that_was_restarted_is_found_out_and_the_job_submitted_again() -> None:
    scene = Scene()
    scene.manager.seconds = 400
    await scene.step()
    scene.later(10)
    scene.manager.restart()
    scene.manager.seconds = 1
    seen = set()
    for _ in range(20):
        observation = await scene.step()
        seen.add(observation.reason)
        if observation.state is EngineState.READY:
            break
        scene.later(observation.poll_after or 10)
    assert observation.state is EngineState.READY
    assert DragonflyReason.JOB_LOST in seen
    assert (scene.now - scene.manager.made[0].created).total_seconds() < 300
    assert len(scene.manager.made) == 2
    assert scene.manager.live() == []


async def test_a_job_that_the_manager_has_dropped_is_submitted_again() -> None:
    scene = Scene()
    await scene.step()
    scene.manager.jobs.clear()
    scene.later(35)
    observation = await scene.step()
    assert (observation.state, observation.reason) == (EngineState.FAILED, DragonflyReason.JOB_LOST)
    assert (await scene.run()).state is EngineState.READY


async def test_a_job_has_a_deadline_of_its_own_even_if_the_manager_keeps_looking() -> None:
    scene = Scene()
    scene.manager.seconds = 1e9
    observation = await scene.run(seconds=3100)
    assert len(scene.manager.made) == 2
    assert len(scene.manager.live()) == 1, "the first one was taken from the list"
    assert observation.reason == DragonflyReason.JOB_LOST or scene.status.jobs[-1].attempt == 2


async def test_a_poll_timeout_of_the_manager_is_a_timeout() -> None:
    scene = Scene()
    await scene.step()
    record = scene.manager.made[0]
    record.state, record.result, record.orphan = "FAILURE", {"state": "PENDING", "job_states": None}, True
    scene.later(35)
    assert (await scene.step()).reason == DragonflyReason.TIMEOUT


async def test_files_are_asked_about_one_by_one_while_the_job_only_says_pending() -> None:
    scene = Scene()
    scene.manager.slow = {url_of(2): 1e9}
    done = []
    for _ in range(14):
        observation = await scene.step()
        done.append(observation.done_bytes)
        scene.later(observation.poll_after or 10)
        if scene.now.timestamp() - scene.manager.made[0].created.timestamp() > 205:
            break
    assert done[-1] == 300, "two of the three files, before the manager's next look at 210 s"
    assert done == sorted(done)
    probes = [body for body in posts(scene.manager) if body["type"] == "get_task"]
    assert probes
    assert sum(record.body["type"] == "get_task" for record in scene.manager.jobs.values()) <= 1


async def test_a_hundred_running_tasks_ask_seven_times_a_second() -> None:
    """Of one job each that takes long, questions about single files included (docs/how-to/dragonfly.md)."""
    scene = Scene(manifest=model_manifest(*[10] * 20))
    scene.manager.seconds = 1e9
    await scene.run(seconds=900)
    seconds = (scene.now - scene.manager.made[0].created).total_seconds()
    assert 100 * len(scene.manager.requests) / seconds < 7.5
    assert scene.passes < 60


async def test_a_short_job_is_four_requests() -> None:
    scene = Scene(manifest=model_manifest(*[10] * 20))
    await scene.run()
    assert [request.method for request in scene.manager.requests] == ["GET", "POST", "GET", "GET"]


@pytest.mark.parametrize(
    ("response", "reason"),
    [
        pytest.param(
            httpx.Response(301, headers={"Location": "/"}), DragonflyReason.MANAGER_UNREACHABLE, id="redirect"
        ),
        pytest.param(httpx.Response(502), DragonflyReason.MANAGER_UNREACHABLE, id="gateway"),
        pytest.param(httpx.Response(200, text="<html>"), DragonflyReason.MANAGER_UNREACHABLE, id="garbage"),
        pytest.param(httpx.Response(200, json={"id": "x"}), DragonflyReason.MANAGER_UNREACHABLE, id="not a job"),
        pytest.param(httpx.Response(401, json={"message": "Unauthorized"}), DragonflyReason.UNAUTHORIZED, id="401"),
        pytest.param(
            httpx.Response(403, json={"message": "Token has expired"}), DragonflyReason.UNAUTHORIZED, id="expired"
        ),
        pytest.param(httpx.Response(429, text="rate limit exceeded"), DragonflyReason.RATE_LIMITED, id="429"),
        pytest.param(
            httpx.Response(500, json={"message": "Internal Server Error"}),
            DragonflyReason.MANAGER_UNREACHABLE,
            id="database down",
        ),
        pytest.param(
            httpx.Response(500, json={"message": "active schedulers not found"}),
            DragonflyReason.NO_SCHEDULER,
            id="none",
        ),
        pytest.param(
            httpx.Response(404, json={"message": "scheduler cluster id 1: record not found"}),
            DragonflyReason.NO_SCHEDULER,
            id="no such cluster",
        ),
    ],
)
async def test_trouble_with_the_manager_is_unreachable_with_a_reason(
    response: httpx.Response, reason: DragonflyReason
) -> None:
    scene = Scene()
    scene.manager.answer = lambda request: response if request.method == "POST" else None
    observation = await scene.step()
    assert (observation.state, observation.reason) == (EngineState.UNREACHABLE, reason)
    assert scene.manager.made == []
    scene.manager.answer = lambda request: None
    assert (await scene.run()).state is EngineState.READY, "no restart is needed when it is back"


async def test_a_refused_request_is_a_failure_and_is_not_repeated_at_once() -> None:
    scene = Scene()
    scene.manager.answer = lambda request: (
        httpx.Response(422, text='{"errors":"bad"}{"errors":"bad again"}') if request.method == "POST" else None
    )
    observation = await scene.step()
    assert (observation.state, observation.reason) == (EngineState.FAILED, DragonflyReason.REFUSED)
    assert "bad" in observation.message
    before = len(scene.manager.requests)
    await scene.step()
    assert len(scene.manager.requests) == before


async def test_a_token_that_was_renewed_is_read_again() -> None:
    scene = Scene(tokens=["old", "pat-1"])
    assert (await scene.run()).state is EngineState.READY
    assert scene.token_reads == 2


class TestTokens:
    """What a file needs to be read, and where it must not be."""

    async def test_a_task_with_a_token_is_not_served_unless_allowed(self) -> None:
        spec = {"credentialsSecretRef": {"name": "modelhub-secret"}}
        scene = Scene(spec={**Scene().spec, **spec})
        assert not scene.engine.serves(scene.task)
        scene.with_settings(allow_gated=True)
        assert scene.engine.serves(scene.task)

    async def test_one_that_names_the_engine_is_tried_without_its_token(self) -> None:
        scene = Scene(credentials=Credentials(hub_token=SECRET))
        assert (await scene.run()).state is EngineState.READY
        assert not any(SECRET in request.content.decode() for request in scene.manager.requests)

    async def test_the_finalizer_comes_before_the_job_and_goes_after_it(self) -> None:
        scene = Scene(credentials=Credentials(hub_token=SECRET), settings=GATED)
        first = await scene.step()
        assert first.holds
        assert scene.manager.made == []
        await scene.step()
        [record] = scene.manager.made
        assert record.args["headers"] == {"Authorization": f"Bearer {SECRET}"}
        assert FINALIZER in scene.task.metadata.finalizers
        last = await scene.run()
        assert not last.holds
        assert scene.manager.jobs == {}, "nothing with a token stays in the manager's list"
        assert SECRET not in json.dumps(scene.task.status.to_json())

    async def test_a_failed_job_is_deleted_before_the_next_one(self) -> None:
        scene = Scene(manifest=model_manifest(10), credentials=Credentials(hub_token=SECRET), settings=GATED)
        scene.manager.errors = {url_of(0): "boom"}
        for _ in range(12):
            observation = await scene.step()
            assert observation.holds
            assert len(scene.manager.jobs) <= 1
            scene.later(observation.poll_after or 10)
        assert len(scene.manager.made) > 1

    async def test_release_removes_what_is_left(self) -> None:
        scene = Scene(credentials=Credentials(hub_token=SECRET), settings=GATED)
        await scene.step()
        await scene.step()
        scene.process()
        await scene.engine.release(scene.task)
        assert scene.manager.jobs == {}

    async def test_release_says_if_the_manager_cannot_be_asked(self) -> None:
        scene = Scene()
        scene.manager.answer = lambda request: httpx.Response(503)
        with pytest.raises(EngineError):
            await scene.engine.release(scene.task)

    async def test_ready_is_said_even_if_the_last_clean_up_fails_and_it_is_done_later(self) -> None:
        scene = Scene(credentials=Credentials(hub_token=SECRET), settings=GATED)
        await scene.step()
        await scene.step()
        scene.later(35)
        scene.manager.answer = lambda request: (
            httpx.Response(503) if request.method in ("DELETE",) or "page" in request.url.params else None
        )
        observation = await scene.step()
        assert (observation.state, observation.holds) == (EngineState.READY, True)
        assert not scene.status.complete
        scene.manager.answer = lambda request: None
        assert not (await scene.run()).holds
        assert scene.manager.jobs == {}


class TestImages:
    async def test_layers_are_asked_for_by_digest_and_confirmed_by_digest(self) -> None:
        scene = image_scene()
        scene.manager.knows_digest_ids = True
        last = await scene.run()
        assert (last.state, last.degraded, last.done_bytes) == (EngineState.READY, None, 30)
        [body] = posts(scene.manager)
        assert body["args"]["url"] == IMAGE_MANIFEST_URL
        assert body["args"]["platform"] == "linux/amd64"
        assert body["args"]["enable_task_id_based_blob_digest"] is True
        assert {example.id for example in scene.status.examples} == {digest.removeprefix("sha256:") for digest in BLOBS}

    async def test_a_manager_that_cannot_do_digests_is_told_from_its_answer(self) -> None:
        scene = image_scene()
        observation = await scene.step()
        assert observation.state is EngineState.READY
        assert observation.degraded is not None
        assert observation.degraded[0] == DragonflyReason.IMAGE_PREHEAT_INEFFECTIVE
        assert "enableTaskIDBasedBlobDigest" in observation.degraded[1]
        assert not observation.measured
        assert scene.manager.jobs == {}
        before = len(scene.manager.made)
        scene.process()
        assert (await scene.step()).degraded is not None
        assert len(scene.manager.made) == before

    async def test_its_job_goes_also_if_it_was_over_first(self) -> None:
        scene = image_scene()
        scene.manager.seconds = 0
        assert (await scene.step()).degraded is not None
        assert scene.manager.jobs == {}
        assert (scene.status.complete, scene.status.jobs) == (True, ())

    async def test_while_its_job_cannot_be_removed_the_task_stays_ready(self) -> None:
        scene = image_scene()
        scene.manager.answer = lambda request: (
            httpx.Response(503) if "page" in request.url.params and scene.manager.made else None
        )
        for _ in range(6):
            observation = await scene.step()
            assert (observation.state, observation.degraded is not None) == (EngineState.READY, True)
            assert not scene.status.complete
            scene.later(observation.poll_after or 0)
        assert [job.state for job in scene.manager.jobs.values()] == ["SUCCESS"]
        scene.manager.answer = lambda request: None
        assert (await scene.step()).degraded is not None
        assert (scene.manager.jobs, scene.status.complete, len(scene.manager.made)) == ({}, True, 1)

    async def test_url_mode_needs_nothing_of_the_manager(self) -> None:
        scene = image_scene(settings=replace(DragonflySettings(URL), digest_ids=False))
        last = await scene.run()
        assert (last.state, last.degraded) == (EngineState.READY, None)
        assert posts(scene.manager)[0]["args"]["enable_task_id_based_blob_digest"] is False

    async def test_a_missing_layer_means_not_ready(self) -> None:
        scene = image_scene()
        scene.manager.knows_digest_ids = True
        scene.manager.silent = {blob_url(BLOBS[1])}
        last = await scene.run(seconds=100)
        assert last.state is not EngineState.READY
        assert last.done_bytes == 20

    async def test_one_job_per_platform_of_the_nodes_and_those_without_a_manifest_are_left_out(self) -> None:
        scene = image_scene(node_platforms=("linux/amd64", "linux/arm64", "linux/s390x"))
        scene.task = scene.task.model_copy(
            update={"spec": scene.task.spec.model_validate({"image": {"reference": "docker.io/vllm/vllm-openai"}})}
        )
        arm = image_manifest()
        scene.images["linux/arm64"] = replace(
            arm, files=(replace(arm.files[0], path="blobs/x", digest=f"sha256:{'9' * 64}"),)
        )
        scene.manager.blobs[IMAGE_MANIFEST_URL, "linux/arm64"] = [blob_url(f"sha256:{'9' * 64}")]
        scene.manager.knows_digest_ids = True
        assert (await scene.run()).state is EngineState.READY
        assert [body["args"]["platform"] for body in posts(scene.manager)] == ["linux/amd64", "linux/arm64"]
        scene.node_platforms = ()
        assert (await scene.step()).state is EngineState.READY, "nodes that go do not move the plan"

    async def test_a_platform_that_the_task_names_must_be_there(self) -> None:
        scene = image_scene(images={})
        observation = await scene.step()
        assert (observation.state, observation.reason) == (
            EngineState.UNREACHABLE,
            DragonflyReason.PLATFORM_MISMATCH,
        )

    @pytest.mark.parametrize(
        ("challenge", "expected"),
        [
            ("Bearer realm=x", {"username": "me", "password": SECRET}),
            ("Basic realm=x", {"headers": {"Authorization": "Basic bWU6aGZfcGxhbnRlZC1zZWNyZXQ="}}),
        ],
    )
    async def test_pull_secrets_go_as_the_registry_wants_them(self, challenge: str, expected: dict[str, Any]) -> None:
        scene = image_scene(auths={"docker.io": RegistryAuth("me", SECRET)}, registry={"WWW-Authenticate": challenge})
        scene.manager.knows_digest_ids = True
        last = await scene.run()
        assert last.state is EngineState.READY
        [body] = posts(scene.manager)
        sent = {name: body["args"][name] for name in ("username", "password", "headers") if name in body["args"]}
        assert sent == expected
        assert scene.manager.jobs == {}
        assert SECRET not in json.dumps(scene.task.status.to_json())

    @pytest.mark.parametrize(
        ("message", "reason"),
        [
            ("no matching manifest for platform linux/amd64", DragonflyReason.PLATFORM_MISMATCH),
            ("unauthorized: authentication required", DragonflyReason.SOURCE_DENIED),
            ("manifest unknown: MANIFEST_UNKNOWN", DragonflyReason.SOURCE_NOT_FOUND),
            ("toomanyrequests: you have reached your limit", DragonflyReason.RATE_LIMITED),
            ("ip 127.0.0.1 is invalid", DragonflyReason.REFUSED),
        ],
    )
    async def test_what_a_registry_says_within_the_post_is_a_failure_of_the_task(
        self, message: str, reason: DragonflyReason
    ) -> None:
        scene = image_scene()
        scene.manager.answer = lambda request: (
            httpx.Response(500, json={"message": message}) if request.method == "POST" else None
        )
        observation = await scene.step()
        assert (observation.state, observation.reason) == (EngineState.FAILED, reason)
