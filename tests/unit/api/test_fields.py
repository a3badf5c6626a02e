"""From annotations to fields: markers, optional types, defaults and descriptions."""

from datetime import datetime
from enum import StrEnum
from typing import Annotated, Literal

import pytest
from pydantic import Field

from modelswarm.api.core import Probe, Quantity, ResourceList
from modelswarm.api.fields import (
    ApiField,
    Core,
    Element,
    IntOrWord,
    ListOf,
    MapOf,
    Scalar,
    Shape,
    Struct,
    describe,
    fields_of,
)
from modelswarm.api.markers import Bounds, Int32, ListMap, Required
from modelswarm.api.meta import ApiModel, Time
from modelswarm.api.reference import core_name, type_text
from modelswarm.api.schema import schema_of

PROBE = "io.k8s.api.core.v1.Probe"
QUANTITY = "io.k8s.apimachinery.pkg.api.resource.Quantity"


class Colour(StrEnum):
    RED = "red"
    BLUE = "blue"


class Part(ApiModel):
    """A ``part``
    of it."""

    name: str
    """What it is called."""


class Undescribed(Part):
    pass


class Whole(ApiModel):
    word: str
    colour: Colour = Colour.RED
    fixed: Literal["A", "B"] | None = None
    number: int | None = None
    small: Int32 = 1
    flag: bool = False
    moment: Time | None = None
    written: datetime | None = None
    part: Part | None = None
    parts: Annotated[tuple[Part, ...], ListMap("name"), Bounds(max_items=3)] = ()
    words: tuple[Annotated[str, Bounds(max_length=5)], ...] | None = None
    table: dict[str, str] = Field(default_factory=dict)
    probe: Probe | None = None
    probes: tuple[Probe, ...] = ()
    amount: Quantity | None = None
    amounts: ResourceList | None = None
    some: int | Literal["All"] = 2
    bounded: int = Field(default=3, ge=1, le=9)
    renamed: str | None = Field(default=None, alias="modelID")
    demanded: Annotated[int, Required()] = 0


FIELDS = {field.name: field for field in fields_of(Whole)}

SHAPES = [
    ("word", Scalar("string")),
    ("colour", Scalar("string", enum=("red", "blue"))),
    ("fixed", Scalar("string", enum=("A", "B"))),
    ("number", Scalar("integer", "int64")),
    ("small", Scalar("integer", "int32")),
    ("flag", Scalar("boolean")),
    ("moment", Scalar("string", "date-time")),
    ("written", Scalar("string", "date-time")),
    ("part", Struct(Part)),
    ("parts", ListOf(Element(Struct(Part)))),
    ("words", ListOf(Element(Scalar("string"), (Bounds(max_length=5),)))),
    ("table", MapOf(Element(Scalar("string")))),
    ("probe", Core(PROBE)),
    ("amount", Core(QUANTITY)),
    ("some", IntOrWord(("All",))),
    ("modelID", Scalar("string")),
]


@pytest.mark.parametrize(("name", "shape"), SHAPES, ids=[name for name, _ in SHAPES])
def test_shapes(name: str, shape: Shape) -> None:
    assert FIELDS[name].element.shape == shape


def test_core_types_are_found_inside_lists_and_maps() -> None:
    probes, amounts = FIELDS["probes"].element.shape, FIELDS["amounts"].element.shape
    assert isinstance(probes, ListOf)
    assert probes.element.shape == Core(PROBE)
    assert isinstance(amounts, MapOf)
    assert amounts.element.shape == Core(QUANTITY)


def test_required_are_those_without_a_default_and_those_marked() -> None:
    assert [name for name, field in FIELDS.items() if field.required] == ["word", "demanded"]


def test_defaults_are_plain_values() -> None:
    defaults = {name: field.default for name, field in FIELDS.items() if field.default is not None}
    assert defaults == {"colour": "red", "small": 1, "flag": False, "some": 2, "bounded": 3, "demanded": 0}
    assert type(defaults["colour"]) is str


def test_descriptions_are_docstrings_of_the_field_or_else_of_its_type() -> None:
    assert next(fields_of(Part)) == ApiField("name", Element(Scalar("string")), True, None, "What it is called.")
    assert FIELDS["part"].description == "A 'part' of it."
    assert describe(Undescribed) == ""


def test_bounds_of_pydantic_and_of_markers_reach_the_schema() -> None:
    assert schema_of(FIELDS["bounded"].element, defaults=True) == {
        "type": "integer",
        "format": "int64",
        "minimum": 1,
        "maximum": 9,
    }
    parts = schema_of(FIELDS["parts"].element, defaults=True)
    assert parts["maxItems"] == 3
    assert parts["x-kubernetes-list-map-keys"] == ["name"]


def test_an_annotation_that_no_schema_can_say_is_an_error() -> None:
    class Loose(ApiModel):
        anything: object = None

    with pytest.raises(TypeError, match="no schema for"):
        list(fields_of(Loose))


TYPE_TEXTS = [
    ("colour", "`red` or `blue`"),
    ("parts", "list of object, ≤ 3 items"),
    ("table", "map of string"),
    ("amounts", "map of quantity"),
    ("probe", "core/v1 Probe"),
    ("some", "integer or `All`"),
    ("moment", "time"),
    ("bounded", "integer, ≥ 1, ≤ 9"),
]


@pytest.mark.parametrize(("name", "text"), TYPE_TEXTS, ids=[name for name, _ in TYPE_TEXTS])
def test_types_in_words(name: str, text: str) -> None:
    assert type_text(FIELDS[name].element) == text


def test_names_of_core_types_in_words() -> None:
    assert core_name("io.k8s.api.autoscaling.v2.MetricSpec") == "autoscaling/v2 MetricSpec"
