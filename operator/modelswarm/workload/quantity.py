"""Kubernetes quantities (``500m``, ``8Gi``, ``1e3``): their value, and the one text the API server writes for it."""

import re
from decimal import ROUND_UP, Context, Decimal

from modelswarm.errors import RenderError, RenderReason

_EXACT = Context(prec=120)
_QUANTITY = re.compile(r"([+-]?(?:[0-9]+(?:\.[0-9]*)?|\.[0-9]+))(?:([KMGTPE]i|[numkMGTPE])|[eE]([+-]?[0-9]{1,3}))?")
_BINARY = {"": 0, "Ki": 1, "Mi": 2, "Gi": 3, "Ti": 4, "Pi": 5, "Ei": 6}
_DECIMAL = {"n": -9, "u": -6, "m": -3, "": 0, "k": 3, "M": 6, "G": 9, "T": 12, "P": 15, "E": 18}
_LARGEST = Decimal(2**63 - 1)
_FINEST = Decimal("1e-9")


def parse_quantity(quantity: str | int) -> Decimal:
    """The value of a quantity, exactly. Raises ``RenderError`` (InvalidQuantity)."""
    text = str(quantity)
    match = _QUANTITY.fullmatch(text)
    if match is None:
        raise RenderError(
            RenderReason.INVALID_QUANTITY, f"{text!r} is not a quantity; write it like 500m, 4, 1.5 or 8Gi"
        )
    number, suffix, exponent = match.groups()
    if suffix and suffix.endswith("i"):
        factor = Decimal(1024 ** _BINARY[suffix])
    else:
        factor = _EXACT.power(10, int(exponent) if exponent else _DECIMAL[suffix or ""])
    value = _EXACT.multiply(Decimal(number), factor)
    if abs(value) > _LARGEST:
        raise RenderError(RenderReason.INVALID_QUANTITY, f"{text!r} is larger than any quantity Kubernetes can hold")
    return value


def compare(left: str | int, right: str | int) -> int:
    """-1, 0 or 1, by value: ``1`` equals ``1000m``."""
    a, b = parse_quantity(left), parse_quantity(right)
    return (a > b) - (a < b)


def canonical(quantity: str | int) -> str:
    """Its canonical text: no fraction, the largest suffix that loses nothing (``1000m`` is ``1``).

    It is what the API server makes of a quantity, so what is applied and what is read back are the same text.
    """
    value = parse_quantity(quantity).quantize(_FINEST, rounding=ROUND_UP, context=_EXACT)
    if value == 0:
        return "0"
    text = str(quantity)
    if text.endswith("i") and abs(value) >= 1024 and value == value.to_integral_value():
        return _binary(int(value))
    exponent = _largest_exponent(value)
    number = int(_EXACT.multiply(value, _EXACT.power(10, -exponent)))
    if re.search("[eE][+-]?[0-9]", text):
        return f"{number}e{exponent}" if exponent else str(number)
    return f"{number}{next(suffix for suffix, power in _DECIMAL.items() if power == exponent)}"


def _binary(value: int) -> str:
    suffix = ""
    for name, power in _BINARY.items():
        if value % 1024**power == 0:
            suffix = name
    return f"{value // 1024 ** _BINARY[suffix]}{suffix}"


def _largest_exponent(value: Decimal) -> int:
    """The largest of -9, -6, ... 18 for which ``value`` is a whole multiple of ten to that power."""
    nanos = int(_EXACT.multiply(value, Decimal(10**9)))
    return max(power for power in _DECIMAL.values() if nanos % 10 ** (power + 9) == 0)
