"""How many parameters a model has, counted from the headers of its safetensors files.

The format: eight bytes with the header's length (little endian), then the header, a JSON object of tensors with
``dtype``, ``shape`` and ``data_offsets``, then the data. Of a model in several files ``model.safetensors.index.json``
names the files that belong together; others may lie beside them (the same weights in another layout, adapters).

Elements of floating-point tensors are counted, but for the factors of a quantization. Weights that are packed, several
to an integer, cannot be counted from headers: then the answer is None, as for anything else that is odd.
"""

import json
import struct
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import TypeGuard

INDEX = "model.safetensors.index.json"
SUFFIX = ".safetensors"
HEADER_BYTES = 16 << 20
"""A larger header, or index, is not read."""
_MOST = 10**18
"""Parameters of a model, elements of a tensor, bytes of a file: a header with more is not believed."""
_LENGTH = struct.Struct("<Q")
_BITS: Mapping[str, int] = {
    "F64": 64,
    "F32": 32,
    "F16": 16,
    "BF16": 16,
    "F8_E4M3": 8,
    "F8_E5M2": 8,
    "F4": 4,
}
_BUFFERS = frozenset({"BOOL", "I64"})
"""Masks and positions, which some models keep beside their weights."""
_FACTORS = ("_scale", "_scale_inv")
"""Ends of the names of an FP8 quantization's factors."""


@dataclass(frozen=True, slots=True)
class Tensor:
    """One entry of a header. ``bytes``: of its data."""

    name: str
    dtype: str
    elements: int
    bytes: int


def count_parameters(directory: Path) -> int | None:
    """Of the model in this directory; None if its files do not tell. Does not raise."""
    try:
        headers = [read_header(path) for path in _files(directory)]
    except (OSError, ValueError, RecursionError):
        return None
    return count([tensor for header in headers for tensor in header])


def count(tensors: Sequence[Tensor]) -> int | None:
    """Parameters of a whole model. None: some are packed, of a type that is not known, or there are none, or too many
    to be true."""
    total = 0
    quantized = any(tensor.dtype.startswith("F8") for tensor in tensors)
    for tensor in tensors:
        if tensor.dtype in _BUFFERS or (quantized and tensor.name.endswith(_FACTORS)):
            continue
        bits = _BITS.get(tensor.dtype)
        if bits is None or tensor.elements * bits != tensor.bytes * 8:
            return None
        total += tensor.elements
    return total if 0 < total <= _MOST else None


def read_header(path: Path) -> list[Tensor]:
    """The tensors of one file. Raises OSError, and ValueError where it is not of this format."""
    with path.open("rb") as file:
        start = file.read(_LENGTH.size)
        if len(start) < _LENGTH.size:
            raise ValueError(f"{path.name} is too short")
        [length] = _LENGTH.unpack(start)
        if length > HEADER_BYTES:
            raise ValueError(f"{path.name} has a header of {length} bytes")
        header = json.loads(file.read(length))
    if not isinstance(header, dict):
        raise ValueError(f"{path.name} has no tensors")
    return [_tensor(name, entry) for name, entry in header.items() if name != "__metadata__"]


def shown(parameters: int) -> str:
    """``8.03B``: how OME writes and reads a number of parameters. It knows T, B and M; fewer are written out."""
    for unit, size in (("T", 10**12), ("B", 10**9), ("M", 10**6)):
        if parameters >= size:
            return f"{parameters / size:.2f}".rstrip("0").rstrip(".") + unit
    return str(parameters)


def _files(directory: Path) -> list[Path]:
    """The files that make up the model: those of the index, or the only one. Raises OSError and ValueError."""
    index = directory / INDEX
    if not index.exists():
        [only] = [path for path in directory.iterdir() if path.name.endswith(SUFFIX)]
        return [only]
    if index.stat().st_size > HEADER_BYTES:
        raise ValueError(f"{INDEX} is too large")
    document = json.loads(index.read_bytes())
    names = document.get("weight_map") if isinstance(document, dict) else None
    if not isinstance(names, dict) or not names:
        raise ValueError(f"{INDEX} has no weight_map")
    # Each once, however often and in however many ways it is written.
    return [directory / path for path in sorted({_inside(str(each)) for each in names.values()})]


def _inside(name: str) -> PurePosixPath:
    path = PurePosixPath(name)
    if path.is_absolute() or ".." in path.parts:
        raise ValueError(f"{name!r} is outside")
    return path


def _tensor(name: str, entry: object) -> Tensor:
    if not isinstance(entry, dict):
        raise ValueError(f"{name} is no tensor")
    dtype, shape, offsets = entry.get("dtype"), entry.get("shape"), entry.get("data_offsets")
    if not isinstance(dtype, str) or not _are_sizes(shape) or not _are_sizes(offsets) or len(offsets) != 2:
        raise ValueError(f"{name} is no tensor")
    return Tensor(name, dtype, _elements(name, shape), offsets[1] - offsets[0])


def _elements(name: str, shape: Sequence[int]) -> int:
    elements = 1
    for size in shape:
        elements *= size
        # Looked at on the way: the product of a long list takes hours, and all other threads wait for it.
        if elements > _MOST:
            raise ValueError(f"{name} is too large")
    return elements


def _are_sizes(value: object) -> TypeGuard[list[int]]:
    return isinstance(value, list) and all(
        isinstance(each, int) and not isinstance(each, bool) and 0 <= each <= _MOST for each in value
    )
