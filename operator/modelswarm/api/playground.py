"""Playground (inference.llmaz.io/v1alpha1): serve these models with that engine. The schema is llmaz's."""

from enum import StrEnum
from typing import ClassVar

from modelswarm.api.backendruntime import ResourceRequirements, ScaleTrigger
from modelswarm.api.conditions import Condition
from modelswarm.api.core import EnvVar, Quantity
from modelswarm.api.meta import ApiModel, Resource

DEFAULT_BACKEND = "vllm"


class ModelRole(StrEnum):
    MAIN = "main"
    DRAFT = "draft"


class ModelRef(ApiModel):
    name: str
    role: ModelRole = ModelRole.MAIN


class ModelClaim(ApiModel):
    model_name: str | None = None
    inference_flavors: tuple[str, ...] | None = None


class ModelClaims(ApiModel):
    models: tuple[ModelRef, ...] = ()
    inference_flavors: tuple[str, ...] | None = None


class BackendRuntimeConfig(ApiModel):
    backend_name: str = DEFAULT_BACKEND
    version: str | None = None
    envs: tuple[EnvVar, ...] | None = None
    config_name: str | None = None
    args: tuple[str, ...] | None = None
    resources: ResourceRequirements | None = None
    shared_memory_size: Quantity | None = None


class ElasticConfig(ApiModel):
    min_replicas: int = 1
    max_replicas: int
    scale_trigger: ScaleTrigger | None = None


class PlaygroundSpec(ApiModel):
    replicas: int = 1
    model_claim: ModelClaim | None = None
    model_claims: ModelClaims | None = None
    backend_runtime_config: BackendRuntimeConfig | None = None
    elastic_config: ElasticConfig | None = None


class PlaygroundStatus(ApiModel):
    """``replicas`` is required by the schema, so every status that is written carries it."""

    conditions: tuple[Condition, ...] = ()
    replicas: int = 0
    selector: str | None = None


class Playground(Resource):
    GROUP: ClassVar[str] = "inference.llmaz.io"
    VERSION: ClassVar[str] = "v1alpha1"
    KIND: ClassVar[str] = "Playground"
    PLURAL: ClassVar[str] = "playgrounds"
    NAMESPACED: ClassVar[bool] = True

    spec: PlaygroundSpec
    status: PlaygroundStatus = PlaygroundStatus()

    @property
    def model_refs(self) -> tuple[ModelRef, ...]:
        """The models with roles, main models first (the first one is *the* main model), else in the order written."""
        claims, claim = self.spec.model_claims, self.spec.model_claim
        if claims is not None:
            main = [ref for ref in claims.models if ref.role is ModelRole.MAIN]
            return (*main, *(ref for ref in claims.models if ref.role is not ModelRole.MAIN))
        if claim is not None and claim.model_name:
            return (ModelRef(name=claim.model_name),)
        return ()

    @property
    def inference_flavors(self) -> tuple[str, ...]:
        claim = self.spec.model_claims or self.spec.model_claim
        return (claim.inference_flavors or ()) if claim is not None else ()

    @property
    def backend_name(self) -> str:
        config = self.spec.backend_runtime_config
        return config.backend_name if config is not None else DEFAULT_BACKEND
