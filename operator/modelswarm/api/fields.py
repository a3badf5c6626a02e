"""The fields of a model as the API server and the reference documentation need them, read from its annotations."""

from collections.abc import Iterator
from dataclasses import dataclass
from datetime import datetime
from enum import StrEnum
from types import NoneType, UnionType
from typing import Annotated, Literal, TypeVar, Union, get_args, get_origin

from annotated_types import Ge, Le, MaxLen, MinLen
from pydantic import JsonValue
from pydantic.fields import FieldInfo
from pydantic_core import PydanticUndefined

from modelswarm.api.core import CoreSchema
from modelswarm.api.markers import Bounds, Format, Required
from modelswarm.api.meta import ApiModel

M = TypeVar("M")


@dataclass(frozen=True, slots=True)
class Scalar:
    """A string, number, boolean or moment. ``type`` is OpenAPI's word."""

    type: str
    format: str | None = None
    enum: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class IntOrWord:
    """A number or one of a few words."""

    words: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Core:
    """A type of Kubernetes' own, by its OpenAPI name."""

    name: str


@dataclass(frozen=True, slots=True)
class Struct:
    model: type[ApiModel]


@dataclass(frozen=True, slots=True)
class ListOf:
    element: "Element"


@dataclass(frozen=True, slots=True)
class MapOf:
    element: "Element"


Shape = Scalar | IntOrWord | Core | Struct | ListOf | MapOf


@dataclass(frozen=True, slots=True)
class Element:
    """A type with the markers that apply to it."""

    shape: Shape
    markers: tuple[object, ...] = ()

    def marked(self, marker: type[M]) -> tuple[M, ...]:
        """The markers of that class, outermost first."""
        return tuple(found for found in self.markers if isinstance(found, marker))


@dataclass(frozen=True, slots=True)
class ApiField:
    """``default`` is None where there is none that users could rely on."""

    name: str
    element: Element
    required: bool
    default: JsonValue
    description: str


def fields_of(model: type[ApiModel]) -> Iterator[ApiField]:
    """The fields of a model, in the order in which they are written."""
    for name, info in model.model_fields.items():
        element = element_of(info.annotation, tuple(info.metadata))
        yield ApiField(
            name=info.alias or name,
            element=element,
            required=info.is_required() or bool(element.marked(Required)),
            default=_default(info),
            description=plain(info.description) if info.description else _type_description(element.shape),
        )


def element_of(annotation: object, markers: tuple[object, ...] = ()) -> Element:
    """An annotation without ``Annotated`` and ``| None``, which become markers and nothing."""
    while True:
        origin, arguments = get_origin(annotation), get_args(annotation)
        if origin is Annotated:
            annotation, found = arguments[0], arguments[1:]
            markers += tuple(inner for each in found for inner in _flatten(each))
        elif origin in (Union, UnionType) and NoneType in arguments:
            annotation = Union[tuple(each for each in arguments if each is not NoneType)]  # noqa: UP007 - computed
        else:
            markers = tuple(_bounds(marker) for marker in markers)
            return Element(_shape(annotation, markers), markers)


def plain(text: str) -> str:
    """A docstring as one line of plain text."""
    return " ".join(text.replace("``", "'").split())


def _type_description(shape: Shape) -> str:
    return describe(shape.model) if isinstance(shape, Struct) else ""


def describe(model: type[ApiModel]) -> str:
    """A model's own docstring, not one that it inherits."""
    return plain(model.__dict__.get("__doc__") or "")


def _flatten(marker: object) -> tuple[object, ...]:
    return tuple(marker.metadata) if isinstance(marker, FieldInfo) else (marker,)


def _bounds(marker: object) -> object:
    """pydantic's constraints in our words."""
    match marker:
        case Ge(ge=int(value)):
            return Bounds(minimum=value)
        case Le(le=int(value)):
            return Bounds(maximum=value)
        case MinLen(min_length=value):
            return Bounds(min_length=value)
        case MaxLen(max_length=value):
            return Bounds(max_length=value)
    return marker


def _default(info: FieldInfo) -> JsonValue:
    value = info.default
    if value is PydanticUndefined or isinstance(value, ApiModel | tuple):
        return None
    if not isinstance(value, str | int | NoneType):
        raise TypeError(f"no way to write the default {value!r}")
    return str(value) if isinstance(value, StrEnum) else value


def _shape(annotation: object, markers: tuple[object, ...]) -> Shape:
    for marker in markers:
        if isinstance(marker, CoreSchema):
            return Core(marker.name)
    formats = [marker.name for marker in markers if isinstance(marker, Format)]
    origin, arguments = get_origin(annotation), get_args(annotation)
    if origin is tuple and arguments[1:] == (Ellipsis,):
        return ListOf(element_of(arguments[0]))
    if origin is dict and arguments[0] is str:
        return MapOf(element_of(arguments[1]))
    if origin is Literal:
        return Scalar("string", enum=arguments)
    if origin in (Union, UnionType) and arguments[0] is int and get_origin(arguments[1]) is Literal:
        return IntOrWord(get_args(arguments[1]))
    if isinstance(annotation, type):
        if issubclass(annotation, ApiModel):
            return Struct(annotation)
        if issubclass(annotation, StrEnum):
            return Scalar("string", enum=tuple(annotation))
        if annotation in _SCALARS:
            type_, format_ = _SCALARS[annotation]
            return Scalar(type_, formats[0] if formats else format_)
    raise TypeError(f"no schema for {annotation!r}")


_SCALARS: dict[object, tuple[str, str | None]] = {
    str: ("string", None),
    bool: ("boolean", None),
    int: ("integer", "int64"),
    datetime: ("string", "date-time"),
}
