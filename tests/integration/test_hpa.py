"""Scaling: llmaz's three autoscaler cases, ``kubectl scale``, and what becomes of the autoscaler."""

import json

import pytest

from tests.integration.support import Manifest, Scene, eventually
from tests.integration.test_playground import cpu_metric, fake_backend

ELASTIC = {"minReplicas": 1, "maxReplicas": 3}
OWN_TRIGGER = {"hpa": {"metrics": [cpu_metric(50)], "behavior": {"scaleDown": {"stabilizationWindowSeconds": 7}}}}


@pytest.mark.parametrize(
    ("with_fake_backend", "elastic", "percent"),
    [
        pytest.param(False, {**ELASTIC, "scaleTrigger": OWN_TRIGGER}, 50, id="trigger of the Playground"),
        pytest.param(True, ELASTIC, 20, id="trigger of the BackendRuntime"),
        pytest.param(True, {**ELASTIC, "scaleTrigger": OWN_TRIGGER}, 50, id="the Playground's trigger wins"),
    ],
)
def test_autoscaler_scales_the_playground(
    scene: Scene, with_fake_backend: bool, elastic: Manifest, percent: int
) -> None:
    model = scene.model()
    config: Manifest = {"backendName": fake_backend(scene)} if with_fake_backend else {}
    scene.playground("pg", model, elasticConfig=elastic, **config)
    hpa = eventually(lambda: scene.find("HorizontalPodAutoscaler", "pg"))
    target = {"apiVersion": "inference.llmaz.io/v1alpha1", "kind": "Playground", "name": "pg"}
    assert hpa["spec"]["scaleTargetRef"] == target
    assert (hpa["spec"]["minReplicas"], hpa["spec"]["maxReplicas"]) == (1, 3)
    assert hpa["spec"]["metrics"] == [cpu_metric(percent)]
    if "scaleTrigger" in elastic:
        assert hpa["spec"]["behavior"]["scaleDown"]["stabilizationWindowSeconds"] == 7
    assert hpa["metadata"]["ownerReferences"][0]["name"] == "pg"


def test_the_autoscaler_follows_changes_and_goes_with_its_elastic_config(scene: Scene) -> None:
    model = scene.model()
    elastic = {**ELASTIC, "scaleTrigger": OWN_TRIGGER}
    scene.playground("pg", model, elasticConfig=elastic)
    eventually(lambda: scene.find("HorizontalPodAutoscaler", "pg"))
    scene.playground("pg", model, elasticConfig={**elastic, "maxReplicas": 5})
    eventually(lambda: scene.get("HorizontalPodAutoscaler", "pg")["spec"]["maxReplicas"] == 5)
    scene.delete("HorizontalPodAutoscaler", "pg")
    eventually(lambda: scene.find("HorizontalPodAutoscaler", "pg"))
    scene.playground("pg", model)
    eventually(lambda: scene.find("HorizontalPodAutoscaler", "pg") is None)


def test_kubectl_scale_reaches_the_deployment_and_leaves_the_template_alone(scene: Scene) -> None:
    model = scene.model()
    scene.playground("pg", model)
    scene.make_ready("pg")
    template = scene.pod_template("pg")
    scene.kubectl("scale", "playground", "pg", "--replicas=3")
    eventually(lambda: scene.deployment("pg")["spec"]["replicas"] == 3)
    scene.make_ready("pg")
    eventually(lambda: scene.get("Playground", "pg")["status"]["replicas"] == 3)
    assert scene.pod_template("pg") == template
    scene.kubectl("scale", "playground", "pg", "--replicas=0")
    eventually(lambda: scene.get("Playground", "pg")["status"]["replicas"] == 0)
    scene.has("Playground", "pg", "Available", "True", "PlaygroundReady")


def test_the_scale_subresource_tells_an_autoscaler_how_many_pods_there_are_and_which(scene: Scene) -> None:
    model = scene.model()
    scene.playground("pg", model, replicas=2)
    scene.make_ready("pg")

    def scale() -> Manifest:
        path = f"/apis/inference.llmaz.io/v1alpha1/namespaces/{scene.namespace}/playgrounds/pg/scale"
        answer: Manifest = json.loads(scene.kubectl("get", "--raw", path))
        assert answer["status"].get("replicas") == 2
        return answer

    found = eventually(scale)
    assert found["spec"]["replicas"] == 2
    assert len(scene.api.all("Pod", scene.namespace, labels=found["status"]["selector"])) == 2


def test_replicas_that_an_autoscaler_set_survive_the_users_next_apply(scene: Scene) -> None:
    model = scene.model()
    elastic = {**ELASTIC, "scaleTrigger": OWN_TRIGGER}
    scene.playground("pg", model, elasticConfig=elastic)
    scene.deployment("pg")
    scene.kubectl("scale", "playground", "pg", "--replicas=2")
    eventually(lambda: scene.deployment("pg")["spec"]["replicas"] == 2)
    # The user's file does not name replicas, so applying it again does not take them back.
    scene.playground("pg", model, elasticConfig=elastic, args=["--new"])
    eventually(lambda: "--new" in scene.pod_template("pg")["spec"]["containers"][0]["args"])
    assert scene.deployment("pg")["spec"]["replicas"] == 2
