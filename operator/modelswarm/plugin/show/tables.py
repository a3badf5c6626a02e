"""Tables and lines for a terminal, and the same without colour and without cutting where the output is not one."""

import sys
from collections.abc import Sequence
from dataclasses import dataclass
from typing import IO, Literal

from rich.console import Console, ConsoleOptions, RenderResult
from rich.measure import Measurement
from rich.table import Table
from rich.text import Text

_NARROWEST = 24
"""Columns of text that is broken."""
Style = Literal["", "green", "yellow", "red", "dim", "bold", "cyan"]
Justify = Literal["left", "right"]
_WIDE = 100_000
"""Columns where nobody looks: lines are never broken or cut then."""


@dataclass(frozen=True, slots=True)
class Column:
    """``flexible``: breaks its text where the terminal is narrow. ``spare``: left out there, the highest first."""

    title: str
    justify: Justify = "left"
    flexible: bool = False
    spare: int = 0


@dataclass(frozen=True, slots=True)
class Cell:
    text: str
    style: Style = ""


def console(file: IO[str] | None = None, width: int | None = None) -> Console:
    """Colours where the output is a terminal (and ``NO_COLOR`` is not set)."""
    stream = file if file is not None else sys.stdout
    columns = width if width is not None or stream.isatty() else _WIDE
    return Console(file=stream, width=columns, highlight=False, markup=False, emoji=False)


@dataclass(frozen=True, slots=True)
class Fitting:
    """Columns as kubectl prints them: upper case titles, no lines; as many of them as the terminal has room for."""

    columns: Sequence[Column]
    rows: Sequence[Sequence[Cell | str]]

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> RenderResult:
        kept = list(range(len(self.columns)))
        endless = options.update(max_width=_WIDE)
        while True:
            made = self._table(kept)
            least = Measurement.get(console, endless, self._table(kept, pinched=True)).maximum
            spare = max(kept, key=lambda index: self.columns[index].spare)
            if least <= options.max_width or not self.columns[spare].spare:
                yield made
                return
            kept.remove(spare)

    def _table(self, kept: Sequence[int], *, pinched: bool = False) -> Table:
        """``pinched``: as narrow as it still can be read, to be measured."""
        table = Table(box=None, pad_edge=False, padding=(0, 2, 0, 0), header_style="bold")
        for index in kept:
            column = self.columns[index]
            width = _NARROWEST if pinched and column.flexible else None
            table.add_column(
                column.title,
                justify=column.justify,
                no_wrap=not column.flexible,
                overflow="fold",
                min_width=min(_NARROWEST, self._widest(index)) if column.flexible else self._widest(index),
                max_width=width,
            )
        for row in self.rows:
            table.add_row(*(plain(row[index]) for index in kept))
        return table

    def _widest(self, index: int) -> int:
        return max(map(len, (self.columns[index].title, *(plain(row[index]).plain for row in self.rows))))


def table(columns: Sequence[Column], rows: Sequence[Sequence[Cell | str]]) -> Fitting:
    """See ``Fitting``."""
    return Fitting(columns, rows)


def plain(cell: Cell | str) -> Text:
    """Text from the cluster, in which nothing is an instruction to the terminal."""
    text, style = (cell, "") if isinstance(cell, str) else (cell.text, cell.style)
    return Text("".join(char if char.isprintable() else " " for char in text), style=style)
