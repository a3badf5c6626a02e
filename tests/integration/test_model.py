"""The model controller on a real API server: what an OpenModel becomes and what it says of itself."""

import pytest

from dev.hub import Repository
from dev.installation import NAMESPACE
from tests.integration.support import COLLECTED, Manifest, Scene, Valve, eventually, p2p_task, throughout

MODEL = "Qwen/Qwen2-0.5B-Instruct"


def model_tasks(scene: Scene, model: str) -> list[Manifest]:
    return scene.api.all("P2PTask", NAMESPACE, labels=f"llmaz.io/model-name={model}")


def test_waits_as_pending_and_becomes_ready_in_llmazs_words(
    scene: Scene, hub_valve: Valve, repository: Repository
) -> None:
    hub_valve.shut()
    model = scene.model("qwen2", repository.id)
    scene.has("OpenModel", model, "Pending", "True", "Pending", saying="Waiting for model downloading")
    scene.has("OpenModel", model, "Ready", "False", "Pending")
    eventually(lambda: scene.model_task(model).get("status", {}).get("phase") == "Resolving")
    hub_valve.open()
    scene.has("OpenModel", model, "Ready", "True", "Ready", saying="Model is downloaded successfully")
    scene.has("OpenModel", model, "Pending", "False", "Ready")
    eventually(lambda: ("Normal", "Ready", "Model is downloaded successfully") in scene.events(model))


def test_gets_the_family_label_that_llmazs_webhook_sets_and_gets_it_back(scene: Scene) -> None:
    model = scene.model("qwen2", MODEL)

    def label() -> bool:
        labels = scene.api.get("OpenModel", model)["metadata"].get("labels", {})
        return bool(labels.get("llmaz.io/model-family-name") == "llama3")

    eventually(label)
    scene.api.patch("OpenModel", model, None, {"metadata": {"labels": {"llmaz.io/model-family-name": "other"}}})
    eventually(label)


@pytest.mark.parametrize(
    "uri",
    [
        pytest.param("ollama://qwen2:0.5b", id="ollama: the engine fetches it"),
        pytest.param("host:///workspace/Qwen2-0.5B-Instruct", id="host: it lies on the nodes"),
    ],
)
def test_nothing_to_distribute_is_ready_at_once_without_a_task(scene: Scene, uri: str) -> None:
    model = scene.model("local", uri)
    scene.has("OpenModel", model, "Ready", "True", "Ready", saying="Nothing to distribute")
    assert model_tasks(scene, model) == []


@pytest.mark.parametrize(
    "source",
    [
        pytest.param({"modelHub": {"modelID": MODEL}}, id="Hugging Face"),
        pytest.param({"modelHub": {"modelID": "AI-ModelScope/opt-125m", "name": "ModelScope"}}, id="ModelScope"),
        pytest.param({"uri": "oss://bucket.oss-cn-hangzhou.aliyuncs.com/modelPath"}, id="OSS"),
        pytest.param({"uri": "s3://bucket/modelPath"}, id="S3"),
    ],
)
def test_every_source_with_bytes_gets_a_task_with_its_files(scene: Scene, source: Manifest) -> None:
    model = scene.model("any", source)
    scene.has("OpenModel", model, "Ready", "True", "Ready")
    status = scene.model_task(model)["status"]
    assert status["phase"] == "Succeeded"
    assert status["resolved"]["files"] >= 2
    assert scene.api.get("ConfigMap", status["manifest"]["name"], NAMESPACE)["immutable"] is True


@pytest.mark.parametrize(
    ("source", "reason"),
    [
        pytest.param({"modelID": "org/missing"}, "SourceNotFound", id="no such repository"),
        pytest.param({"modelID": MODEL, "revision": "v9"}, "RevisionNotFound", id="no such revision"),
        pytest.param({"modelID": MODEL, "allowPatterns": ["*.gguf"]}, "NothingMatches", id="patterns match nothing"),
        pytest.param({"modelID": MODEL, "filename": "no.gguf"}, "NothingMatches", id="no such file"),
    ],
)
def test_a_source_that_a_person_must_correct_is_not_ready_with_the_reason(
    scene: Scene, source: Manifest, reason: str
) -> None:
    model = scene.model("wrong", {"modelHub": source})
    message = scene.has("OpenModel", model, "Ready", "False", reason)
    scene.has("OpenModel", model, "Pending", "False", reason)
    eventually(lambda: ("Warning", reason, message) in scene.events(model))
    # It recovers by itself when the source is corrected.
    scene.model("wrong", MODEL)
    scene.has("OpenModel", model, "Ready", "True", "Ready")


def test_a_branch_that_moves_does_not_move_the_pin(scene: Scene, repository: Repository) -> None:
    model = scene.model("moving", repository.id)
    scene.has("OpenModel", model, "Ready", "True", "Ready")
    before = scene.model_task(model)
    repository.move("main", repository.commit({"model.safetensors": b"two"}))
    # Looked at again, by whatever cause, it keeps what it was pinned to.
    scene.api.patch("P2PTask", before["metadata"]["name"], NAMESPACE, {"metadata": {"labels": {"touched": "yes"}}})
    throughout(lambda: scene.model_task(model)["status"]["resolved"] == before["status"]["resolved"])


def test_a_changed_source_gets_a_new_task_and_the_old_one_is_collected(
    scene: Scene, hub_valve: Valve, repository: Repository
) -> None:
    """Changed while the first task runs."""
    hub_valve.shut()
    model = scene.model("qwen2", repository.id)
    first = eventually(lambda: scene.model_task(model))
    eventually(lambda: scene.model_task(model).get("status", {}).get("phase") == "Resolving")
    scene.model("qwen2", "facebook/opt-125m")
    eventually(
        lambda: (
            [task["metadata"]["name"] for task in model_tasks(scene, model)] != [first["metadata"]["name"]]
            and len(model_tasks(scene, model)) == 1
        )
    )
    hub_valve.open()
    scene.has("OpenModel", model, "Ready", "True", "Ready")
    source = scene.model_task(model)["spec"]["model"]["source"]
    assert source["modelHub"]["modelID"] == "facebook/opt-125m"


def test_another_spelling_of_the_source_keeps_the_task_which_follows_in_everything_else(scene: Scene) -> None:
    model = scene.model("spelled", "s3://bucket/modelPath")
    scene.has("OpenModel", model, "Ready", "True", "Ready")
    before = scene.model_task(model)
    flavors = [{"name": "a100", "nodeSelector": {"gpu": "a100"}}]
    scene.model("spelled", "S3://bucket/modelPath/", inferenceConfig={"flavors": flavors})
    eventually(lambda: scene.model_task(model)["spec"]["placement"].get("nodeSelector") == {"gpu": "a100"})
    after = scene.model_task(model)
    assert after["spec"]["model"] == before["spec"]["model"]
    assert after["metadata"]["uid"] == before["metadata"]["uid"]


def test_deleted_and_created_again_it_has_a_task_of_its_own(scene: Scene) -> None:
    model = scene.model("qwen2", MODEL)
    scene.has("OpenModel", model, "Ready", "True", "Ready")
    before = scene.model_task(model)["metadata"]
    scene.api.delete("OpenModel", model)
    scene.model("qwen2", MODEL)

    def renewed() -> bool:
        owner = scene.api.get("OpenModel", model)["metadata"]["uid"]
        task = scene.model_task(model)["metadata"]
        return bool(task["uid"] != before["uid"] and task["ownerReferences"][0]["uid"] == owner)

    eventually(renewed)
    scene.has("OpenModel", model, "Ready", "True", "Ready")


def test_a_deleted_model_takes_its_task_and_manifest_along(scene: Scene) -> None:
    model = scene.model("qwen2", MODEL)
    scene.has("OpenModel", model, "Ready", "True", "Ready")
    manifest = scene.model_task(model)["status"]["manifest"]["name"]
    scene.api.delete("OpenModel", model)
    eventually(
        lambda: not model_tasks(scene, model) and scene.api.find("ConfigMap", manifest, NAMESPACE) is None, COLLECTED
    )


def test_the_task_is_placed_where_the_flavors_run_on_as_many_nodes_as_playgrounds_may_have_pods(scene: Scene) -> None:
    flavors = [
        {"name": "a100", "nodeSelector": {"zone": "east", "gpu": "a100"}},
        {"name": "a10", "nodeSelector": {"zone": "east", "gpu": "a10"}},
    ]
    model = scene.model("llama3-8b", inferenceConfig={"flavors": flavors})

    def placed(copies: int) -> bool:
        return bool(
            scene.model_task(model)["spec"]["placement"]
            == {"nodeSelector": {"zone": "east"}, "copies": copies, "minReady": 1}
        )

    eventually(lambda: placed(2))
    scene.playground("pg", model, replicas=3, elasticConfig={"minReplicas": 1, "maxReplicas": 7})
    eventually(lambda: placed(7))
    scene.playground("pg", model, replicas=4)
    eventually(lambda: placed(4))
    scene.delete("Playground", "pg")
    eventually(lambda: placed(2))


def test_a_task_in_the_way_is_named_and_taken_up_when_it_is_gone(scene: Scene) -> None:
    model = scene.name("qwen2")
    scene.model("qwen2", MODEL)
    task = scene.model_task(model)["metadata"]["name"]
    scene.api.delete("OpenModel", model)
    eventually(lambda: scene.api.find("P2PTask", task, NAMESPACE) is None, COLLECTED)
    stranger = p2p_task(task, MODEL, suspend=True)
    stranger["metadata"]["namespace"] = NAMESPACE
    scene.api.create(stranger)
    scene.model("qwen2", MODEL)
    scene.has("OpenModel", model, "Ready", "False", "NameClash", saying=task)
    scene.api.delete("P2PTask", task, NAMESPACE)
    scene.has("OpenModel", model, "Ready", "True", "Ready", seconds=5)


def test_two_models_of_one_source_have_a_task_each(scene: Scene) -> None:
    models = [scene.model(name, MODEL) for name in ("one", "two")]
    for model in models:
        scene.has("OpenModel", model, "Ready", "True", "Ready")
    names = {scene.model_task(model)["metadata"]["name"] for model in models}
    assert len(names) == 2
