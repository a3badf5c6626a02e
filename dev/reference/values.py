"""docs/reference/values.md, from the chart's values.yaml (defaults, comments) and its schema (types, bounds)."""

import json
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import yaml

from dev.helm import CHART
from dev.reference.tables import GENERATED, code, page, table

FREE = frozenset({"env", "settings", "resources", "nodeSelector", "tolerations", "labels", "annotations", "schedulers"})
"""Values whose keys are the user's."""
LONGEST_DEFAULT = 60

_KEY = re.compile(r"( *)([A-Za-z]+):")
_INTRODUCTION = f"""\
# Values of the chart

{GENERATED.format(sources="`charts/modelswarm/values.yaml` and its schema")}

How to install: [Install](../how-to/install.md). A value that the schema does not know is refused, with its place.
`operator.settings` takes [settings of the operator](settings.md#modelswarm-operator) by the names of their flags."""


@dataclass(frozen=True, slots=True)
class Value:
    """One value that can be set."""

    path: str
    default: object
    comment: str
    type: str


def values_page(chart: Path = CHART) -> str:
    """The page."""
    rows = ((code(each.path), each.type, _shown(each.default), each.comment) for each in values(chart))
    return page(_INTRODUCTION, table(("value", "type", "default", "meaning"), rows))


def values(chart: Path) -> Iterator[Value]:
    """In the order of the file."""
    text = (chart / "values.yaml").read_text()
    schema = json.loads((chart / "values.schema.json").read_text())
    comments = _comments(text)
    for path, default in leaves(yaml.safe_load(text)):
        node = schema
        for name in path.split("."):
            node = node["properties"][name]
        yield Value(path, default, comments.get(path, "").removesuffix("."), _type(node))


def leaves(found: Mapping[str, object], prefix: str = "") -> Iterator[tuple[str, object]]:
    """Path and default of everything that can be set."""
    for name, value in found.items():
        if isinstance(value, dict) and value and name not in FREE:
            yield from leaves(value, f"{prefix}{name}.")
        else:
            yield f"{prefix}{name}", value


def _comments(text: str) -> dict[str, str]:
    """The lines right above each value."""
    found: dict[str, str] = {}
    above: list[str] = []
    parents: list[tuple[int, str]] = []
    for line in text.splitlines():
        if line.lstrip().startswith("#"):
            above.append(line.strip("# "))
        elif match := _KEY.match(line):
            indent, name = len(match[1]), match[2]
            while parents and parents[-1][0] >= indent:
                parents.pop()
            parents.append((indent, name))
            found[".".join(each for _, each in parents)] = " ".join(above)
            above = []
        else:
            above = []
    return found


def _type(node: Mapping[str, object]) -> str:
    if isinstance(words := node.get("enum"), list):
        return " or ".join(f"`{word}`" for word in words)
    kinds = node.get("type")
    text = " or ".join(map(str, kinds)) if isinstance(kinds, Sequence) and not isinstance(kinds, str) else str(kinds)
    if text == "array" and isinstance(items := node.get("items"), dict):
        text = f"list of {items.get('type')}s"
    low, high = node.get("minimum"), node.get("maximum")
    return text + (f", ≥ {low}" if low is not None else "") + (f", ≤ {high}" if high is not None else "")


def _shown(default: object) -> str:
    if isinstance(default, str):
        return code(default)
    text = json.dumps(default)
    return code(text) if len(text) <= LONGEST_DEFAULT else "see `values.yaml`"
