"""What all kinds share: the pydantic base, metadata, references, conditions' shape."""

from datetime import datetime
from typing import Annotated, ClassVar

from pydantic import BaseModel, ConfigDict, Field, JsonValue, PlainSerializer
from pydantic.alias_generators import to_camel

from modelswarm.api.markers import Column, Scale
from modelswarm.api.rules import Rule

JsonObject = dict[str, JsonValue]
"""A Kubernetes object or a part of one, as the API server speaks it."""


def format_time(moment: datetime) -> str:
    """RFC 3339 in UTC with whole seconds: what ``metav1.Time`` accepts and prints."""
    return moment.strftime("%Y-%m-%dT%H:%M:%SZ")


Time = Annotated[datetime, PlainSerializer(format_time, return_type=str)]
"""A moment in UTC, written as ``metav1.Time``."""


class ApiModel(BaseModel):
    """Base of everything that users write: camelCase outside, snake_case inside, immutable.

    Unknown fields are dropped, as the API server's structural schemas drop them. Docstrings of models and fields are
    what ``kubectl explain`` shows.
    """

    RULES: ClassVar[tuple[Rule, ...]] = ()
    """Admission rules of the API server; not checked here."""

    model_config = ConfigDict(
        alias_generator=to_camel,
        populate_by_name=True,
        frozen=True,
        extra="ignore",
        use_attribute_docstrings=True,
    )

    def to_json(self) -> JsonObject:
        """The object as the API server speaks it, without fields that are not set."""
        return self.model_dump(mode="json", by_alias=True, exclude_none=True)


class OwnerReference(ApiModel):
    """``metav1.OwnerReference``."""

    api_version: str
    kind: str
    name: str
    uid: str
    controller: bool = False
    block_owner_deletion: bool = False


class ObjectMeta(ApiModel):
    """The part of ``metav1.ObjectMeta`` that we read."""

    name: str = ""
    namespace: str = ""
    uid: str = ""
    generation: int = 0
    resource_version: str = ""
    creation_timestamp: Time | None = None
    deletion_timestamp: Time | None = None
    labels: dict[str, str] = Field(default_factory=dict)
    annotations: dict[str, str] = Field(default_factory=dict)
    finalizers: tuple[str, ...] = ()
    owner_references: tuple[OwnerReference, ...] = ()


class Resource(ApiModel):
    """Base of the kinds. ``GROUP``, ``VERSION``, ``KIND`` and ``PLURAL`` say where the API server keeps it."""

    GROUP: ClassVar[str]
    VERSION: ClassVar[str]
    KIND: ClassVar[str]
    PLURAL: ClassVar[str]
    NAMESPACED: ClassVar[bool]
    SHORT_NAMES: ClassVar[tuple[str, ...]] = ()
    CATEGORIES: ClassVar[tuple[str, ...]] = ("llmaz",)
    COLUMNS: ClassVar[tuple[Column, ...]] = ()
    SCALE: ClassVar[Scale | None] = None
    SELECTABLE: ClassVar[tuple[str, ...]] = ()
    """Paths that ``kubectl get --field-selector`` understands."""

    metadata: ObjectMeta = ObjectMeta()

    @classmethod
    def api_version_of_kind(cls) -> str:
        return f"{cls.GROUP}/{cls.VERSION}"

    def owner_reference(self) -> JsonObject:
        """A controller reference to this object, for the objects that it owns."""
        return {
            "apiVersion": self.api_version_of_kind(),
            "kind": self.KIND,
            "name": self.metadata.name,
            "uid": self.metadata.uid,
            "controller": True,
            "blockOwnerDeletion": True,
        }


class SecretKeyReference(ApiModel):
    """Names a Secret in the same namespace."""

    name: str = Field(min_length=1, max_length=253)
    """Name of the Secret."""
