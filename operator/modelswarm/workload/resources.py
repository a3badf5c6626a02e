"""Requests and limits of the engine: what the runtime recommends, what the Playground wants, what the flavor takes."""

from collections.abc import Mapping
from dataclasses import dataclass, field

from modelswarm.api.backendruntime import ResourceRequirements
from modelswarm.api.meta import JsonObject
from modelswarm.workload.quantity import canonical, compare

_RAISED = ("cpu", "memory")


@dataclass(frozen=True, slots=True)
class Resources:
    """Quantities in canonical text, by resource name."""

    limits: Mapping[str, str] = field(default_factory=dict)
    requests: Mapping[str, str] = field(default_factory=dict)

    def to_json(self) -> JsonObject:
        """``ResourceRequirements``, without what is empty."""
        parts = {"limits": self.limits, "requests": self.requests}
        return {name: dict(quantities) for name, quantities in parts.items() if quantities}


def merge_resources(recommended: ResourceRequirements | None, wanted: ResourceRequirements | None) -> Resources:
    """llmaz's rule: the Playground's value wins key by key, what it leaves out is the recommendation's.

    A merge may leave a request above its limit (the one is the Playground's, the other the runtime's): then, for cpu
    and memory, the limit is raised to the request. A Playground that says nothing gets the recommendation as it is.
    """
    if wanted is None:
        return _read(recommended)
    base, own = _read(recommended), _read(wanted)
    limits, requests = {**base.limits, **own.limits}, {**base.requests, **own.requests}
    for name in _RAISED:
        if name in requests and compare(requests[name], limits.get(name, "0")) > 0:
            limits[name] = requests[name]
    return Resources(limits, requests)


def with_flavor(resources: Resources, limits: Mapping[str, str | int] | None) -> Resources:
    """A flavor's limits are what the model takes: they replace requests and limits alike."""
    taken = {name: canonical(quantity) for name, quantity in (limits or {}).items()}
    return Resources({**resources.limits, **taken}, {**resources.requests, **taken})


def _read(requirements: ResourceRequirements | None) -> Resources:
    if requirements is None:
        return Resources()
    return Resources(
        {name: canonical(quantity) for name, quantity in (requirements.limits or {}).items()},
        {name: canonical(quantity) for name, quantity in (requirements.requests or {}).items()},
    )
