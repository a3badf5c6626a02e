from decimal import Decimal

import pytest
from hypothesis import given
from hypothesis import strategies as st

from modelswarm.errors import RenderError, RenderReason
from modelswarm.workload.quantity import canonical, compare, parse_quantity


@pytest.mark.parametrize(
    ("text", "value", "stored"),
    [
        pytest.param(4, "4", "4", id="a number from YAML"),
        pytest.param("500m", "0.5", "500m", id="milli"),
        pytest.param("1000m", "1", "1", id="whole milli becomes a whole number"),
        pytest.param("0.5", "0.5", "500m", id="a fraction becomes milli"),
        pytest.param(".5", "0.5", "500m", id="a fraction without a leading zero"),
        pytest.param("1.5Gi", "1610612736", "1536Mi", id="a binary fraction takes the next suffix"),
        pytest.param("1024Mi", "1073741824", "1Gi", id="the largest binary suffix"),
        pytest.param("0.3Gi", "322122547.2", "322122547200m", id="what binary cannot say exactly is decimal"),
        pytest.param("0.5Ki", "512", "512", id="below 1024 binary is decimal"),
        pytest.param("8Gi", "8589934592", "8Gi", id="binary"),
        pytest.param("2000k", "2000000", "2M", id="the largest decimal suffix"),
        pytest.param("2E", "2E+18", "2E", id="exa is a suffix, not an exponent"),
        pytest.param("2E3", "2000", "2e3", id="an exponent stays one"),
        pytest.param("1e1", "10", "10", id="an exponent that is no multiple of three is written out"),
        pytest.param("1n", "1E-9", "1n", id="nano"),
        pytest.param("0.1n", "1E-10", "1n", id="finer than nano is rounded up when stored"),
        pytest.param("0Gi", "0", "0", id="zero has no suffix"),
        pytest.param("-2", "-2", "-2", id="negative"),
    ],
)
def test_a_quantity_has_a_value_and_one_stored_text(text: str | int, value: str, stored: str) -> None:
    assert parse_quantity(text) == Decimal(value)
    assert canonical(text) == stored


@pytest.mark.parametrize("text", ["", "Gi", "1 Gi", "1 ", "1gi", "1KB", "1.2.3", "one", "1e", "99E", "--1", "1e999"])
def test_what_is_no_quantity_is_refused(text: str) -> None:
    with pytest.raises(RenderError) as refused:
        parse_quantity(text)
    assert refused.value.reason is RenderReason.INVALID_QUANTITY
    assert text in refused.value.message


def test_quantities_compare_by_value() -> None:
    assert compare("1", "1000m") == 0
    assert compare("1Gi", "1G") == 1
    assert compare(4, "10") == -1


numbers = st.integers(0, 9_000_000).map(str)
suffixes = st.sampled_from(["", "m", "k", "M", "Ki", "Mi", "Gi"])


@given(numbers, suffixes)
def test_the_stored_text_has_the_same_value_and_is_stable(number: str, suffix: str) -> None:
    stored = canonical(number + suffix)
    assert parse_quantity(stored) == parse_quantity(number + suffix)
    assert canonical(stored) == stored
