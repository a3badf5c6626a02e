"""``status --watch``: a live picture on a terminal; a line for every change elsewhere."""

import asyncio
import contextlib
import logging
import sys
from collections.abc import Callable, Iterator
from datetime import UTC, datetime

from rich.console import Group, RenderableType
from rich.live import Live

from modelswarm.api.nodecache import NodeCache
from modelswarm.api.p2ptask import P2PTask
from modelswarm.backends.bittorrent.nodes import ready_nodes
from modelswarm.kube.informer import Informer, follow, wait_synced
from modelswarm.kube.kinds import ENDPOINTSLICE, NODECACHE, P2PTASK
from modelswarm.kube.port import KubePort
from modelswarm.plugin.installation import AGENT_SERVICE
from modelswarm.plugin.options import Format
from modelswarm.plugin.show import views
from modelswarm.plugin.show.documents import to_line, to_yaml
from modelswarm.plugin.show.tables import Cell, console, plain
from modelswarm.plugin.snapshot import Snapshot
from modelswarm.plugin.views.status import Status, TaskRow, status_of

EVERY = 0.5
"""Seconds between two looks at what the watches have told."""


class _Complaints(logging.Handler):
    """The last thing that a watch could not do, instead of log lines across the picture."""

    def __init__(self) -> None:
        super().__init__(logging.WARNING)
        self.last = ""

    def emit(self, record: logging.LogRecord) -> None:
        self.last = record.getMessage()


async def follow_status(kube: KubePort, namespace: str | None, form: Format) -> None:
    """Until cancelled."""
    tasks, caches = Informer(kube, P2PTASK, namespace), Informer(kube, NODECACHE)
    slices = Informer(kube, ENDPOINTSLICE, label_selector=f"kubernetes.io/service-name={AGENT_SERVICE}")
    with _quiet() as complaints:
        async with asyncio.TaskGroup() as group:
            group.create_task(follow(tasks, caches, slices))
            await wait_synced(tasks, caches, slices, seconds=5.0)

            def look() -> Status:
                return status_of(_snapshot(tasks, caches, slices), namespace)

            if form is Format.TABLE and sys.stdout.isatty():
                await _paint(look, complaints, namespaces=namespace is None)
            else:
                await _print_changes(look, form, namespaces=namespace is None)


def _snapshot(tasks: Informer, caches: Informer, slices: Informer) -> Snapshot:
    return Snapshot(
        datetime.now(UTC),
        tasks=tuple(P2PTask.model_validate(obj) for _, obj in sorted(tasks.objects.items())),
        caches=tuple(NodeCache.model_validate(obj) for _, obj in sorted(caches.objects.items())),
        live=ready_nodes(list(slices.objects.values())) if slices.synced.is_set() else None,
    )


async def _paint(look: Callable[[], Status], complaints: _Complaints, *, namespaces: bool) -> None:
    screen = console()

    def picture() -> RenderableType:
        shown = views.status(look(), namespaces=namespaces)
        return Group(shown, plain(Cell(f"note: {complaints.last}", "yellow"))) if complaints.last else shown

    with Live(picture(), console=screen, auto_refresh=False, vertical_overflow="crop") as live:
        while True:
            await asyncio.sleep(EVERY)
            live.update(picture(), refresh=True)


async def _print_changes(look: Callable[[], Status], form: Format, *, namespaces: bool) -> None:
    """JSON: a document per line. YAML: documents. Tables: the row's fields between tabs."""
    known: dict[tuple[str, str], TaskRow] = {}
    while True:
        rows = {(row.namespace, row.name): row for row in look().tasks}
        for key, row in rows.items():
            if known.get(key) != row:
                sys.stdout.write(_line(row, form, namespaces))
        sys.stdout.flush()
        known = rows
        await asyncio.sleep(EVERY)


def _line(row: TaskRow, form: Format, namespaces: bool) -> str:
    match form:
        case Format.JSON:
            return to_line(row)
        case Format.YAML:
            return f"---\n{to_yaml(row)}"
    cells = views.task_cells(row, namespaces)
    return "\t".join(cell if isinstance(cell, str) else cell.text for cell in cells) + "\n"


@contextlib.contextmanager
def _quiet() -> Iterator[_Complaints]:
    handler, root = _Complaints(), logging.getLogger("modelswarm")
    root.addHandler(handler)
    root.propagate = False
    try:
        yield handler
    finally:
        root.removeHandler(handler)
        root.propagate = True
