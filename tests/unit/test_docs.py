"""What the documents say of the repository is so: links, files, commands, values, variables and objects."""

import json
import re
import textwrap
from collections.abc import Iterator
from pathlib import Path

import pytest
import yaml

from dev.installation import ROOT
from modelswarm.agent.settings import AgentSettings
from modelswarm.api.meta import JsonObject
from modelswarm.api.schema import KINDS
from modelswarm.settings import PREFIX, OperatorSettings

DOCUMENTS = sorted(
    path
    for path in [*ROOT.glob("*.md"), *(path for folder in ROOT.glob("[a-z]*/") for path in folder.rglob("*.md"))]
    if not {"build", "dist"} & set(path.relative_to(ROOT).parts)
)
LINK = re.compile(r"\[[^\]]*\]\(([^)\s]+)\)")
FENCE = re.compile(r"^( *)```(\w*)\n(.*?)^ *```$", re.MULTILINE | re.DOTALL)
HEREDOC = re.compile(r"cat > values\.yaml <<'END'\n(.*?)^ *END$", re.MULTILINE | re.DOTALL)
MAKE = re.compile(r"(?:`|^ *\$ )(?:[A-Z]+=\S+ )?make ([a-z][a-z0-9-]*)", re.MULTILINE)
TARGET = re.compile(r"^([a-z0-9-]+):", re.MULTILINE)
SET = re.compile(r"--set(?:-string|-json)?[ =]([A-Za-z][\w.-]*)=")
VARIABLE = re.compile(r"\b(?:MODELSWARM|P2P)_[A-Z0-9_]*[A-Z0-9]\b(?!_)")
FILE = re.compile(r"(?<![\w./~-])(?:\.\./)*((?:charts|config|crds|dev|examples|tests)/[\w./-]*[\w/])(?![\w*-])")

VALUES: JsonObject = json.loads((ROOT / "charts" / "modelswarm" / "values.schema.json").read_text())
VALUE = re.compile(rf"`({'|'.join(sorted(VALUES['properties']))})((?:\.[A-Za-z][\w-]*)+)(?:[=`: ])")  # type: ignore[arg-type]
OF_PYTHON = (".py", ".md", ".yaml")

each_document = pytest.mark.parametrize(
    "document", [pytest.param(path, id=str(path.relative_to(ROOT))) for path in DOCUMENTS]
)


def prose(document: Path) -> str:
    return FENCE.sub("", document.read_text())


def blocks(document: Path, *languages: str) -> list[str]:
    """What stands between fences, without their indentation."""
    return [textwrap.dedent(body) for _, language, body in FENCE.findall(document.read_text()) if language in languages]


def anchors(document: Path) -> set[str]:
    """The headings as GitHub makes anchors of them."""
    found: set[str] = set()
    for heading in re.findall(r"^#+ +(.+?)\s*$", prose(document), re.MULTILINE):
        plain = re.sub(r"\[([^\]]*)\]\([^)]*\)", r"\1", heading).lower()
        slug = re.sub(r"[^\w\- ]", "", plain).replace(" ", "-")
        number = sum(re.fullmatch(rf"{re.escape(slug)}(-\d+)?", other) is not None for other in found)
        found.add(f"{slug}-{number}" if number else slug)
    return found


@each_document
def test_links_lead_somewhere(document: Path) -> None:
    broken = []
    for link in LINK.findall(prose(document)):
        if re.match(r"[a-z]+:", link):
            continue
        path, _, anchor = link.partition("#")
        target = (document.parent / path) if path else document
        if not target.exists() or (anchor and target.suffix == ".md" and anchor not in anchors(target)):
            broken.append(link)
    assert broken == []


@each_document
def test_make_targets_exist(document: Path) -> None:
    targets = set(TARGET.findall((ROOT / "Makefile").read_text()))
    assert set(MAKE.findall(document.read_text())) - targets == set()


@each_document
def test_files_that_are_named_exist(document: Path) -> None:
    named = set(FILE.findall(document.read_text()))
    assert sorted(path for path in named if not (ROOT / path).exists()) == []


# Values of the chart


def is_value(path: str) -> bool:
    """Whether the chart knows the value, or takes any key there. ``\\.`` is a dot inside a key."""
    schema: object = VALUES
    for name in re.split(r"(?<!\\)\.", path):
        if not isinstance(schema, dict) or schema.get("type") != "object":
            return False
        known, others = schema.get("properties") or {}, schema.get("additionalProperties", {})
        if not isinstance(known, dict) or (name not in known and others is False):
            return False
        schema = known.get(name, others)
    return True


def leaves(values: object, path: str = "") -> Iterator[str]:
    if isinstance(values, dict) and values:
        for name, value in values.items():
            yield from leaves(value, f"{path}.{name.replace('.', chr(92) + '.')}".removeprefix("."))
    else:
        yield path


@each_document
def test_values_that_are_named_are_the_charts(document: Path) -> None:
    text = document.read_text()
    named = {path.replace("\\", "") for path in SET.findall(text)}
    named |= {f"{first}{rest}" for first, rest in VALUE.findall(text) if not rest.endswith(OF_PYTHON)}
    assert sorted(path for path in named if not is_value(path)) == []


@each_document
def test_files_of_values_are_the_charts(document: Path) -> None:
    """Those in a block that begins with ``# values``, and those that a command writes."""
    written = [textwrap.dedent(found) for block in blocks(document, "console") for found in HEREDOC.findall(block)]
    written += [block for block in blocks(document, "yaml") if block.startswith("# values")]
    for text in written:
        assert sorted(path for path in leaves(yaml.safe_load(text)) if not is_value(path)) == []


@pytest.mark.parametrize(
    ("path", "known"),
    [
        pytest.param("agent.modelDir", True, id="a value"),
        pytest.param("agent.modelsDir", False, id="no value"),
        pytest.param("operator.settings.stall-seconds", True, id="a setting of the operator"),
        pytest.param("operator.settings.stall", False, id="no setting of the operator"),
        pytest.param(r"agent.nodeSelector.nvidia\.com/gpu\.present", True, id="a key of the user's, with dots"),
        pytest.param("env.HF_ENDPOINT", True, id="a variable of the user's"),
        pytest.param("image.registry.host", False, id="below a text"),
    ],
)
def test_what_a_value_is(path: str, known: bool) -> None:
    assert is_value(path) is known


# Variables


def variables() -> set[str]:
    """Those of the settings, and whatever the programs and their tools name."""
    found = {f"{PREFIX}{name.upper()}" for name in OperatorSettings.model_fields}
    for field in AgentSettings.model_fields.values():
        found |= set(VARIABLE.findall(str(field.validation_alias)))
    sources = [*(ROOT / "operator").rglob("*.py"), *(ROOT / "dev").rglob("*.py"), ROOT / "Makefile"]
    return found.union(*(VARIABLE.findall(source.read_text()) for source in sources))


KNOWN = variables()


@each_document
def test_variables_that_are_named_exist(document: Path) -> None:
    assert sorted(set(VARIABLE.findall(document.read_text())) - KNOWN) == []


# Objects


def dropped(given: object, kept: object, path: str = "") -> Iterator[str]:
    """Fields that a kind does not have: the models drop them, as the API server does."""
    match given, kept:
        case dict(), dict():
            for name, value in given.items():
                below = f"{path}.{name}".removeprefix(".")
                if name in kept:
                    yield from dropped(value, kept[name], below)
                elif value is not None:
                    yield below
        case list(), list():
            for one, other in zip(given, kept, strict=True):
                yield from dropped(one, other, path)


@each_document
def test_objects_are_as_their_kinds_say(document: Path) -> None:
    kinds = {(kind.api_version_of_kind(), kind.KIND): kind for kind in KINDS}
    groups = {version for version, _ in kinds}
    for block in blocks(document, "yaml"):
        for found in yaml.safe_load_all(block):
            if not isinstance(found, dict) or found.get("apiVersion") not in groups:
                continue
            kind = kinds[found["apiVersion"], found["kind"]]
            written = {part: found[part] for part in ("spec", "status") if part in found}
            assert list(dropped(written, kind.model_validate(found).to_json())) == []


# Completeness


def test_the_index_has_every_page() -> None:
    linked = {
        (ROOT / "docs" / link.partition("#")[0]).resolve() for link in LINK.findall(prose(ROOT / "docs" / "README.md"))
    }
    pages = {
        path
        for path in DOCUMENTS
        if path.is_relative_to(ROOT / "docs") and path.parent.name not in ("decisions", "runbooks")
    }
    assert sorted(str(path.relative_to(ROOT)) for path in pages - linked - {ROOT / "docs" / "README.md"}) == []


def test_every_example_is_explained() -> None:
    folder = ROOT / "examples"
    linked = {folder / link for link in LINK.findall((folder / "README.md").read_text())}
    assert sorted(str(path.relative_to(ROOT)) for path in set(folder.rglob("*.yaml")) - linked) == []
