"""A task is named after what is meant; what is written in it cannot change."""

from typing import Any

import pytest

from modelswarm.workload.tasks import (
    image_task,
    image_task_name,
    model_task,
    model_task_name,
    private_task_name,
    respelled,
)
from tests.unit.workload.objects import hub, model, playground


def of_model(source: dict[str, Any], **placed: Any) -> Any:
    return model_task(model("m", source), namespace="llmaz-system", **placed)


def of_hub(**fields: Any) -> dict[str, Any]:
    return {"modelHub": {"modelID": "a/b", **fields}}


@pytest.mark.parametrize(
    ("written", "again"),
    [
        pytest.param({"uri": "s3://b/p"}, {"uri": "s3://b/p/"}, id="a slash at the end"),
        pytest.param({"uri": "s3://b/p"}, {"uri": "S3://b/p"}, id="the scheme in upper case"),
        pytest.param(of_hub(revision=""), of_hub(revision="main"), id="the default revision, named"),
        pytest.param(of_hub(), of_hub(filename=""), id="an empty file name"),
        pytest.param(of_hub(), {**of_hub(), "uri": "s3://b/p"}, id="a URI that the hub overrules"),
    ],
)
def test_another_spelling_of_a_source_leaves_what_the_task_says(written: dict[str, Any], again: dict[str, Any]) -> None:
    live, wanted = of_model(written), of_model(again, placement_copies=5)
    assert wanted["metadata"]["name"] == live["metadata"]["name"]
    kept: Any = respelled(wanted, live)
    assert kept["spec"]["model"] == live["spec"]["model"]
    assert kept["spec"]["placement"]["copies"] == 5, "the rest follows"


@pytest.mark.parametrize(
    ("written", "again"),
    [
        pytest.param(of_hub(), of_hub(revision="v2"), id="another revision"),
        pytest.param(of_hub(), {"uri": "s3://b/p"}, id="another origin"),
        pytest.param({"uri": "ftp://b/p"}, {"uri": "s3://b/p"}, id="the task's source cannot be read"),
    ],
)
def test_another_source_is_not_taken_for_a_spelling(written: dict[str, Any], again: dict[str, Any]) -> None:
    wanted = of_model(again)
    assert respelled(wanted, {**wanted, "spec": {"model": {"source": written}}}) == wanted


@pytest.mark.parametrize(
    ("written", "again"),
    [
        pytest.param("vllm/x:v1", "docker.io/vllm/x:v1", id="the registry, named"),
        pytest.param("docker.io/library/busybox:v1", "busybox:v1", id="everything left out that can be"),
    ],
)
def test_another_spelling_of_an_image_leaves_what_the_task_says(written: str, again: str) -> None:
    live, wanted = image_task(playground(), written), image_task(playground(), again, pull_secrets=["regcred"])
    assert image_task_name(playground(), written) == image_task_name(playground(), again)
    kept: Any = respelled(wanted, live)
    assert kept["spec"]["image"] == {"reference": written, "pullSecrets": [{"name": "regcred"}]}


def test_another_image_is_not_taken_for_a_spelling() -> None:
    wanted = image_task(playground(), "vllm/x:v2")
    assert respelled(wanted, image_task(playground(), "vllm/x:v1")) == wanted


def test_a_private_task_is_named_after_playground_and_source_however_long_the_model_id_is() -> None:
    long = {"model_id": "organisation/" + "a" * 64}
    names = {
        private_task_name(hub(name, revision=f"v{number}", **long), playground(name=for_whom))
        for number in range(32)
        for name in ("m", "n")
        for for_whom in ("a", "b")
    }
    assert len(names) == 32 * 2 * 2
    assert all(len(name) <= 63 for name in names)
    assert private_task_name(hub("m"), playground(name="a")) != model_task_name(hub("m"))
