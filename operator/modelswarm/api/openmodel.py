"""OpenModel (llmaz.io/v1alpha1, cluster-scoped): a model and where it comes from. The schema is llmaz's."""

from enum import StrEnum
from typing import ClassVar

from pydantic import Field

from modelswarm.api.conditions import Condition
from modelswarm.api.core import ResourceList
from modelswarm.api.meta import ApiModel, Resource, Time


class HubName(StrEnum):
    """Model hubs, spelled as in llmaz."""

    HUGGINGFACE = "Huggingface"
    MODELSCOPE = "ModelScope"


class ModelHub(ApiModel):
    name: HubName = HubName.HUGGINGFACE
    model_id: str | None = Field(default=None, alias="modelID")
    filename: str | None = None
    revision: str = "main"
    allow_patterns: tuple[str, ...] | None = None
    ignore_patterns: tuple[str, ...] | None = None


class ModelSource(ApiModel):
    """Where the bytes come from. ``modelHub`` wins over ``uri`` when both are set (llmaz's rule)."""

    model_hub: ModelHub | None = None
    uri: str | None = None


class Flavor(ApiModel):
    name: str
    limits: ResourceList | None = None
    node_selector: dict[str, str] | None = None
    params: dict[str, str] | None = None


class InferenceConfig(ApiModel):
    flavors: tuple[Flavor, ...] = ()


class OpenModelSpec(ApiModel):
    family_name: str
    source: ModelSource
    owned_by: str = "llmaz"
    created_at: Time | None = None
    inference_config: InferenceConfig | None = None


class OpenModelStatus(ApiModel):
    conditions: tuple[Condition, ...] = ()


class OpenModel(Resource):
    GROUP: ClassVar[str] = "llmaz.io"
    VERSION: ClassVar[str] = "v1alpha1"
    KIND: ClassVar[str] = "OpenModel"
    PLURAL: ClassVar[str] = "openmodels"
    NAMESPACED: ClassVar[bool] = False

    spec: OpenModelSpec
    status: OpenModelStatus = OpenModelStatus()

    @property
    def flavors(self) -> tuple[Flavor, ...]:
        config = self.spec.inference_config
        return config.flavors if config is not None else ()
