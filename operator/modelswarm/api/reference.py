"""The reference page of the kinds, in Markdown, from the same models as the CRDs."""

from collections.abc import Iterator, Sequence

from modelswarm.api.conditions import Condition
from modelswarm.api.fields import Core, Element, IntOrWord, ListOf, MapOf, Scalar, Struct, describe, fields_of
from modelswarm.api.markers import Bounds
from modelswarm.api.meta import Resource
from modelswarm.api.rules import Rule

_INTRODUCTION = """\
# API reference

Generated from `operator/modelswarm/api` by `make crds`; change it there. `kubectl explain` shows the same.
Types such as core/v1 Probe are Kubernetes' own. Why bounds and rules are as they are: [api-bounds.md](api-bounds.md).
"""


def reference_page(kinds: Sequence[type[Resource]]) -> str:
    """Tables of all fields and rules."""
    return "\n".join([_INTRODUCTION, *(line for kind in kinds for line in _section(kind))]).rstrip() + "\n"


def _section(kind: type[Resource]) -> Iterator[str]:
    scope = "namespaced" if kind.NAMESPACED else "cluster-scoped"
    yield f"## {kind.KIND}"
    yield ""
    yield f"`{kind.GROUP}/{kind.VERSION}`, {scope}, short name `{kind.SHORT_NAMES[0]}`. {describe(kind)}"
    yield ""
    yield "| field | type | default | description |"
    yield "|---|---|---|---|"
    fields = {field.name: field for field in fields_of(kind)}
    parts = [part for part in ("spec", "status") if part in fields]
    for part in parts:
        yield from _rows(part, fields[part].element, defaults=part == "spec")
    rules = [("metadata.name", rule) for rule in kind.RULES]
    rules += [found for part in parts for found in _rules(part, fields[part].element)]
    yield ""
    if rules:
        yield "Admission rules:"
        yield ""
        yield from (f"* `{path}`: {rule.message}" for path, rule in rules)
        yield ""


def _rows(path: str, element: Element, *, defaults: bool) -> Iterator[str]:
    match element.shape:
        case Struct(model=model) if model is not Condition:
            for field in fields_of(model):
                default = "" if not defaults or field.default is None else f"`{_value(field.default)}`"
                if field.required:
                    default = "required"
                name = f"{path}.{field.name}"
                type_ = type_text(field.element)
                yield f"| `{name}` | {type_} | {default} | {_cell(field.description)} |"
                yield from _rows(name, field.element, defaults=defaults)
        case ListOf(element=item):
            yield from _rows(f"{path}[]", item, defaults=defaults)
        case MapOf(element=item):
            yield from _rows(f"{path}.*", item, defaults=defaults)


def _rules(path: str, element: Element) -> Iterator[tuple[str, Rule]]:
    yield from ((path, rule) for rule in element.marked(Rule))
    match element.shape:
        case Struct(model=model):
            yield from ((path, rule) for rule in model.RULES)
            for field in fields_of(model):
                yield from _rules(f"{path}.{field.name}", field.element)
        case ListOf(element=item):
            yield from _rules(f"{path}[]", item)
        case MapOf(element=item):
            yield from _rules(f"{path}.*", item)


def type_text(element: Element) -> str:
    """A type in a few words, with its bounds."""
    return _shape_text(element) + "".join(_bounds_text(element))


def _shape_text(element: Element) -> str:
    match element.shape:
        case Scalar(enum=enum) if enum:
            return " or ".join(f"`{word}`" for word in enum)
        case Scalar(format="date-time"):
            return "time"
        case Scalar(type=type_):
            return type_
        case IntOrWord(words=words):
            return " or ".join(["integer", *(f"`{word}`" for word in words)])
        case Core(name=name):
            return core_name(name)
        case Struct(model=model):
            return "meta/v1 Condition" if model is Condition else "object"
        case ListOf(element=item):
            return f"list of {_shape_text(item)}"
        case MapOf(element=item):
            return f"map of {_shape_text(item)}"


def core_name(name: str) -> str:
    """``io.k8s.api.core.v1.Probe`` as ``core/v1 Probe``."""
    *_, group, version, kind = name.split(".")
    return "quantity" if kind == "Quantity" else f"{group}/{version} {kind}"


def _bounds_text(element: Element) -> Iterator[str]:
    for bounds in element.marked(Bounds):
        if bounds.minimum is not None:
            yield f", ≥ {bounds.minimum}"
        if bounds.maximum is not None:
            yield f", ≤ {bounds.maximum}"
        if bounds.max_length is not None:
            yield f", ≤ {bounds.max_length} characters"
        if bounds.max_items is not None:
            yield f", ≤ {bounds.max_items} items"
        if bounds.max_properties is not None:
            yield f", ≤ {bounds.max_properties} keys"


def _value(value: object) -> str:
    return str(value).lower() if isinstance(value, bool) else str(value)


def _cell(text: str) -> str:
    return text.replace("|", "\\|")
