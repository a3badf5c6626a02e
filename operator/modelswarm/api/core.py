"""Types of Kubernetes' own API that are embedded in ours.

We pass them through untouched, so they stay JSON here; the marker tells ``schema.py`` which core OpenAPI schema they
carry in the CRD, so that a wrongly typed probe is refused at apply, by the API server, with its own words.
"""

from dataclasses import dataclass
from typing import Annotated

from modelswarm.api.markers import Bounds
from modelswarm.api.meta import JsonObject


@dataclass(frozen=True, slots=True)
class CoreSchema:
    """Marks a field whose schema is a definition of the core API, by its OpenAPI name."""

    name: str


EnvVar = Annotated[JsonObject, CoreSchema("io.k8s.api.core.v1.EnvVar")]
Probe = Annotated[JsonObject, CoreSchema("io.k8s.api.core.v1.Probe")]
Lifecycle = Annotated[JsonObject, CoreSchema("io.k8s.api.core.v1.Lifecycle")]
MetricSpec = Annotated[JsonObject, CoreSchema("io.k8s.api.autoscaling.v2.MetricSpec")]
HPABehavior = Annotated[JsonObject, CoreSchema("io.k8s.api.autoscaling.v2.HorizontalPodAutoscalerBehavior")]
Quantity = Annotated[str | int, CoreSchema("io.k8s.apimachinery.pkg.api.resource.Quantity")]
ResourceList = dict[str, Annotated[Quantity, Bounds(max_length=64)]]
"""Amounts by resource name. The bound is what comparing two amounts in CEL costs."""
