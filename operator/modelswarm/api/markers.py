"""Facts about a field or a kind that only the API server needs: bounds, list types, printer columns, subresources.

They go into the CRD (``schema.py``) and are not enforced when we read an object: what was stored before a bound
existed must stay readable.
"""

from dataclasses import dataclass
from typing import Annotated


@dataclass(frozen=True, slots=True, kw_only=True)
class Bounds:
    """Limits on a value, by their OpenAPI names."""

    minimum: int | None = None
    maximum: int | None = None
    min_length: int | None = None
    max_length: int | None = None
    min_items: int | None = None
    max_items: int | None = None
    max_properties: int | None = None
    pattern: str | None = None


@dataclass(frozen=True, slots=True)
class Format:
    """The OpenAPI format of a number or string."""

    name: str


@dataclass(frozen=True, slots=True)
class ListMap:
    """A list in which this field of an element is unique; server-side apply merges it element by element."""

    key: str


@dataclass(frozen=True, slots=True)
class Required:
    """The API server demands the field although our model has a default for reading."""


@dataclass(frozen=True, slots=True)
class Column:
    """A column of ``kubectl get``; with ``priority`` 1 only of ``kubectl get -o wide``."""

    name: str
    path: str
    type: str = "string"
    priority: int = 0


AGE = Column("Age", ".metadata.creationTimestamp", "date")


@dataclass(frozen=True, slots=True)
class Scale:
    """The scale subresource: what ``kubectl scale`` and the HorizontalPodAutoscaler read and write."""

    spec_replicas: str
    status_replicas: str
    selector: str


Int32 = Annotated[int, Format("int32")]
ModelName = Annotated[str, Bounds(max_length=63)]
"""The name of an OpenModel, which is the value of a label too."""
ShortText = Annotated[str, Bounds(max_length=256)]
"""A word or a file name."""
Patterns = tuple[Annotated[str, Bounds(max_length=256)], ...]
"""Shell patterns for files."""
