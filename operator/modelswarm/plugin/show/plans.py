"""A plan, as people see it."""

from collections.abc import Sequence

from rich.console import Group, RenderableType
from rich.text import Text

from modelswarm.plugin.show.tables import Cell, Column, plain, table
from modelswarm.plugin.units import NONE, duration, size
from modelswarm.plugin.views.asks import Trouble
from modelswarm.plugin.views.forecast import NodePlan, PlanRow


def plan(
    rows: Sequence[PlanRow], troubles: Sequence[Trouble], bytes_per_second: int | None, *, files: bool
) -> RenderableType:
    """One line per content, one per node that gets it, and what is wrong."""
    parts: list[RenderableType] = [_contents(rows)] if rows else []
    placed = [(row, node) for row in rows for node in row.nodes]
    if placed:
        parts += [Text(""), _nodes(placed)]
    if files:
        parts += [Text(""), _files(rows)]
    notes = [f"{row.content}: {row.note}" for row in rows if row.note]
    if notes:
        parts += [Text(""), *(plain(Cell(note, "dim")) for note in dict.fromkeys(notes))]
    wrong = [f"{row.object}: {row.content}: {row.reason}: {row.message}" for row in rows if row.reason]
    wrong += [f"{each.object}: {each.reason}: {each.message}" for each in troubles]
    if wrong:
        parts += [Text(""), *(plain(Cell(line, "red")) for line in wrong)]
    return Group(*parts, Text(""), plain(_summary(rows, bytes_per_second)))


def _contents(rows: Sequence[PlanRow]) -> RenderableType:
    columns = [
        Column("FOR", flexible=True),
        Column("CONTENT", flexible=True),
        Column("REVISION", spare=2),
        Column("ENGINE", spare=1),
        Column("FILES", "right", spare=3),
        Column("SIZE", "right"),
        Column("THERE", "right"),
        Column("ORIGIN", "right"),
        Column("PEERS", "right"),
        Column("TIME", "right"),
    ]
    return table(columns, [_cells(row) for row in rows])


def _cells(row: PlanRow) -> list[Cell | str]:
    return [
        Cell(row.object, "red" if row.reason else ""),
        row.content,
        (row.revision or NONE).removeprefix("sha256:")[:8],
        row.engine or NONE,
        str(len(row.files)),
        size(row.bytes),
        size(row.present_bytes),
        size(row.origin_bytes),
        size(row.peer_bytes),
        duration(row.seconds),
    ]


def _nodes(placed: Sequence[tuple[PlanRow, NodePlan]]) -> RenderableType:
    columns = [
        Column("NODE"),
        Column("CONTENT", flexible=True),
        Column("THERE", "right"),
        Column("COMES", "right"),
        Column("FREE", "right"),
        Column("UNWANTED", "right"),
        Column("FITS"),
    ]
    rows: list[list[Cell | str]] = [
        [
            node.node,
            row.content,
            size(node.have_bytes),
            size(node.need_bytes),
            size(node.free_bytes),
            size(node.evictable_bytes),
            _fits(node),
        ]
        for row, node in placed
    ]
    return table(columns, rows)


def _fits(node: NodePlan) -> Cell:
    if not node.fits:
        return Cell("no", "red")
    return Cell("evicts others", "yellow") if node.evicts else Cell("yes", "green")


def _files(rows: Sequence[PlanRow]) -> RenderableType:
    columns = [Column("CONTENT"), Column("FILE", flexible=True), Column("SIZE", "right")]
    return table(columns, [[row.content, file.path, size(file.bytes)] for row in rows for file in row.files])


def _summary(rows: Sequence[PlanRow], bytes_per_second: int | None) -> str:
    origin, peers = sum(row.origin_bytes for row in rows), sum(row.peer_bytes for row in rows)
    there = sum(row.present_bytes for row in rows)
    line = f"{size(origin)} from origins, {size(peers)} from other nodes, {size(there)} on nodes already"
    if bytes_per_second is None:
        return f"{line}; no time: this cluster has not brought anything yet (--rate says how fast the origin is)"
    known = [row.seconds for row in rows if row.seconds is not None]
    return f"{line}; about {duration(sum(known))} at {size(bytes_per_second)}/s"
