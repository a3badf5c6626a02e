"""Whether what we want is already there, and whose an object is. Pure."""

from dataclasses import dataclass
from enum import StrEnum

from modelswarm.api.meta import JsonObject, Resource
from modelswarm.errors import RenderError
from modelswarm.kube.objects import metadata
from modelswarm.workload.quantity import parse_quantity

JsonValue = object


def is_applied(desired: JsonValue, live: JsonValue) -> bool:
    """Whether every field of ``desired`` stands in ``live`` (which has more: defaults, status, other owners' fields).

    Lists are compared element by element, quantities by value (the API server rewrites ``1000m`` as ``1``). A False
    where True was due costs one needless apply, which changes nothing; never the other way round.
    """
    if isinstance(desired, dict):
        if not isinstance(live, dict):
            return not desired and live is None
        return all(is_applied(value, live.get(key)) for key, value in desired.items())
    if isinstance(desired, list | tuple):
        if not isinstance(live, list):
            return not desired and live is None
        return len(desired) == len(live) and all(map(is_applied, desired, live))
    if desired == live:
        return True
    if isinstance(desired, str | int) and isinstance(live, str | int):
        try:
            return parse_quantity(desired) == parse_quantity(live)
        except RenderError:
            return False
    return False


class Ownership(StrEnum):
    """How an object that stands where ours should stand relates to its would-be owner."""

    OURS = "ours"
    STALE = "stale"
    """Controlled by an earlier object of the same kind and name: the garbage collector is about to take it."""
    FOREIGN = "foreign"


@dataclass(frozen=True, slots=True)
class ControllerOf:
    """The controller reference of an object."""

    kind: str
    name: str
    uid: str


def controller_of(obj: JsonObject) -> ControllerOf | None:
    """The object's controller, if it has one."""
    for reference in metadata(obj).get("ownerReferences") or []:
        if reference.get("controller"):
            return ControllerOf(str(reference.get("kind")), str(reference.get("name")), str(reference.get("uid")))
    return None


def ownership(obj: JsonObject, owner: Resource) -> Ownership:
    """Whether ``obj`` is controlled by ``owner``, by a predecessor of it, or by something else (or by nobody)."""
    controller = controller_of(obj)
    if controller is None or (controller.kind, controller.name) != (owner.KIND, owner.metadata.name):
        return Ownership.FOREIGN
    return Ownership.OURS if controller.uid == owner.metadata.uid else Ownership.STALE
