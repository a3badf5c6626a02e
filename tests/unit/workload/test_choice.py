from typing import Any

import pytest

from modelswarm.errors import InvalidReference, RenderError, RenderReason
from modelswarm.workload.choice import choose_config, choose_flavor, serve_models
from tests.unit.workload.objects import hub, model, playground, runtime, uri

SPECULATIVE = (("llama3-8b", "main"), ("llama3-2b", "draft"))


@pytest.mark.parametrize(
    ("source", "skip", "path"),
    [
        pytest.param(
            {"modelHub": {"modelID": "facebook/opt-125m"}},
            False,
            "/workspace/models/models--facebook--opt-125m",
            id="hub",
        ),
        pytest.param({"modelHub": {"modelID": "facebook/opt-125m"}}, True, "facebook/opt-125m", id="hub, skipped"),
        pytest.param(
            {"modelHub": {"modelID": "a/b", "filename": "w.q5.gguf"}},
            False,
            "/workspace/models/w.q5.gguf",
            id="GGUF file",
        ),
        pytest.param(
            {"uri": "oss://bucket.endpoint/modelPath/subPath"}, False, "/workspace/models/models--subPath", id="OSS"
        ),
        pytest.param(
            {"uri": "oss://bucket.endpoint/modelPath/subPath"},
            True,
            "oss://bucket.endpoint/modelPath/subPath",
            id="OSS, skipped",
        ),
        pytest.param({"uri": "s3://bucket/a/weight.gguf"}, False, "/workspace/models/weight.gguf", id="GGUF object"),
        pytest.param({"uri": "s3://bucket/a/b"}, True, "s3://bucket/a/b", id="S3, skipped"),
        pytest.param({"uri": "host:///mnt/m"}, False, "/mnt/m", id="host"),
        pytest.param({"uri": "host:///mnt/m"}, True, "/mnt/m", id="host, skipped"),
        pytest.param({"uri": "ollama://qwen2:0.5b"}, False, "", id="ollama has no path"),
        pytest.param(
            {"uri": "s3://b/c", "modelHub": {"modelID": "a/b"}}, False, "/workspace/models/models--a--b", id="hub wins"
        ),
    ],
)
def test_the_engine_is_told_where_the_model_lies(source: dict[str, Any], skip: bool, path: str) -> None:
    [served] = serve_models(playground("m", skip=skip), [model("m", source)])
    assert served.path == path


def test_with_ollama_the_engine_is_told_the_engines_own_name() -> None:
    [served] = serve_models(playground("m"), [uri("m", "ollama://qwen2:0.5b")])
    assert served.engine_name == "qwen2:0.5b"


@pytest.mark.parametrize(
    ("claim", "config_name", "chosen"),
    [
        pytest.param("llama3-8b", None, "default", id="one model"),
        pytest.param((("llama3-8b", "main"),), None, "default", id="one model as a list"),
        pytest.param(SPECULATIVE, None, "speculative-decoding", id="a draft model"),
        pytest.param(SPECULATIVE, "fuz", "fuz", id="what is named wins"),
    ],
)
def test_the_configuration_is_chosen(claim: Any, config_name: str | None, chosen: str) -> None:
    config: dict[str, Any] = {"configName": config_name} if config_name else {}
    assert choose_config(playground(claim, **config), runtime("fake-backend")).name == chosen


@pytest.mark.parametrize(
    ("claim", "config", "fields", "words"),
    [
        pytest.param(
            "llama3-8b", {"configName": "fast"}, {}, ["'fast'", "default, speculative-decoding"], id="named but unknown"
        ),
        pytest.param("llama3-8b", {}, {"recommendedConfigs": []}, ["'default'", "none"], id="the runtime has none"),
        pytest.param(
            SPECULATIVE,
            {},
            {"recommendedConfigs": [{"name": "default"}]},
            ["'speculative-decoding'", "default"],
            id="a draft model, and no configuration for it",
        ),
    ],
)
def test_an_unknown_configuration_is_an_error_that_names_those_that_exist(
    claim: Any, config: dict[str, Any], fields: dict[str, Any], words: list[str]
) -> None:
    with pytest.raises(RenderError) as failed:
        choose_config(playground(claim, **config), runtime("vllm", **fields))
    assert failed.value.reason is RenderReason.UNKNOWN_CONFIG
    assert all(word in failed.value.message for word in ["'vllm'", *words])


@pytest.mark.parametrize(
    ("wanted", "chosen"),
    [
        pytest.param([], "a100", id="the model's first"),
        pytest.param(["a10"], "a10", id="the one named"),
        pytest.param(["a10", "a100"], "a10", id="the first named"),
    ],
)
def test_the_flavor_is_chosen(wanted: list[str], chosen: str) -> None:
    flavor = choose_flavor(playground(flavors=wanted), hub())
    assert flavor is not None
    assert flavor.name == chosen


def test_a_model_without_flavors_has_none() -> None:
    assert choose_flavor(playground("m"), uri("m", "host:///m")) is None


@pytest.mark.parametrize("wanted", [["h100"], ["a10", "h100"]])
def test_an_unknown_flavor_is_an_error(wanted: list[str]) -> None:
    with pytest.raises(RenderError) as failed:
        choose_flavor(playground(flavors=wanted), hub())
    assert failed.value.reason is RenderReason.UNKNOWN_FLAVOR
    assert "'h100'" in failed.value.message
    assert "a100, a10" in failed.value.message


@pytest.mark.parametrize(
    ("roles", "reason"),
    [
        pytest.param([], RenderReason.NO_MODELS, id="no model"),
        pytest.param(["draft"], RenderReason.INVALID_MODELS, id="no main model"),
        pytest.param(["main", "main"], RenderReason.INVALID_MODELS, id="two main models"),
        pytest.param(["main", "draft", "draft"], RenderReason.INVALID_MODELS, id="two draft models"),
    ],
)
def test_roles_that_make_no_sense_are_an_error(roles: list[str], reason: RenderReason) -> None:
    models = [uri(f"m{index}", f"host:///m{index}") for index in range(len(roles))]
    claim = [(f"m{index}", role) for index, role in enumerate(roles)]
    with pytest.raises(RenderError) as failed:
        serve_models(playground(claim), models)
    assert failed.value.reason is reason


@pytest.mark.parametrize(
    ("main", "draft", "fits"),
    [
        pytest.param({"filename": "q8.gguf"}, {"filename": "q2.gguf"}, True, id="two files of one repository"),
        pytest.param({}, {}, True, id="the same bytes twice"),
        pytest.param({}, {"ignorePatterns": ["*.bin"]}, True, id="two selections of one commit"),
        pytest.param({}, {"revision": "v2"}, False, id="two revisions in one directory"),
        pytest.param(
            {"filename": "w.gguf"}, {"modelID": "c/d", "filename": "w.gguf"}, False, id="two files of one name"
        ),
    ],
)
def test_two_models_must_not_be_loaded_over_each_other(main: dict[str, Any], draft: dict[str, Any], fits: bool) -> None:
    models = [model(name, {"modelHub": {"modelID": "a/b", **fields}}) for name, fields in (("m", main), ("d", draft))]
    claim = [("m", "main"), ("d", "draft")]
    if fits:
        assert len(serve_models(playground(claim), models)) == 2
    else:
        with pytest.raises(RenderError) as failed:
            serve_models(playground(claim), models)
        assert failed.value.reason is RenderReason.INVALID_MODELS
        assert "'m'" in failed.value.message
        assert "'d'" in failed.value.message
    assert len(serve_models(playground(claim, skip=True), models)) == 2


def test_an_unreadable_source_is_an_error() -> None:
    with pytest.raises(InvalidReference, match="ftp"):
        serve_models(playground("m"), [uri("m", "ftp://host/path")])
