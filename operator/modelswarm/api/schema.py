"""Turns the pydantic models into structural CustomResourceDefinitions and into the reference page.

    python -m modelswarm.api.schema --output crds [--output COPY] --docs docs/reference/crds.md --embed FILE [--check]

Same models, same bytes: the output is checked in, and ``--check`` says whether it is current.
"""

import argparse
import difflib
import json
import sys
from collections.abc import Sequence
from functools import cache
from pathlib import Path
from typing import cast

import yaml

from modelswarm.api.backendruntime import BackendRuntime
from modelswarm.api.fields import Core, Element, IntOrWord, ListOf, MapOf, Scalar, Struct, describe, fields_of
from modelswarm.api.markers import Bounds, Column, ListMap
from modelswarm.api.meta import ApiModel, JsonObject, Resource
from modelswarm.api.nodecache import NodeCache
from modelswarm.api.openmodel import OpenModel
from modelswarm.api.p2ptask import P2PTask
from modelswarm.api.playground import Playground
from modelswarm.api.reference import reference_page
from modelswarm.api.rules import Rule

KINDS: tuple[type[Resource], ...] = (OpenModel, Playground, BackendRuntime, P2PTask, NodeCache)

_SEPARATOR = "\n---\n"
_HEADER = "# Generated from operator/modelswarm/api by `make crds`; change it there.\n"
_BOUNDS = {
    "minimum": "minimum",
    "maximum": "maximum",
    "min_length": "minLength",
    "max_length": "maxLength",
    "min_items": "minItems",
    "max_items": "maxItems",
    "max_properties": "maxProperties",
    "pattern": "pattern",
}


def definition(kind: type[Resource]) -> JsonObject:
    """The CustomResourceDefinition of a kind."""
    names: JsonObject = {
        "kind": kind.KIND,
        "listKind": f"{kind.KIND}List",
        "plural": kind.PLURAL,
        "singular": kind.KIND.lower(),
        "shortNames": list(kind.SHORT_NAMES),
        "categories": list(kind.CATEGORIES),
    }
    version: JsonObject = {
        "name": kind.VERSION,
        "served": True,
        "storage": True,
        "additionalPrinterColumns": [_column(column) for column in kind.COLUMNS],
        "schema": {"openAPIV3Schema": root_schema(kind)},
        "subresources": _subresources(kind),
    }
    if kind.SELECTABLE:
        version["selectableFields"] = [{"jsonPath": path} for path in kind.SELECTABLE]
    return {
        "apiVersion": "apiextensions.k8s.io/v1",
        "kind": "CustomResourceDefinition",
        "metadata": {"name": f"{kind.PLURAL}.{kind.GROUP}"},
        "spec": {
            "group": kind.GROUP,
            "names": names,
            "scope": "Namespaced" if kind.NAMESPACED else "Cluster",
            "versions": [version],
        },
    }


def root_schema(kind: type[Resource]) -> JsonObject:
    """The OpenAPI v3 schema of a kind. Only ``spec`` has defaults: nobody but its controller writes a status."""
    fields = {field.name: field for field in fields_of(kind)}
    properties: JsonObject = {
        "apiVersion": {"type": "string"},
        "kind": {"type": "string"},
        # Named so that a rule about it can point there; the API server knows the rest of metadata by itself.
        "metadata": {"type": "object", "properties": {"name": {"type": "string"}}},
    }
    parts = [name for name in ("spec", "status") if name in fields]  # what only reports has no spec
    for name in parts:
        properties[name] = {
            "description": fields[name].description,
            **schema_of(fields[name].element, defaults=name == "spec"),
        }
    schema: JsonObject = {"description": describe(kind), "type": "object"}
    if "spec" in parts:
        schema["required"] = ["spec"]
    schema["properties"] = properties
    return schema | _validations(kind.RULES)


def schema_of(element: Element, *, defaults: bool) -> JsonObject:
    """The structural schema of a type. Optional fields are those that are not required; nothing is nullable."""
    match element.shape:
        case Scalar(type=type_, format=format_, enum=enum):
            schema: JsonObject = {"type": type_}
            if format_:
                schema["format"] = format_
            if enum:
                schema["enum"] = [str(word) for word in enum]
        case IntOrWord():
            schema = {"x-kubernetes-int-or-string": True}
        case Core(name=name):
            schema = core_schema(name)
        case Struct(model=model):
            schema = _object(model, defaults=defaults)
        case ListOf(element=item):
            schema = {"type": "array", "items": schema_of(item, defaults=defaults)}
        case MapOf(element=item):
            schema = {"type": "object", "additionalProperties": schema_of(item, defaults=defaults)}
    # Bounds nearest to the field win.
    for bounds in reversed(element.marked(Bounds)):
        values = {word: getattr(bounds, attribute) for attribute, word in _BOUNDS.items()}
        schema |= {word: value for word, value in values.items() if value is not None}
    for list_map in element.marked(ListMap):
        schema |= {"x-kubernetes-list-type": "map", "x-kubernetes-list-map-keys": [list_map.key]}
    rules = element.shape.model.RULES if isinstance(element.shape, Struct) else ()
    return schema | _validations((*rules, *element.marked(Rule)))


def core_schema(name: str) -> JsonObject:
    """The schema of a core type, with its references inlined."""
    return _inlined(_core_definitions()[name])


@cache
def _core_definitions() -> dict[str, JsonObject]:
    return cast(dict[str, JsonObject], json.loads(Path(__file__).with_name("core_schema.json").read_text()))


def _inlined(schema: JsonObject) -> JsonObject:
    reference = schema.get("$ref")
    if isinstance(reference, str):
        described = {key: value for key, value in schema.items() if key != "$ref"}
        return core_schema(reference) | described
    result: JsonObject = {}
    for key, value in schema.items():
        if key == "properties" and isinstance(value, dict):
            result[key] = {name: _inlined(child) for name, child in value.items() if isinstance(child, dict)}
        elif key in ("items", "additionalProperties") and isinstance(value, dict):
            result[key] = _inlined(value)
        else:
            result[key] = value
    return result


def _object(model: type[ApiModel], *, defaults: bool) -> JsonObject:
    schema: JsonObject = {"type": "object"}
    if description := describe(model):
        schema["description"] = description
    fields = list(fields_of(model))
    if required := [field.name for field in fields if field.required]:
        schema["required"] = list(required)
    properties: JsonObject = {}
    for field in fields:
        described: JsonObject = {"description": field.description} if field.description else {}
        # The description comes first, and a field's own wins over its type's.
        child = described | schema_of(field.element, defaults=defaults) | described
        if defaults and field.default is not None and not field.required:
            child["default"] = field.default
        properties[field.name] = child
    schema["properties"] = properties
    return schema


def _validations(rules: tuple[Rule, ...]) -> JsonObject:
    if not rules:
        return {}
    entries: list[JsonObject] = []
    for rule in rules:
        entry: JsonObject = {"rule": rule.rule, "message": rule.message, "reason": rule.reason}
        if rule.path is not None:
            entry["fieldPath"] = rule.path
        entries.append(entry)
    return {"x-kubernetes-validations": list(entries)}


def _column(column: Column) -> JsonObject:
    result: JsonObject = {"name": column.name, "type": column.type, "jsonPath": column.path}
    if column.priority:
        result["priority"] = column.priority
    return result


def _subresources(kind: type[Resource]) -> JsonObject:
    result: JsonObject = {"status": {}}
    if kind.SCALE is not None:
        result["scale"] = {
            "specReplicasPath": kind.SCALE.spec_replicas,
            "statusReplicasPath": kind.SCALE.status_replicas,
            "labelSelectorPath": kind.SCALE.selector,
        }
    return result


def crd_text(kind: type[Resource]) -> str:
    """The CRD as YAML, the same bytes every time."""
    return _HEADER + yaml.safe_dump(definition(kind), sort_keys=False, width=120, allow_unicode=True)


def generated(output: Path, docs: Path | None, embed: Sequence[Path] = ()) -> dict[Path, str]:
    """Every generated file and its text."""
    files = {output / f"{kind.GROUP}_{kind.PLURAL}.yaml": crd_text(kind) for kind in KINDS}
    if docs is not None:
        files[docs] = reference_page(KINDS)
    return files | {path: embedded(path.read_text()) for path in embed}


def embedded(text: str) -> str:
    """A file of several YAML documents, with those of them that are CRDs of ours renewed."""
    return _SEPARATOR.join(_renewed(document) for document in text.split(_SEPARATOR))


def _renewed(document: str) -> str:
    for kind in KINDS:
        if document.startswith(_HEADER) and f"\n  name: {kind.PLURAL}.{kind.GROUP}\n" in document:
            return crd_text(kind).rstrip("\n")
    return document


def check(files: dict[Path, str]) -> bool:
    """Whether all files are current; prints what is not."""
    current = True
    for path, text in files.items():
        there = path.read_text() if path.exists() else ""
        if there == text:
            continue
        current = False
        changes = difflib.unified_diff(there.splitlines(), text.splitlines(), str(path), "generated", n=1, lineterm="")
        lines = list(changes)
        print(f"{path} is not current: {len(lines)} lines of difference", *lines[:20], sep="\n", file=sys.stderr)
    return current


def main(arguments: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="python -m modelswarm.api.schema", description="Write the CRDs.")
    parser.add_argument(
        "--output", type=Path, action="append", metavar="DIRECTORY", help="where the CRDs go; again for a copy of them"
    )
    parser.add_argument("--docs", type=Path, metavar="FILE", help="where the reference page goes; default: nowhere")
    parser.add_argument(
        "--embed", type=Path, action="append", default=[], metavar="FILE", help="a file that contains CRDs of ours"
    )
    parser.add_argument("--check", action="store_true", help="write nothing; fail if a file is not current")
    options = parser.parse_args(arguments)
    files: dict[Path, str] = {}
    for output in options.output or [Path("crds")]:
        files |= generated(output, options.docs, options.embed)
    if options.check:
        return 0 if check(files) else 1
    for path, text in files.items():
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    return 0


if __name__ == "__main__":
    sys.exit(main())
