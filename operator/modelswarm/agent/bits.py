"""Sets of small numbers as integers: bit ``i`` is set if ``i`` is in the set.

Ten thousand segments are 1,250 bytes, and what two sets have in common or not is one operation.
"""

from collections.abc import Iterable, Iterator

_MANY = 64


def mask_of(numbers: Iterable[int]) -> int:
    """The set of ``numbers`` (each at least 0)."""
    mask = 0
    for number in numbers:
        mask |= 1 << number
    return mask


def full(count: int) -> int:
    """The set of the first ``count`` numbers."""
    return (1 << count) - 1


def members(mask: int) -> Iterator[int]:
    """What is in the set, in order."""
    if mask.bit_count() > _MANY:
        for position, byte in enumerate(to_bytes(mask)):
            while byte:
                low = byte & -byte
                yield position * 8 + low.bit_length() - 1
                byte ^= low
        return
    while mask:
        low = mask & -mask
        yield low.bit_length() - 1
        mask ^= low


def to_bytes(mask: int) -> bytes:
    """Number ``i`` is bit ``i % 8`` of byte ``i // 8``; no longer than needed."""
    return mask.to_bytes((mask.bit_length() + 7) // 8, "little")


def from_bytes(data: bytes) -> int:
    return int.from_bytes(data, "little")
