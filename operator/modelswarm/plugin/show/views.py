"""Each view as people see it."""

from collections.abc import Sequence

from rich.console import Group, RenderableType
from rich.text import Text
from rich.tree import Tree

from modelswarm.api.remedies import Grade
from modelswarm.plugin.show.tables import Cell, Column, Style, plain, table
from modelswarm.plugin.units import NONE, duration, percent, rate, size
from modelswarm.plugin.views.cache import ModelRow, NodeContents
from modelswarm.plugin.views.status import NodeRow, Status, TaskRow, Totals
from modelswarm.plugin.views.tree import Branch
from modelswarm.plugin.views.why import Answer

STYLES: dict[Grade, Style] = {Grade.FINE: "green", Grade.WAIT: "yellow", Grade.ACT: "red"}


def status(view: Status, *, namespaces: bool = True) -> RenderableType:
    """Tasks, nodes, and one line of totals. ``namespaces``: with a column for them."""
    parts: list[RenderableType] = [tasks(view.tasks, namespaces=namespaces)] if view.tasks else [Text("No P2PTasks.")]
    if view.nodes:
        parts += [Text(""), _nodes(view.nodes)]
    return Group(*parts, Text(""), plain(_totals(view.totals)))


def tasks(rows: Sequence[TaskRow], *, namespaces: bool = True) -> RenderableType:
    columns = [
        *([Column("NAMESPACE", spare=1)] if namespaces else []),
        Column("TASK"),
        Column("CONTENT", spare=2),
        Column("ENGINE", spare=3),
        Column("PHASE"),
        Column("NODES", "right"),
        Column("DONE", "right"),
        Column("SIZE", "right"),
        Column("RATE", "right"),
        Column("ETA", "right"),
    ]
    return table(columns, [task_cells(row, namespaces) for row in rows])


def task_cells(row: TaskRow, namespaces: bool) -> list[Cell | str]:
    """SIZE is that of all copies together."""
    style = STYLES[row.grade]
    return [
        *([row.namespace] if namespaces else []),
        row.name,
        row.content,
        row.engine or NONE,
        Cell(row.phase, style),
        f"{row.ready}/{row.desired}" if row.percent is not None else NONE,
        f"{row.percent}%" if row.percent is not None else NONE,
        size(row.total_bytes) if row.total_bytes else NONE,
        rate(row.bytes_per_second),
        duration(row.eta_seconds),
    ]


def _nodes(rows: Sequence[NodeRow]) -> RenderableType:
    columns = [
        Column("NODE"),
        Column("AGENT"),
        Column("COMPLETE", "right"),
        Column("COMING", "right"),
        Column("FAILED", "right"),
        Column("USED", "right"),
        Column("FREE", "right"),
        Column("RATE", "right"),
    ]
    return table(
        columns,
        [
            [
                row.node,
                Cell("ready", "green") if row.ready else Cell("away", "red"),
                str(row.complete),
                str(row.waiting),
                Cell(str(row.failed), "red" if row.failed else ""),
                size(row.used_bytes),
                size(row.free_bytes),
                rate(row.bytes_per_second),
            ]
            for row in rows
        ],
    )


def _totals(totals: Totals) -> str:
    need = "needs" if totals.problems == 1 else "need"
    problems = f"; {totals.problems} {need} somebody (kubectl swarm why p2ptask/NAME)" if totals.problems else ""
    came = f"{size(totals.origin_bytes)} from origins, {size(totals.peer_bytes)} from other nodes"
    return f"{totals.tasks} tasks, {totals.moving} moving at {rate(totals.bytes_per_second)}; {came}{problems}"


def tree(branch: Branch) -> RenderableType:
    """As ``kubectl tree``: what belongs to what."""
    root = Tree(_label(branch), guide_style="dim", highlight=False)
    _grow(root, branch)
    return root


def _grow(tree: Tree, branch: Branch) -> None:
    for child in branch.children:
        _grow(tree.add(_label(child)), child)


def _label(branch: Branch) -> Text:
    text = Text.assemble((f"{branch.kind} ", "dim"), plain(Cell(branch.name, "bold")), "  ")
    text.append_text(plain(Cell(branch.state, STYLES[branch.grade])))
    if branch.detail:
        text.append_text(plain(f"  {branch.detail}"))
    if branch.grade is not Grade.FINE and branch.reason and branch.reason != branch.state:
        text.append_text(plain(Cell(f"  {branch.reason}", STYLES[branch.grade])))
    if branch.grade is not Grade.FINE and branch.message:
        text.append_text(plain(f": {branch.message}" if branch.reason else f"  {branch.message}"))
    return text


def answer(view: Answer) -> RenderableType:
    return Group(
        Text.assemble(("cause   ", "bold"), plain(Cell(view.cause, STYLES[view.grade]))),
        Text.assemble(("remedy  ", "bold"), plain(view.remedy)),
    )


def caches(views: Sequence[NodeContents]) -> RenderableType:
    if not views:
        return Text("No node has an agent (engine BitTorrent).")
    columns = [
        Column("NODE"),
        Column("AGENT"),
        Column("VERSION"),
        Column("MODELS", "right"),
        Column("CAPACITY", "right"),
        Column("USED", "right"),
        Column("FREE", "right"),
        Column("UNWANTED", "right"),
    ]
    rows: list[list[Cell | str]] = [
        [
            view.node,
            Cell("ready", "green") if view.ready else Cell("away", "red"),
            view.version or NONE,
            f"{sum(row.grade is Grade.FINE for row in view.models)}/{len(view.models)}",
            size(view.capacity_bytes),
            size(view.used_bytes),
            size(view.free_bytes),
            size(view.evictable_bytes),
        ]
        for view in views
    ]
    return table(columns, rows)


def contents(view: NodeContents) -> RenderableType:
    """One node's models."""
    agent = "agent ready" if view.ready else "agent away"
    head = f"{view.node}: {agent}, {size(view.used_bytes)} used and {size(view.free_bytes)} free of "
    line = plain(f"{head}{size(view.capacity_bytes)}; {size(view.evictable_bytes)} of it nobody wants")
    if not view.models:
        return Group(line, Text("No models."))
    columns = [
        Column("MODEL"),
        Column("REVISION", spare=1),
        Column("STATE"),
        Column("DONE", "right"),
        Column("SIZE", "right"),
        Column("ORIGIN", "right"),
        Column("PEERS", "right"),
        Column("WANTED", "right"),
        Column("WHY", flexible=True),
    ]
    return Group(line, Text(""), table(columns, [_model_cells(row) for row in view.models]))


def _model_cells(row: ModelRow) -> list[Cell | str]:
    why = ": ".join(part for part in (row.reason, row.message) if part) if row.grade is not Grade.FINE else ""
    return [
        row.name,
        (row.revision or NONE)[:12],
        Cell(row.state, STYLES[row.grade]),
        "100%" if row.grade is Grade.FINE else percent(row.done_bytes, row.bytes),
        size(row.bytes),
        size(row.origin_bytes),
        size(row.peer_bytes),
        f"{len(row.wanted_by)}{' pinned' if row.pinned else ''}",
        why,
    ]
