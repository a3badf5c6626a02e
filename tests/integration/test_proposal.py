"""The test plan of proposal 361, row by row; the titles are its words. (Its row about the Dragonfly client comes with
that engine, its end-to-end row with the tests on real nodes.)
"""

from dev.hub import Repository
from dev.installation import NAMESPACE
from tests.integration.support import Manifest, Scene, Valve, eventually, throughout

MODEL = "Qwen/Qwen2-0.5B-Instruct"
ENGINE = "vllm/vllm-openai:v0.7.3"
LOADER = "modelswarm/loader:v0.1.0"


def test_model_controller_creates_a_p2ptask_with_the_correct_file_task(scene: Scene, repository: Repository) -> None:
    source = {"modelHub": {"modelID": repository.id, "revision": "main", "allowPatterns": ["*.json", "*.safetensors"]}}
    model = scene.model("qwen2", source)
    task = scene.model_task(model)
    assert task["metadata"]["namespace"] == NAMESPACE
    assert task["spec"]["model"]["source"] == {"modelHub": {"name": "Huggingface", **source["modelHub"]}}
    assert "image" not in task["spec"]
    owner = task["metadata"]["ownerReferences"][0]
    assert (owner["kind"], owner["name"], owner["controller"]) == ("OpenModel", model, True)

    def resolved() -> Manifest:
        found: Manifest = scene.model_task(model).get("status", {}).get("resolved", {})
        return found

    pinned = eventually(resolved)
    commit = repository.get("main")
    wanted = [blob.size for path, blob in commit.files.items() if path.endswith((".json", ".safetensors"))]
    assert (pinned["revision"], pinned["files"], pinned["bytes"]) == (commit.id, len(wanted), sum(wanted))
    scene.has("OpenModel", model, "Ready", "True", "Ready")


def test_playground_controller_waits_for_the_openmodel_to_be_ready(
    scene: Scene, hub_valve: Valve, repository: Repository
) -> None:
    hub_valve.shut()
    model = scene.model("qwen2", repository.id)
    scene.playground("pg", model)
    scene.has("Playground", "pg", "Available", "False", "WaitingForModel", saying=f"model {model}")
    images = [scene.image_task(reference) for reference in (ENGINE, LOADER)]
    for image in images:
        name = image["metadata"]["name"]
        scene.has("P2PTask", name, "Ready", "True", "NothingToDistribute")
    throughout(lambda: scene.find("Deployment", "pg") is None)
    hub_valve.open()
    scene.deployment("pg")


def test_playground_controller_creates_a_p2ptask_for_the_correct_image(scene: Scene) -> None:
    model = scene.model("qwen2", MODEL)
    scene.playground("pg", model, version="main")
    task = scene.image_task("vllm/vllm-openai:main")
    owner = task["metadata"]["ownerReferences"][0]
    assert (owner["kind"], owner["name"], owner["controller"]) == ("Playground", "pg", True)
    assert "model" not in task["spec"]
    scene.image_task(LOADER)
    assert scene.pod_template("pg")["spec"]["containers"][0]["image"] == "vllm/vllm-openai:main"
    assert len(scene.tasks("image")) == 2


def test_playground_controller_waits_for_the_image_p2ptask_to_be_ready(
    scene: Scene, registry_valve: Valve, engine_version: str
) -> None:
    registry_valve.shut()
    model = scene.model("qwen2", MODEL)
    scene.playground("pg", model, version=engine_version)
    scene.has("OpenModel", model, "Ready", "True", "Ready")
    waiting = f"image vllm/vllm-openai:{engine_version}"
    scene.has("Playground", "pg", "Available", "False", "PreheatingImage", saying=waiting)
    throughout(lambda: scene.find("Deployment", "pg") is None)
    registry_valve.open()
    scene.deployment("pg")


def test_playground_controller_only_creates_the_deployment_after_all_tasks_are_complete(
    scene: Scene, hub_valve: Valve, registry_valve: Valve, repository: Repository, engine_version: str
) -> None:
    hub_valve.shut()
    registry_valve.shut()
    model = scene.model("qwen2", repository.id)
    scene.playground("pg", model, version=engine_version)
    scene.has("Playground", "pg", "Available", "False", "WaitingForModel")
    # Both were asked for at once, not one after the other.
    eventually(lambda: len(scene.tasks(model=model)) == 3)
    hub_valve.open()
    scene.has("Playground", "pg", "Available", "False", "PreheatingImage")
    throughout(lambda: scene.find("Deployment", "pg") is None)
    registry_valve.open()
    scene.deployment("pg")


def test_the_deployment_is_only_created_after_the_mock_p2ptask_controller_updates_the_status_of_both_tasks(
    scene: Scene, hub_valve: Valve, registry_valve: Valve, repository: Repository, engine_version: str
) -> None:
    """Neither origin answers, so the real p2ptask controller cannot finish: only the mock says Ready."""
    hub_valve.shut()
    registry_valve.shut()
    model = scene.model("qwen2", repository.id)
    scene.playground("pg", model, version=engine_version)

    def undecided() -> list[Manifest]:
        """Those that the real controller cannot finish, once it says so (the loader's image may be known already)."""
        phases = {task["metadata"]["name"]: task.get("status", {}).get("phase") for task in scene.tasks(model=model)}
        assert len(phases) == 3
        assert set(phases.values()) <= {"Resolving", "Succeeded"}
        assert [phase for name, phase in phases.items() if "loader" not in name] == ["Resolving"] * 2
        return [task for task in scene.tasks(model=model) if phases[task["metadata"]["name"]] == "Resolving"]

    tasks = eventually(undecided)
    for task in sorted(tasks, key=lambda task: "image" in task["spec"]):
        assert scene.find("Deployment", "pg") is None
        throughout(lambda: scene.find("Deployment", "pg") is None, 0.4)
        mock_p2ptask_controller(scene, task)
    scene.deployment("pg")
    for task in tasks:
        live = scene.api.get("P2PTask", task["metadata"]["name"], task["metadata"]["namespace"])
        assert "resolved" not in live["status"], "the real controller has finished after all"


def mock_p2ptask_controller(scene: Scene, task: Manifest) -> None:
    """What the proposal's mock does: it declares the task finished."""
    live = scene.api.get("P2PTask", task["metadata"]["name"], task["metadata"]["namespace"])
    ready = {
        "type": "Ready",
        "status": "True",
        "reason": "Distributed",
        "message": "says the mock",
        "lastTransitionTime": "2026-01-01T00:00:00Z",
        "observedGeneration": 1,
    }
    conditions = [condition for condition in live["status"]["conditions"] if condition["type"] != "Ready"]
    scene.api.patch(
        "P2PTask",
        task["metadata"]["name"],
        task["metadata"]["namespace"],
        {"status": {"conditions": [*conditions, ready]}},
        subresource="status",
    )
