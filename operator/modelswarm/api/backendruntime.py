"""BackendRuntime (inference.llmaz.io/v1alpha1, cluster-scoped): how to run one engine. The schema is llmaz's."""

from typing import Annotated, ClassVar

from pydantic import Field

from modelswarm.api import rules
from modelswarm.api.conditions import Condition
from modelswarm.api.core import EnvVar, HPABehavior, Lifecycle, MetricSpec, Probe, Quantity, ResourceList
from modelswarm.api.markers import AGE, Bounds, Column, ListMap
from modelswarm.api.meta import ApiModel, Resource
from modelswarm.api.rules import Rule


class ResourceRequirements(ApiModel):
    """Limits and requests of the serving container."""

    RULES: ClassVar[tuple[Rule, ...]] = rules.RESOURCES

    limits: Annotated[ResourceList, Bounds(max_properties=32)] | None = None
    """The most that the container may use, per resource."""
    requests: Annotated[ResourceList, Bounds(max_properties=32)] | None = None
    """What the container is guaranteed, per resource. Not above the limit."""


class HPATrigger(ApiModel):
    """What the HorizontalPodAutoscaler looks at, as in autoscaling/v2."""

    metrics: tuple[MetricSpec, ...] | None = None
    """The metrics that decide about the number of replicas."""
    behavior: HPABehavior | None = None
    """How fast to scale up and down."""


class ScaleTrigger(ApiModel):
    """What makes the number of replicas change."""

    hpa: HPATrigger | None = None
    """A HorizontalPodAutoscaler."""


class RecommendedConfig(ApiModel):
    """A named way to start the engine."""

    name: str
    """Name of the configuration. 'default' and 'speculative-decoding' are chosen by themselves."""
    args: tuple[str, ...] = ()
    """Arguments. '{{ .ModelPath }}', '{{ .ModelName }}' and '{{ .DraftModelPath }}' are filled in."""
    resources: ResourceRequirements | None = None
    """Limits and requests of the serving container; a Playground overrides them per resource."""
    shared_memory_size: Quantity | None = None
    """Size of /dev/shm."""
    scale_trigger: ScaleTrigger | None = None
    """What scales Playgrounds that have an elasticConfig without a trigger of their own."""


class BackendRuntimeSpec(ApiModel):
    """How to run the engine."""

    command: tuple[str, ...] = ()
    """Command of the container; without it the image's own entry point runs."""
    image: str
    """Image without a tag."""
    version: str
    """Tag of the image; a Playground may choose another."""
    envs: tuple[EnvVar, ...] = ()
    """Environment variables of the serving container."""
    lifecycle: Lifecycle | None = None
    """Hooks after start and before stop."""
    liveness_probe: Probe | None = None
    """When to restart the container."""
    readiness_probe: Probe | None = None
    """When the container may get requests."""
    startup_probe: Probe | None = None
    """When the engine has started. Downloading the model comes before and does not count."""
    recommended_configs: Annotated[tuple[RecommendedConfig, ...], ListMap("name"), Bounds(max_items=32)] = ()
    """Ways to start the engine, by name."""


class BackendRuntimeStatus(ApiModel):
    """Reserved; nobody writes it."""

    conditions: Annotated[tuple[Condition, ...], ListMap("type")] = ()
    """Reserved."""


class BackendRuntime(Resource):
    """How to run one inference engine: image, command, arguments and probes. Playgrounds choose it by name."""

    GROUP: ClassVar[str] = "inference.llmaz.io"
    VERSION: ClassVar[str] = "v1alpha1"
    KIND: ClassVar[str] = "BackendRuntime"
    PLURAL: ClassVar[str] = "backendruntimes"
    NAMESPACED: ClassVar[bool] = False
    SHORT_NAMES: ClassVar[tuple[str, ...]] = ("br",)
    COLUMNS: ClassVar[tuple[Column, ...]] = (
        Column("Image", ".spec.image", priority=1),
        Column("Version", ".spec.version", priority=1),
        AGE,
    )

    spec: BackendRuntimeSpec
    status: BackendRuntimeStatus = Field(default_factory=BackendRuntimeStatus)
