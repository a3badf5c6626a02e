import asyncio
import base64
import copy
import random
from collections.abc import Sequence
from typing import Any

import pytest

from modelswarm.api.meta import JsonObject
from modelswarm.api.p2ptask import P2PTask
from modelswarm.content import manifest as manifests
from modelswarm.content.credentials import Credentials
from modelswarm.content.manifest import Manifest, ManifestFile, Origin, OriginKind
from modelswarm.content.resolve import Resolver
from modelswarm.content.source import HubSource, Source
from modelswarm.controllers.pinning import Moved, Pin, PinJobs, Pinner, PinState, manifest_name
from modelswarm.controllers.queue import Key
from modelswarm.controllers.task_status import advance
from modelswarm.errors import AccessDenied, InvalidReference, KubeError, SourceUnavailable, TaskBlocked, Unavailable
from modelswarm.kube.kinds import CONFIGMAP
from modelswarm.kube.objects import metadata
from tests.unit.controllers.fake_kube import FakeKube, watch, world
from tests.unit.controllers.objects import COMMIT, DIGEST, IMAGE, NOW, OTHER_DIGEST, PIN, POLICY, after, facts, task

KEY = Key("llmaz-system", "task")
OTHER_COMMIT = "0" * 40

# --- PinJobs --------------------------------------------------------------------------------------------------------


class Work:
    """What a job does: waits for as long as it is told, then ends as it is told."""

    def __init__(self, *outcomes: Pin | Exception, seconds: float = 0.0) -> None:
        self.outcomes = list(outcomes)
        self.seconds = seconds
        self.started: list[P2PTask] = []
        self.cancelled = 0
        self.woken: list[Key] = []
        self.jobs = PinJobs(self.pin, self._wake)
        self._heard = asyncio.Event()

    async def pin(self, known: P2PTask) -> Pin:
        self.started.append(known)
        try:
            await asyncio.sleep(self.seconds)
        except asyncio.CancelledError:
            self.cancelled += 1
            raise
        outcome = self.outcomes.pop(0) if self.outcomes else PIN
        if isinstance(outcome, Exception):
            raise outcome
        return outcome

    async def until_woken(self, times: int = 1) -> None:
        while len(self.woken) < times:
            self._heard.clear()
            await self._heard.wait()

    def _wake(self, key: Key) -> None:
        self.woken.append(key)
        self._heard.set()


@pytest.mark.looptime
async def test_a_job_starts_once_and_wakes_its_task() -> None:
    work = Work(seconds=5)
    assert work.jobs.look(task()) == PinState(running=True)
    await asyncio.sleep(3)
    state = work.jobs.look(task())
    assert state.running
    assert state.seconds == pytest.approx(3)
    await work.until_woken()
    assert work.jobs.look(task()) == PinState(outcome=PIN)
    assert work.jobs.look(task()) == PinState(outcome=PIN), "until somebody says that it is in the status"
    assert (len(work.started), work.woken) == (1, [KEY])


@pytest.mark.looptime
async def test_jobs_of_different_tasks_run_side_by_side() -> None:
    work = Work(seconds=5)
    for name in ("one", "two"):
        work.jobs.look(task(name=name))
    await work.until_woken(2)
    assert asyncio.get_running_loop().time() == pytest.approx(5, abs=0.1)


@pytest.mark.looptime
@pytest.mark.parametrize(
    "changed",
    [
        pytest.param(task(generation=2), id="the spec was changed"),
        pytest.param(task(uid="another"), id="deleted and made anew under the same name"),
    ],
)
@pytest.mark.parametrize("seconds", [1, 10], ids=["while the job runs", "after it has ended"])
async def test_another_version_of_the_task_starts_anew(changed: P2PTask, seconds: float) -> None:
    work = Work(seconds=5)
    work.jobs.look(task())
    await asyncio.sleep(seconds)
    assert work.jobs.look(changed) == PinState(running=True)
    await asyncio.sleep(0)
    assert work.started == [task(), changed]
    await asyncio.sleep(6)
    assert work.jobs.look(changed) == PinState(outcome=PIN)
    assert work.cancelled == (1 if seconds < 5 else 0)


@pytest.mark.looptime
async def test_a_settled_pin_is_forgotten() -> None:
    work = Work()
    work.jobs.look(task())
    await work.until_woken()
    work.jobs.settle(KEY, None)
    assert work.jobs.look(task()).running, "it would start again, if the status did not say that it is pinned"


@pytest.mark.looptime
async def test_a_settled_failure_waits_before_the_next_attempt() -> None:
    error = SourceUnavailable("503")
    work = Work(error)
    work.jobs.look(task())
    await work.until_woken()
    assert work.jobs.look(task()).outcome is error
    work.jobs.settle(KEY, 30.0)
    assert not work.jobs.look(task()).running
    assert work.jobs.look(task()).retry_in == pytest.approx(30)
    await asyncio.sleep(29)
    assert work.jobs.look(task()).retry_in == pytest.approx(1, abs=0.05)
    await asyncio.sleep(1.1)
    assert work.jobs.look(task()).running
    await work.until_woken(2)
    assert work.jobs.look(task()).outcome == PIN


@pytest.mark.looptime
async def test_settling_what_has_not_ended_does_nothing() -> None:
    work = Work(seconds=5)
    work.jobs.settle(KEY, 30.0)
    work.jobs.look(task())
    work.jobs.settle(KEY, None)
    assert work.jobs.look(task()).running
    await work.until_woken()
    assert len(work.started) == 1


@pytest.mark.looptime
async def test_a_forgotten_job_ends_and_wakes_nobody() -> None:
    work = Work(seconds=5)
    work.jobs.look(task())
    await asyncio.sleep(1)
    work.jobs.forget(KEY)
    work.jobs.forget(KEY)
    await asyncio.sleep(10)
    assert (work.cancelled, work.woken) == (1, [])


@pytest.mark.looptime
async def test_stop_ends_every_job() -> None:
    work = Work(seconds=1000)
    for name in ("one", "two", "three"):
        work.jobs.look(task(name=name))
    await asyncio.sleep(1)
    await work.jobs.stop()
    assert work.cancelled == 3
    assert asyncio.get_running_loop().time() < 2


@pytest.mark.looptime
@pytest.mark.parametrize(
    "error",
    [AccessDenied("401"), TaskBlocked("NameClash", "exists"), SourceUnavailable("503"), Moved("changed")],
    ids=lambda error: type(error).__name__,
)
async def test_an_expected_failure_is_the_outcome(error: Exception) -> None:
    work = Work(error)
    work.jobs.look(task())
    await work.until_woken()
    assert work.jobs.look(task()).outcome is error


@pytest.mark.looptime
async def test_a_defect_is_a_reason_in_the_status_and_a_traceback_in_the_log(caplog: pytest.LogCaptureFixture) -> None:
    work = Work(ZeroDivisionError("internals"))
    work.jobs.look(task())
    await work.until_woken()
    outcome = work.jobs.look(task()).outcome
    assert isinstance(outcome, SourceUnavailable), "retried with back-off"
    assert "internals" not in outcome.message
    assert "the operator's log" in outcome.message
    assert caplog.records[-1].exc_info is not None


@pytest.mark.looptime
async def test_an_api_server_in_trouble_is_asked_again_and_is_nobody_s_failure() -> None:
    work = Work(Unavailable("no answer"), Unavailable("no answer"))
    work.jobs.look(task())
    for attempt in (1, 2):
        await work.until_woken(attempt)
        state = work.jobs.look(task())
        assert state.outcome is None
        assert state.retry_in == pytest.approx(1, abs=0.05)
        await asyncio.sleep(1)
        assert work.jobs.look(task()).running
    await work.until_woken(3)
    assert work.jobs.look(task()).outcome == PIN


# --- Pinner ---------------------------------------------------------------------------------------------------------


def manifest(commit: str = COMMIT, *, files: int = 3, size: int = 7, seed: int = 0) -> Manifest:
    """Other seeds are other content; many files do not compress, so that they make several shards."""
    rng = random.Random(seed)
    return Manifest(
        Origin(OriginKind.HUGGINGFACE, "Qwen/Qwen2-0.5B-Instruct"),
        commit,
        tuple(ManifestFile(f"model-{n:05}", size, f"sha256:{rng.randbytes(32).hex()}") for n in range(files)),
    )


class Origins(Resolver):
    """Answers what it was told, and remembers what it was asked."""

    def __init__(self, branch: Manifest | Exception, **commits: Manifest | Exception) -> None:
        self.branch = branch
        self.commits = commits
        self.asked: list[str] = []
        self.digest = DIGEST
        self.credentials: Credentials | None = None
        self.public: bool | None = True
        self.probes = 0

    async def is_public(self, manifest: Manifest) -> bool | None:
        self.probes += 1
        return self.public

    async def resolve_model(self, source: Source, credentials: Credentials | None) -> Manifest:
        assert isinstance(source, HubSource)
        self.asked.append(source.revision)
        self.credentials = credentials
        found = self.branch if source.revision == "main" else self.commits[source.revision]
        if isinstance(found, Exception):
            raise found
        return found

    async def resolve_image(self, reference: str, platforms: Sequence[str], auths: Any) -> Manifest:
        self.asked.append(reference)
        return Manifest(Origin(OriginKind.IMAGE, "docker.io/vllm"), self.digest, (ManifestFile("blobs/a", 5),))

    async def resolve_digest(self, reference: str, auths: Any) -> str:
        self.asked.append(reference)
        return self.digest


def pinner(origins: Origins, kube: FakeKube) -> Pinner:
    """A freshly started operator: its store knows what the watch tells."""
    known = world(kube)
    watch(known, CONFIGMAP)
    return Pinner(known, origins)


def pinned(pin: Pin, **fields: Any) -> P2PTask:
    known = task(**fields)
    return after(known, advance(known, facts(pin=pin), POLICY, NOW))


async def until_pinned(by: Pinner, known: P2PTask, *, attempts: int = 5) -> Pin:
    """As a job does it: what the API server refuses is tried again, and the watch has caught up by then."""
    for _ in range(attempts):
        try:
            return await by.pin(known)
        except KubeError:
            watch(by.world, CONFIGMAP)
    raise AssertionError("it does not converge")


@pytest.fixture
def small_shards(monkeypatch: pytest.MonkeyPatch) -> None:
    encode = manifests.encode
    monkeypatch.setattr(manifests, "encode", lambda manifest: encode(manifest, shard_bytes=1000))


async def test_a_model_is_pinned_to_a_commit_and_an_immutable_manifest() -> None:
    kube, origins = FakeKube(), Origins(manifest())
    pin = await pinner(origins, kube).pin(task())
    assert pin.resolved.revision == COMMIT
    assert (pin.resolved.digest, pin.resolved.digest_source) == (manifest().digest, "Hub")
    assert (pin.resolved.files, pin.resolved.bytes) == (3, 21)
    assert pin.manifest is not None
    assert (pin.manifest.name, pin.manifest.shards) == ("task-manifest", 1)
    written = await kube.get(CONFIGMAP, "task-manifest", "llmaz-system")
    assert written["immutable"] is True
    assert metadata(written)["ownerReferences"] == [task().owner_reference()]
    assert metadata(written)["labels"] == {
        "modelswarm.io/p2ptask": "task",
        "app.kubernetes.io/managed-by": "modelswarm",
    }


async def test_the_task_s_secret_is_what_the_origin_is_asked_with() -> None:
    kube, origins = FakeKube(), Origins(manifest())
    secret: JsonObject = {
        "apiVersion": "v1",
        "kind": "Secret",
        "metadata": {"name": "creds", "namespace": "llmaz-system"},
        "data": {"HF_TOKEN": base64.b64encode(b"hf_x").decode()},
    }
    kube.put(secret)
    await pinner(origins, kube).pin(task(credentialsSecretRef={"name": "creds"}))
    assert origins.credentials == Credentials(hub_token="hf_x")


def secret(**data: bytes) -> JsonObject:
    return {
        "apiVersion": "v1",
        "kind": "Secret",
        "metadata": {"name": "creds", "namespace": "llmaz-system"},
        "data": {key: base64.b64encode(value).decode() for key, value in data.items()},
    }


class TestPublic:
    """Whether strangers may read the files is found out once, and only where a token leaves it open."""

    SPEC: dict[str, Any] = {"credentialsSecretRef": {"name": "creds"}}  # noqa: RUF012

    async def test_what_was_read_without_a_token_is_public(self) -> None:
        origins = Origins(manifest())
        assert (await pinner(origins, FakeKube()).pin(task())).resolved.public is True
        assert origins.probes == 0

    @pytest.mark.parametrize("answer", [True, False, None], ids=["public", "gated", "the hub did not say"])
    async def test_with_a_token_the_hub_is_asked_as_a_stranger(self, answer: bool | None) -> None:
        kube, origins = FakeKube(), Origins(manifest())
        kube.put(secret(HF_TOKEN=b"hf_x"))
        origins.public = answer
        assert (await pinner(origins, kube).pin(task(**self.SPEC))).resolved.public is answer
        assert origins.probes == 1

    async def test_after_a_crash_it_is_asked_again(self) -> None:
        kube = FakeKube()
        kube.put(secret(HF_TOKEN=b"hf_x"))
        await pinner(Origins(manifest()), kube).pin(task(**self.SPEC))
        origins = Origins(manifest())
        origins.public = False
        assert (await pinner(origins, kube).pin(task(**self.SPEC))).resolved.public is False
        assert (origins.asked, origins.probes) == ([], 1)

    async def test_what_was_said_once_stays_when_the_manifest_is_restored(self) -> None:
        kube, origins = FakeKube(), Origins(manifest())
        kube.put(secret(HF_TOKEN=b"hf_x"))
        origins.public = False
        pin = await pinner(origins, kube).pin(task(**self.SPEC))
        await kube.delete(CONFIGMAP, "task-manifest", "llmaz-system")
        later = Origins(manifest(OTHER_COMMIT, seed=1), **{COMMIT: manifest()})
        assert await pinner(later, kube).pin(pinned(pin, **self.SPEC)) == pin
        assert later.probes == 0

    async def test_a_modelscope_model_was_not_read_with_the_other_hub_s_token(self) -> None:
        kube, origins = FakeKube(), Origins(manifest())
        kube.put(secret(HF_TOKEN=b"hf_x"))
        model = {"source": {"modelHub": {"name": "ModelScope", "modelID": "a/b"}}}
        pin = await pinner(origins, kube).pin(task(model=model, **self.SPEC))
        assert (pin.resolved.public, origins.probes) == (True, 0)


async def test_after_a_crash_the_same_pin_is_adopted_although_the_branch_moved() -> None:
    kube = FakeKube()
    first = await pinner(Origins(manifest()), kube).pin(task())
    origins = Origins(manifest(OTHER_COMMIT, seed=1))
    assert await pinner(origins, kube).pin(task()) == first
    assert origins.asked == [], "nobody asks the origin again"


@pytest.mark.usefixtures("small_shards")
async def test_a_large_manifest_is_adopted_as_a_whole() -> None:
    kube, large = FakeKube(), manifest(files=100)
    first = await pinner(Origins(large), kube).pin(task())
    assert first.manifest is not None
    assert first.manifest.shards == len(kube.names(CONFIGMAP)) > 3
    assert await pinner(Origins(manifest(OTHER_COMMIT, seed=1)), kube).pin(task()) == first


@pytest.mark.usefixtures("small_shards")
@pytest.mark.parametrize("survivors", [1, 2, 3])
async def test_what_a_crash_left_half_written_is_removed_and_written_anew(survivors: int) -> None:
    kube, large = FakeKube(), manifest(files=100)
    await pinner(Origins(large), kube).pin(task())
    for _, key in list(kube.objects)[survivors:]:
        await kube.delete(CONFIGMAP, key.name, key.namespace)
    moved = manifest(OTHER_COMMIT, files=100, seed=1)
    by = pinner(Origins(moved), kube)
    pin = await until_pinned(by, task())
    assert pin.resolved.revision == OTHER_COMMIT, "the half was never told to anybody"
    assert await pinner(Origins(AccessDenied("nobody asks")), kube).manifest(pinned(pin)) == moved


@pytest.mark.usefixtures("small_shards")
async def test_a_shard_without_content_is_removed_and_written_anew() -> None:
    kube, by = FakeKube(), pinner(Origins(manifest()), FakeKube())
    pin = await pinner(Origins(manifest()), kube).pin(task())
    for obj in kube.objects.values():
        obj.pop("binaryData")
    by = pinner(Origins(manifest()), kube)
    assert await until_pinned(by, task()) == pin


async def test_only_our_own_shards_are_removed() -> None:
    kube = FakeKube()
    await pinner(Origins(manifest()), kube).pin(task())
    (shard,) = kube.objects.values()
    shard["binaryData"] = {}
    stranger = copy.deepcopy(shard)
    metadata(stranger).update(name="somebody-s", ownerReferences=[])
    kube.put(stranger)
    await until_pinned(pinner(Origins(manifest()), kube), task())
    assert kube.names(CONFIGMAP) == ["somebody-s", "task-manifest"]


async def test_a_lost_answer_is_adopted() -> None:
    """The ConfigMap was created, but nobody heard of it: neither the answer came, nor (yet) the watch."""
    kube = FakeKube(lost_answers={("create", "task-manifest"): [Unavailable("connection reset")]})
    by = pinner(Origins(manifest()), kube)
    with pytest.raises(Unavailable):
        await by.pin(task())
    by.resolver = Origins(manifest(OTHER_COMMIT, seed=1))
    with pytest.raises(KubeError):
        await by.pin(task())
    assert (await by.pin(task())).resolved.revision == COMMIT


@pytest.mark.parametrize("labelled", [True, False], ids=["with our label", "without our label"])
async def test_a_foreign_config_map_is_a_name_clash(labelled: bool) -> None:
    kube = FakeKube()
    labels: JsonObject = {"modelswarm.io/p2ptask": "task"} if labelled else {}
    kube.put(
        {
            "apiVersion": "v1",
            "kind": "ConfigMap",
            "metadata": {"name": "task-manifest", "namespace": "llmaz-system", "labels": labels},
        }
    )
    with pytest.raises(TaskBlocked) as caught:
        await pinner(Origins(manifest()), kube).pin(task())
    assert caught.value.reason == "NameClash"
    assert "ConfigMap llmaz-system/task-manifest" in caught.value.message
    assert kube.names(CONFIGMAP) == ["task-manifest"]


async def test_a_predecessor_s_manifest_is_removed_and_never_adopted() -> None:
    kube = FakeKube()
    await pinner(Origins(manifest()), kube).pin(task(uid="earlier"))
    by = pinner(Origins(manifest(OTHER_COMMIT, seed=1)), kube)
    assert (await until_pinned(by, task())).resolved.revision == OTHER_COMMIT
    (written,) = kube.objects.values()
    assert metadata(written)["ownerReferences"] == [task().owner_reference()]


async def test_a_deleted_manifest_is_restored_at_the_pinned_commit() -> None:
    kube = FakeKube()
    pin = await pinner(Origins(manifest()), kube).pin(task())
    kube.objects.clear()
    origins = Origins(manifest(OTHER_COMMIT, seed=1), **{COMMIT: manifest()})
    assert await pinner(origins, kube).pin(pinned(pin)) == pin
    assert origins.asked == [COMMIT]
    assert kube.names(CONFIGMAP) == ["task-manifest"]


async def test_an_origin_that_changed_under_a_pinned_revision_is_named() -> None:
    kube = FakeKube()
    pin = await pinner(Origins(manifest()), kube).pin(task())
    kube.objects.clear()
    origins = Origins(manifest(), **{COMMIT: manifest(seed=2)})
    with pytest.raises(Moved, match="the origin has changed since it was pinned") as caught:
        await pinner(origins, kube).pin(pinned(pin))
    assert pin.resolved.digest in caught.value.message
    assert kube.names(CONFIGMAP) == [], "another content is not written under the old pin"


async def test_the_manifest_is_read_once_per_task() -> None:
    kube = FakeKube()
    by = pinner(Origins(manifest()), kube)
    known = pinned(await by.pin(task()))
    kube.calls.clear()
    assert await by.manifest(known) == await by.manifest(known) == manifest()
    assert kube.calls == [("get", "task-manifest")]


async def test_equal_content_from_two_places_is_two_manifests() -> None:
    """The digest is over paths, sizes and digests of files only: the places, and who may read there, differ."""
    kube = FakeKube()
    fork = Manifest(Origin(OriginKind.HUGGINGFACE, "someone/fork"), OTHER_COMMIT, manifest().files)
    by = pinner(Origins(manifest()), kube)
    original = pinned(await by.pin(task()))
    by.resolver = Origins(fork)
    forked = pinned(await by.pin(task(name="fork", uid="fork-uid")), name="fork", uid="fork-uid")
    assert (await by.manifest(original)).origin.id == "Qwen/Qwen2-0.5B-Instruct"
    assert (await by.manifest(forked)).origin.id == "someone/fork"


async def test_a_manifest_that_is_not_there_is_said_to_be_missing() -> None:
    with pytest.raises(InvalidReference, match="not there yet"):
        await pinner(Origins(manifest()), FakeKube()).manifest(task())


async def test_an_image_is_pinned_to_its_digest_and_has_no_manifest() -> None:
    kube, origins = FakeKube(), Origins(manifest())
    pin = await pinner(origins, kube).pin(task(**IMAGE))
    assert pin.manifest is None
    assert (pin.resolved.revision, pin.resolved.digest, pin.resolved.digest_source) == (DIGEST, DIGEST, "Registry")
    assert (pin.resolved.files, pin.resolved.bytes) == (1, 5)
    assert kube.objects == {}


async def test_a_tag_is_compared_with_its_pin() -> None:
    origins = Origins(manifest())
    by = pinner(origins, FakeKube())
    known = pinned(await by.pin(task(**IMAGE)), **IMAGE)
    assert known.status.resolved is not None
    assert await by.check_image(known) == known.status.resolved.digest
    origins.digest = OTHER_DIGEST
    assert await by.check_image(known) == OTHER_DIGEST


def test_manifest_name() -> None:
    assert manifest_name(task(name="model-x")) == "model-x-manifest"
