"""The template hash moves with everything that the user decides about the pod, and with nothing else."""

from typing import Any

import pytest

from modelswarm.api.backendruntime import BackendRuntime
from modelswarm.api.openmodel import OpenModel
from modelswarm.api.playground import Playground
from modelswarm.workload.pod import PinnedModel
from modelswarm.workload.render import OperatorPart, render_workload
from tests.unit.workload.objects import OPERATOR, runtime

PLAYGROUND: dict[str, Any] = {
    "metadata": {"name": "p", "namespace": "default", "annotations": {}, "labels": {}},
    "spec": {
        "replicas": 1,
        "modelClaims": {"models": [{"name": "m"}], "inferenceFlavors": ["a"]},
        "backendRuntimeConfig": {"backendName": "fake-backend", "args": ["-a"]},
    },
}
MODEL: dict[str, Any] = {
    "metadata": {"name": "m"},
    "spec": {
        "familyName": "f",
        "source": {"modelHub": {"modelID": "a/b"}},
        "inferenceConfig": {
            "flavors": [{"name": "a", "limits": {"gpu": 1}}, {"name": "b", "limits": {"gpu": 2}, "params": {"TP": "2"}}]
        },
    },
}


BACKEND = runtime("fake-backend").model_dump(mode="json", by_alias=True)
UNUSED = {"name": "new", "args": ["-n"]}


def merged(base: Any, change: Any) -> Any:
    if isinstance(base, dict) and isinstance(change, dict):
        return {**base, **{key: merged(base.get(key), value) for key, value in change.items()}}
    return change


def hashed(
    play: dict[str, Any] | None = None,
    model: dict[str, Any] | None = None,
    backend: dict[str, Any] | None = None,
    operator: OperatorPart = OPERATOR,
    pin: PinnedModel | None = None,
) -> tuple[str, Any]:
    """The hash and the template, with changes merged into the three objects."""
    workload = render_workload(
        Playground.model_validate(merged(PLAYGROUND, play or {})),
        BackendRuntime.model_validate(merged(BACKEND, {"spec": backend or {}})),
        [OpenModel.model_validate(merged(MODEL, model or {}))],
        operator,
        [pin],
    )
    spec: Any = workload.deployment["spec"]
    return workload.template_hash, spec["template"]


def config(**fields: Any) -> dict[str, Any]:
    return {"spec": {"backendRuntimeConfig": fields}}


PROBE = {"httpGet": {"path": "/live", "port": 8080}}


@pytest.mark.parametrize(
    "change",
    [
        pytest.param({"play": config(version="v2")}, id="version"),
        pytest.param({"play": config(args=["-b"])}, id="arguments"),
        pytest.param({"play": config(envs=[{"name": "A", "value": "1"}])}, id="environment"),
        pytest.param({"play": config(resources={"limits": {"cpu": 9}})}, id="resources"),
        pytest.param({"play": config(sharedMemorySize="9Gi")}, id="shared memory"),
        pytest.param({"play": config(configName="fuz")}, id="configuration"),
        pytest.param({"play": {"metadata": {"annotations": {"llmaz.io/skip-model-loader": "true"}}}}, id="skip"),
        pytest.param({"play": {"spec": {"modelClaims": {"inferenceFlavors": ["b"]}}}}, id="flavor"),
        pytest.param({"play": {"spec": {"modelClaims": {"inferenceFlavors": ["a", "b"]}}}}, id="further flavors"),
        pytest.param({"model": {"spec": {"familyName": "g"}}}, id="family"),
        pytest.param({"model": {"spec": {"source": {"modelHub": {"revision": "v2"}}}}}, id="revision"),
        pytest.param({"model": {"spec": {"source": {"modelHub": {"modelID": "a/c"}}}}}, id="repository"),
        pytest.param({"model": {"spec": {"source": {"modelHub": {"ignorePatterns": ["*.bin"]}}}}}, id="patterns"),
        pytest.param({"model": {"spec": {"source": {"modelHub": None, "uri": "s3://b/c"}}}}, id="URI"),
        pytest.param(
            {"model": {"spec": {"inferenceConfig": {"flavors": [{"name": "a", "limits": {"gpu": 4}}]}}}}, id="limits"
        ),
        pytest.param({"backend": {"image": "other"}}, id="image"),
        pytest.param({"backend": {"version": "v9"}}, id="the runtime's version"),
        pytest.param({"backend": {"command": ["other"]}}, id="command"),
        pytest.param({"backend": {"envs": [{"name": "A", "value": "1"}]}}, id="the runtime's environment"),
        pytest.param({"backend": {"lifecycle": None}}, id="lifecycle"),
        pytest.param({"backend": {"livenessProbe": PROBE}}, id="liveness probe"),
        pytest.param({"backend": {"readinessProbe": PROBE}}, id="readiness probe"),
        pytest.param({"backend": {"startupProbe": PROBE}}, id="startup probe"),
        pytest.param(
            {"backend": {"recommendedConfigs": [{"name": "default", "args": ["-x"]}]}}, id="the configuration's"
        ),
    ],
)
def test_what_the_user_changes_in_the_pod_changes_the_hash(change: dict[str, Any]) -> None:
    before, template = hashed()
    after, changed = hashed(**change)
    assert changed != template
    assert after != before


@pytest.mark.parametrize(
    "change",
    [
        pytest.param({"play": {"spec": {"replicas": 5}}}, id="replicas"),
        pytest.param({"play": {"spec": {"elasticConfig": {"maxReplicas": 3}}}}, id="elasticConfig"),
        pytest.param({"play": {"metadata": {"labels": {"a": "b"}}}}, id="a label of the Playground"),
        pytest.param({"play": {"metadata": {"annotations": {"modelswarm.io/gate-timeout": "5m"}}}}, id="an annotation"),
        pytest.param({"play": config(configName="default")}, id="naming what is chosen anyway"),
        pytest.param({"play": config(version="latest")}, id="naming the version that is chosen anyway"),
        pytest.param({"model": {"metadata": {"labels": {"a": "b"}}}}, id="a label of the OpenModel"),
        pytest.param({"model": {"spec": {"ownedBy": "me"}}}, id="the OpenModel's owner"),
        pytest.param({"model": {"spec": {"source": {"modelHub": {"revision": "main"}}}}}, id="naming a default"),
        pytest.param({"operator": OperatorPart("other-loader", "scheduler", 9)}, id="everything of the operator's"),
        pytest.param(
            {"operator": OperatorPart("loader", dragonfly_socket="/run/d/d.sock", dragonfly_tag="t")},
            id="the nodes' dfdaemon",
        ),
        pytest.param({"pin": PinnedModel("c0ffee", ("manifest",))}, id="the commit, known or not"),
        pytest.param(
            {"backend": {"recommendedConfigs": [*BACKEND["spec"]["recommendedConfigs"], UNUSED]}},
            id="a configuration that is not used",
        ),
    ],
)
def test_what_is_not_the_users_or_not_the_pods_leaves_the_hash_alone(change: dict[str, Any]) -> None:
    assert hashed(**change)[0] == hashed()[0]


def test_the_hash_is_the_same_in_every_version() -> None:
    """Another value here means that an upgrade of the operator would roll every Deployment there is."""
    assert hashed()[0] == "1dae32084b7638d2"
