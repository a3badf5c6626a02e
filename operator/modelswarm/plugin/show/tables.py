"""Tables and lines for a terminal, and the same without colour and without cutting where the output is not one."""

import sys
from collections.abc import Sequence
from dataclasses import dataclass
from typing import IO, Literal

from rich.console import Console
from rich.table import Table
from rich.text import Text

Style = Literal["", "green", "yellow", "red", "dim", "bold", "cyan"]
Justify = Literal["left", "right"]
_WIDE = 100_000
"""Columns where nobody looks: lines are never broken or cut then."""


@dataclass(frozen=True, slots=True)
class Column:
    """``flexible``: the one that gives way, by breaking its text, when the terminal is narrow."""

    title: str
    justify: Justify = "left"
    flexible: bool = False


@dataclass(frozen=True, slots=True)
class Cell:
    text: str
    style: Style = ""


def console(file: IO[str] | None = None, width: int | None = None) -> Console:
    """Colours where the output is a terminal (and ``NO_COLOR`` is not set)."""
    stream = file if file is not None else sys.stdout
    terminal = stream.isatty()
    return Console(
        file=stream, width=width if width is not None else None if terminal else _WIDE, highlight=False, markup=False,
        emoji=False, soft_wrap=False,
    )  # fmt: skip


def table(columns: Sequence[Column], rows: Sequence[Sequence[Cell | str]], title: str = "") -> Table:
    """Columns as kubectl prints them: upper case titles, no lines."""
    made = Table(
        box=None, pad_edge=False, padding=(0, 3, 0, 0), header_style="bold", title=title or None, title_justify="left"
    )
    for column in columns:
        made.add_column(column.title, justify=column.justify, no_wrap=not column.flexible, overflow="fold", min_width=4)
    for row in rows:
        made.add_row(*(plain(cell) for cell in row))
    return made


def plain(cell: Cell | str) -> Text:
    """Text from the cluster, in which nothing is an instruction to the terminal."""
    text, style = (cell, "") if isinstance(cell, str) else (cell.text, cell.style)
    return Text("".join(char if char.isprintable() else " " for char in text), style=style)
