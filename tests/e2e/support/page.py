"""The commands of a page of the documentation, in their order. Reading is pure; ``Walk`` runs them as written."""

import re
import textwrap
from collections.abc import Callable, Iterable, Iterator
from contextlib import AbstractContextManager
from dataclasses import dataclass
from typing import Self

from dev.installation import ROOT
from tests.e2e.support.shell import Shell
from tests.integration.support import eventually

_FENCE = re.compile(r"^( *)```(\w*)\n(.*?)^\1```$", re.MULTILINE | re.DOTALL)
_HERE = re.compile(r"<<'(\w+)'$")


@dataclass(frozen=True, slots=True)
class Command:
    """``shown`` is what the page shows as its output."""

    text: str
    shown: str = ""


def section_of(markdown: str, title: str | None) -> str:
    """From its heading to the next one of the same level; None: what comes before all of them. Raises ValueError."""
    first, *parts = re.split(r"^## ", markdown, flags=re.MULTILINE)
    if title is None:
        return first
    for part in parts:
        if part.partition("\n")[0] == title:
            return part
    raise ValueError(f"the page has no section {title!r}")


def blocks_of(markdown: str, language: str) -> list[str]:
    """What is fenced, without the indentation of the fence."""
    return [textwrap.dedent(body) for _, word, body in _FENCE.findall(markdown) if word == language]


def commands_of(markdown: str) -> list[Command]:
    """What stands after ``$`` or ``#`` in the console blocks, with its continuations: lines that begin with ``>``, that
    follow a backslash, or that are a here-document."""
    return [command for block in blocks_of(markdown, "console") for command in _commands(block.splitlines())]


def _commands(lines: list[str]) -> Iterator[Command]:
    typed: list[str] = []
    shown: list[str] = []
    until = ""
    for line in lines:
        if until:
            typed.append(line)
            until = "" if line == until else until
        elif line.startswith(("$ ", "# ")):
            if typed:
                yield Command("\n".join(typed), "\n".join(shown))
            typed, shown = [line[2:]], []
            here = _HERE.search(line)
            until = here[1] if here else ""
        elif line.startswith("> "):
            typed.append(line[2:])
        elif typed and not shown and typed[-1].endswith("\\"):
            typed.append(line)
        else:
            shown.append(line)
    if typed:
        yield Command("\n".join(typed), "\n".join(shown))


class Walk:
    """Through a section, command by command. Each step names how the next command begins, so a changed page is
    noticed; ``done`` asserts that none is left."""

    def __init__(self, shell: Shell, page: str, section: str | None) -> None:
        self.text = section_of((ROOT / page).read_text(), section)
        self._shell = shell
        self._left = commands_of(self.text)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: object, trace: object) -> None:
        if kind is None:
            assert not self._left, f"the page goes on: {[each.text for each in self._left]}"

    def run(self, beginning: str) -> str:
        """What it prints. Where the page shows a table, the columns are those of the page."""
        command = self._next(beginning)
        said = self._shell(command.text)
        _same_columns(command, said)
        return said

    def until(self, beginning: str, check: Callable[[str], bool], seconds: float = 60.0) -> str:
        """Again and again, as one does who waits for something; what it prints when ``check`` is true of it."""
        command = self._next(beginning)

        def look() -> str:
            said = self._shell(command.text, fails=True)
            assert check(said), said
            return said

        said = eventually(look, seconds, every=0.5)
        _same_columns(command, said)
        return said

    def background(self, beginning: str) -> AbstractContextManager[None]:
        """A command with ``&`` at its end."""
        text = self._next(beginning).text
        assert text.endswith(" &"), text
        return self._shell.background(text.removesuffix(" &"))

    def run_each(self, beginning: str, placeholder: str, values: Iterable[str]) -> None:
        """A command that the page says once for many."""
        command = self._next(beginning)
        assert placeholder in command.text
        for value in values:
            self._shell(command.text.replace(placeholder, value))

    def skip(self, *beginnings: str) -> None:
        """What cannot be run here, or has nothing to do; the caller says why."""
        for beginning in beginnings:
            self._next(beginning)

    def _next(self, beginning: str) -> Command:
        assert self._left, f"the page ends before {beginning!r}"
        command = self._left.pop(0)
        assert command.text.startswith(beginning), f"the page says {command.text!r} where {beginning!r} was expected"
        return command


def _same_columns(command: Command, said: str) -> None:
    header = command.shown.partition("\n")[0]
    if header and header == header.upper():
        assert said.partition("\n")[0].split() == header.split(), (command.text, said)
