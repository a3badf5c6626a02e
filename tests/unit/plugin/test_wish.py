"""What prefetch understands, and the task that it makes."""

from typing import Any

import pytest

from modelswarm.api.p2ptask import Engine, P2PTask
from modelswarm.errors import CommandError
from modelswarm.plugin.wish import Wish, copies_of, kind_of, selector_of, task_for


@pytest.mark.parametrize(
    ("text", "kind"),
    [
        pytest.param("Qwen/Qwen2-0.5B", "model", id="organisation and name"),
        pytest.param("gpt2", "model", id="one word"),
        pytest.param("org/name@v1", "model", id="with a revision"),
        pytest.param("s3://bucket/path", "model", id="an object store"),
        pytest.param("modelscope://org/name", "model", id="another hub"),
        pytest.param("vllm/vllm-openai:v0.7.3", "image", id="with a tag"),
        pytest.param("docker.io/vllm/vllm-openai", "image", id="with a registry"),
        pytest.param("ghcr.io/engine", "image", id="a registry and one word"),
        pytest.param("localhost/engine", "image", id="this machine's registry"),
        pytest.param("engine@sha256:" + "a" * 64, "image", id="with a digest"),
    ],
)
def test_models_and_images_are_told_apart(text: str, kind: str) -> None:
    assert kind_of(text) == kind


@pytest.mark.parametrize(
    ("wish", "spec"),
    [
        pytest.param(
            Wish("org/name@v1"),
            {"model": {"source": {"modelHub": {"name": "Huggingface", "modelID": "org/name", "revision": "v1"}}}},
            id="a model at a revision",
        ),
        pytest.param(
            Wish("modelscope://org/name", revision="v2"),
            {"model": {"source": {"modelHub": {"name": "ModelScope", "modelID": "org/name", "revision": "v2"}}}},
            id="a model of ModelScope",
        ),
        pytest.param(Wish("s3://b/p"), {"model": {"source": {"uri": "s3://b/p"}}}, id="a model of an object store"),
        pytest.param(
            Wish("org/engine:v1", secret="regcred"),
            {"image": {"reference": "org/engine:v1", "pullSecrets": [{"name": "regcred"}]}},
            id="an image with a pull secret",
        ),
        pytest.param(
            Wish("org/name", selector=(("pool", "gpu"),), engine=Engine.BITTORRENT, pin=True, secret="s"),
            {
                "model": {"source": {"modelHub": {"name": "Huggingface", "modelID": "org/name", "revision": "main"}}},
                "credentialsSecretRef": {"name": "s"},
                "engine": "BitTorrent",
                "pin": True,
                "placement": {"copies": "All", "minReady": 1, "nodeSelector": {"pool": "gpu"}},
            },
            id="to all nodes of a selector, pinned",
        ),
        pytest.param(Wish("org/engine", kind="image"), {"image": {"reference": "org/engine"}}, id="as an image"),
    ],
)
def test_the_task(wish: Wish, spec: dict[str, Any]) -> None:
    made = task_for(wish, "ns")
    assert made["spec"] == {"placement": {"copies": 2, "minReady": 1}, **spec}
    task = P2PTask.model_validate(made)
    assert (task.metadata.namespace, len(task.metadata.name) <= 63) == ("ns", True)


def test_equal_wishes_have_equal_names_and_others_have_not() -> None:
    def name(wish: Wish) -> str:
        return P2PTask.model_validate(task_for(wish, "ns")).metadata.name

    assert name(Wish("org/Name_1.5")) == name(Wish("org/Name_1.5"))
    assert name(Wish("org/Name_1.5")).startswith("prefetch-name-1-5-")
    assert name(Wish("org/Name_1.5")) != name(Wish("org/Name_1.5", copies=3))


@pytest.mark.parametrize(
    ("wish", "saying"),
    [
        pytest.param(Wish("a b"), "is not a model id", id="no model id"),
        pytest.param(Wish("ollama://x"), "nothing to bring", id="the engine pulls by itself"),
        pytest.param(Wish("org/engine:v1", revision="x"), "--revision", id="an image has no revision"),
        pytest.param(Wish("s3://b/p", revision="x"), "--revision", id="nor has an object store"),
        pytest.param(Wish("Org/Engine:v1"), "must be lower case", id="no image"),
    ],
)
def test_what_names_nothing_is_a_wrong_argument(wish: Wish, saying: str) -> None:
    with pytest.raises(CommandError, match=saying) as raised:
        task_for(wish, "ns")
    assert raised.value.code == 2


def test_selectors_and_copies() -> None:
    assert selector_of("b=2, a=1,") == (("a", "1"), ("b", "2"))
    assert selector_of("a==1") == (("a", "1"),)
    assert (copies_of("3"), copies_of("all")) == (3, "All")
    for text in ("a", "=1", "a!=1"):
        with pytest.raises(CommandError):
            selector_of(text)
    for text in ("0", "-1", "many", "²"):
        with pytest.raises(CommandError):
            copies_of(text)
