"""llmaz's controller cases of Playground and Service, on the Deployment that takes the place of its LeaderWorkerSet.

docs/reference/llmaz-test-map.md says which case of llmaz is which test here. ``assert_workload`` is llmaz's
``ValidatePlayground`` and ``ValidateService`` in one.
"""

from typing import Any

import pytest

from tests.integration.support import Manifest, Scene, backend_runtime, eventually

MODEL_ID = "meta-llama/Meta-Llama-3-8B"
FLAVORS = {
    "flavors": [
        {"name": "a100", "limits": {"nvidia.com/gpu": "1"}},
        {"name": "a10", "limits": {"nvidia.com/gpu": "2"}},
    ]
}
"""llmaz's sample model has these two."""

HUB_ENV = {"MODEL_SOURCE_TYPE", "MODEL_ID", "MODEL_HUB_NAME", "HF_TOKEN", "HUGGING_FACE_HUB_TOKEN", "REVISION"}
OSS_ENV = {"MODEL_SOURCE_TYPE", "PROVIDER", "ENDPOINT", "BUCKET", "MODEL_PATH", "OSS_ACCESS_KEY_ID"}


def fake_backend(scene: Scene) -> str:
    """llmaz's own test runtime: hooks, probes, resources, shared memory, a scale trigger, several configs."""
    name = scene.name("fake-backend")
    exec_hook = {"exec": {"command": ["/bin/sh", "-c", "echo hello"]}}
    resources = {"requests": {"cpu": "4", "memory": "8Gi"}, "limits": {"cpu": "4", "memory": "8Gi"}}
    configs = [
        {
            "name": "default",
            "args": ["--model", "{{ .ModelPath }}", "--served-model-name", "{{ .ModelName }}"],
            "resources": resources,
            "sharedMemorySize": "1Gi",
            "scaleTrigger": {"hpa": {"metrics": [cpu_metric(20)]}},
        },
        {"name": "speculative-decoding", "args": ["--draft", "{{ .DraftModelPath }}"]},
        {"name": "fuz", "args": ["--fuz", "{{ .ModelPath }}"]},
    ]
    runtime = backend_runtime(
        name,
        "busybox",
        "latest",
        command=["sh", "-c", 'echo "hello"'],
        lifecycle={"postStart": exec_hook, "preStop": exec_hook},
        startupProbe={"httpGet": {"path": "/health", "port": 8080}, "failureThreshold": 30},
        livenessProbe={"httpGet": {"path": "/health", "port": 8080}},
        readinessProbe={"httpGet": {"path": "/health", "port": 8080}},
        recommendedConfigs=configs,
    )
    scene.apply(runtime)
    return name


def cpu_metric(percent: int) -> Manifest:
    target = {"type": "Utilization", "averageUtilization": percent}
    return {"type": "Resource", "resource": {"name": "cpu", "target": target}}


def contains(live: Any, wanted: Any) -> bool:
    """Whether everything of ``wanted`` stands in ``live``, which has the API server's defaults too."""
    if isinstance(wanted, dict):
        return isinstance(live, dict) and all(contains(live.get(key), value) for key, value in wanted.items())
    return bool(live == wanted)


def assert_workload(scene: Scene, name: str) -> Manifest:
    """llmaz's assertions; returns the Deployment."""
    pg = scene.get("Playground", name)
    config = pg["spec"].get("backendRuntimeConfig", {})
    runtime = scene.api.get("BackendRuntime", config.get("backendName", "vllm"))["spec"]
    claims = pg["spec"].get("modelClaims", {}).get("models") or [{"name": pg["spec"]["modelClaim"]["modelName"]}]
    draft = any(claim.get("role") == "draft" for claim in claims)
    chosen = config.get("configName") or ("speculative-decoding" if draft else "default")
    recommended = next(entry for entry in runtime["recommendedConfigs"] if entry["name"] == chosen)
    models = [scene.api.get("OpenModel", claim["name"]) for claim in claims]

    deployment = scene.deployment(name)
    spec, template = deployment["spec"], deployment["spec"]["template"]
    runner = template["spec"]["containers"][0]
    assert spec["replicas"] == pg["spec"]["replicas"]
    assert runner["name"] == "model-runner"
    assert runner["image"] == f"{runtime['image']}:{config.get('version', runtime['version'])}"
    assert runner.get("command") == runtime.get("command")
    assert runner.get("env", []) == (config.get("envs") or runtime.get("envs") or [])
    assert set(config.get("args", [])) <= set(runner["args"])
    assert not any("{{ ." in argument for argument in runner["args"])
    for hook in ("lifecycle", "startupProbe", "livenessProbe", "readinessProbe"):
        assert contains(runner.get(hook), runtime[hook]) if hook in runtime else hook not in runner
    assert_resources(pg, models[0], config, recommended, runner.get("resources", {}))
    if size := config.get("sharedMemorySize", recommended.get("sharedMemorySize")):
        # llmaz's tests look for it at this place.
        volume = {"name": "dshm", "emptyDir": {"medium": "Memory", "sizeLimit": size}}
        assert template["spec"]["volumes"][0] == volume
        assert {"name": "dshm", "mountPath": "/dev/shm"} in runner["volumeMounts"]
    assert_loaders(template["spec"], runner, models)
    assert_labels(scene, name, deployment, claims, models)
    return deployment


def assert_resources(pg: Manifest, model: Manifest, config: Manifest, recommended: Manifest, have: Manifest) -> None:
    """The Playground's if set, else the recommended; the flavor's limits are requests and limits."""
    flavors = model["spec"].get("inferenceConfig", {}).get("flavors", [])
    wanted_flavors = pg["spec"].get("modelClaim", pg["spec"].get("modelClaims", {})).get("inferenceFlavors", [])
    if wanted_flavors:
        flavors = [flavor for flavor in flavors if flavor["name"] == wanted_flavors[0]]
    flavor = flavors[0].get("limits", {}) if flavors else {}
    for kind in ("requests", "limits"):
        merged = {
            **recommended.get("resources", {}).get(kind, {}),
            **config.get("resources", {}).get(kind, {}),
            **flavor,
        }
        for resource, amount in merged.items():
            raised = have["requests"].get(resource) if kind == "limits" and resource in ("cpu", "memory") else amount
            assert have[kind][resource] in (str(amount), raised)
    for resource, amount in flavor.items():
        assert have["requests"][resource] == have["limits"][resource] == amount


def assert_loaders(pod: Manifest, runner: Manifest, models: list[Manifest]) -> None:
    loaders = pod.get("initContainers", [])
    sources = [model["spec"]["source"] for model in models]
    volumes = [volume["name"] for volume in pod.get("volumes", [])]
    mounts = {mount["name"]: mount for mount in runner.get("volumeMounts", [])}
    loaded = [source for source in sources if not source.get("uri", "").startswith(("ollama:", "host:"))]
    assert [loader["name"] for loader in loaders] == ["model-loader", "model-loader-1"][: len(loaded)]
    for loader, source in zip(loaders, loaded, strict=True):
        names = [env["name"] for env in loader["env"]]
        assert loader["image"]
        assert len(names) == len(set(names))
        assert (HUB_ENV if "modelHub" in source else OSS_ENV) <= set(names)
        assert {env["name"] for env in runner.get("env", [])} <= set(names)
        assert {"name": "model-volume", "mountPath": "/workspace/models/"} in loader["volumeMounts"]
    assert volumes.count("model-volume") == 1
    assert mounts["model-volume"]["readOnly"] is True


def assert_labels(
    scene: Scene, name: str, deployment: Manifest, claims: list[Manifest], models: list[Manifest]
) -> None:
    main = claims[0]["name"]
    labels = deployment["spec"]["template"]["metadata"]["labels"]
    assert labels["llmaz.io/model-name"] == main
    assert labels["llmaz.io/model-family-name"] == models[0]["spec"]["familyName"]
    assert deployment["spec"]["selector"]["matchLabels"].items() <= labels.items()
    assert scene.get("Playground", name)["metadata"]["labels"]["llmaz.io/model-name"] == main
    service = eventually(lambda: scene.find("Service", f"{name}-lb"))
    assert service["spec"]["selector"] == deployment["spec"]["selector"]["matchLabels"]
    assert [(p["name"], p["port"], p["targetPort"]) for p in service["spec"]["ports"]] == [("http", 8080, 8080)]
    assert service["metadata"]["annotations"]["activator.llmaz.io/model-name"] == main
    for child in (deployment, service):
        owner = child["metadata"]["ownerReferences"][0]
        assert (owner["kind"], owner["name"], owner["controller"]) == ("Playground", name, True)


def ready(scene: Scene, name: str) -> None:
    scene.has("Playground", name, "Progressing", "True", "Pending")
    scene.make_ready(name)
    scene.has("Playground", name, "Available", "True", "PlaygroundReady")


def test_speculative_decoding_with_main_and_draft_model(scene: Scene) -> None:
    main, draft = scene.model("llama3-8b", inferenceConfig=FLAVORS), scene.model("llama3-2b", "meta-llama/Llama-3.2-1B")
    scene.playground("pg", main, draft)
    deployment = assert_workload(scene, "pg")
    args = deployment["spec"]["template"]["spec"]["containers"][0]["args"]
    assert args[args.index("--speculative_model") + 1] == "/workspace/models/models--meta-llama--Llama-3.2-1B"
    ready(scene, "pg")


@pytest.mark.parametrize(
    ("backend", "source"),
    [
        pytest.param("sglang", MODEL_ID, id="SGLang"),
        pytest.param("llamacpp", MODEL_ID, id="llama.cpp"),
        pytest.param("tgi", MODEL_ID, id="TGI"),
        pytest.param("tensorrt-llm", MODEL_ID, id="TensorRT-LLM"),
        pytest.param("ollama", "ollama://llama3.1", id="Ollama"),
    ],
)
def test_advance_configured_playground(scene: Scene, backend: str, source: str) -> None:
    model = scene.model("llama3-8b", source)
    scene.playground(
        "pg",
        model,
        backendName=backend,
        version="main",
        args=["--foo-bar"],
        envs=[{"name": "FOO", "value": "BAR"}] + ([] if backend != "ollama" else [OLLAMA_HOST]),
        resources={"requests": {"cpu": "1"}, "limits": {"cpu": "10"}},
    )
    deployment = scene.deployment("pg")
    runner = deployment["spec"]["template"]["spec"]["containers"][0]
    assert runner["image"].endswith(":main")
    assert "--foo-bar" in runner["args"]
    assert {"name": "FOO", "value": "BAR"} in runner["env"]
    assert (runner["resources"]["requests"]["cpu"], runner["resources"]["limits"]["cpu"]) == ("1", "10")
    ready(scene, "pg")


OLLAMA_HOST = {"name": "OLLAMA_HOST", "value": "0.0.0.0:8080"}


def test_playground_with_an_own_backend_runtime_and_overrides(scene: Scene) -> None:
    backend = fake_backend(scene)
    model = scene.model("llama3-8b", inferenceConfig=FLAVORS)
    scene.playground("pg", model, backendName=backend, configName="fuz", args=["--foo-bar"], version="v1")
    args = assert_workload(scene, "pg")["spec"]["template"]["spec"]["containers"][0]["args"]
    assert args == ["--fuz", "/workspace/models/models--meta-llama--Meta-Llama-3-8B", "--foo-bar"]
    ready(scene, "pg")


def test_playground_with_an_own_backend_runtime_and_its_defaults(scene: Scene) -> None:
    model = scene.model("llama3-8b", inferenceConfig=FLAVORS)
    scene.playground("pg", model, backendName=fake_backend(scene))
    assert_workload(scene, "pg")
    ready(scene, "pg")


def test_a_request_above_the_recommended_limit_raises_the_limit(scene: Scene) -> None:
    model = scene.model()
    scene.playground("pg", model, resources={"requests": {"cpu": "10"}})
    runner = scene.pod_template("pg")["spec"]["containers"][0]
    assert runner["resources"]["requests"]["cpu"] == runner["resources"]["limits"]["cpu"] == "10"
    scene.has("Playground", "pg", "Progressing", "True", "Pending")


def test_shared_memory_size_of_the_playground_wins(scene: Scene) -> None:
    model = scene.model()
    scene.playground("pg", model, backendName=fake_backend(scene), sharedMemorySize="2Gi")
    volume = assert_workload(scene, "pg")["spec"]["template"]["spec"]["volumes"][0]
    assert volume["emptyDir"]["sizeLimit"] == "2Gi"
    ready(scene, "pg")


def test_model_with_an_oss_uri(scene: Scene) -> None:
    model = scene.model("model-with-uri", "oss://bucket.oss-cn-hangzhou.aliyuncs.com/modelPath")
    scene.playground("pg", model)
    deployment = assert_workload(scene, "pg")
    env = {e["name"]: e.get("value") for e in deployment["spec"]["template"]["spec"]["initContainers"][0]["env"]}
    assert (env["PROVIDER"], env["BUCKET"], env["MODEL_PATH"]) == ("OSS", "bucket", "modelPath")
    ready(scene, "pg")


def test_speculative_decoding_with_a_hub_model_and_an_oss_model(scene: Scene) -> None:
    main = scene.model("llama3-8b")
    draft = scene.model("model-with-uri", "oss://bucket.oss-cn-hangzhou.aliyuncs.com/modelPath")
    scene.playground("pg", main, draft)
    assert_workload(scene, "pg")


def test_the_chosen_flavor_decides_the_accelerators(scene: Scene) -> None:
    model = scene.model("llama3-8b", inferenceConfig=FLAVORS)
    claim = {"modelName": model, "inferenceFlavors": ["a10"]}
    scene.playground("pg", modelClaim=claim)
    deployment = assert_workload(scene, "pg")
    resources = deployment["spec"]["template"]["spec"]["containers"][0]["resources"]
    assert resources["limits"]["nvidia.com/gpu"] == "2"
    annotations = deployment["spec"]["template"]["metadata"]["annotations"]
    assert annotations["llmaz.io/inference-service-flavors"] == "a10"


@pytest.mark.parametrize(
    ("source", "credentials"),
    [
        pytest.param(MODEL_ID, {"HF_TOKEN", "HUGGING_FACE_HUB_TOKEN"}, id="hub"),
        pytest.param("s3://bucket/modelPath", {"AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"}, id="S3"),
    ],
)
def test_skip_model_loader_gives_the_engine_the_credentials_and_waits_for_no_model(
    scene: Scene, source: str, credentials: set[str]
) -> None:
    model = scene.model("streamed", source)
    scene.playground("pg", model, annotations={"llmaz.io/skip-model-loader": "true"})
    template = scene.pod_template("pg")
    assert credentials <= {env["name"] for env in template["spec"]["containers"][0]["env"]}
    assert "initContainers" not in template["spec"]
    assert [volume["name"] for volume in template["spec"].get("volumes", [])] == ["dshm"]
    assert [task["spec"]["image"]["reference"] for task in scene.tasks("image")] == ["vllm/vllm-openai:v0.7.3"]


def test_an_hf_token_of_the_user_wins_over_the_secret_where_llmaz_gets_no_workload(scene: Scene) -> None:
    model = scene.model()
    scene.playground("pg", model, envs=[{"name": "HF_TOKEN", "value": "chosen"}, {"name": "HTTP_PROXY", "value": "p"}])
    env = scene.pod_template("pg")["spec"]["initContainers"][0]["env"]
    names = [entry["name"] for entry in env]
    assert names.count("HF_TOKEN") == 1
    assert {"name": "HF_TOKEN", "value": "chosen"} in env
    assert "HTTP_PROXY" in names


def test_the_loader_is_pinned_to_the_commit_and_mounts_the_list_of_files(scene: Scene) -> None:
    model = scene.model()
    scene.playground("pg", model)
    pod = scene.pod_template("pg")["spec"]
    status = scene.model_task(model)["status"]
    env = {entry["name"]: entry.get("value") for entry in pod["initContainers"][0]["env"]}
    assert env["REVISION"] == status["resolved"]["revision"]
    volume = next(volume for volume in pod["volumes"] if volume["name"] == "model-manifest")
    source = volume["projected"]["sources"][0]["configMap"]
    assert source["optional"] is True
    copy = scene.get("ConfigMap", source["name"])
    assert copy["metadata"]["ownerReferences"][0]["kind"] == "Playground"
    original = scene.api.get("ConfigMap", status["manifest"]["name"], "llmaz-system")
    assert copy["binaryData"] == original["binaryData"]


def test_a_list_of_files_that_somebody_deleted_comes_back(scene: Scene) -> None:
    model = scene.model()
    scene.playground("pg", model)
    before = scene.deployment("pg")
    [name] = [c["metadata"]["name"] for c in scene.all("ConfigMap") if c["metadata"]["name"].startswith("pg-manifest")]
    data = scene.get("ConfigMap", name)["binaryData"]
    scene.delete("ConfigMap", name)
    eventually(lambda: (scene.find("ConfigMap", name) or {}).get("binaryData") == data)
    assert scene.deployment("pg")["metadata"]["generation"] == before["metadata"]["generation"]


def test_llmaz_global_config_names_scheduler_and_loader(scene: Scene) -> None:
    config = {
        "apiVersion": "v1",
        "kind": "ConfigMap",
        "metadata": {"name": "llmaz-global-config", "namespace": "llmaz-system"},
        "data": {"config.data": "scheduler-name: inftyai-scheduler\ninit-container-image: busybox:v2\n"},
    }
    model = scene.model()
    scene.api.create(config)
    try:
        scene.playground("before", model)
        before = scene.deployment("before")["spec"]["template"]["spec"]

        # The config is looked at every few seconds; a Playground made afterwards has it, one made before keeps its own.
        def adopted() -> Manifest | None:
            scene.playground(f"pg-{len(scene.all('Playground'))}", model)
            newest = scene.pod_template(f"pg-{len(scene.all('Playground')) - 1}")["spec"]
            return newest if newest.get("schedulerName") == "inftyai-scheduler" else None

        pod = eventually(adopted, 10, every=1.0)
        assert pod["initContainers"][0]["image"] == "busybox:v2"
        assert scene.deployment("before")["spec"]["template"]["spec"] == before
    finally:
        scene.api.delete("ConfigMap", "llmaz-global-config", "llmaz-system")


def test_deployment_replaces_pods_in_place_and_waits_long(scene: Scene) -> None:
    model = scene.model()
    scene.playground("pg", model)
    spec = scene.deployment("pg")["spec"]
    assert spec["strategy"] == {"type": "RollingUpdate", "rollingUpdate": {"maxSurge": 0, "maxUnavailable": 1}}
    assert spec["progressDeadlineSeconds"] >= 3600
    assert spec["template"]["spec"]["terminationGracePeriodSeconds"] == 130
