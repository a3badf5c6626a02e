"""What OME is told about a model: what its own files say, and nothing that they do not."""

import json
import math
import os
import struct
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from dev.hub import make_model
from modelswarm.agent import omestatus
from modelswarm.agent.modelconfig import CONFIG_BYTES, ModelConfigs, describe, read_config
from modelswarm.agent.report import utc_now
from modelswarm.agent.standing import Standing
from modelswarm.agent.wanted import Claim
from modelswarm.api.nodecache import ModelState

LLAMA = {
    "model_type": "llama",
    "architectures": ["LlamaForCausalLM"],
    "transformers_version": "4.45.0",
    "max_position_embeddings": 8192,
}
CONTENT = "ab" * 32
CLAIM = Claim("ClusterBaseModel", "", "m", "uid")


@pytest.mark.parametrize(
    ("document", "files", "expected"),
    [
        pytest.param(
            LLAMA,
            ["config.json", "model.safetensors"],
            {
                "modelType": "llama",
                "modelArchitecture": "LlamaForCausalLM",
                "modelFramework": {"name": "transformers", "version": "4.45.0"},
                "modelFormat": {"name": "safetensors", "version": "1.0.0"},
                "modelCapabilities": ["TEXT_TO_TEXT"],
                "maxTokens": 8192,
            },
            id="a model of transformers",
        ),
        pytest.param({}, [], {}, id="nothing"),
        pytest.param(
            {"model_type": "x"}, [], {"modelType": "x", "modelFramework": {"name": "transformers"}}, id="little"
        ),
        pytest.param({"text_config": {"max_position_embeddings": 7}}, [], {"maxTokens": 7}, id="one that also sees"),
        pytest.param({"quantization_config": {"quant_method": "fp8"}}, [], {"quantization": "fp8"}, id="fp8"),
        pytest.param({"quantization_config": {"bits": 4}}, [], {"quantization": "int4"}, id="int4"),
        pytest.param({"quantization_config": {"bits": 8}}, [], {}, id="a quantization that OME has no word for"),
        pytest.param(
            {
                "model_type": 5,
                "architectures": [None],
                "max_position_embeddings": True,
                "n_positions": -1,
                "seq_length": 1 << 40,
                "text_config": [],
                "quantization_config": "x",
            },
            [],
            {},
            id="other types than it should have",
        ),
    ],
)
def test_describe(document: dict[str, Any], files: list[str], expected: dict[str, Any]) -> None:
    assert describe(document, files) == expected


SCALARS = st.sampled_from([None, True, 4, -1, 10**400, 0.5, math.nan, math.inf, "", "fp8", "x" * 200, "\ud800"])
ANYTHING = st.recursive(SCALARS, lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner), max_leaves=5)
FIELDS = [
    "model_type",
    "architectures",
    "transformers_version",
    "text_config",
    "vision_config",
    "quantization_config",
    "quant_method",
    "bits",
    "load_in_4bit",
    "max_position_embeddings",
    "n_positions",
]
INNER = st.dictionaries(st.sampled_from(FIELDS), ANYTHING)


@settings(deadline=None)
@given(st.dictionaries(st.sampled_from(FIELDS), INNER | ANYTHING))
def test_whatever_a_model_says_ome_can_be_told(document: dict[str, Any]) -> None:
    found = describe(json.loads(json.dumps(document)), ["model.safetensors"])
    json.dumps(found, allow_nan=False).encode()
    assert 0 < found.get("maxTokens", 1) < 1 << 31
    assert found.get("quantization", "fp8") in ("fp8", "int4")


REAL = json.loads((Path(__file__).parent / "fixtures" / "configs.json").read_text())
"""What ``config.json`` of well-known models says."""


def words(model: str, *files: str, parameters: int | None = None) -> dict[str, Any]:
    return describe(REAL[model], ["config.json", "model-00001-of-00002.safetensors", *files], parameters)


FORMAT = {"modelFormat": {"name": "safetensors", "version": "1.0.0"}}


@pytest.mark.parametrize(
    ("found", "expected"),
    [
        pytest.param(
            words("Llama-3.1-8B-Instruct", parameters=8_030_261_248),
            {
                "modelType": "llama",
                "modelArchitecture": "LlamaForCausalLM",
                "modelFramework": {"name": "transformers", "version": "4.42.3"},
                "modelParameterSize": "8.03B",
                "modelCapabilities": ["TEXT_TO_TEXT"],
                "maxTokens": 131072,
            },
            id="Llama",
        ),
        pytest.param(
            words("Qwen2-VL-7B-Instruct", parameters=8_291_375_616),
            {
                "modelType": "qwen2_vl",
                "modelArchitecture": "Qwen2VLForConditionalGeneration",
                "modelFramework": {"name": "transformers", "version": "4.41.2"},
                "modelParameterSize": "8.29B",
                "modelCapabilities": ["IMAGE_TEXT_TO_TEXT"],
                "maxTokens": 32768,
            },
            id="one that sees",
        ),
        pytest.param(
            words("gemma-3-4b-it"),
            {
                "modelType": "gemma3",
                "modelArchitecture": "Gemma3ForConditionalGeneration",
                "modelFramework": {"name": "transformers", "version": "4.50.0.dev0"},
                "modelCapabilities": ["IMAGE_TEXT_TO_TEXT"],
            },
            id="one that sees, and does not say how far",
        ),
        pytest.param(
            words("DeepSeek-V3", parameters=684_489_845_504),
            {
                "modelType": "deepseek_v3",
                "modelArchitecture": "DeepseekV3ForCausalLM",
                "modelFramework": {"name": "transformers", "version": "4.33.1"},
                "modelParameterSize": "684.49B",
                "modelCapabilities": ["TEXT_TO_TEXT"],
                "maxTokens": 163840,
                "quantization": "fp8",
            },
            id="FP8",
        ),
        pytest.param(
            words("Qwen2.5-7B-Instruct-AWQ"),
            {
                "modelType": "qwen2",
                "modelArchitecture": "Qwen2ForCausalLM",
                "modelFramework": {"name": "transformers", "version": "4.41.1"},
                "modelCapabilities": ["TEXT_TO_TEXT"],
                "maxTokens": 32768,
                "quantization": "int4",
            },
            id="AWQ, whose parameters cannot be counted",
        ),
        pytest.param(
            words("bge-m3", "modules.json", parameters=567_754_752),
            {
                "modelType": "xlm-roberta",
                "modelArchitecture": "XLMRobertaModel",
                "modelFramework": {"name": "transformers", "version": "4.33.0"},
                "modelParameterSize": "567.75M",
                "modelCapabilities": ["EMBEDDING"],
                "maxTokens": 8194,
            },
            id="embeddings",
        ),
        pytest.param(
            words("Qwen3-Embedding-0.6B", "modules.json"),
            {
                "modelType": "qwen3",
                "modelArchitecture": "Qwen3ForCausalLM",
                "modelFramework": {"name": "transformers", "version": "4.51.3"},
                "modelCapabilities": ["EMBEDDING"],
                "maxTokens": 32768,
            },
            id="embeddings, of an architecture that mostly writes",
        ),
        pytest.param(
            words("whisper-large-v3"),
            {
                "modelType": "whisper",
                "modelArchitecture": "WhisperForConditionalGeneration",
                "modelFramework": {"name": "transformers", "version": "4.36.0.dev0"},
            },
            id="speech: no word, for nothing in the file says so",
        ),
    ],
)
def test_what_is_known_of_well_known_models(found: dict[str, Any], expected: dict[str, Any]) -> None:
    assert found == {**expected, **FORMAT}


@pytest.mark.parametrize(
    "text",
    [
        pytest.param(None, id="no file"),
        pytest.param(b"{", id="no JSON"),
        pytest.param(b"[]", id="no object"),
        pytest.param(b"\xff", id="no text"),
        pytest.param(b"[" * 100_000, id="too deep"),
        pytest.param(b"{}" + b" " * CONFIG_BYTES, id="too large"),
    ],
)
def test_a_file_that_says_nothing(tmp_path: Path, text: bytes | None) -> None:
    if text is not None:
        (tmp_path / "config.json").write_bytes(text)
    assert read_config(tmp_path) == {}


def standing(claim: Claim = CLAIM, state: ModelState = ModelState.READY) -> Standing:
    return Standing(f"sha256:{CONTENT}", "org/m", state, claims=(claim,))


async def entry(root: Path, *standings: Standing) -> dict[str, Any]:
    configs = ModelConfigs(root)
    await configs.learn(standings)
    [text] = omestatus.entries(standings, utc_now(), configs.known).values()
    found: dict[str, Any] = json.loads(text)
    return found


@pytest.fixture
def root(tmp_path: Path) -> Path:
    (tmp_path / CONTENT).mkdir()
    (tmp_path / CONTENT / "config.json").write_text(json.dumps(LLAMA))
    return tmp_path


async def test_a_complete_model_is_described(root: Path) -> None:
    found = await entry(root, standing())
    assert found == {"name": "m", "status": "Ready", "config": describe(LLAMA, [])}


async def test_its_parameters_are_counted(tmp_path: Path) -> None:
    directory = make_model(tmp_path / CONTENT, shards=2, shard_bytes=3_000_000)
    found = (await entry(tmp_path, standing()))["config"]
    assert (found["modelParameterSize"], found["modelCapabilities"]) == ("3M", ["TEXT_TO_TEXT"])
    assert found == describe(json.loads((directory / "config.json").read_text()), os.listdir(directory), 3_000_000)


async def test_what_cannot_be_a_number_of_parameters_is_left_out(root: Path) -> None:
    tensor = {"dtype": "F16", "shape": [10**400], "data_offsets": [0, 2 * 10**400]}
    header = json.dumps({"w": tensor}).encode()
    (root / CONTENT / "model.safetensors").write_bytes(struct.pack("<Q", len(header)) + header)
    assert (await entry(root, standing()))["config"] == describe(LLAMA, ["model.safetensors"])


async def test_one_on_its_way_is_not(root: Path) -> None:
    assert "config" not in await entry(root, standing(state=ModelState.FETCHING))


async def test_nor_one_whose_author_does_not_want_it(root: Path) -> None:
    claim = Claim("ClusterBaseModel", "", "m", "uid", described=False)
    assert await entry(root, standing(claim)) == {"name": "m", "status": "Ready"}


async def test_one_that_says_nothing_has_no_config_at_all(root: Path) -> None:
    """OME takes what is there for something to fill in, so an empty one is left out, as its own agent does."""
    (root / CONTENT / "config.json").write_text("{}")
    assert await entry(root, standing()) == {"name": "m", "status": "Ready"}


async def test_a_model_that_is_gone_is_forgotten(root: Path) -> None:
    configs = ModelConfigs(root)
    await configs.learn([standing()])
    assert configs.known
    await configs.learn([])
    assert not configs.known
