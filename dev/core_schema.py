"""Takes the schemas of Kubernetes' own types that our kinds embed from Kubernetes' published OpenAPI document.

The result, ``operator/modelswarm/api/core_schema.json``, is checked in and changes only with the Kubernetes version
below. It keeps references between definitions (``modelswarm.api.schema`` inlines them) and is otherwise ready for a
CustomResourceDefinition: numbers-or-strings are marked as such, descriptions are cut to their first sentence so that a
generated CRD stays small enough for client-side apply.

    python -m dev.core_schema [--check]
"""

import argparse
import json
import os
import re
import subprocess
import sys
import tempfile
from collections.abc import Mapping
from pathlib import Path

from modelswarm.api import core
from modelswarm.api.core import CoreSchema
from modelswarm.api.meta import JsonObject

KUBERNETES = "v1.36.3"
OUTPUT = Path(core.__file__).with_name("core_schema.json")

INT_OR_STRING = "io.k8s.apimachinery.pkg.util.intstr.IntOrString"
QUANTITY = "io.k8s.apimachinery.pkg.api.resource.Quantity"
QUANTITY_PATTERN = (
    r"^(\+|-)?(([0-9]+(\.[0-9]*)?)|(\.[0-9]+))"
    r"(([KMGTPE]i)|[numkMGTPE]|([eE](\+|-)?(([0-9]+(\.[0-9]*)?)|(\.[0-9]+))))?$"
)
"""What ``resource.ParseQuantity`` accepts; the pattern that CRDs of Go projects carry."""

KEPT = frozenset(
    {"description", "type", "format", "properties", "additionalProperties", "items", "required", "enum", "$ref"}
    | {"x-kubernetes-list-type", "x-kubernetes-list-map-keys", "x-kubernetes-map-type"}
)
"""Keywords that a structural schema may have. The others (patch strategies, unions) say nothing about validity."""

_REFERENCE = "#/definitions/"


def embedded_types() -> list[str]:
    """The OpenAPI names of the types that ``modelswarm.api.core`` embeds."""
    markers = (getattr(alias, "__metadata__", ()) for alias in vars(core).values())
    return sorted({marker.name for found in markers for marker in found if isinstance(marker, CoreSchema)})


def extract(definitions: Mapping[str, JsonObject], roots: list[str]) -> dict[str, JsonObject]:
    """The definitions that the roots reach, in structural form, by name."""
    result: dict[str, JsonObject] = {}
    waiting = list(roots)
    while waiting:
        name = waiting.pop()
        if name in result:
            continue
        result[name] = _structural(name, definitions[name])
        waiting += re.findall(r'"\$ref": "([^"]+)"', json.dumps(result[name]))
    return dict(sorted(result.items()))


def _structural(name: str, definition: JsonObject) -> JsonObject:
    if name == INT_OR_STRING:
        return {"x-kubernetes-int-or-string": True}
    if name == QUANTITY:
        return {"x-kubernetes-int-or-string": True, "pattern": QUANTITY_PATTERN}
    return _kept(definition)


def _kept(schema: JsonObject) -> JsonObject:
    result: JsonObject = {}
    for key, value in schema.items():
        if key not in KEPT:
            continue
        if key == "properties" and isinstance(value, dict):
            result[key] = {name: _kept(child) for name, child in value.items() if isinstance(child, dict)}
        elif key in ("items", "additionalProperties") and isinstance(value, dict):
            result[key] = _kept(value)
        elif key == "$ref" and isinstance(value, str):
            result[key] = value.removeprefix(_REFERENCE)
        elif key == "description" and isinstance(value, str):
            result[key] = first_sentence(value)
        else:
            result[key] = value
    return result


def first_sentence(text: str) -> str:
    """Up to the full stop that ends the first sentence (not the one in ``i.e.`` or in ``spec.nodeName``)."""
    line = " ".join(text.partition("\n\n")[0].split())
    match = re.search(r"(?<!\bi\.e)(?<!\be\.g)(?<!\betc)\.(?=\s+[A-Z(\"`]|$)", line)
    return line[: match.end()] if match else line


def read_openapi() -> dict[str, JsonObject]:
    """The definitions of Kubernetes' OpenAPI document, from its Go module."""
    with tempfile.TemporaryDirectory() as empty:
        answer = subprocess.run(
            ["go", "mod", "download", "-json", f"k8s.io/kubernetes@{KUBERNETES}"],
            check=True,
            capture_output=True,
            text=True,
            cwd=empty,
            env=dict(os.environ, GOFLAGS="-mod=mod"),
        )
    directory = Path(json.loads(answer.stdout)["Dir"])
    document = json.loads((directory / "api/openapi-spec/swagger.json").read_text())
    definitions: dict[str, JsonObject] = document["definitions"]
    return definitions


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m dev.core_schema", description=__doc__.partition("\n")[0])
    parser.add_argument("--check", action="store_true", help="change nothing; fail if the file is not current")
    arguments = parser.parse_args()
    text = json.dumps(extract(read_openapi(), embedded_types()), indent=1, ensure_ascii=False) + "\n"
    if arguments.check:
        if OUTPUT.read_text() != text:
            print(f"{OUTPUT.name} is not what Kubernetes {KUBERNETES} publishes", file=sys.stderr)
            return 1
        return 0
    OUTPUT.write_text(text)
    return 0


if __name__ == "__main__":
    sys.exit(main())
