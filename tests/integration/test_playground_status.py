"""What a Playground says of itself: llmaz's sequences, why it cannot go on, what it waits for; and how it recovers."""

from collections.abc import Callable

import pytest

from dev.hub import Hub, Repository, ServerError
from tests.integration.support import (
    COLLECTED,
    Manifest,
    Scene,
    Valve,
    backend_runtime,
    eventually,
    playground,
    throughout,
)

SOON = 5.0
"""Seconds. Recovery takes well under one; the rest is for a busy machine."""


def has(scene: Scene, type_: str, status: str, reason: str, saying: str = "", seconds: float = 10.0) -> str:
    return scene.has("Playground", "pg", type_, status, reason, saying=saying, seconds=seconds)


def test_create_scale_ready_unready_and_ready_again(scene: Scene) -> None:
    """llmaz's first case, word for word, with a Deployment in the place of the inference Service."""
    model = scene.model()
    scene.playground("pg", model)
    scene.deployment("pg")
    has(scene, "Progressing", "True", "Pending")
    has(scene, "Available", "False", "Pending")
    scene.playground("pg", model, replicas=3)
    eventually(lambda: scene.deployment("pg")["spec"]["replicas"] == 3)
    has(scene, "Progressing", "True", "Pending")

    scene.make_ready("pg")
    has(scene, "Available", "True", "PlaygroundReady", "Playground is ready")
    has(scene, "Progressing", "True", "Pending")

    scene.make_unready("pg")
    has(scene, "Progressing", "True", "PlaygroundInProgress")
    has(scene, "Available", "False", "PlaygroundNotReady")

    scene.make_ready("pg")
    has(scene, "Available", "True", "PlaygroundReady")
    has(scene, "Progressing", "True", "PlaygroundInProgress")
    status = scene.get("Playground", "pg")["status"]
    assert (status["replicas"], status["selector"]) == (3, "llmaz.io/playground=pg")


def stranger(kind: str, name: str) -> Manifest:
    labels = {"app": "stranger"}
    meta: Manifest = {"name": name, "labels": labels}
    if kind == "Service":
        return {"apiVersion": "v1", "kind": kind, "metadata": meta, "spec": {"ports": [{"port": 80}]}}
    if kind == "HorizontalPodAutoscaler":
        target = {"apiVersion": "apps/v1", "kind": "Deployment", "name": "other"}
        spec: Manifest = {"maxReplicas": 2, "scaleTargetRef": target}
        return {"apiVersion": "autoscaling/v2", "kind": kind, "metadata": meta, "spec": spec}
    pod = {"containers": [{"name": "app", "image": "app"}]}
    spec = {
        "replicas": 0,
        "selector": {"matchLabels": labels},
        "template": {"metadata": {"labels": labels}, "spec": pod},
    }
    return {"apiVersion": "apps/v1", "kind": kind, "metadata": meta, "spec": spec}


@pytest.mark.parametrize(
    ("kind", "name"),
    [
        pytest.param("Deployment", "pg", id="Deployment"),
        pytest.param("Service", "pg-lb", id="Service"),
        pytest.param("HorizontalPodAutoscaler", "pg", id="autoscaler"),
    ],
)
def test_a_strangers_object_of_the_same_name_is_left_alone_and_its_end_noticed(
    scene: Scene, kind: str, name: str
) -> None:
    before = scene.apply(stranger(kind, name))
    trigger: Manifest = {"hpa": {"metrics": []}}
    model = scene.model()
    elastic = {"minReplicas": 1, "maxReplicas": 2, "scaleTrigger": trigger}
    scene.playground("pg", model, elasticConfig=elastic)
    message = has(
        scene, "Progressing", "False", "AbortProcessing", f"Playground owns the same name with an existing {kind}"
    )
    has(scene, "Available", "False", "NameClash")
    eventually(lambda: ("Warning", "NameClash", message) in scene.events("pg", scene.namespace))
    now = scene.get(kind, name)
    assert (now["metadata"]["uid"], now["spec"]) == (before["metadata"]["uid"], before["spec"])
    assert now["metadata"]["labels"] == {"app": "stranger"}
    scene.delete(kind, name)
    has(scene, "Progressing", "True", "Pending", seconds=SOON)
    scene.make_ready("pg")
    has(scene, "Available", "True", "PlaygroundReady")


def test_a_missing_model_aborts_and_its_creation_resumes(scene: Scene) -> None:
    model = scene.name("llama3-8b")
    scene.playground("pg", model)
    message = has(scene, "Progressing", "False", "AbortProcessing", "Waiting for model creation")
    has(scene, "Available", "False", "ModelNotFound", model)
    eventually(lambda: ("Warning", "ModelNotFound", message) in scene.events("pg", scene.namespace))
    assert scene.column("pl", "pg", "STATUS") == "ModelNotFound"
    scene.model()
    has(scene, "Progressing", "True", "Pending", seconds=SOON)
    scene.make_ready("pg")
    has(scene, "Available", "True", "PlaygroundReady")


def test_a_missing_draft_model_is_noticed_when_it_comes(scene: Scene) -> None:
    main, draft = scene.model("main"), scene.name("draft")
    scene.playground("pg", main, draft)
    has(scene, "Available", "False", "ModelNotFound", draft)
    scene.model("draft", "meta-llama/Llama-3.2-1B")
    scene.deployment("pg", seconds=SOON)


def no_runtime(scene: Scene) -> Manifest:
    return playground("pg", scene.model(), backendName=scene.name("runtime"))


def no_config(scene: Scene) -> Manifest:
    scene.apply(backend_runtime(scene.name("runtime"), "busybox"))
    return playground("pg", scene.model(), backendName=scene.name("runtime"), configName="fuz")


def bad_variable(scene: Scene) -> Manifest:
    config = {"name": "default", "args": ["--model", "{{ .Nonsense }}"]}
    scene.apply(backend_runtime(scene.name("runtime"), "busybox", recommendedConfigs=[config]))
    return playground("pg", scene.model(), backendName=scene.name("runtime"))


@pytest.mark.parametrize(
    ("broken", "reason", "saying"),
    [
        pytest.param(no_runtime, "BackendRuntimeNotFound", "does not exist", id="no such BackendRuntime"),
        pytest.param(no_config, "UnknownConfig", "fuz", id="no such configName"),
        pytest.param(bad_variable, "BadTemplateVariable", "Nonsense", id="unknown template variable"),
    ],
)
def test_what_a_person_must_correct_is_said_and_recovers_when_corrected(
    scene: Scene, broken: Callable[[Scene], Manifest], reason: str, saying: str
) -> None:
    """llmaz retries these for ever without a word."""
    scene.apply(broken(scene))
    message = has(scene, "Available", "False", reason, saying)
    has(scene, "Progressing", "False", "AbortProcessing", saying)
    eventually(lambda: ("Warning", reason, message) in scene.events("pg", scene.namespace))
    assert scene.tasks() == [], "nothing is distributed for what cannot run"
    configs = [{"name": name, "args": ["--model", "{{ .ModelPath }}"]} for name in ("default", "fuz")]
    scene.apply(backend_runtime(scene.name("runtime"), "busybox", recommendedConfigs=configs))
    scene.deployment("pg", seconds=SOON)
    has(scene, "Progressing", "True", "Pending", seconds=SOON)


def test_a_refusal_of_the_api_server_is_passed_on_and_gone_when_corrected(scene: Scene) -> None:
    """What only the API server sees: the combination of a Playground's mounts and its runtime's."""
    model = scene.model()
    scene.playground("pg", model, envs=[{"name": "not a=name", "value": "x"}])
    has(scene, "Available", "False", "InvalidObject", "not a=name")
    assert scene.find("Deployment", "pg") is None
    scene.playground("pg", model, envs=[{"name": "A_NAME", "value": "x"}])
    scene.deployment("pg", seconds=SOON)


def test_the_label_of_llmazs_webhook_is_set_and_set_again(scene: Scene) -> None:
    model = scene.model()
    scene.playground("pg", model)

    def labelled() -> bool:
        return bool(scene.get("Playground", "pg")["metadata"].get("labels", {}).get("llmaz.io/model-name") == model)

    eventually(labelled)
    scene.kubectl("label", "playground", "pg", "llmaz.io/model-name-")
    eventually(labelled)


# The gate


def test_a_waiting_playground_says_for_what_in_its_status_column(
    scene: Scene, hub_valve: Valve, registry_valve: Valve, repository: Repository, engine_version: str
) -> None:
    hub_valve.shut()
    registry_valve.shut()
    model = scene.model("slow", repository.id)
    scene.playground("pg", model, version=engine_version)
    has(scene, "Progressing", "True", "WaitingForModel", f"model {model}: Resolving")
    assert scene.column("pl", "pg", "STATUS") == "WaitingForModel"
    assert f"vllm/vllm-openai:{engine_version}" in scene.column("pl", "pg", "MESSAGE")
    hub_valve.open()
    has(scene, "Progressing", "True", "PreheatingImage")
    assert scene.column("pl", "pg", "STATUS") == "PreheatingImage"
    assert scene.find("Deployment", "pg") is None
    registry_valve.open()
    scene.deployment("pg", seconds=SOON)
    has(scene, "Progressing", "True", "Pending")


def test_the_gate_timeout_annotation_opens_the_gate_and_says_degraded(
    scene: Scene, hub_valve: Valve, repository: Repository
) -> None:
    hub_valve.shut()
    model = scene.model("slow", repository.id)
    scene.playground("pg", model, annotations={"modelswarm.io/gate-timeout": "20s"})
    has(scene, "Available", "False", "WaitingForModel")
    assert scene.find("Deployment", "pg") is None
    pod = scene.deployment("pg", 40)["spec"]["template"]["spec"]
    has(scene, "Degraded", "True", "GateTimeout", "without progress")
    # The loader has no pin to follow, so it asks for what the user wrote.
    assert {"name": "REVISION", "value": "main"} in pod["initContainers"][0]["env"]
    # What comes late does not roll the pods, and is no longer degraded.
    hub_valve.open()
    has(scene, "Degraded", "False", "Healthy")
    assert scene.deployment("pg")["spec"]["template"]["spec"] == pod


def test_gate_timeout_zero_never_opens_and_nonsense_is_said(
    scene: Scene, hub_valve: Valve, repository: Repository
) -> None:
    hub_valve.shut()
    model = scene.model("slow", repository.id)
    scene.playground("pg", model, annotations={"modelswarm.io/gate-timeout": "1s"}, replicas=0)
    scene.playground("never", model, annotations={"modelswarm.io/gate-timeout": "0"})
    scene.playground("odd", model, annotations={"modelswarm.io/gate-timeout": "soon"})
    scene.has("Playground", "odd", "Degraded", "True", "InvalidGateTimeout", saying="soon")
    scene.deployment("pg")  # of the three, this one's time is over
    assert scene.find("Deployment", "never") is None
    assert scene.find("Deployment", "odd") is None
    hub_valve.open()
    scene.deployment("never")


def test_an_error_that_needs_a_person_keeps_the_gate_closed_whatever_the_time(scene: Scene) -> None:
    model = scene.model("wrong", "org/no-such-model")
    scene.playground("pg", model, annotations={"modelswarm.io/gate-timeout": "1s"})
    has(scene, "Available", "False", "WaitingForModel", "SourceNotFound")
    throughout(lambda: scene.find("Deployment", "pg") is None, 1.6)
    scene.model("wrong", "facebook/opt-125m")
    scene.deployment("pg", seconds=SOON)


def test_a_hub_that_recovers_is_asked_again_and_the_gate_opens(scene: Scene, hub: Hub, repository: Repository) -> None:
    rule = hub.fail(f"*{repository.id}*", ServerError(503))
    model = scene.model("flaky", repository.id)
    scene.playground("pg", model)
    has(scene, "Available", "False", "WaitingForModel", "SourceUnavailable")
    assert scene.find("Deployment", "pg") is None
    assert rule.hits
    hub.faults.clear()
    scene.deployment("pg")
    assert scene.model_task(model)["status"]["phase"] == "Succeeded"


def test_a_playground_deleted_while_it_waits_leaves_nothing_behind(
    scene: Scene, registry_valve: Valve, engine_version: str
) -> None:
    registry_valve.shut()
    model = scene.model()
    scene.playground("pg", model, version=engine_version)
    has(scene, "Available", "False", "PreheatingImage")
    scene.delete("Playground", "pg")
    eventually(lambda: not scene.tasks(), COLLECTED)
    registry_valve.open()

    def nothing_is_left() -> bool:
        throughout(lambda: scene.find("Deployment", "pg") is None and not scene.tasks(), 0.5)
        return True

    # An operator that hears of its tasks' end before the Playground's makes one again, which is collected as well.
    eventually(nothing_is_left, COLLECTED)


def test_two_playgrounds_of_one_image_have_a_task_each_and_the_registry_is_asked_once(
    scene: Scene, engine_version: str
) -> None:
    model = scene.model()
    for name in ("one", "two"):
        scene.playground(name, model, version=engine_version)
        scene.deployment(name)
    tasks = [task for task in scene.tasks("image") if engine_version in task["spec"]["image"]["reference"]]
    assert len(tasks) == 2
    assert len({task["status"]["resolved"]["digest"] for task in tasks}) == 1
