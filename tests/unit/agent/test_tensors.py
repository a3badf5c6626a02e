"""How many parameters a model has, from real headers of safetensors files."""

import json
import math
import struct
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from dev.hub import make_model
from modelswarm.agent.tensors import HEADER_BYTES, INDEX, Tensor, count, count_parameters, read_header, shown

BYTES = {"F32": 4, "BF16": 2, "F16": 2, "F8_E4M3": 1, "I64": 8, "I32": 4, "U8": 1, "BOOL": 1}
Shapes = dict[str, tuple[str, list[int]]]


def header(shapes: Shapes) -> bytes:
    """The beginning of a file of these tensors. The data itself is never read."""
    document: dict[str, object] = {"__metadata__": {"format": "pt"}}
    start = 0
    for name, (dtype, shape) in shapes.items():
        end = start + math.prod(shape) * BYTES[dtype]
        document[name] = {"dtype": dtype, "shape": shape, "data_offsets": [start, end]}
        start = end
    text = json.dumps(document).encode()
    return struct.pack("<Q", len(text)) + text


def write_index(directory: Path, **files: str) -> None:
    (directory / INDEX).write_text(json.dumps({"metadata": {"total_size": 1}, "weight_map": files}))


LAYER: Shapes = {
    "model.embed_tokens.weight": ("BF16", [151936, 896]),
    "model.norm.weight": ("BF16", [896]),
}


def test_one_file(tmp_path: Path) -> None:
    (tmp_path / "model.safetensors").write_bytes(header(LAYER))
    assert count_parameters(tmp_path) == 151936 * 896 + 896


def test_the_files_of_the_index_and_no_others(tmp_path: Path) -> None:
    (tmp_path / "model-00001-of-00002.safetensors").write_bytes(header(LAYER))
    (tmp_path / "model-00002-of-00002.safetensors").write_bytes(header({"lm_head.weight": ("BF16", [10, 10])}))
    (tmp_path / "consolidated.safetensors").write_bytes(header(LAYER))
    names = {"a": "model-00001-of-00002.safetensors", "b": "model-00002-of-00002.safetensors"}
    write_index(tmp_path, **names, c=names["a"])
    assert count_parameters(tmp_path) == 151936 * 896 + 896 + 100


def test_a_file_that_the_index_writes_in_several_ways_is_counted_once(tmp_path: Path) -> None:
    (tmp_path / "model.safetensors").write_bytes(header(LAYER))
    write_index(tmp_path, a="model.safetensors", b="./model.safetensors", c=".//model.safetensors")
    assert count_parameters(tmp_path) == 151936 * 896 + 896


def test_a_model_as_a_hub_has_it(tmp_path: Path) -> None:
    directory = make_model(tmp_path / "m", shards=3, shard_bytes=4096)
    assert count_parameters(directory) == 3 * 4096 // 2, "numbers of 16 bits"
    single = make_model(tmp_path / "single", shards=1, shard_bytes=4096)
    assert count_parameters(single) == 4096 // 2


@pytest.mark.parametrize(
    ("tensors", "expected"),
    [
        pytest.param({"a": ("F32", [2, 3]), "b": ("BF16", [4]), "c": ("F16", [])}, 11, id="of several types"),
        pytest.param({"w": ("F32", [9]), "position_ids": ("I64", [1, 512])}, 9, id="positions are no parameters"),
        pytest.param(
            {"w": ("F8_E4M3", [256, 256]), "w_scale_inv": ("F32", [2, 2]), "k_scale": ("F32", [])},
            65536,
            id="FP8: its factors are no parameters",
        ),
        pytest.param({"logit_scale": ("F32", [1])}, 1, id="a scale that is a parameter"),
        pytest.param({"w": ("F16", [9]), "w.qweight": ("I32", [4, 4])}, None, id="packed four bits"),
        pytest.param({"w_blocks": ("U8", [4, 4])}, None, id="packed in bytes"),
        pytest.param({}, None, id="no tensors"),
    ],
)
def test_what_counts(tensors: Shapes, expected: int | None, tmp_path: Path) -> None:
    (tmp_path / "model.safetensors").write_bytes(header(tensors))
    assert count_parameters(tmp_path) == expected


def test_a_header_whose_numbers_do_not_agree_is_not_believed() -> None:
    assert count([Tensor("w", "F32", elements=1 << 60, bytes=4)]) is None


@pytest.mark.parametrize(
    "shapes",
    [
        pytest.param([[10**400]], id="a number that no fraction can hold"),
        pytest.param([[10**18 + 1]], id="more than any model has"),
        pytest.param([[10**10, 10**10, 0]], id="nothing of too much"),
        pytest.param([[10**18], [1]], id="too many together"),
        pytest.param([[9] * 1_000_000], id="a product that would take minutes"),
    ],
)
def test_a_model_larger_than_any_is_not_believed(shapes: list[list[int]], tmp_path: Path) -> None:
    document, start = {}, 0
    for number, shape in enumerate(shapes):
        end = start + 2 * (math.prod(shape) if len(shape) < 9 else 1)
        document[f"w{number}"] = {"dtype": "F16", "shape": shape, "data_offsets": [start, end]}
        start = end
    text = json.dumps(document).encode()
    (tmp_path / "model.safetensors").write_bytes(struct.pack("<Q", len(text)) + text)
    assert count_parameters(tmp_path) is None


NUMBERS = st.sampled_from(
    [0, 1, 2, 4, 10**18, 10**400, -1, True, 0.5, math.nan, math.inf, -math.inf, None, "1", [1], {}]
)
ANYTHING = st.recursive(NUMBERS, lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner), max_leaves=8)
ENTRIES = st.fixed_dictionaries(
    {},
    optional={
        "dtype": st.sampled_from(["F32", "F4", "I64", "?"]) | ANYTHING,
        "shape": st.lists(NUMBERS, max_size=4) | ANYTHING,
        "data_offsets": st.lists(NUMBERS, min_size=2, max_size=2) | ANYTHING,
    },
)

AGREEING = st.sampled_from([0, 1, 10**18, 10**400]).map(
    lambda size: {"dtype": "F16", "shape": [size], "data_offsets": [0, 2 * size]}
)


@settings(deadline=None)
@given(
    st.dictionaries(st.text(), AGREEING | ENTRIES | ANYTHING, max_size=4),
    st.dictionaries(st.text(), ANYTHING, min_size=1, max_size=2) | ANYTHING,
)
def test_whatever_a_header_or_an_index_says_it_is_a_number_that_can_be_shown_or_none(
    tmp_path_factory: pytest.TempPathFactory, document: object, names: object
) -> None:
    directory = tmp_path_factory.mktemp("model")
    text = json.dumps(document).encode()
    (directory / "model.safetensors").write_bytes(struct.pack("<Q", len(text)) + text)
    for _ in range(2):
        found = count_parameters(directory)
        assert found is None or shown(found)
        # The second time with an index.
        (directory / INDEX).write_text(json.dumps({"weight_map": names}))


@pytest.mark.parametrize(
    "content",
    [
        pytest.param(b"", id="empty"),
        pytest.param(b"\x01", id="shorter than a length"),
        pytest.param(struct.pack("<Q", 1 << 62), id="a header longer than any"),
        pytest.param(struct.pack("<Q", HEADER_BYTES + 1) + b"{}", id="a header longer than is read"),
        pytest.param(struct.pack("<Q", 100) + b"{}" + b"x" * 98, id="no JSON"),
        pytest.param(struct.pack("<Q", 2) + b"[]", id="no object"),
        pytest.param(struct.pack("<Q", 7) + b'{"a":1}', id="no tensor"),
        pytest.param(header({"a": ("F32", [1])}).replace(b"[1]", b"[9.5]"), id="no shape"),
        pytest.param(header({"a": ("F32", [1])}).replace(b"[0, 4]", b"[4]   "), id="no place"),
        pytest.param(header({"a": ("F32", [1111])}).replace(b"[1111]", b"[true]"), id="a truth for a size"),
        pytest.param(header({"a": ("F32", [1])}).replace(b"[0, 4]", b"[-1,3]"), id="a place before the first"),
        pytest.param(struct.pack("<Q", 100_000) + b"[" * 100_000, id="too deep"),
    ],
)
def test_other_files_tell_nothing(content: bytes, tmp_path: Path) -> None:
    (tmp_path / "model.safetensors").write_bytes(content)
    assert count_parameters(tmp_path) is None
    with pytest.raises((ValueError, RecursionError)):
        read_header(tmp_path / "model.safetensors")


def test_files_that_are_not_there_or_too_many_tell_nothing(tmp_path: Path) -> None:
    assert count_parameters(tmp_path) is None
    assert count_parameters(tmp_path / "nowhere") is None
    for name in ("a", "b"):
        (tmp_path / f"{name}.safetensors").write_bytes(header(LAYER))
    assert count_parameters(tmp_path) is None, "nobody knows whether they belong together"
    write_index(tmp_path, w="a.safetensors", x="c.safetensors")
    assert count_parameters(tmp_path) is None


@pytest.mark.parametrize("name", ["../secret.safetensors", "/etc/passwd", "sub/../../secret.safetensors"])
def test_an_index_leads_nowhere_else(name: str, tmp_path: Path) -> None:
    (tmp_path / "secret.safetensors").write_bytes(header(LAYER))
    (tmp_path / "model" / "sub").mkdir(parents=True)
    write_index(tmp_path / "model", w=name)
    assert count_parameters(tmp_path / "model") is None


@pytest.mark.parametrize("text", ["{}", "[]", "x", '{"weight_map": {}}', '{"weight_map": ["a"]}'])
def test_an_index_that_is_none(text: str, tmp_path: Path) -> None:
    (tmp_path / "model.safetensors").write_bytes(header(LAYER))
    (tmp_path / INDEX).write_text(text)
    assert count_parameters(tmp_path) is None


@pytest.mark.parametrize(
    ("parameters", "text"),
    [
        (8_030_261_248, "8.03B"),
        (70_553_706_496, "70.55B"),
        (494_032_768, "494.03M"),
        (7_000_000_000, "7B"),
        (1_500_000, "1.5M"),
        (671_026_419_200, "671.03B"),
        (1_026_000_000_000, "1.03T"),
        (999_999_999, "1000M"),
        (900, "900"),
    ],
)
def test_shown_as_ome_reads_it(parameters: int, text: str) -> None:
    assert shown(parameters) == text
