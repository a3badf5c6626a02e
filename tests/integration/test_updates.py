"""What happens to a running Deployment: a new version is held until it is warm, and nothing else rolls it."""

from typing import Any

from dev.hub import Repository
from dev.installation import NAMESPACE
from tests.integration.support import (
    COLLECTED,
    Manifest,
    Operators,
    Scene,
    Valve,
    backend_runtime,
    eventually,
    throughout,
)


def image_of(scene: Scene, name: str = "pg") -> str:
    image: str = scene.pod_template(name)["spec"]["containers"][0]["image"]
    return image


def serve(scene: Scene, *models: str, **spec: Any) -> Manifest:
    """A Playground that serves; returns its Deployment."""
    scene.playground("pg", *models, **spec)
    scene.make_ready("pg")
    scene.has("Playground", "pg", "Available", "True", "PlaygroundReady")
    return scene.deployment("pg")


def test_v1_serves_until_the_tasks_of_v2_are_ready(scene: Scene, registry_valve: Valve, engine_version: str) -> None:
    model = scene.model()
    before = serve(scene, model)
    registry_valve.shut()
    scene.playground("pg", model, version=engine_version)
    scene.has("Playground", "pg", "Progressing", "True", "UpdateWaiting", saying=f"vllm-openai:{engine_version}")
    scene.has("Playground", "pg", "Available", "True", "PlaygroundReady")
    throughout(lambda: scene.deployment("pg")["spec"]["template"] == before["spec"]["template"])
    # Meanwhile only the replicas follow.
    scene.kubectl("scale", "playground", "pg", "--replicas=2")
    eventually(lambda: scene.deployment("pg")["spec"]["replicas"] == 2)
    scene.make_ready("pg")
    assert scene.deployment("pg")["spec"]["template"] == before["spec"]["template"]

    registry_valve.open()
    eventually(lambda: image_of(scene) == f"vllm/vllm-openai:{engine_version}")
    scene.make_ready("pg")
    scene.has("Playground", "pg", "Available", "True", "PlaygroundReady")
    assert scene.deployment("pg")["metadata"]["uid"] == before["metadata"]["uid"]
    # The task of v1's image goes when nothing needs it any more.
    eventually(lambda: len([t for t in scene.tasks("image") if "vllm" in t["metadata"]["name"]]) == 1)


def test_a_new_model_version_is_held_until_it_is_there_and_the_old_one_is_kept(
    scene: Scene, hub_valve: Valve, repository: Repository
) -> None:
    """llmaz applies a changed OpenModel at once, and every pod downloads before it serves."""
    model = scene.model("chat", "facebook/opt-125m")
    before = serve(scene, model)
    old_task = scene.model_task(model)["metadata"]["name"]
    hub_valve.shut()
    scene.model("chat", repository.id)
    scene.has("Playground", "pg", "Progressing", "True", "UpdateWaiting", saying=f"model {model}")
    throughout(lambda: scene.deployment("pg")["spec"]["template"] == before["spec"]["template"])
    names = [task["metadata"]["name"] for task in scene.tasks("model", model=model)]
    assert old_task in names, "a Deployment still runs on it"
    hub_valve.open()
    path = f"/workspace/models/models--{repository.id.replace('/', '--')}"
    eventually(lambda: path in scene.pod_template("pg")["spec"]["containers"][0]["args"])
    scene.make_ready("pg")
    eventually(lambda: old_task not in [task["metadata"]["name"] for task in scene.tasks("model", model=model)])
    # So does the copy of its list of files.
    eventually(lambda: len([c for c in scene.all("ConfigMap") if "manifest" in c["metadata"]["name"]]) == 1)


def test_a_changed_backend_runtime_reaches_its_playgrounds(scene: Scene) -> None:
    name = scene.name("runtime")
    scene.apply(backend_runtime(name, "busybox", "v1"))
    model = scene.model()
    serve(scene, model, backendName=name)
    scene.apply(backend_runtime(name, "busybox", "v2"))
    eventually(lambda: image_of(scene) == "busybox:v2")


def test_an_upgrade_of_the_operator_rolls_nothing_and_is_adopted_with_the_next_change(
    operators: Operators, bare_scene: Scene
) -> None:
    scene = bare_scene
    operators.start()
    model = scene.model()
    before = serve(scene, model)
    generation = before["metadata"]["generation"]
    with operators.replaced("--loader-image=busybox:v2"):
        # A second Playground shows that the new operator is at work.
        scene.playground("other", model)
        assert scene.pod_template("other")["spec"]["initContainers"][0]["image"] == "busybox:v2"
        throughout(lambda: scene.deployment("pg")["metadata"]["generation"] == generation, 0.5)
        scene.playground("pg", model, args=["--new"])
        eventually(lambda: "--new" in scene.pod_template("pg")["spec"]["containers"][0]["args"])
        assert scene.pod_template("pg")["spec"]["initContainers"][0]["image"] == "busybox:v2"


def test_a_deployment_that_somebody_deleted_comes_back(scene: Scene) -> None:
    model = scene.model()
    before = serve(scene, model)
    scene.delete("Deployment", "pg")
    eventually(lambda: scene.deployment("pg")["metadata"]["uid"] != before["metadata"]["uid"])
    scene.make_ready("pg")
    scene.has("Playground", "pg", "Available", "True", "PlaygroundReady")


def test_a_service_that_somebody_deleted_or_changed_comes_back(scene: Scene) -> None:
    model = scene.model()
    serve(scene, model)
    scene.delete("Service", "pg-lb")
    eventually(lambda: scene.find("Service", "pg-lb"))
    scene.api.patch("Service", "pg-lb", scene.namespace, {"spec": {"selector": {"llmaz.io/playground": "other"}}})
    eventually(lambda: scene.get("Service", "pg-lb")["spec"]["selector"] == {"llmaz.io/playground": "pg"})


def test_replicas_that_somebody_set_on_the_deployment_are_set_back(scene: Scene) -> None:
    """The Playground's number is the one that counts: scale the Playground."""
    model = scene.model()
    serve(scene, model)
    scene.kubectl("scale", "deployment", "pg", "--replicas=5")
    eventually(lambda: scene.deployment("pg")["spec"]["replicas"] == 1)


def test_a_task_that_regresses_changes_nothing_of_a_running_deployment(
    scene: Scene, hub_valve: Valve, repository: Repository
) -> None:
    model = scene.model("chat", repository.id)
    before = serve(scene, model)
    hub_valve.shut()
    scene.api.delete("P2PTask", scene.model_task(model)["metadata"]["name"], NAMESPACE)
    eventually(lambda: scene.model_task(model)["metadata"].get("uid"))
    throughout(lambda: scene.deployment("pg")["spec"] == before["spec"])
    scene.has("Playground", "pg", "Available", "True", "PlaygroundReady")


def test_a_model_that_is_deleted_leaves_the_running_deployment_alone(scene: Scene) -> None:
    model = scene.model()
    before = serve(scene, model)
    scene.api.delete("OpenModel", model)
    scene.has("Playground", "pg", "Progressing", "False", "AbortProcessing", saying=model)
    scene.has("Playground", "pg", "Available", "True", "PlaygroundReady")
    assert scene.deployment("pg")["spec"] == before["spec"]
    scene.model()
    eventually(lambda: scene.conditions("Playground", "pg")["Progressing"][0] == "True", 3)
    assert scene.deployment("pg")["spec"]["template"] == before["spec"]["template"]


def test_a_deleted_playground_takes_everything_along(scene: Scene) -> None:
    model = scene.model()
    serve(scene, model)
    scene.delete("Playground", "pg")
    kinds = ("Deployment", "Service", "P2PTask", "Pod")
    eventually(lambda: not [obj for kind in kinds for obj in scene.all(kind)], COLLECTED)
    eventually(lambda: not [c for c in scene.all("ConfigMap") if "manifest" in c["metadata"]["name"]], COLLECTED)
    assert scene.model_task(model)["status"]["phase"] == "Succeeded"


def test_deleted_and_created_again_at_once_it_gets_a_workload_of_its_own(scene: Scene) -> None:
    model = scene.model()
    before = serve(scene, model)
    scene.delete("Playground", "pg")
    scene.playground("pg", model)
    owner = scene.get("Playground", "pg")["metadata"]["uid"]

    def renewed() -> bool:
        live = scene.find("Deployment", "pg")
        return live is not None and live["metadata"]["ownerReferences"][0]["uid"] == owner

    eventually(renewed, COLLECTED)
    assert scene.deployment("pg")["metadata"]["uid"] != before["metadata"]["uid"]
    scene.make_ready("pg")
    scene.has("Playground", "pg", "Available", "True", "PlaygroundReady")
