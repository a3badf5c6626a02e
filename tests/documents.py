"""The commands of the documents, as a reader would copy them: out of blocks for shells, in their order."""

import re
import textwrap
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from dev.installation import ROOT

DOCUMENTS = (ROOT / "README.md", *sorted((ROOT / "docs").rglob("*.md")), ROOT / "examples" / "README.md")
"""What users read."""

_FENCE = re.compile(r"^( *)```(\w*)\n(.*?)^ *```$", re.MULTILINE | re.DOTALL)
_HEREDOC = re.compile(r"<<'(\w+)'")
_PROMPTS = ("$ ", "# ")
_PROGRAMS = ("helm ", "kubectl ", "modelswarm ")
"""A block without a language is a transcript, unless it begins with one of these."""


@dataclass(frozen=True, slots=True)
class Step:
    """A command, or a file of values that the text shows for the commands behind it."""

    text: str
    is_values: bool = False


def steps(document: Path) -> list[Step]:
    return list(_steps(document.read_text()))


def shown_objects(document: Path) -> list[dict[str, Any]]:
    """What its YAML blocks have: Kubernetes objects, and other things."""
    blocks = [textwrap.dedent(body) for _, language, body in _FENCE.findall(document.read_text()) if language == "yaml"]
    return [found for block in blocks for found in yaml.safe_load_all(block) if isinstance(found, dict)]


def commands() -> Iterator[tuple[Path, str]]:
    """Of all documents."""
    for document in DOCUMENTS:
        yield from ((document, step.text) for step in steps(document) if not step.is_values)


def _steps(text: str) -> Iterator[Step]:
    for _, language, indented in _FENCE.findall(text):
        body = textwrap.dedent(indented)
        if language == "yaml" and body.startswith("# values"):
            yield Step(body, is_values=True)
        elif language == "console":
            yield from map(Step, _typed(body.splitlines()))
        elif language == "bash" or (not language and body.startswith(_PROGRAMS)):
            prompted = [line if line.startswith((" ", "#")) else f"$ {line}" for line in body.splitlines()]
            yield from map(Step, _typed(prompted))


def _typed(lines: Sequence[str]) -> Iterator[str]:
    """What stands behind prompts, with the lines that belong to it; what the programs print is left out."""
    rest = iter(lines)
    for line in rest:
        if line.startswith(_PROMPTS):
            command = [line[2:]]
            while _goes_on(command):
                command.append(next(rest).removeprefix("> "))
            yield "\n".join(command)


def _goes_on(command: Sequence[str]) -> bool:
    if end := _HEREDOC.search(command[0]):
        return command[-1] != end[1]
    if command[0].endswith("; do"):
        return command[-1] != "done"
    return command[-1].endswith("\\")
