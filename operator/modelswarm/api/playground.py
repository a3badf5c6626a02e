"""Playground (inference.llmaz.io/v1alpha1): serve these models with that engine. The schema is llmaz's."""

from enum import StrEnum
from typing import Annotated, ClassVar

from modelswarm.api import rules
from modelswarm.api.backendruntime import ResourceRequirements, ScaleTrigger
from modelswarm.api.conditions import Condition
from modelswarm.api.core import EnvVar, Quantity
from modelswarm.api.markers import AGE, Bounds, Column, Int32, ListMap, ModelName, Required, Scale
from modelswarm.api.meta import ApiModel, Resource
from modelswarm.api.rules import Rule

DEFAULT_BACKEND = "vllm"


class ModelRole(StrEnum):
    MAIN = "main"
    DRAFT = "draft"


class ModelRef(ApiModel):
    """A model and its part."""

    name: ModelName
    """Name of the OpenModel."""
    role: ModelRole = ModelRole.MAIN
    """'main' answers; 'draft' guesses ahead for it (speculative decoding)."""


class ModelClaim(ApiModel):
    """One model to serve."""

    RULES: ClassVar[tuple[Rule, ...]] = rules.MODEL_NAME

    model_name: ModelName | None = None
    """Name of the OpenModel."""
    inference_flavors: tuple[str, ...] | None = None
    """Flavors of the model that may be used, in order of preference; without it, all of them."""


class ModelClaims(ApiModel):
    """Several models that serve together."""

    RULES: ClassVar[tuple[Rule, ...]] = rules.MODEL_CLAIMS

    models: Annotated[tuple[ModelRef, ...], Bounds(min_items=1, max_items=16)] = ()
    """The models: one main model and, for speculative decoding, one draft."""
    inference_flavors: tuple[str, ...] | None = None
    """Flavors of the main model that may be used, in order of preference; without it, all of them."""


class BackendRuntimeConfig(ApiModel):
    """Which engine, and what differs from its BackendRuntime."""

    backend_name: str = DEFAULT_BACKEND
    """Name of the BackendRuntime."""
    version: str | None = None
    """Tag of the engine's image, instead of the BackendRuntime's."""
    envs: tuple[EnvVar, ...] | None = None
    """Environment variables; they replace the BackendRuntime's of the same name."""
    config_name: str | None = None
    """Name of the recommended configuration. Without it: speculative-decoding with a draft model, else default."""
    args: tuple[str, ...] | None = None
    """Arguments that are added after those of the configuration."""
    resources: ResourceRequirements | None = None
    """Limits and requests; they replace those of the configuration, resource by resource."""
    shared_memory_size: Quantity | None = None
    """Size of /dev/shm, instead of the configuration's."""


class ElasticConfig(ApiModel):
    """Automatic scaling by a HorizontalPodAutoscaler."""

    RULES: ClassVar[tuple[Rule, ...]] = rules.ELASTIC

    min_replicas: Int32 = 1
    """The fewest replicas; at least 1."""
    max_replicas: Annotated[Int32, Bounds(minimum=1)]
    """The most replicas; more than minReplicas."""
    scale_trigger: ScaleTrigger | None = None
    """What makes the number of replicas change, instead of the BackendRuntime's trigger."""


class PlaygroundSpec(ApiModel):
    """What to serve and how."""

    RULES: ClassVar[tuple[Rule, ...]] = rules.CLAIM

    replicas: Annotated[Int32, Bounds(minimum=0)] = 1
    """Number of serving pods."""
    model_claim: ModelClaim | None = None
    """The model to serve. Excludes modelClaims."""
    model_claims: ModelClaims | None = None
    """Several models that serve together. Excludes modelClaim."""
    backend_runtime_config: BackendRuntimeConfig | None = None
    """Which engine; without it, vllm as its BackendRuntime says."""
    elastic_config: ElasticConfig | None = None
    """Automatic scaling; without it, replicas stays as it is."""


class PlaygroundStatus(ApiModel):
    """What became of it. Every status that is written carries 'replicas', which the schema requires."""

    conditions: Annotated[tuple[Condition, ...], ListMap("type")] = ()
    """Progressing, Available and Degraded. While it waits for a model or an image, Available says for what."""
    replicas: Annotated[Int32, Required()] = 0
    """Number of pods that exist."""
    selector: str | None = None
    """Label selector of the pods, for the HorizontalPodAutoscaler."""


class Playground(Resource):
    """Serves a model with an inference engine. The pods are created when model and image have been distributed."""

    GROUP: ClassVar[str] = "inference.llmaz.io"
    VERSION: ClassVar[str] = "v1alpha1"
    KIND: ClassVar[str] = "Playground"
    PLURAL: ClassVar[str] = "playgrounds"
    NAMESPACED: ClassVar[bool] = True
    SHORT_NAMES: ClassVar[tuple[str, ...]] = ("pl",)
    COLUMNS: ClassVar[tuple[Column, ...]] = (
        Column("Model", ".spec.modelClaim.modelName"),
        Column("Replicas", ".status.replicas", "integer"),
        Column("Status", ".status.conditions[?(@.type=='Available')].reason"),
        AGE,
        Column("Message", ".status.conditions[?(@.type=='Available')].message", priority=1),
    )
    SCALE: ClassVar[Scale | None] = Scale(".spec.replicas", ".status.replicas", ".status.selector")
    RULES: ClassVar[tuple[Rule, ...]] = (rules.NAME_IS_LABEL,)

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
