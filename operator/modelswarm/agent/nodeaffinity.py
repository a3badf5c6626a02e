"""Which nodes a ``nodeAffinity`` lets through, exactly as Kubernetes decides it.

The rules are those of ``k8s.io/component-helpers/scheduling/corev1/nodeaffinity`` and ``apimachinery/pkg/labels``. What
the API server would refuse in a Pod can stand in a custom resource; there, as in those packages, a term that does not
parse matches nothing.
"""

import re
from collections.abc import Mapping
from enum import StrEnum

from modelswarm.api.meta import ApiModel

_NAME = re.compile(r"[A-Za-z0-9]([-A-Za-z0-9_.]{0,61}[A-Za-z0-9])?", re.ASCII)
_SUBDOMAIN = re.compile(r"[a-z0-9]([-a-z0-9]*[a-z0-9])?(\.[a-z0-9]([-a-z0-9]*[a-z0-9])?)*", re.ASCII)
_INTEGER = re.compile(r"[+-]?[0-9]+", re.ASCII)
_INT64 = range(-(1 << 63), 1 << 63)


class Operator(StrEnum):
    IN = "In"
    NOT_IN = "NotIn"
    EXISTS = "Exists"
    DOES_NOT_EXIST = "DoesNotExist"
    GT = "Gt"
    LT = "Lt"


class Requirement(ApiModel):
    """``core/v1 NodeSelectorRequirement``. The operator is any text: an unknown one is a term that does not parse."""

    key: str = ""
    operator: str = ""
    values: tuple[str, ...] = ()


class Term(ApiModel):
    """``core/v1 NodeSelectorTerm``: all its requirements have to match."""

    match_expressions: tuple[Requirement, ...] = ()
    match_fields: tuple[Requirement, ...] = ()


class NodeSelector(ApiModel):
    """``core/v1 NodeSelector``: one of its terms has to match."""

    node_selector_terms: tuple[Term, ...] = ()


class NodeAffinity(ApiModel):
    """``core/v1 NodeAffinity``; what is only preferred decides nothing here."""

    required_during_scheduling_ignored_during_execution: NodeSelector | None = None


def allows(affinity: NodeAffinity | None, name: str, labels: Mapping[str, str]) -> bool:
    """Whether the node may be used. Without a requirement any may; a requirement without terms excludes all."""
    required = affinity.required_during_scheduling_ignored_during_execution if affinity is not None else None
    if required is None:
        return True
    return any(_term_matches(term, name, labels) for term in required.node_selector_terms)


def _term_matches(term: Term, name: str, labels: Mapping[str, str]) -> bool:
    if not term.match_expressions and not term.match_fields:
        return False
    if not all(map(_is_valid_expression, term.match_expressions)) or not all(map(_is_valid_field, term.match_fields)):
        return False
    fields = {"metadata.name": name}
    return all(_label_matches(each, labels) for each in term.match_expressions) and all(
        _field_matches(each, fields) for each in term.match_fields
    )


def _label_matches(requirement: Requirement, labels: Mapping[str, str]) -> bool:
    value = labels.get(requirement.key)
    match requirement.operator:
        case Operator.IN:
            return value is not None and value in requirement.values
        case Operator.NOT_IN:
            return value is None or value not in requirement.values
        case Operator.EXISTS:
            return value is not None
        case Operator.DOES_NOT_EXIST:
            return value is None
    number, bound = _integer(value or ""), _integer(requirement.values[0])
    if number is None or bound is None:
        return False
    return number > bound if requirement.operator == Operator.GT else number < bound


def _field_matches(requirement: Requirement, fields: Mapping[str, str]) -> bool:
    """A field that does not exist is empty."""
    same = fields.get(requirement.key, "") == requirement.values[0]
    return same if requirement.operator == Operator.IN else not same


def _is_valid_expression(requirement: Requirement) -> bool:
    """As ``labels.NewRequirement``."""
    values = requirement.values
    match requirement.operator:
        case Operator.IN | Operator.NOT_IN:
            fits = len(values) > 0
        case Operator.EXISTS | Operator.DOES_NOT_EXIST:
            fits = len(values) == 0
        case Operator.GT | Operator.LT:
            fits = len(values) == 1 and _integer(values[0]) is not None
        case _:
            return False
    return fits and _is_label_key(requirement.key) and all(map(_is_label_value, values))


def _is_valid_field(requirement: Requirement) -> bool:
    return requirement.operator in (Operator.IN, Operator.NOT_IN) and len(requirement.values) == 1


def _is_label_key(key: str) -> bool:
    prefix, slash, name = key.rpartition("/")
    if slash and (len(prefix) > 253 or not _SUBDOMAIN.fullmatch(prefix)):
        return False
    return _NAME.fullmatch(name) is not None


def _is_label_value(value: str) -> bool:
    return not value or _NAME.fullmatch(value) is not None


def _integer(text: str) -> int | None:
    """As Go's ``strconv.ParseInt(text, 10, 64)``."""
    # Leading zeros aside, no number of 64 bits is longer; int() itself refuses texts of thousands of digits.
    if not _INTEGER.fullmatch(text) or len(text) > 1000:
        return None
    number = int(text)
    return number if number in _INT64 else None
