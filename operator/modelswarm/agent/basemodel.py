"""OME's BaseModel and ClusterBaseModel (ome.io/v1beta1), as far as a node needs to read them.

Facts about OME: ``storage.key`` names a Secret in the object's namespace (for ClusterBaseModels: the agent's), whose
data key is ``token`` unless ``parameters.secretKey`` says otherwise; ``storage.path`` is where pods look for the model
on the node.
"""

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass
from typing import ClassVar

from pydantic import Field

from modelswarm.agent.nodeaffinity import NodeAffinity, allows
from modelswarm.api.meta import ApiModel, ObjectMeta
from modelswarm.api.openmodel import ModelHub, ModelSource
from modelswarm.content.source import HubSource, parse_source
from modelswarm.errors import InvalidReference
from modelswarm.placement import matches

TOKEN_KEY = "token"
SKIP_CONFIG = "ome.oracle.com/skip-config-parsing"
"""Annotation: ``true`` keeps OME's agents from reading ``config.json``."""
_BY_CONTROLLER = frozenset({"pvc"})
"""OME's own controller serves these; a node has nothing to say about them."""


class Storage(ApiModel):
    """``spec.storage``."""

    storage_uri: str = ""
    path: str | None = None
    key: str | None = None
    parameters: dict[str, str] = Field(default_factory=dict)
    node_selector: dict[str, str] = Field(default_factory=dict)
    node_affinity: NodeAffinity | None = None

    @property
    def secret_key(self) -> str:
        """The key in the Secret's data."""
        return self.parameters.get("secretKey") or TOKEN_KEY


class OmeSpec(ApiModel):
    storage: Storage | None = None


class OmeModel(ApiModel):
    """A BaseModel; without a namespace: a ClusterBaseModel."""

    KINDS: ClassVar[tuple[str, str]] = ("ClusterBaseModel", "BaseModel")

    metadata: ObjectMeta = ObjectMeta()
    spec: OmeSpec = OmeSpec()

    @property
    def kind(self) -> str:
        return self.KINDS[bool(self.metadata.namespace)]

    @property
    def is_described(self) -> bool:
        """Whether what the model's files say of it may be told."""
        return self.metadata.annotations.get(SKIP_CONFIG, "").lower() != "true"

    def belongs_on(self, node: str, labels: Mapping[str, str]) -> bool:
        """Whether the node should have it: ``nodeSelector`` and ``nodeAffinity`` both let it through."""
        storage = self.spec.storage or Storage()
        return matches(storage.node_selector, labels) and allows(storage.node_affinity, node, labels)


@dataclass(frozen=True, slots=True)
class HubStorage:
    """``hf://MODEL[@BRANCH]``."""

    source: HubSource


@dataclass(frozen=True, slots=True)
class LocalStorage:
    """``local://PATH``: it should be on the node already, and is never deleted."""

    path: str


@dataclass(frozen=True, slots=True)
class VendorStorage:
    """``vendor://...``: nothing on the node at all; always ready."""


@dataclass(frozen=True, slots=True)
class OtherStorage:
    """A scheme that agents do not fetch. ``by_controller``: nodes have no part in it, so none is reported."""

    scheme: str
    by_controller: bool


def parse_storage(storage: Storage) -> HubStorage | LocalStorage | VendorStorage | OtherStorage:
    """What ``storageUri`` names. Raises ``InvalidReference``."""
    scheme, separator, address = storage.storage_uri.partition("://")
    if not separator or not address:
        raise InvalidReference(f"storageUri {storage.storage_uri!r} is not of the form SCHEME://ADDRESS")
    match scheme:
        case "hf":
            model_id, _, branch = address.partition("@")
            hub = ModelHub(model_id=model_id, revision=branch or "main")
            try:
                source = parse_source(ModelSource(model_hub=hub))
            except InvalidReference as error:
                raise InvalidReference(
                    f"storageUri {storage.storage_uri!r}: {error.message.replace('modelHub.', '')}"
                ) from None
            assert isinstance(source, HubSource)
            return HubStorage(source)
        case "local":
            return LocalStorage(storage.path or address)
        case "vendor":
            return VendorStorage()
    return OtherStorage(scheme, scheme in _BY_CONTROLLER)


def model_hash(text: str) -> str:
    """The seed's name for a model: hex SHA-256 of ``MODEL@REVISION``."""
    return hashlib.sha256(text.encode()).hexdigest()
