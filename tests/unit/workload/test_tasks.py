import re
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from modelswarm.api.openmodel import OpenModel
from modelswarm.api.p2ptask import P2PTask
from modelswarm.errors import InvalidReference
from modelswarm.workload.tasks import (
    common_node_selector,
    image_task,
    image_task_name,
    model_task,
    model_task_name,
    wanted_copies,
)
from tests.unit.workload.objects import hub, model, playground, uri

LABEL = re.compile(r"[a-z]([a-z0-9-]{0,61}[a-z0-9])?")


def flavored(*selectors: dict[str, str] | None) -> OpenModel:
    flavors = [{"name": f"f{index}", "nodeSelector": selector} for index, selector in enumerate(selectors)]
    return model("m", {"modelHub": {"modelID": "a/b"}}, flavors=flavors)


def test_a_model_task_says_what_and_where_and_for_whom() -> None:
    task = model_task(hub("qwen2", model_id="Qwen/Qwen2-0.5B-Instruct"), namespace="llmaz-system")
    assert task == {
        "apiVersion": "llmaz.io/v1alpha1",
        "kind": "P2PTask",
        "metadata": {
            "name": model_task_name(hub("qwen2", model_id="Qwen/Qwen2-0.5B-Instruct")),
            "namespace": "llmaz-system",
            "labels": {"app.kubernetes.io/managed-by": "modelswarm", "llmaz.io/model-name": "qwen2"},
            "ownerReferences": [
                {
                    "apiVersion": "llmaz.io/v1alpha1",
                    "kind": "OpenModel",
                    "name": "qwen2",
                    "uid": "model-uid",
                    "controller": True,
                    "blockOwnerDeletion": True,
                }
            ],
        },
        "spec": {
            "model": {
                "source": {
                    "modelHub": {"name": "Huggingface", "modelID": "Qwen/Qwen2-0.5B-Instruct", "revision": "main"}
                }
            },
            "placement": {"copies": 2, "minReady": 1},
        },
    }
    assert P2PTask.model_validate(task).spec.model is not None


def test_credentials_copies_and_node_labels_go_into_the_model_task() -> None:
    task: Any = model_task(
        flavored({"zone": "a"}), namespace="x", credentials_secret="modelhub-secret", placement_copies="All"
    )
    assert task["spec"]["credentialsSecretRef"] == {"name": "modelhub-secret"}
    assert task["spec"]["placement"] == {"nodeSelector": {"zone": "a"}, "copies": "All", "minReady": 1}


@pytest.mark.parametrize("source", ["ollama://qwen2:0.5b", "host:///mnt/m"])
def test_a_source_with_nothing_to_distribute_has_no_task(source: str) -> None:
    assert model_task(uri("m", source), namespace="x") is None


def test_an_unreadable_source_is_an_error() -> None:
    with pytest.raises(InvalidReference):
        model_task(uri("m", "ftp://x/y"), namespace="x")


def test_a_uri_that_the_hub_overrules_is_not_in_the_task() -> None:
    both = model("m", {"uri": "s3://b/c", "modelHub": {"modelID": "a/b"}})
    task: Any = model_task(both, namespace="x")
    assert list(task["spec"]["model"]["source"]) == ["modelHub"]


@pytest.mark.parametrize(
    ("selectors", "common"),
    [
        pytest.param([], {}, id="no flavor"),
        pytest.param([{"gpu": "a10"}], {"gpu": "a10"}, id="one flavor"),
        pytest.param([{"gpu": "a10", "zone": "a"}, {"gpu": "t4", "zone": "a"}], {"zone": "a"}, id="what all share"),
        pytest.param([{"gpu": "a10"}, None], {}, id="a flavor for any node"),
    ],
)
def test_a_model_goes_where_any_of_its_flavors_may_run(selectors: list[Any], common: dict[str, str]) -> None:
    assert common_node_selector(flavored(*selectors)) == common


def test_names_are_readable_and_differ_by_source_and_by_owner() -> None:
    name = model_task_name(hub("a", model_id="Qwen/Qwen2-0.5B-Instruct"))
    assert re.fullmatch("model-qwen2-0-5b-instruct-[0-9a-f]{8}", name)
    assert name == model_task_name(hub("a", model_id="Qwen/Qwen2-0.5B-Instruct", revision="main"))
    assert name != model_task_name(hub("b", model_id="Qwen/Qwen2-0.5B-Instruct"))
    assert name != model_task_name(hub("a", model_id="Qwen/Qwen2-0.5B-Instruct", revision="v2"))


def test_an_image_task_is_the_playgrounds() -> None:
    task: Any = image_task(playground(), "vllm/vllm-openai:v0.7.3", platforms=["linux/amd64"], pull_secrets=["regcred"])
    assert re.fullmatch("image-vllm-openai-v0-7-3-[0-9a-f]{8}", task["metadata"]["name"])
    assert task["metadata"]["namespace"] == "default"
    assert task["metadata"]["labels"]["llmaz.io/playground"] == "playground-llama3-8b"
    assert task["spec"] == {
        "image": {
            "reference": "vllm/vllm-openai:v0.7.3",
            "platforms": ["linux/amd64"],
            "pullSecrets": [{"name": "regcred"}],
        }
    }
    assert P2PTask.model_validate(task).spec.image is not None


def test_two_playgrounds_have_two_tasks_for_one_image_and_one_for_two_spellings_of_it() -> None:
    assert image_task_name(playground(name="a"), "vllm:1") != image_task_name(playground(name="b"), "vllm:1")
    assert image_task_name(playground(), "vllm:1") == image_task_name(playground(), "docker.io/library/vllm:1")


def test_an_image_that_is_no_reference_has_a_task_that_can_say_so() -> None:
    task: Any = image_task(playground(), "vllm:not a tag")
    assert task["spec"]["image"]["reference"] == "vllm:not a tag"
    assert LABEL.fullmatch(task["metadata"]["name"])


def test_a_model_lies_on_as_many_nodes_as_its_largest_playground_may_have_pods() -> None:
    small, large = playground("m", replicas=3), playground("m", elastic={"maxReplicas": 8})
    assert wanted_copies("m", []) == 2
    assert wanted_copies("m", [small]) == 3
    assert wanted_copies("m", [small, large]) == 8
    assert wanted_copies("other", [large]) == 2
    assert wanted_copies("m", [playground("m", replicas=9, skip=True)]) == 2


def test_a_model_lies_on_one_node_where_that_is_wanted_and_no_playground_has_more_pods() -> None:
    assert wanted_copies("m", [], 1) == 1
    assert wanted_copies("m", [playground("m", replicas=1)], 1) == 1
    assert wanted_copies("m", [playground("m", replicas=3)], 1) == 3
    assert wanted_copies("m", [playground("m", replicas=3)], 5) == 5


words = st.from_regex(r"[A-Za-z0-9][A-Za-z0-9._-]{0,120}", fullmatch=True)


@given(words, words)
def test_names_of_tasks_are_dns_labels(word: str, owner: str) -> None:
    for name in (
        model_task_name(hub(owner, model_id=f"org/{word.replace('..', '.')}")),
        model_task_name(uri(owner, f"s3://bucket/x{word}")),
        image_task_name(playground(name=owner), f"registry.example/{word}:{word}"),
        image_task_name(playground(name=owner), "___"),
    ):
        assert len(name) <= 63
        assert LABEL.fullmatch(name)
