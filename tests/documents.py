"""The commands of the documents, as a reader would copy them: out of blocks for shells, in their order."""

import re
import textwrap
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from dev.installation import ROOT

DOCUMENTS = (ROOT / "README.md", *sorted((ROOT / "docs").rglob("*.md")), ROOT / "examples" / "README.md")
"""What users read."""

_FENCE = re.compile(r"^( *)```(\w*)\n(.*?)^ *```$", re.MULTILINE | re.DOTALL)
_HERE = re.compile(r"<<'(\w+)'")
_PROMPTS = ("$ ", "# ")
_PROGRAMS = ("helm ", "kubectl ", "modelswarm ")
"""A block without a language is a transcript, unless it begins with one of these."""


@dataclass(frozen=True, slots=True)
class Step:
    """A command with what it is shown to print, or a file of values for the commands behind it."""

    text: str
    shown: str = ""
    is_values: bool = False


def steps(document: Path) -> list[Step]:
    return list(_steps(document.read_text()))


def shown_objects(document: Path) -> list[dict[str, Any]]:
    """What its YAML blocks have: Kubernetes objects, and other things."""
    blocks = blocks_of(document.read_text(), "yaml")
    return [found for block in blocks for found in yaml.safe_load_all(block) if isinstance(found, dict)]


def commands() -> Iterator[tuple[Path, str]]:
    """Of all documents."""
    for document in DOCUMENTS:
        yield from ((document, step.text) for step in steps(document) if not step.is_values)


def blocks_of(text: str, language: str) -> list[str]:
    """What is fenced as that, without the indentation of the fence."""
    return [body for word, body in _blocks(text) if word == language]


def transcribed(text: str) -> list[Step]:
    """The commands of its console blocks only, where prompts tell them from what they print."""
    return [step for block in blocks_of(text, "console") for step in _typed(block.splitlines())]


def section_of(text: str, title: str | None) -> str:
    """From its heading to the next one of the same level; None: what comes before all of them. Raises ValueError."""
    first, *parts = re.split(r"^## ", text, flags=re.MULTILINE)
    if title is None:
        return first
    for part in parts:
        if part.partition("\n")[0] == title:
            return part
    raise ValueError(f"the page has no section {title!r}")


def _blocks(text: str) -> Iterator[tuple[str, str]]:
    for _, language, body in _FENCE.findall(text):
        yield language, textwrap.dedent(body)


def _steps(text: str) -> Iterator[Step]:
    for language, body in _blocks(text):
        if language == "yaml" and body.startswith("# values"):
            yield Step(body, is_values=True)
        elif language == "console":
            yield from _typed(body.splitlines())
        elif language == "bash" or (not language and body.startswith(_PROGRAMS)):
            yield from _typed(line if line.startswith((" ", "#")) else f"$ {line}" for line in body.splitlines())


def _typed(lines: Iterable[str]) -> Iterator[Step]:
    """What stands behind prompts, with the lines that belong to it, and what is printed after it."""
    command: list[str] = []
    shown: list[str] = []
    for line in lines:
        if command and not shown and (_goes_on(command) or line.startswith("> ")):
            command.append(line.removeprefix("> "))
        elif line.startswith(_PROMPTS):
            if command:
                yield Step("\n".join(command), "\n".join(shown))
            command, shown = [line[2:]], []
        elif command:
            shown.append(line)
    if command:
        yield Step("\n".join(command), "\n".join(shown))


def _goes_on(command: list[str]) -> bool:
    if end := _HERE.search(command[0]):
        return command[-1] != end[1]
    if command[0].endswith("; do"):
        return command[-1] != "done"
    return command[-1].endswith("\\")
