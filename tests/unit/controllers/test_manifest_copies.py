"""The lists of files that a Playground's pods mount are there as long as the Deployment mounts them."""

import base64
from typing import Any

import pytest

from modelswarm.api.meta import JsonObject
from modelswarm.controllers.playground import COPY_AGAIN_SECONDS
from modelswarm.kube.key import Key
from modelswarm.kube.kinds import CONFIGMAP
from tests.unit.controllers.stage import (
    KEY,
    PINNED,
    SYSTEM,
    deployment,
    finish,
    look,
    put_inputs,
    put_model_task,
)
from tests.unit.controllers.strict_kube import StrictKube
from tests.unit.workload.objects import hub, playground

MODEL = hub("m", model_id="a/b")
COPY = Key(KEY.namespace, "pg-manifest-" + "d" * 12)
DATA = {"manifest.json.gz": base64.b64encode(b"a list of files").decode()}
ORIGINAL: JsonObject = {
    "apiVersion": "v1",
    "kind": "ConfigMap",
    "metadata": {"name": "the-manifest", "namespace": SYSTEM},
    "binaryData": dict(DATA),
}


def copy_of(kube: StrictKube) -> Any:
    return kube.objects.get((CONFIGMAP, COPY))


def put_copy(kube: StrictKube, **owner: Any) -> None:
    reference = {**playground(name="pg").owner_reference(), **owner}
    labels: JsonObject = {"llmaz.io/playground": "pg", "app.kubernetes.io/managed-by": "modelswarm"}
    named: JsonObject = {
        "name": COPY.name,
        "namespace": COPY.namespace,
        "labels": labels,
        "ownerReferences": [reference],
    }
    kube.put({"apiVersion": "v1", "kind": "ConfigMap", "metadata": named, "binaryData": {"is": "old"}})


async def about_to_serve() -> StrictKube:
    """Everything is there but the Deployment."""
    kube = StrictKube()
    put_inputs(kube, MODEL)
    put_model_task(kube, MODEL, PINNED)
    kube.put(ORIGINAL)
    await look(kube)
    finish(kube)
    return kube


async def serving() -> StrictKube:
    kube = await about_to_serve()
    await look(kube)
    assert copy_of(kube)["binaryData"] == DATA
    return kube


async def test_a_copy_that_somebody_deleted_comes_back() -> None:
    kube = await serving()
    running = deployment(kube)
    kube.server.remove(CONFIGMAP, COPY.name, COPY.namespace)
    result = await look(kube)
    assert copy_of(kube)["binaryData"] == DATA
    assert (deployment(kube), result.requeue_after) == (running, None)


async def test_a_copy_whose_original_was_away_when_the_deployment_was_written_comes_later() -> None:
    kube = await about_to_serve()
    kube.server.remove(CONFIGMAP, "the-manifest", SYSTEM)
    result = await look(kube)
    assert deployment(kube) is not None
    assert copy_of(kube) is None
    assert result.requeue_after == COPY_AGAIN_SECONDS
    kube.put(ORIGINAL)
    result = await look(kube)
    assert copy_of(kube)["binaryData"] == DATA
    assert result.requeue_after is None


async def test_the_copy_of_a_deleted_playground_of_that_name_is_replaced_before_it_is_collected() -> None:
    kube = await about_to_serve()
    put_copy(kube, uid="of-the-predecessor")
    await look(kube)
    assert copy_of(kube)["metadata"]["ownerReferences"][0]["uid"] == "playground-uid"
    assert copy_of(kube)["binaryData"] == DATA


@pytest.mark.parametrize(
    "owner",
    [
        pytest.param({}, id="ours"),
        pytest.param({"kind": "Deployment", "name": "other"}, id="somebody else's"),
    ],
)
async def test_a_copy_that_is_there_is_left_alone(owner: dict[str, Any]) -> None:
    kube = await about_to_serve()
    put_copy(kube, **owner)
    before = copy_of(kube)
    await look(kube)
    await look(kube)
    assert copy_of(kube) == before


async def test_a_copy_that_the_deployment_does_not_mount_is_not_made() -> None:
    kube = await serving()
    template = deployment(kube)["spec"]["template"]["spec"]
    bare = {**template, "volumes": []}
    kube.put({**deployment(kube), "spec": {**deployment(kube)["spec"], "template": {"spec": bare}}})
    kube.server.remove(CONFIGMAP, COPY.name, COPY.namespace)
    await look(kube)
    assert copy_of(kube) is None
