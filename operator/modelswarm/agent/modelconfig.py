"""What a model's own files say of it, in OME's words: ``config.json``, and the headers of its safetensors files.

OME's controller fills those fields of a BaseModel that its author left empty with what the nodes report, and chooses a
runtime by them. What the files do not say is left out; nothing is guessed.
"""

import asyncio
import json
from collections.abc import Collection, Iterable
from pathlib import Path

from modelswarm.agent.standing import Standing
from modelswarm.agent.tensors import count_parameters, shown
from modelswarm.api.meta import JsonObject
from modelswarm.api.nodecache import ModelState

CONFIG_FILE = "config.json"
CONFIG_BYTES = 1 << 20
"""A larger file is not read."""
LONGEST = 128
SAFETENSORS_VERSION = "1.0.0"
"""What OME calls the format's only version."""
EMBEDDINGS_FILE = "modules.json"
"""Of sentence-transformers: the model makes embeddings, whatever the architecture below is otherwise used for."""
_LENGTHS = ("max_position_embeddings", "n_positions", "seq_length")
_LARGEST = (1 << 31) - 1


class ModelConfigs:
    """Of the complete models of this node; ``root`` is the directory of their directories. Read once per content."""

    def __init__(self, root: Path) -> None:
        self.known: dict[str, JsonObject] = {}
        """By content (``sha256:<hex>``)."""
        self._root = root
        self._read: set[str] = set()

    async def learn(self, standings: Iterable[Standing]) -> None:
        """Read what is not known yet of OME's models, and forget what is not here any more. Does not fail."""
        wanted = {
            each.key
            for each in standings
            if each.state is ModelState.READY
            and each.key.startswith("sha256:")
            and any(not claim.is_task and claim.described for claim in each.claims)
        }
        for key in self._read - wanted:
            self.known.pop(key, None)
        self._read &= wanted
        for key in sorted(wanted - self._read):
            found = await asyncio.to_thread(read_config, self._root / key.removeprefix("sha256:"))
            if found:
                self.known[key] = found
            self._read.add(key)


def read_config(directory: Path) -> JsonObject:
    """What the model in this directory says of itself; empty if it says nothing, or nothing that can be read."""
    path = directory / CONFIG_FILE
    try:
        if path.stat().st_size > CONFIG_BYTES:
            return {}
        document = json.loads(path.read_bytes())
        names = {each.name for each in directory.iterdir()}
    except (OSError, ValueError, RecursionError):
        return {}
    return describe(document, names, count_parameters(directory)) if isinstance(document, dict) else {}


def describe(document: JsonObject, files: Collection[str], parameters: int | None = None) -> JsonObject:
    """``config`` of OME's entry, of a parsed ``config.json``, the names of the files beside it, and the number of
    parameters that they have."""
    text = document.get("text_config")
    inner = text if isinstance(text, dict) else {}
    found: JsonObject = {}
    if kind := _text(document.get("model_type")):
        found["modelType"] = kind
    architectures = document.get("architectures")
    if isinstance(architectures, list) and architectures and (name := _text(architectures[0])):
        found["modelArchitecture"] = name
    if kind:
        version = _text(document.get("transformers_version"))
        found["modelFramework"] = {"name": "transformers", **({"version": version} if version else {})}
    if any(name.endswith(".safetensors") for name in files):
        found["modelFormat"] = {"name": "safetensors", "version": SAFETENSORS_VERSION}
    if parameters:
        found["modelParameterSize"] = shown(parameters)
    if capability := _capability(document, str(found.get("modelArchitecture", "")), files):
        found["modelCapabilities"] = [capability]
    lengths = (each.get(name) for each in (document, inner) for name in _LENGTHS)
    if length := next((each for each in lengths if _is_length(each)), None):
        found["maxTokens"] = length
    quantization = document.get("quantization_config")
    if isinstance(quantization, dict) and (word := _quantization(quantization)):
        found["quantization"] = word
    return found


def _capability(document: JsonObject, architecture: str, files: Collection[str]) -> str:
    """OME's word where the files leave no doubt; empty otherwise (what ``ForConditionalGeneration`` is given, for
    example, may be text, pictures or speech)."""
    if EMBEDDINGS_FILE in files:
        return "EMBEDDING"
    sees = isinstance(document.get("vision_config"), dict)
    if sees and architecture.endswith(("ForConditionalGeneration", "ForCausalLM")):
        return "IMAGE_TEXT_TO_TEXT"
    return "TEXT_TO_TEXT" if architecture.endswith("ForCausalLM") else ""


def _quantization(config: JsonObject) -> str:
    method = _text(config.get("quant_method"))
    if method in ("fp8", "fbgemm_fp8"):
        return method
    return "int4" if config.get("bits") == 4 or config.get("load_in_4bit") is True else ""


def _text(value: object) -> str:
    return value if isinstance(value, str) and len(value) <= LONGEST else ""


def _is_length(value: object) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and 0 < value <= _LARGEST
