"""What the doctor says, as people see it."""

from collections.abc import Sequence

from rich.console import Group, RenderableType
from rich.text import Text

from modelswarm.plugin.show.tables import Cell, Column, Style, plain, table
from modelswarm.plugin.views.check import Check, Verdict

STYLES: dict[Verdict, Style] = {Verdict.OK: "green", Verdict.PROBLEM: "red", Verdict.UNKNOWN: "yellow"}


def checks(found: Sequence[Check]) -> RenderableType:
    """A line each, and below a problem what helps."""
    rows: list[list[Cell | str]] = []
    for check in found:
        style = STYLES[check.verdict]
        rows.append([check.area, Cell(check.verdict, style), check.finding])
        if check.remedy and check.verdict is not Verdict.OK:
            rows.append(["", "", Cell(check.remedy, "dim" if check.verdict is Verdict.UNKNOWN else "bold")])
    columns = [Column("WHAT"), Column("IS"), Column("FOUND", flexible=True)]
    counts = [f"{sum(each.verdict is verdict for each in found)} {verdict}" for verdict in Verdict]
    return Group(table(columns, rows), Text(""), plain(", ".join(counts)))
