"""OpenModel (llmaz.io/v1alpha1, cluster-scoped): a model and where it comes from. The schema is llmaz's."""

from enum import StrEnum
from typing import Annotated, ClassVar

from pydantic import Field

from modelswarm.api import rules
from modelswarm.api.conditions import Condition
from modelswarm.api.core import ResourceList
from modelswarm.api.markers import AGE, Bounds, Column, ListMap, Patterns, ShortText
from modelswarm.api.meta import ApiModel, Resource, Time
from modelswarm.api.rules import Rule


class HubName(StrEnum):
    """Model hubs, spelled as in llmaz."""

    HUGGINGFACE = "Huggingface"
    MODELSCOPE = "ModelScope"


class ModelHub(ApiModel):
    """A repository on a model hub."""

    RULES: ClassVar[tuple[Rule, ...]] = rules.MODEL_HUB

    name: HubName = HubName.HUGGINGFACE
    """The hub."""
    model_id: ShortText | None = Field(default=None, alias="modelID")
    """The repository, as ORGANISATION/NAME."""
    filename: ShortText | None = None
    """Take this one file only, for example a GGUF file. Hugging Face only; excludes the patterns."""
    revision: ShortText = "main"
    """Branch, tag or commit. A branch or tag is pinned to its commit when the model is first distributed."""
    allow_patterns: Annotated[Patterns, Bounds(max_items=64)] | None = None
    """Take only files that match one of these shell patterns."""
    ignore_patterns: Annotated[Patterns, Bounds(max_items=64)] | None = None
    """Leave out files that match one of these shell patterns."""


class ModelSource(ApiModel):
    """Where the bytes come from. 'modelHub' wins over 'uri' when both are set."""

    RULES: ClassVar[tuple[Rule, ...]] = rules.SOURCE

    model_hub: ModelHub | None = None
    """A repository on a model hub."""
    uri: Annotated[str, Bounds(max_length=2048), *rules.URI] | None = None
    """Another origin: oss://BUCKET.ENDPOINT/PATH, s3://BUCKET/PATH or gcs://BUCKET/PATH (object stores),
    ollama://MODEL (the engine pulls by itself) or host:///PATH (a directory that is on the node already)."""


class Flavor(ApiModel):
    """One kind of accelerator that the model can run on."""

    name: str
    """Name of the flavor, for 'inferenceFlavors' of a Playground."""
    limits: ResourceList | None = None
    """Resources of the serving container (limits and requests alike), such as nvidia.com/gpu."""
    node_selector: dict[str, str] | None = None
    """Labels of the nodes that have it. They say where copies of the model are placed ahead of time."""
    params: dict[str, str] | None = None
    """Free-form hints, such as the degree of tensor parallelism. Not used by the controllers."""


class InferenceConfig(ApiModel):
    """How the model wants to be served."""

    flavors: Annotated[tuple[Flavor, ...], Bounds(max_items=8)] = ()
    """Flavors in order of preference; the first is taken unless a Playground names another."""


class OpenModelSpec(ApiModel):
    """The model that is wanted."""

    family_name: Annotated[str, Bounds(max_length=256), *rules.FAMILY_NAME]
    """Model family, such as llama3. It becomes the label llmaz.io/model-family-name."""
    source: ModelSource
    """Where the bytes come from: modelHub or uri."""
    owned_by: str = "llmaz"
    """Owner that an OpenAI-compatible list of models shows."""
    created_at: Time | None = None
    """Time of creation that an OpenAI-compatible list of models shows. Without it, the object's own counts."""
    inference_config: InferenceConfig | None = None
    """How the model wants to be served."""


class OpenModelStatus(ApiModel):
    """What became of it."""

    conditions: Annotated[tuple[Condition, ...], ListMap("type")] = ()
    """Pending while the bytes are on their way, Ready when they are where they belong."""


class OpenModel(Resource):
    """A model and where it comes from. Playgrounds serve it by name."""

    GROUP: ClassVar[str] = "llmaz.io"
    VERSION: ClassVar[str] = "v1alpha1"
    KIND: ClassVar[str] = "OpenModel"
    PLURAL: ClassVar[str] = "openmodels"
    NAMESPACED: ClassVar[bool] = False
    SHORT_NAMES: ClassVar[tuple[str, ...]] = ("om",)
    COLUMNS: ClassVar[tuple[Column, ...]] = (
        Column("OwnedBy", ".spec.ownedBy"),
        AGE,
        Column("ModelHub", ".spec.source.modelHub.name"),
        Column("ModelID", ".spec.source.modelHub.modelID"),
        Column("URI", ".spec.source.uri"),
        Column("Ready", ".status.conditions[?(@.type=='Ready')].status", priority=1),
        Column("Message", ".status.conditions[?(@.type=='Ready')].message", priority=1),
    )
    RULES: ClassVar[tuple[Rule, ...]] = (rules.NAME_IS_LABEL,)

    spec: OpenModelSpec
    status: OpenModelStatus = OpenModelStatus()

    @property
    def flavors(self) -> tuple[Flavor, ...]:
        config = self.spec.inference_config
        return config.flavors if config is not None else ()
