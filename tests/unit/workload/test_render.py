"""llmaz's own cases, with a Deployment instead of a LeaderWorkerSet, and what we render differently on purpose."""

from typing import Any

import pytest

from modelswarm.api.openmodel import OpenModel
from modelswarm.api.playground import Playground
from modelswarm.errors import RenderError, RenderReason
from modelswarm.workload.nodemodel import NodeModel
from modelswarm.workload.pod import PinnedModel
from modelswarm.workload.render import OperatorPart, Workload, images, needs_models, render_workload
from tests.unit.workload.objects import (
    OPERATOR,
    env,
    hub,
    loaders,
    model,
    playground,
    pod,
    render,
    runner,
    runtime,
    uri,
)

LLAMA, DRAFT = hub(), hub("llama3-2b", model_id="meta-llama/Llama-3.2-2B")
SPECULATIVE = (("llama3-8b", "main"), ("llama3-2b", "draft"))
OSS = uri("model-with-uri", "oss://bucket.endpoint/modelPath")
ADVANCED: dict[str, Any] = {
    "version": "main",
    "args": ["--foo", "bar"],
    "envs": [{"name": "FOO", "value": "BAR"}],
    "resources": {"requests": {"cpu": 1}, "limits": {"cpu": 10}},
}


def mounts(container: dict[str, Any]) -> dict[str, str]:
    return {mount["mountPath"]: mount["name"] for mount in container.get("volumeMounts", [])}


def assert_playground(play: Playground, models: list[OpenModel], workload: Workload) -> None:
    """What llmaz's ``ValidatePlayground`` and ``ValidateService`` assert, on the Deployment."""
    backend = runtime(play.backend_name)
    deployment: Any = workload.deployment
    container = runner(workload)
    own = play.spec.backend_runtime_config
    mode = "speculative-decoding" if len(models) > 1 else "default"
    recommended = next(
        config for config in backend.spec.recommended_configs if config.name == ((own and own.config_name) or mode)
    )
    assert deployment["metadata"]["name"] == play.metadata.name
    assert deployment["metadata"]["labels"]["llmaz.io/model-name"] == models[0].metadata.name
    assert deployment["spec"]["replicas"] == play.spec.replicas
    assert container["image"] == f"{backend.spec.image}:{(own and own.version) or backend.spec.version}"
    assert container.get("command", []) == list(backend.spec.command)
    assert container.get("lifecycle") == backend.spec.lifecycle
    for name in ("livenessProbe", "readinessProbe", "startupProbe"):
        assert container.get(name) == getattr(backend.spec, name.replace("P", "_p"))
    shared = (own and own.shared_memory_size) or recommended.shared_memory_size
    if shared:
        assert pod(workload)["volumes"][0] == {"name": "dshm", "emptyDir": {"medium": "Memory", "sizeLimit": shared}}
    if own is not None and own.args:
        assert container["args"][-len(own.args) :] == list(own.args)
    assert container.get("env", []) == list((own and own.envs) or backend.spec.envs)
    wanted = (own and own.resources) or recommended.resources
    for kind in ("limits", "requests"):
        for name, quantity in (getattr(wanted, kind, None) or {}).items():
            assert container["resources"][kind][name] == str(quantity)
    template = deployment["spec"]["template"]
    assert template["metadata"]["labels"] == {
        "llmaz.io/model-name": models[0].metadata.name,
        "llmaz.io/model-family-name": models[0].spec.family_name,
        "llmaz.io/playground": play.metadata.name,
    }
    assert template["spec"]["terminationGracePeriodSeconds"] == 130
    for index, loader in enumerate(loaders(workload)):
        assert loader["name"] == ("model-loader" if index == 0 else f"model-loader-{index}")
        assert loader["image"] == OPERATOR.loader_image
        assert "command" not in loader
        assert mounts(loader) == {"/workspace/models/": "model-volume"}
        hub_names = {
            "MODEL_SOURCE_TYPE",
            "MODEL_ID",
            "MODEL_HUB_NAME",
            "HF_TOKEN",
            "HUGGING_FACE_HUB_TOKEN",
            "REVISION",
        }
        store_names = {"MODEL_SOURCE_TYPE", "PROVIDER", "ENDPOINT", "BUCKET", "MODEL_PATH", "OSS_ACCESS_KEY_ID"}
        assert (hub_names if models[index].spec.source.model_hub else store_names) <= set(env(loader))
    assert workload.service["metadata"]["name"] == f"{play.metadata.name}-lb"  # type: ignore[index,call-overload]


@pytest.mark.parametrize(
    ("play", "models"),
    [
        pytest.param(playground(), [LLAMA], id="a default Playground"),
        pytest.param(playground(replicas=3), [LLAMA], id="three replicas"),
        pytest.param(playground(SPECULATIVE), [LLAMA, DRAFT], id="speculative decoding"),
        pytest.param(playground(backendName="vllm", **ADVANCED), [LLAMA], id="advance configured vllm"),
        pytest.param(playground(backendName="llamacpp", **ADVANCED), [LLAMA], id="advance configured llamacpp"),
        pytest.param(playground(backendName="fake-backend"), [LLAMA], id="fake-backend as it is"),
        pytest.param(playground(backendName="fake-backend", **ADVANCED), [LLAMA], id="fake-backend with overrides"),
        pytest.param(
            playground(sharedMemorySize="2Gi", backendName="fake-backend"), [LLAMA], id="shared memory of 2Gi"
        ),
        pytest.param(playground("model-with-uri"), [OSS], id="a model in OSS"),
        pytest.param(
            playground((("llama3-8b", "main"), ("model-with-uri", "draft"))),
            [LLAMA, OSS],
            id="speculative decoding with a hub and OSS",
        ),
    ],
)
def test_a_playground_becomes_the_deployment_of_its_llmaz_workload(play: Playground, models: list[OpenModel]) -> None:
    assert_playground(play, models, render(play, *models))


def test_a_request_above_the_recommended_limit_raises_it() -> None:
    resources = runner(render(playground(resources={"requests": {"cpu": 10}}), LLAMA))["resources"]
    assert resources["limits"]["cpu"] == "10"
    assert resources["requests"] == {"cpu": "10", "memory": "8Gi", "nvidia.com/gpu": "1"}


def test_the_flavor_sets_requests_and_limits_of_the_main_model() -> None:
    workload = render(playground(SPECULATIVE, flavors=["a10"]), LLAMA, DRAFT)
    resources = runner(workload)["resources"]
    assert resources["requests"]["nvidia.com/gpu"] == resources["limits"]["nvidia.com/gpu"] == "2"
    template: Any = workload.deployment["spec"]
    assert template["template"]["metadata"]["annotations"] == {"llmaz.io/inference-service-flavors": "a10"}
    assert "nodeSelector" not in pod(workload)


def test_arguments_of_the_playground_are_appended_and_not_rendered() -> None:
    workload = render(playground(args=["--name", "{{ .ModelName }}"]), LLAMA)
    assert runner(workload)["args"][-2:] == ["--name", "{{ .ModelName }}"]


def test_main_comes_first_also_when_the_draft_is_written_first() -> None:
    workload = render(playground(SPECULATIVE[::-1], backendName="llamacpp"), LLAMA, DRAFT)
    assert [env(loader)["MODEL_ID"] for loader in loaders(workload)] == [
        "meta-llama/Meta-Llama-3-8B",
        "meta-llama/Llama-3.2-2B",
    ]
    assert runner(workload)["args"][:4] == [
        "-m",
        "/workspace/models/models--meta-llama--Meta-Llama-3-8B",
        "-md",
        "/workspace/models/models--meta-llama--Llama-3.2-2B",
    ]


def test_ollama_needs_no_loader_and_keeps_the_scratch_volume() -> None:
    workload = render(playground("qwen", backendName="ollama"), uri("qwen", "ollama://qwen2:0.5b"))
    assert loaders(workload) == []
    assert "ollama run qwen2:0.5b;" in runner(workload)["args"][0]
    assert env(runner(workload)) == {"OLLAMA_HOST": "0.0.0.0:8080"}
    assert pod(workload)["volumes"] == [{"name": "model-volume", "emptyDir": {}}]
    assert runner(workload)["volumeMounts"] == [
        {"name": "model-volume", "mountPath": "/workspace/models/", "readOnly": True}
    ]


def test_a_model_path_that_ollama_does_not_have_is_an_error() -> None:
    with pytest.raises(RenderError) as failed:
        render(playground("qwen"), uri("qwen", "ollama://qwen2:0.5b"))
    assert failed.value.reason is RenderReason.BAD_TEMPLATE_VARIABLE


@pytest.mark.parametrize("skip", [False, True])
def test_a_host_directory_is_mounted_read_only_at_its_own_path(skip: bool) -> None:
    workload = render(playground("m", skip=skip), uri("m", "host:///mnt/Qwen2"))
    assert loaders(workload) == []
    assert pod(workload)["volumes"][1:] == [{"name": "model-volume", "hostPath": {"path": "/mnt/Qwen2"}}]
    assert runner(workload)["volumeMounts"][1:] == [
        {"name": "model-volume", "mountPath": "/mnt/Qwen2", "readOnly": True}
    ]
    assert "/mnt/Qwen2" in runner(workload)["args"]


@pytest.mark.parametrize(
    ("main", "draft", "volumes", "loader_names"),
    [
        pytest.param(
            "hub",
            "host",
            {"model-volume": "emptyDir", "model-volume-1": "hostPath"},
            ["model-loader"],
            id="hub and host",
        ),
        pytest.param(
            "host",
            "hub",
            {"model-volume": "emptyDir", "model-volume-1": "hostPath"},
            ["model-loader-1"],
            id="host and hub",
        ),
        pytest.param(
            "host", "other", {"model-volume": "hostPath", "model-volume-1": "hostPath"}, [], id="two host directories"
        ),
        pytest.param("host", "host", {"model-volume": "hostPath"}, [], id="one host directory twice"),
        pytest.param("hub", "s3", {"model-volume": "emptyDir"}, ["model-loader", "model-loader-1"], id="hub and S3"),
        pytest.param("hub", "ollama", {"model-volume": "emptyDir"}, ["model-loader"], id="hub and ollama"),
    ],
)
def test_models_of_different_kinds_make_a_valid_pod(
    main: str, draft: str, volumes: dict[str, str], loader_names: list[str]
) -> None:
    kinds: dict[str, Any] = {
        "hub": {"modelHub": {"modelID": "a/b"}},
        "host": {"uri": "host:///mnt/a"},
        "other": {"uri": "host:///mnt/b"},
        "s3": {"uri": "s3://bucket/c"},
        "ollama": {"uri": "ollama://d"},
    }
    own_arguments = runtime("fake-backend", recommendedConfigs=[{"name": "speculative-decoding"}])
    workload = render(
        playground((("m", "main"), ("d", "draft")), backendName="fake-backend"),
        model("m", kinds[main]),
        model("d", kinds[draft]),
        using=own_arguments,
    )
    found = {volume["name"]: next(key for key in volume if key != "name") for volume in pod(workload)["volumes"]}
    assert found == volumes
    assert [loader["name"] for loader in loaders(workload)] == loader_names


def test_a_host_directory_inside_the_scratch_volume_is_an_error() -> None:
    play = playground((("m", "main"), ("d", "draft")))
    with pytest.raises(RenderError) as failed:
        render(play, hub("m"), uri("d", "host:///workspace/models"))
    assert failed.value.reason is RenderReason.UNSUPPORTED_SOURCE


@pytest.mark.parametrize(
    ("source", "added"),
    [
        pytest.param({"modelHub": {"modelID": "a/b"}}, ["HUGGING_FACE_HUB_TOKEN", "HF_TOKEN"], id="hub"),
        pytest.param({"uri": "s3://bucket/p"}, ["AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"], id="S3"),
        pytest.param({"uri": "oss://b.e/p"}, ["OSS_ACCESS_KEY_ID", "OSS_ACCESS_KEY_SECRET"], id="OSS"),
        pytest.param({"uri": "ollama://q"}, [], id="ollama"),
    ],
)
def test_skipping_the_loader_gives_the_engine_the_credentials_and_no_volume(
    source: dict[str, Any], added: list[str]
) -> None:
    play = playground("m", skip=True, envs=[{"name": "FOO", "value": "BAR"}])
    workload = render(play, model("m", source))
    assert loaders(workload) == []
    assert list(env(runner(workload))) == ["FOO", *added]
    assert [volume["name"] for volume in pod(workload)["volumes"]] == ["dshm"]
    assert mounts(runner(workload)) == {"/dev/shm": "dshm"}
    assert not needs_models(play)


def test_the_loader_gets_a_copy_of_the_engines_environment_and_explicit_tokens_win() -> None:
    own = [{"name": "HF_ENDPOINT", "value": "http://mirror"}, {"name": "HUGGING_FACE_HUB_TOKEN", "value": "mine"}]
    [loader] = loaders(render(playground(envs=own), LLAMA))
    assert loader["env"][:2] == own
    assert env(loader)["HF_TOKEN"] == "mine"


def test_a_pinned_model_is_loaded_by_its_commit_and_its_manifest() -> None:
    pins = [PinnedModel("c0ffee", ("task-manifest", "task-manifest-1")), PinnedModel("decade", ("draft-manifest",))]
    workload = render(playground(SPECULATIVE), LLAMA, DRAFT, pinned=pins)
    main, draft = loaders(workload)
    assert env(main)["REVISION"] == "c0ffee"
    assert env(draft)["REVISION"] == "decade"
    assert env(main)["MODELSWARM_MANIFEST_DIR"] == "/etc/modelswarm/manifest"
    assert mounts(main)["/etc/modelswarm/manifest"] == "model-manifest"
    assert mounts(draft)["/etc/modelswarm/manifest"] == "model-manifest-1"
    assert "/etc/modelswarm/manifest" not in mounts(runner(workload))
    assert pod(workload)["volumes"][2] == {
        "name": "model-manifest",
        "projected": {
            "sources": [
                {
                    "configMap": {
                        "name": name,
                        "optional": True,
                        "items": [{"key": "manifest.json.gz", "path": f"manifest-{shard}.json.gz"}],
                    }
                }
                for shard, name in enumerate(["task-manifest", "task-manifest-1"])
            ]
        },
    }


@pytest.mark.parametrize(
    ("pin", "expected"),
    [
        pytest.param(PinnedModel("c0ffee", (), public=True), "true", id="known to be public"),
        pytest.param(PinnedModel("c0ffee", ()), None, id="gated, or nobody knows"),
        pytest.param(None, None, id="not pinned"),
    ],
)
def test_a_loader_is_told_that_its_model_is_public_and_the_engine_cannot_claim_it(
    pin: PinnedModel | None, expected: str | None
) -> None:
    claimed = [{"name": "MODELSWARM_CONTENT_PUBLIC", "value": "claimed"}]
    [loader] = loaders(render(playground(envs=claimed), LLAMA, pinned=[pin]))
    assert env(loader).get("MODELSWARM_CONTENT_PUBLIC") == expected


def test_an_unpinned_model_is_loaded_by_its_branch() -> None:
    [loader] = loaders(render(playground(), LLAMA))
    assert env(loader)["REVISION"] == "main"
    assert "MODELSWARM_MANIFEST_DIR" not in env(loader)


DRAGONFLY = OperatorPart(
    loader_image="loader",
    dragonfly_socket="/var/run/dragonfly/dfdaemon.sock",
    dragonfly_tag="models",
    dragonfly_application="modelswarm",
)


def test_loaders_get_the_socket_of_the_nodes_dfdaemon_and_the_engine_does_not() -> None:
    workload = render(playground(SPECULATIVE), LLAMA, DRAFT, operator=DRAGONFLY)
    volume = {"name": "dragonfly", "hostPath": {"path": "/var/run/dragonfly", "type": "DirectoryOrCreate"}}
    assert [each for each in pod(workload)["volumes"] if each["name"] == "dragonfly"] == [volume]
    for loader in loaders(workload):
        assert {"name": "dragonfly", "mountPath": "/var/run/dragonfly", "readOnly": True} in loader["volumeMounts"]
        assert env(loader)["MODELSWARM_DFDAEMON_SOCKET"] == "/var/run/dragonfly/dfdaemon.sock"
        assert env(loader)["MODELSWARM_DRAGONFLY_TAG"] == "models"
        assert env(loader)["MODELSWARM_DRAGONFLY_APPLICATION"] == "modelswarm"
    assert "/var/run/dragonfly" not in mounts(runner(workload))
    assert not [name for name in env(runner(workload)) if name.startswith("MODELSWARM_")]


def test_what_has_no_tag_is_told_none_and_a_variable_of_the_users_does_not_hide_the_socket() -> None:
    operator = OperatorPart(loader_image="loader", dragonfly_socket="/run/df/dfdaemon.sock")
    envs = [{"name": "MODELSWARM_DFDAEMON_SOCKET", "value": "/elsewhere"}]
    workload = render(playground(envs=envs), LLAMA, operator=operator)
    [loader] = loaders(workload)
    assert env(loader)["MODELSWARM_DFDAEMON_SOCKET"] == "/run/df/dfdaemon.sock"
    assert mounts(loader)["/run/df"] == "dragonfly"
    assert "MODELSWARM_DRAGONFLY_TAG" not in env(loader)
    assert "MODELSWARM_DRAGONFLY_APPLICATION" not in env(loader)


@pytest.mark.parametrize(
    ("play", "served", "operator"),
    [
        pytest.param(playground(), LLAMA, OPERATOR, id="Dragonfly is not configured"),
        pytest.param(playground(skip=True), LLAMA, DRAGONFLY, id="no loader"),
        pytest.param(playground("m"), uri("m", "host:///m"), DRAGONFLY, id="on the host"),
        pytest.param(playground("model-with-uri"), OSS, DRAGONFLY, id="a store, which Dragonfly does not serve"),
    ],
)
def test_nobody_else_gets_the_socket(play: Playground, served: OpenModel, operator: OperatorPart) -> None:
    workload = render(play, served, operator=operator)
    assert "/var/run/dragonfly" not in str(workload.deployment)
    assert "MODELSWARM_DFDAEMON_SOCKET" not in str(workload.deployment)


def test_the_deployment_replaces_one_pod_at_a_time_and_waits_long() -> None:
    operator = OperatorPart(loader_image="loader", scheduler_name="inftyai-scheduler", progress_deadline_seconds=99)
    workload = render(playground(), LLAMA, operator=operator)
    spec: Any = workload.deployment["spec"]
    assert spec["strategy"] == {"type": "RollingUpdate", "rollingUpdate": {"maxSurge": 0, "maxUnavailable": 1}}
    assert spec["selector"] == {"matchLabels": {"llmaz.io/playground": "playground-llama3-8b"}}
    assert spec["progressDeadlineSeconds"] == 99
    assert pod(workload)["schedulerName"] == "inftyai-scheduler"
    assert "schedulerName" not in pod(render(playground(), LLAMA))


def test_the_service_selects_the_playgrounds_pods() -> None:
    service: Any = render(playground(), LLAMA).service
    assert service["spec"] == {
        "selector": {"llmaz.io/playground": "playground-llama3-8b"},
        "ports": [{"name": "http", "protocol": "TCP", "port": 8080, "targetPort": 8080}],
    }
    assert service["metadata"]["annotations"] == {"activator.llmaz.io/model-name": "llama3-8b"}


def test_everything_belongs_to_the_playground() -> None:
    elastic = {"maxReplicas": 3, "scaleTrigger": {"hpa": {}}}
    workload = render(playground(elastic=elastic), LLAMA)
    for each in (workload.deployment, workload.service, workload.autoscaler):
        assert each is not None
        metadata: Any = each["metadata"]
        assert metadata["namespace"] == "default"
        assert metadata["labels"] == {
            "app.kubernetes.io/managed-by": "modelswarm",
            "llmaz.io/model-name": "llama3-8b",
            "llmaz.io/playground": "playground-llama3-8b",
        }
        assert metadata["ownerReferences"] == [
            {
                "apiVersion": "inference.llmaz.io/v1alpha1",
                "kind": "Playground",
                "name": "playground-llama3-8b",
                "uid": "playground-uid",
                "controller": True,
                "blockOwnerDeletion": True,
            }
        ]


@pytest.mark.parametrize(
    ("play", "models", "expected"),
    [
        pytest.param(playground(), [LLAMA], ["vllm/vllm-openai:v0.7.3", OPERATOR.loader_image], id="a loader"),
        pytest.param(playground(skip=True), [LLAMA], ["vllm/vllm-openai:v0.7.3"], id="no loader"),
        pytest.param(playground("m"), [uri("m", "host:///m")], ["vllm/vllm-openai:v0.7.3"], id="on the host"),
        pytest.param(
            playground(version="main"), [LLAMA], ["vllm/vllm-openai:main", OPERATOR.loader_image], id="version"
        ),
    ],
)
def test_the_images_are_those_of_the_pod(play: Playground, models: list[OpenModel], expected: list[str]) -> None:
    workload = render(play, *models)
    assert list(workload.images) == expected
    assert images(play, runtime(), models, OPERATOR) == workload.images
    assert [container["image"] for container in [runner(workload), *loaders(workload)]] == expected


def test_an_image_that_is_engine_and_loader_counts_once() -> None:
    operator = OperatorPart(loader_image="vllm/vllm-openai:v0.7.3")
    assert images(playground(), runtime(), [LLAMA], operator) == ("vllm/vllm-openai:v0.7.3",)


def test_a_name_that_leaves_no_room_for_the_service_is_an_error() -> None:
    assert render(playground(name="p" * 60), LLAMA).service
    with pytest.raises(RenderError) as failed:
        render(playground(name="p" * 61), LLAMA)
    assert failed.value.reason is RenderReason.INVALID_OBJECT
    assert "at most 60 characters" in failed.value.message


@pytest.mark.parametrize("family", ["llama 3", "-llama", "l" * 64])
def test_a_family_that_cannot_be_a_label_is_an_error(family: str) -> None:
    with pytest.raises(RenderError) as failed:
        render(playground("m"), model("m", {"uri": "host:///m"}, family=family))
    assert failed.value.reason is RenderReason.INVALID_OBJECT
    assert "familyName" in failed.value.message


def test_a_bad_quantity_is_an_error() -> None:
    with pytest.raises(RenderError) as failed:
        render(playground(resources={"requests": {"cpu": "four"}}), LLAMA)
    assert failed.value.reason is RenderReason.INVALID_QUANTITY


def test_rendering_twice_gives_the_same_objects() -> None:
    play, runtime_ = playground(envs=[{"name": name, "value": "x"} for name in "CABD"]), runtime("ollama")
    once = render_workload(play, runtime_, [LLAMA], OPERATOR, [None])
    assert render_workload(play, runtime_, [LLAMA], OPERATOR, [None]) == once
    assert list(env(runner(once))) == ["OLLAMA_HOST", "C", "A", "B", "D"]


KEPT = NodeModel("/mnt/models", "ab" * 32)
DRAFT_KEPT = NodeModel("/mnt/models", "cd" * 32)


def test_a_model_that_the_nodes_agents_keep_is_mounted_at_one_path_in_loader_and_engine() -> None:
    pins = [PinnedModel("c0ffee", (), node=KEPT), PinnedModel("decade", (), node=DRAFT_KEPT)]
    workload = render(playground(SPECULATIVE), LLAMA, DRAFT, pinned=pins)
    main, draft = loaders(workload)
    assert env(main)["MODELSWARM_NODE_MODEL"] == f"/var/lib/modelswarm/models/{'ab' * 32}"
    assert mounts(main)[KEPT.path] == "node-model"
    assert mounts(draft)[DRAFT_KEPT.path] == "node-model-1"
    assert DRAFT_KEPT.path not in mounts(main)
    assert mounts(runner(workload)).items() >= {KEPT.path: "node-model", DRAFT_KEPT.path: "node-model-1"}.items()
    assert {"name": "node-model", "mountPath": KEPT.path, "readOnly": True} in runner(workload)["volumeMounts"]
    volumes = {volume["name"]: volume for volume in pod(workload)["volumes"]}
    directory = {"path": f"/mnt/models/models/{'ab' * 32}", "type": "DirectoryOrCreate"}
    assert volumes["node-model"] == {"name": "node-model", "hostPath": directory}
    template = workload.deployment["spec"]["template"]
    assert template["metadata"]["annotations"]["modelswarm.io/contents"] == f"sha256:{'ab' * 32},sha256:{'cd' * 32}"


def test_warm_nodes_are_preferred_and_never_required() -> None:
    pins = [PinnedModel("c0ffee", (), node=KEPT), PinnedModel("decade", (), node=DRAFT_KEPT)]
    workload = render(playground(SPECULATIVE), LLAMA, DRAFT, pinned=pins)
    [(rule, preferences)] = pod(workload)["affinity"]["nodeAffinity"].items()
    assert rule == "preferredDuringSchedulingIgnoredDuringExecution"
    assert [(each["weight"], each["preference"]["matchExpressions"]) for each in preferences] == [
        (50, [{"key": f"content.modelswarm.io/{'ab' * 8}", "operator": "In", "values": ["Ready"]}]),
        (50, [{"key": f"content.modelswarm.io/{'cd' * 8}", "operator": "In", "values": ["Ready"]}]),
    ]


def test_two_models_with_the_same_content_share_a_volume() -> None:
    pins = [PinnedModel("c0ffee", (), node=KEPT), PinnedModel("c0ffee", (), node=KEPT)]
    workload = render(playground(SPECULATIVE), LLAMA, DRAFT, pinned=pins)
    assert [volume["name"] for volume in pod(workload)["volumes"] if "node-model" in volume["name"]] == ["node-model"]
    assert [mounts(loader)[KEPT.path] for loader in loaders(workload)] == ["node-model", "node-model"]


@pytest.mark.parametrize(
    ("envs", "path"),
    [
        pytest.param([], "/etc/modelswarm/ca/ca.crt", id="the company's"),
        pytest.param([{"name": "SSL_CERT_FILE", "value": "/mine"}], "/mine", id="the user's own come first"),
    ],
)
def test_loaders_believe_the_companys_authorities(envs: list[dict[str, str]], path: str) -> None:
    told = OperatorPart("loader", loader_ca="company/ca.crt")
    workload = render(playground(SPECULATIVE, envs=envs), LLAMA, DRAFT, operator=told)
    items = [{"key": "ca.crt", "path": "ca.crt"}]
    volume = {"name": "ca-bundle", "configMap": {"name": "company", "optional": True, "items": items}}
    assert [each for each in pod(workload)["volumes"] if each["name"] == "ca-bundle"] == [volume]
    for loader in loaders(workload):
        assert [each["value"] for each in loader["env"] if each["name"] == "SSL_CERT_FILE"] == [path]
        assert mounts(loader)["/etc/modelswarm/ca"] == "ca-bundle"
    assert "/etc/modelswarm/ca" not in mounts(runner(workload))
    assert "ca-bundle" not in str(render(playground(skip=True), LLAMA, operator=told).deployment)


@pytest.mark.parametrize(
    ("pin", "asks"),
    [
        pytest.param(PinnedModel("c0ffee", (), node=KEPT, spread=True), True, id="agents bring it"),
        pytest.param(PinnedModel("c0ffee", (), spread=True), True, id="Dragonfly brings it"),
        pytest.param(PinnedModel(None, (), spread=True), True, id="it would be brought, were it known what it is"),
        pytest.param(PinnedModel("c0ffee", ()), False, id="everybody reads the origin, by choice"),
        pytest.param(None, False, id="nothing is distributed"),
    ],
)
def test_whoever_reads_the_origin_in_an_engines_place_waits_for_its_turn(pin: PinnedModel | None, asks: bool) -> None:
    told = OperatorPart("loader", turnstile_url="http://turnstile:8082")
    [loader] = loaders(render_workload(playground(), runtime(), [LLAMA], told, [pin]))
    assert env(loader).get("MODELSWARM_ORIGIN_TURNSTILE") == ("http://turnstile:8082" if asks else None)


def test_nothing_of_the_node_is_mounted_without_a_loader() -> None:
    workload = render(playground(skip=True), LLAMA, pinned=[PinnedModel("c0ffee", (), node=KEPT)])
    assert "node-model" not in str(workload.deployment)
    assert "modelswarm.io/contents" not in str(workload.deployment)
    assert "affinity" not in pod(workload)
