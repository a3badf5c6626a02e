"""BackendRuntime (inference.llmaz.io/v1alpha1, cluster-scoped): how to run one engine. The schema is llmaz's."""

from typing import ClassVar

from pydantic import Field

from modelswarm.api.conditions import Condition
from modelswarm.api.core import EnvVar, HPABehavior, Lifecycle, MetricSpec, Probe, Quantity, ResourceList
from modelswarm.api.meta import ApiModel, Resource


class ResourceRequirements(ApiModel):
    """Limits and requests (llmaz leaves out claims)."""

    limits: ResourceList | None = None
    requests: ResourceList | None = None


class HPATrigger(ApiModel):
    """What the HorizontalPodAutoscaler looks at, as in autoscaling/v2."""

    metrics: tuple[MetricSpec, ...] | None = None
    behavior: HPABehavior | None = None


class ScaleTrigger(ApiModel):
    hpa: HPATrigger | None = None


class RecommendedConfig(ApiModel):
    name: str
    args: tuple[str, ...] = ()
    resources: ResourceRequirements | None = None
    shared_memory_size: Quantity | None = None
    scale_trigger: ScaleTrigger | None = None


class BackendRuntimeSpec(ApiModel):
    command: tuple[str, ...] = ()
    image: str
    version: str
    envs: tuple[EnvVar, ...] = ()
    lifecycle: Lifecycle | None = None
    liveness_probe: Probe | None = None
    readiness_probe: Probe | None = None
    startup_probe: Probe | None = None
    recommended_configs: tuple[RecommendedConfig, ...] = ()


class BackendRuntimeStatus(ApiModel):
    conditions: tuple[Condition, ...] = ()


class BackendRuntime(Resource):
    GROUP: ClassVar[str] = "inference.llmaz.io"
    VERSION: ClassVar[str] = "v1alpha1"
    KIND: ClassVar[str] = "BackendRuntime"
    PLURAL: ClassVar[str] = "backendruntimes"
    NAMESPACED: ClassVar[bool] = False

    spec: BackendRuntimeSpec
    status: BackendRuntimeStatus = Field(default_factory=BackendRuntimeStatus)
