"""The p2ptask controller, mostly with tasks made by hand: those of controllers go the same way."""

import hashlib
from collections.abc import Iterator

import pytest
import yaml

from dev.hub import Hub, RateLimit, Repository, ServerError
from dev.installation import NAMESPACE, ROOT, OperatorProcess
from modelswarm.content import manifest as manifests
from tests.integration.support import COLLECTED, Manifest, Operators, Scene, Valve, eventually, p2p_task, throughout

MODEL = "facebook/opt-125m"


def status(scene: Scene, name: str) -> Manifest:
    found: Manifest = scene.get("P2PTask", name).get("status", {})
    return found


def phase(scene: Scene, name: str, wanted: str, seconds: float = 10.0) -> Manifest:
    """Wait for a phase; the status."""

    def look() -> Manifest:
        now = status(scene, name)
        assert now.get("phase") == wanted, now
        return now

    return eventually(look, seconds)


@pytest.mark.parametrize("file", ["p2ptask-model.yaml", "p2ptask-image.yaml"])
def test_a_task_made_by_hand_is_worked_on_like_any_other(scene: Scene, file: str) -> None:
    [task] = yaml.safe_load_all((ROOT / "examples" / file).read_text())
    scene.apply(task)
    name = task["metadata"]["name"]
    scene.kubectl("wait", "--for=condition=Ready", f"p2ptask/{name}", "--timeout=40s")
    found = phase(scene, name, "Succeeded")
    assert found["resolved"]["files"] > 0
    assert (found["desired"], found["ready"], found["failed"]) == (0, 0, 0)
    assert scene.column("p2pt", name, "PHASE") == "Succeeded"
    assert scene.column("p2pt", name, "ENGINE") == "Direct"


def test_kubectl_shows_the_phases_as_they_change(scene: Scene, hub_valve: Valve, repository: Repository) -> None:
    hub_valve.shut()
    scene.apply(p2p_task("slow", repository.id))
    phase(scene, "slow", "Resolving")
    assert scene.column("p2pt", "slow", "PHASE") == "Resolving"
    scene.has("P2PTask", "slow", "Resolved", "False", "Resolving")
    hub_valve.open()
    phase(scene, "slow", "Succeeded")
    commit = repository.get("main").id
    assert scene.column("p2pt", "slow", "REVISION") == commit
    scene.has("P2PTask", "slow", "Resolved", "True", "Resolved", saying=commit)


def test_suspended_it_does_nothing_and_resumed_it_goes_on(scene: Scene, repository: Repository) -> None:
    scene.apply(p2p_task("held", repository.id, suspend=True))
    phase(scene, "held", "Suspended")
    scene.has("P2PTask", "held", "Ready", "False", "Suspended")
    assert "resolved" not in status(scene, "held")
    scene.apply(p2p_task("held", repository.id, suspend=False))
    phase(scene, "held", "Succeeded")


def test_suspended_when_it_is_done_it_stays_ready(scene: Scene) -> None:
    scene.apply(p2p_task("done", MODEL))
    phase(scene, "done", "Succeeded")
    scene.apply(p2p_task("done", MODEL, suspend=True))
    phase(scene, "done", "Suspended")
    scene.has("P2PTask", "done", "Ready", "True", "NothingToDistribute")
    scene.apply(p2p_task("done", MODEL))
    phase(scene, "done", "Succeeded")


def test_a_finished_task_goes_after_its_time_to_live(scene: Scene) -> None:
    scene.apply(p2p_task("brief", MODEL, ttlSecondsAfterFinished=600))
    phase(scene, "brief", "Succeeded")
    throughout(lambda: scene.find("P2PTask", "brief"), 0.5)
    scene.apply(p2p_task("brief", MODEL, ttlSecondsAfterFinished=1))
    eventually(lambda: scene.find("P2PTask", "brief") is None)


def test_the_time_to_live_does_not_begin_before_it_is_finished(
    scene: Scene, hub_valve: Valve, repository: Repository
) -> None:
    hub_valve.shut()
    scene.apply(p2p_task("brief", repository.id, ttlSecondsAfterFinished=0))
    phase(scene, "brief", "Resolving")
    throughout(lambda: scene.find("P2PTask", "brief"), 0.5)
    hub_valve.open()
    eventually(lambda: scene.find("P2PTask", "brief") is None)


@pytest.mark.parametrize(
    ("fallback", "condition", "ends_as"),
    [
        pytest.param("Direct", ("True", "FellBackToOrigin"), "FellBack", id="fallback Direct opens"),
        pytest.param("Fail", ("False", "DeadlineExceeded"), "Failed", id="fallback Fail stays closed"),
    ],
)
def test_the_active_deadline_ends_the_wait(
    scene: Scene, hub_valve: Valve, repository: Repository, fallback: str, condition: tuple[str, str], ends_as: str
) -> None:
    hub_valve.shut()
    scene.apply(p2p_task("late", repository.id, activeDeadlineSeconds=1, fallback=fallback))
    found = phase(scene, "late", ends_as)
    scene.has("P2PTask", "late", "Ready", *condition)
    if ends_as == "FellBack":
        scene.has("P2PTask", "late", "Degraded", "True", "DeadlineExceeded")
        assert found["completionTime"]


@pytest.mark.parametrize(
    ("fallback", "condition", "ends_as"),
    [
        pytest.param("Direct", ("True", "FellBackToOrigin"), "FellBack", id="fallback Direct opens"),
        pytest.param("Fail", ("False", "SourceUnavailable"), "Failed", id="fallback Fail stays closed"),
    ],
)
def test_the_back_off_limit_ends_the_attempts(
    scene: Scene, hub: Hub, repository: Repository, fallback: str, condition: tuple[str, str], ends_as: str
) -> None:
    hub.fail(f"*{repository.id}*", ServerError(503))
    scene.apply(p2p_task("tried", repository.id, backoffLimit=1, fallback=fallback))
    found = phase(scene, "tried", ends_as, seconds=15)
    scene.has("P2PTask", "tried", "Ready", *condition)
    assert found["attempts"] == 2


def test_a_rate_limit_is_waited_out_and_is_no_failed_attempt(scene: Scene, hub: Hub, repository: Repository) -> None:
    hub.fail(f"*{repository.id}*", RateLimit(retry_after=1), times=2)
    scene.apply(p2p_task("limited", repository.id, backoffLimit=0, fallback="Fail"))
    found = phase(scene, "limited", "Succeeded", seconds=30)
    assert found["attempts"] == 0


def test_an_engine_that_is_not_configured_is_said_by_name(scene: Scene) -> None:
    scene.apply(p2p_task("other", MODEL, engine="BitTorrent"))
    scene.has("P2PTask", "other", "Ready", "False", "EngineNotConfigured", saying="BitTorrent")


def test_a_source_with_nothing_to_distribute_is_refused(scene: Scene) -> None:
    scene.apply(p2p_task("odd", "ollama://qwen2:0.5b"))
    scene.has("P2PTask", "odd", "Accepted", "False", "InvalidReference")
    phase(scene, "odd", "Failed")


def test_the_pin_does_not_move_while_the_task_lives(scene: Scene, repository: Repository) -> None:
    scene.apply(p2p_task("pinned", repository.id))
    before = phase(scene, "pinned", "Succeeded")["resolved"]
    repository.move("main", repository.commit({"config.json": b"{}", "new.safetensors": b"new"}))
    scene.apply(p2p_task("pinned", repository.id, backoffLimit=3))
    eventually(lambda: status(scene, "pinned")["observedGeneration"] == 2)
    assert status(scene, "pinned")["resolved"] == before


# What controllers own is restored


def test_a_controllers_task_that_was_edited_is_set_right(scene: Scene) -> None:
    model = scene.model()
    scene.playground("pg", model)
    scene.deployment("pg")
    for task in scene.tasks(model=model):
        name, namespace = task["metadata"]["name"], task["metadata"]["namespace"]
        if "model" in task["spec"]:
            scene.api.patch("P2PTask", name, namespace, {"spec": {"placement": {"copies": 9}}})
            eventually(lambda: scene.model_task(model)["spec"]["placement"]["copies"] == 2)
        else:
            label = "app.kubernetes.io/managed-by"
            scene.api.patch("P2PTask", name, namespace, {"metadata": {"labels": {label: "me"}}})

            def labelled(name: str = name, namespace: str = namespace, label: str = label) -> bool:
                labels = scene.api.get("P2PTask", name, namespace)["metadata"]["labels"]
                return bool(labels[label] == "modelswarm")

            eventually(labelled)


def test_a_controllers_task_that_was_deleted_comes_back(scene: Scene) -> None:
    model = scene.model()
    scene.playground("pg", model)
    template = scene.pod_template("pg")
    before = scene.tasks(model=model)
    for task in before:
        scene.api.delete("P2PTask", task["metadata"]["name"], task["metadata"]["namespace"])

    def all_back() -> bool:
        now = scene.tasks(model=model)
        assert {task["metadata"]["name"] for task in now} == {task["metadata"]["name"] for task in before}
        assert not {t["metadata"]["uid"] for t in now} & {t["metadata"]["uid"] for t in before}
        return all(task.get("status", {}).get("phase") == "Succeeded" for task in now)

    eventually(all_back)
    assert scene.pod_template("pg") == template


def test_a_deleted_manifest_is_written_again_with_the_same_digest(scene: Scene, repository: Repository) -> None:
    """Even though the branch has moved: what was pinned is what is written."""
    scene.apply(p2p_task("pinned", repository.id))
    before = phase(scene, "pinned", "Succeeded")
    content = scene.get("ConfigMap", before["manifest"]["name"])["binaryData"]
    repository.move("main", repository.commit({"config.json": b"{}", "new.safetensors": b"new"}))
    scene.delete("ConfigMap", before["manifest"]["name"])
    again = eventually(lambda: scene.find("ConfigMap", before["manifest"]["name"]))
    assert again["binaryData"] == content
    assert phase(scene, "pinned", "Succeeded")["resolved"] == before["resolved"]


def test_a_strangers_config_map_in_the_place_of_the_manifest_is_left_alone(
    scene: Scene, hub_valve: Valve, repository: Repository
) -> None:
    stranger = {
        "apiVersion": "v1",
        "kind": "ConfigMap",
        "metadata": {"name": "clash-manifest"},
        "data": {"mine": "yes"},
    }
    scene.apply(stranger)
    scene.apply(p2p_task("clash", repository.id))
    scene.has("P2PTask", "clash", "Ready", "False", "NameClash", saying="clash-manifest")
    assert scene.get("ConfigMap", "clash-manifest")["data"] == {"mine": "yes"}
    scene.delete("ConfigMap", "clash-manifest")
    scene.apply(p2p_task("clash", repository.id, backoffLimit=7))
    phase(scene, "clash", "Succeeded")


def test_a_strangers_image_task_in_the_way_of_a_playground_is_named(scene: Scene) -> None:
    model = scene.model()
    scene.playground("pg", model)
    name = scene.image_task("vllm/vllm-openai:v0.7.3")["metadata"]["name"]
    scene.delete("Playground", "pg")
    eventually(lambda: scene.find("P2PTask", name) is None, COLLECTED)
    scene.apply(p2p_task(name, image="busybox:v1"))
    scene.playground("pg", model)
    scene.has("Playground", "pg", "Available", "False", "NameClash", saying=name)
    scene.delete("P2PTask", name)
    scene.deployment("pg", seconds=5)


def test_a_model_of_three_thousand_files_has_a_manifest_in_shards_and_a_copy_of_it(scene: Scene, hub: Hub) -> None:
    """With names so long that even compressed the list is more than one ConfigMap may hold."""
    files = {f"{long_path(number)}.safetensors": b"part %08d" % number for number in range(3000)}
    repository = hub.add(Repository(f"org/large-{scene.suffix}", lfs_threshold=8))
    repository.move("main", repository.commit(files))
    model = scene.model("large", repository.id)
    scene.playground("pg", model)
    pod = scene.deployment("pg", seconds=30)["spec"]["template"]["spec"]
    found = scene.model_task(model)["status"]
    assert found["resolved"]["files"] == len(files)
    shards = found["manifest"]["shards"]
    assert shards > 1
    names = [manifests.shard_name(found["manifest"]["name"], index) for index in range(shards)]
    config_maps = [scene.api.get("ConfigMap", name, NAMESPACE) for name in names]
    decoded = manifests.decode([manifests.from_binary_data(c["binaryData"]) for c in config_maps])
    assert {file.path for file in decoded.files} == set(files)
    assert decoded.digest == found["resolved"]["digest"]
    # The pod mounts copies of all of them.
    volume = next(volume for volume in pod["volumes"] if volume["name"] == "model-manifest")
    copies = [scene.get("ConfigMap", source["configMap"]["name"]) for source in volume["projected"]["sources"]]
    assert [copy["binaryData"] for copy in copies] == [original["binaryData"] for original in config_maps]
    # One that was deleted is written again.
    scene.api.delete("ConfigMap", names[-1], NAMESPACE)
    again = eventually(lambda: scene.api.find("ConfigMap", names[-1], NAMESPACE))
    assert again["binaryData"] == config_maps[-1]["binaryData"]


def long_path(number: int) -> str:
    """A path of 515 characters that do not compress well, the same for the same number."""
    parts = (hashlib.sha512(f"{number}/{part}".encode()).hexdigest() for part in range(4))
    return "/".join(parts)


# An operator with little patience


@pytest.fixture(scope="module")
def impatient(operators: Operators) -> Iterator[OperatorProcess]:
    with operators.replaced("--fallback-after-seconds=20", "--retry-seconds=2") as other:
        yield other


@pytest.mark.usefixtures("impatient")
def test_an_origin_that_stays_away_is_fallen_back_from_and_the_gate_opens(
    scene: Scene, hub: Hub, repository: Repository
) -> None:
    hub.fail(f"*{repository.id}*", ServerError(503))
    model = scene.model("away", repository.id)
    scene.playground("pg", model)
    scene.has("Playground", "pg", "Available", "False", "WaitingForModel", saying="SourceUnavailable")
    scene.deployment("pg", seconds=40)
    scene.has("Playground", "pg", "Degraded", "True", "SourceUnavailable")
    scene.has("OpenModel", model, "Ready", "True", "FellBackToOrigin")
    scene.has("OpenModel", model, "Degraded", "True", "SourceUnavailable")
    assert scene.model_task(model)["status"]["phase"] == "FellBack"
    # When the origin is back the task is pinned after all, and nothing is degraded any more.
    hub.faults.clear()
    scene.has("Playground", "pg", "Degraded", "False", "Healthy")
    scene.has("OpenModel", model, "Degraded", "False", "Healthy")
    scene.has("OpenModel", model, "Ready", "True", "Ready")
    assert scene.model_task(model)["status"]["phase"] == "Succeeded"


@pytest.mark.usefixtures("impatient")
def test_an_engine_that_cannot_be_reached_is_fallen_back_from(scene: Scene) -> None:
    scene.apply(p2p_task("other", MODEL, engine="Dragonfly"))
    scene.apply(p2p_task("strict", MODEL, engine="Dragonfly", fallback="Fail"))
    phase(scene, "other", "FellBack")
    scene.has("P2PTask", "other", "Degraded", "True", "EngineNotConfigured")
    phase(scene, "strict", "Failed")
    scene.has("P2PTask", "strict", "Ready", "False", "EngineNotConfigured")


@pytest.mark.usefixtures("impatient")
def test_a_secret_that_became_readable_is_noticed_without_anybodys_help(scene: Scene) -> None:
    scene.apply(p2p_task("gated", MODEL, credentialsSecretRef={"name": "mine"}))
    scene.has("P2PTask", "gated", "Ready", "False", "CredentialNotReadable")
    meta = {"name": "mine"}
    scene.apply({"apiVersion": "v1", "kind": "Secret", "metadata": meta, "stringData": {"HF_TOKEN": "hf_x"}})
    role = ("--verb=get", "--resource=secrets", "--resource-name=mine")
    scene.kubectl("create", "role", "credentials", *role)
    account = f"--serviceaccount={NAMESPACE}:modelswarm-operator"
    scene.kubectl("create", "rolebinding", "credentials", "--role=credentials", account)
    # The hub does not know this token: it was read and used.
    scene.has("P2PTask", "gated", "Ready", "False", "AccessDenied")
