"""A walk through a page of the documentation, running its commands as written."""

from collections.abc import Callable, Iterable
from contextlib import AbstractContextManager
from typing import Self

from dev.installation import ROOT
from tests.documents import Step, section_of, transcribed
from tests.e2e.support.shell import Shell
from tests.integration.support import eventually


class Walk:
    """Through a section, command by command. Each step names how the next command begins, so a changed page is
    noticed; ``done`` asserts that none is left."""

    def __init__(self, shell: Shell, page: str, section: str | None) -> None:
        self.text = section_of((ROOT / page).read_text(), section)
        self._shell = shell
        self._left = transcribed(self.text)

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

    def _next(self, beginning: str) -> Step:
        assert self._left, f"the page ends before {beginning!r}"
        command = self._left.pop(0)
        assert command.text.startswith(beginning), f"the page says {command.text!r} where {beginning!r} was expected"
        return command


def _same_columns(command: Step, said: str) -> None:
    header = command.shown.partition("\n")[0]
    if header and header == header.upper():
        assert said.partition("\n")[0].split() == header.split(), (command.text, said)
