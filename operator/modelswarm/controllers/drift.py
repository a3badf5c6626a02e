"""Whether what we want is already there, and whose an object is. Pure."""

import hashlib
import json
from dataclasses import dataclass
from enum import StrEnum

from modelswarm.api.meta import JsonObject, Resource
from modelswarm.errors import RenderError
from modelswarm.kube.objects import metadata
from modelswarm.workload.quantity import parse_quantity

JsonValue = object
APPLIED = "modelswarm.io/applied"
"""On what ``stamped`` was called for: a digest of everything that we last applied."""
QUANTITIES = frozenset({"limits", "requests", "sizeLimit", "divisor", "target"})
"""Fields that are quantities, or hold some (``target`` of an autoscaler's metric)."""


def is_applied(desired: JsonValue, live: JsonValue, *, quantity: bool = False) -> bool:
    """Whether every field of ``desired`` stands in ``live`` (which has more: defaults, status, other owners' fields).

    Lists are compared element by element; where quantities stand, by value (the API server rewrites ``1000m`` as
    ``1``), and nowhere else: from ``1.1`` to ``1.10`` is a change of a label. A False where True was due costs one
    needless apply, which changes nothing. A field that we *no longer* want looks like one of another owner's;
    ``stamped`` is for that.
    """
    if isinstance(desired, dict):
        if not isinstance(live, dict):
            return not desired and live is None
        return all(
            is_applied(value, live.get(key), quantity=quantity or key in QUANTITIES) for key, value in desired.items()
        )
    if isinstance(desired, list | tuple):
        if not isinstance(live, list):
            return not desired and live is None
        return len(desired) == len(live) and all(
            is_applied(one, other, quantity=quantity) for one, other in zip(desired, live, strict=True)
        )
    if desired == live:
        return True
    if quantity and isinstance(desired, str | int) and isinstance(live, str | int):
        try:
            return parse_quantity(desired) == parse_quantity(live)
        except RenderError:
            return False
    return False


def stamped(desired: JsonObject) -> JsonObject:
    """The object with a digest of itself as an annotation.

    With it, ``is_applied`` is also False when a field was dropped since the last apply: the digest is another one then,
    and server-side apply removes what we owned and do not name any more.
    """
    text = json.dumps(desired, sort_keys=True, separators=(",", ":"))
    digest = hashlib.sha256(text.encode()).hexdigest()[:16]
    meta = metadata(desired)
    return {**desired, "metadata": {**meta, "annotations": {**(meta.get("annotations") or {}), APPLIED: digest}}}


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
