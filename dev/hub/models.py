"""Small models with the files, headers and names of real ones."""

import json
import random
import struct
from pathlib import Path
from typing import BinaryIO

_BLOCK = 1 << 20
_ALIGNMENT = 32
_GITATTRIBUTES = "".join(
    f"*.{suffix} filter=lfs diff=lfs merge=lfs -text\n" for suffix in ("safetensors", "bin", "gguf", "onnx", "pt")
)


def make_model(folder: Path | str, *, shards: int = 4, shard_bytes: int = 64 << 10, seed: int = 0) -> Path:
    """Write a model of `shards` safetensors files with `shard_bytes` of tensors each, and return its folder.

    The bytes depend on `seed` and on nothing else. `shard_bytes` is rounded up to whole 16-bit numbers.
    """
    root = Path(folder)
    root.mkdir(parents=True, exist_ok=True)
    shard_bytes += shard_bytes % 2
    weight_map: dict[str, str] = {}
    for index in range(shards):
        name = f"model-{index + 1:05d}-of-{shards:05d}.safetensors" if shards > 1 else "model.safetensors"
        tensors = _write_shard(root / name, layer=index, size=shard_bytes, seed=seed * 1_000_003 + index)
        weight_map.update(dict.fromkeys(tensors, name))
    if shards > 1:
        index_json = {"metadata": {"total_size": shards * shard_bytes}, "weight_map": weight_map}
        _write_json(root / "model.safetensors.index.json", index_json)
    _write_json(
        root / "config.json",
        {
            "architectures": ["Qwen2ForCausalLM"],
            "model_type": "qwen2",
            "hidden_size": 64,
            "intermediate_size": 128,
            "num_attention_heads": 4,
            "num_hidden_layers": shards,
            "num_key_value_heads": 2,
            "torch_dtype": "float16",
            "vocab_size": 260,
        },
    )
    vocabulary = {chr(0x100 + code): code for code in range(256)}
    _write_json(
        root / "tokenizer.json",
        {
            "version": "1.0",
            "added_tokens": [{"id": 256, "content": "<|endoftext|>", "special": True}],
            "model": {"type": "BPE", "vocab": vocabulary, "merges": []},
        },
    )
    _write_json(root / "tokenizer_config.json", {"tokenizer_class": "Qwen2Tokenizer", "model_max_length": 2048})
    _write_json(root / "generation_config.json", {"eos_token_id": 256, "do_sample": True, "seed": seed})
    (root / "README.md").write_text("---\nlicense: apache-2.0\n---\n\n# A model of no use\n")
    (root / ".gitattributes").write_text(_GITATTRIBUTES)
    return root


def make_gguf(path: Path | str, *, tensor_bytes: int = 64 << 10, seed: int = 0) -> Path:
    """Write a GGUF file (version 3) with one tensor of 32-bit floats and return its path."""
    target = Path(path)
    target.parent.mkdir(parents=True, exist_ok=True)
    count = (tensor_bytes + 3) // 4

    def text(value: str) -> bytes:
        return struct.pack("<Q", len(value.encode())) + value.encode()

    string_type, float32 = 8, 0
    metadata = {"general.architecture": "llama", "general.name": "standin"}
    head = b"GGUF" + struct.pack("<IQQ", 3, 1, len(metadata))
    head += b"".join(text(key) + struct.pack("<I", string_type) + text(value) for key, value in metadata.items())
    head += text("token_embd.weight") + struct.pack("<IQIQ", 1, count, float32, 0)
    head += b"\0" * (-len(head) % _ALIGNMENT)
    with target.open("wb") as stream:
        stream.write(head)
        _write_noise(stream, count * 4, seed)
    return target


def _write_shard(path: Path, *, layer: int, size: int, seed: int) -> list[str]:
    numbers = size // 2
    first = numbers // 2
    names = [f"model.layers.{layer}.mlp.up_proj.weight", f"model.layers.{layer}.mlp.down_proj.weight"]
    header = {
        "__metadata__": {"format": "pt"},
        names[0]: {"dtype": "F16", "shape": [first], "data_offsets": [0, first * 2]},
        names[1]: {"dtype": "F16", "shape": [numbers - first], "data_offsets": [first * 2, size]},
    }
    text = json.dumps(header, separators=(",", ":")).encode()
    text += b" " * (-len(text) % 8)
    with path.open("wb") as stream:
        stream.write(struct.pack("<Q", len(text)) + text)
        _write_noise(stream, size, seed)
    return names


def _write_noise(stream: BinaryIO, size: int, seed: int) -> None:
    source = random.Random(seed)
    for start in range(0, size, _BLOCK):
        stream.write(source.randbytes(min(_BLOCK, size - start)))


def _write_json(path: Path, value: object) -> None:
    path.write_text(json.dumps(value, indent=2) + "\n")
