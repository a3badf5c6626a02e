from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from modelswarm.api.openmodel import HubName
from modelswarm.content.source import HubSource, StoreSource, parse_uri
from modelswarm.workload.environment import credential_envs, loader_envs, merge_envs, with_credentials

HUB = HubSource(HubName.HUGGINGFACE, "meta-llama/Meta-Llama-3-8B")
HUB_TOKENS = ["HUGGING_FACE_HUB_TOKEN", "HF_TOKEN"]


def var(name: str, value: str = "x") -> dict[str, Any]:
    return {"name": name, "value": value}


def names(envs: Any) -> list[str]:
    return [each["name"] for each in envs]


@pytest.mark.parametrize(
    ("base", "own", "merged"),
    [
        pytest.param([], [], [], id="nothing"),
        pytest.param([var("A"), var("B")], [], [var("A"), var("B")], id="the runtime's alone"),
        pytest.param([var("A"), var("B")], [var("A", "y")], [var("A", "y"), var("B")], id="replaced in its place"),
        pytest.param([var("A")], [var("C"), var("B")], [var("A"), var("C"), var("B")], id="new names last, in order"),
        pytest.param([], [var("A", "1"), var("A", "2")], [var("A", "2")], id="the last of two with one name"),
    ],
)
def test_envs_merge(base: list[Any], own: list[Any], merged: list[Any]) -> None:
    assert list(merge_envs(base, own)) == merged


variables = st.lists(st.builds(var, st.sampled_from("ABCDEF"), st.sampled_from("123")))


@given(variables, variables)
def test_a_merge_is_idempotent_ordered_and_without_duplicates(base: list[Any], own: list[Any]) -> None:
    merged = merge_envs(base, own)
    assert len(set(names(merged))) == len(merged)
    assert merge_envs(merged, own) == merged
    assert merge_envs(merged) == merged
    assert names(merged) == list(dict.fromkeys(names(base) + names(own)))
    assert {each["name"]: each["value"] for each in merged} == {each["name"]: each["value"] for each in base + own}


@pytest.mark.parametrize(
    ("uri", "expected"),
    [
        pytest.param("oss://b.endpoint/path", ["OSS_ACCESS_KEY_ID", "OSS_ACCESS_KEY_SECRET"], id="OSS"),
        pytest.param("s3://bucket/path", ["AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"], id="S3"),
        pytest.param("gcs://bucket/path", ["AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"], id="GCS"),
        pytest.param("ollama://qwen2:0.5b", [], id="ollama pulls by itself"),
        pytest.param("host:///models", [], id="a host directory needs none"),
    ],
)
def test_credentials_follow_from_the_source(uri: str, expected: list[str]) -> None:
    found = credential_envs(parse_uri(uri))
    assert names(found) == expected
    for each in found:
        reference: Any = each["valueFrom"]
        assert reference["secretKeyRef"]["optional"] is True
        assert reference["secretKeyRef"]["key"] == each["name"]


def test_a_hub_takes_both_names_of_the_token_from_one_key() -> None:
    reference = {"secretKeyRef": {"name": "modelhub-secret", "key": "HF_TOKEN", "optional": True}}
    assert credential_envs(HUB) == tuple({"name": name, "valueFrom": reference} for name in HUB_TOKENS)


def test_a_model_of_modelscope_comes_with_modelscopes_own_token_too() -> None:
    source = HubSource(HubName.MODELSCOPE, "a/b", "v1")
    reference = {"secretKeyRef": {"name": "modelhub-secret", "key": "MODELSCOPE_API_TOKEN", "optional": True}}
    assert credential_envs(source) == (
        *credential_envs(HUB),
        {"name": "MODELSCOPE_API_TOKEN", "valueFrom": reference},
    )
    mine = [var("MODELSCOPE_API_TOKEN", "mine")]
    for envs in (with_credentials(mine, source), loader_envs(source, mine, revision=None, manifest=False)):
        assert [env for env in envs if env["name"] == "MODELSCOPE_API_TOKEN"] == mine


@pytest.mark.parametrize("name", HUB_TOKENS)
def test_an_explicit_hub_token_stands_for_both_names(name: str) -> None:
    found = with_credentials([var("FOO"), var(name, "mine")], HUB)
    assert names(found) == ["FOO", name, *(other for other in HUB_TOKENS if other != name)]
    assert [each["value"] for each in found[1:]] == ["mine", "mine"]


def test_two_explicit_hub_tokens_stay_as_they_are() -> None:
    explicit = [var("HF_TOKEN", "a"), var("HUGGING_FACE_HUB_TOKEN", "b")]
    assert list(with_credentials(explicit, HUB)) == explicit


@pytest.mark.parametrize(
    ("source", "expected"),
    [
        pytest.param(
            HUB,
            f"MODEL_SOURCE_TYPE=modelhub MODEL_ID={HUB.model_id} MODEL_HUB_NAME=Huggingface REVISION=main",
            id="a hub",
        ),
        pytest.param(
            HubSource(HubName.HUGGINGFACE, "a/b", "v1", filename="w.gguf"),
            "MODEL_SOURCE_TYPE=modelhub MODEL_ID=a/b MODEL_HUB_NAME=Huggingface MODEL_FILENAME=w.gguf REVISION=v1",
            id="a file of a hub",
        ),
        pytest.param(
            HubSource(HubName.MODELSCOPE, "a/b", "v1", allow_patterns=("*.json", "*.bin"), ignore_patterns=("x",)),
            "MODEL_SOURCE_TYPE=modelhub MODEL_ID=a/b MODEL_HUB_NAME=ModelScope REVISION=v1 "
            "MODEL_ALLOW_PATTERNS=*.json,*.bin MODEL_IGNORE_PATTERNS=x",
            id="patterns",
        ),
        pytest.param(
            parse_uri("oss://bucket.endpoint/modelPath/subPath"),
            "MODEL_SOURCE_TYPE=objstore PROVIDER=OSS ENDPOINT=endpoint BUCKET=bucket MODEL_PATH=modelPath/subPath",
            id="OSS",
        ),
        pytest.param(
            parse_uri("s3://bucket/path"),
            "MODEL_SOURCE_TYPE=objstore PROVIDER=S3 BUCKET=bucket MODEL_PATH=path",
            id="S3, which llmaz gives no environment at all",
        ),
    ],
)
def test_the_loader_is_told_which_model_it_loads(source: HubSource | StoreSource, expected: str) -> None:
    found = loader_envs(source, [var("HTTP_PROXY", "http://proxy:1")], revision=None, manifest=False)
    plain = [each for each in found if "value" in each]
    assert " ".join(f"{each['name']}={each['value']}" for each in plain) == f"HTTP_PROXY=http://proxy:1 {expected}"
    assert names(found[len(plain) :]) == names(credential_envs(source))
    assert all(type(each["value"]) is str for each in plain)


def test_the_loader_gets_the_pinned_commit() -> None:
    found = loader_envs(HUB, [], revision="7ae557604adf67be50417f59c2c2f167def9a775", manifest=False)
    assert var("REVISION", "7ae557604adf67be50417f59c2c2f167def9a775") in found


def test_an_engine_variable_does_not_change_what_the_loader_loads() -> None:
    engine = [
        var("MODEL_ID", "other/model"),
        var("REVISION", "dev"),
        var("BUCKET", "b"),
        var("HF_ENDPOINT", "http://m"),
    ]
    found = loader_envs(HUB, engine, revision=None, manifest=True)
    assert [each["value"] for each in found if each["name"] == "MODEL_ID"] == [HUB.model_id]
    assert [each["value"] for each in found if each["name"] == "REVISION"] == ["main"]
    assert "BUCKET" not in names(found)
    assert names(found)[0] == "HF_ENDPOINT"
    assert found[-1] == var("MODELSWARM_MANIFEST_DIR", "/etc/modelswarm/manifest")


anything = st.lists(
    st.builds(
        var,
        st.sampled_from(
            ["HF_TOKEN", "HUGGING_FACE_HUB_TOKEN", "MODEL_ID", "OSS_ACCESS_KEY_ID", "FOO", "MODELSWARM_MANIFEST_DIR"]
        ),
        st.just("explicit"),
    ),
    unique_by=lambda each: each["name"],
)
sources = st.sampled_from([HUB, parse_uri("oss://b.e/p"), parse_uri("s3://b/p")])


@given(sources, anything, st.booleans())
def test_the_loader_never_has_a_variable_twice_and_explicit_credentials_win(
    source: Any, engine: list[Any], manifest: bool
) -> None:
    found = loader_envs(source, engine, revision=None, manifest=manifest)
    assert len(set(names(found))) == len(found)
    values = {each["name"]: each.get("value") for each in found}
    for each in engine:
        if each["name"] not in ("MODEL_ID", "MODELSWARM_MANIFEST_DIR"):
            assert values[each["name"]] == "explicit"
