"""From a command to its exit code: the event loop, the cluster, errors in one line, the output in the chosen form."""

import asyncio
import sys
from collections.abc import Awaitable, Callable
from typing import TypeVar

import typer
from rich.console import Console, RenderableType

from modelswarm.errors import ModelswarmError
from modelswarm.plugin.cluster import Cluster, connect
from modelswarm.plugin.exits import Exit, failure_of
from modelswarm.plugin.options import Format, Where
from modelswarm.plugin.show.documents import to_json, to_yaml
from modelswarm.plugin.show.tables import console
from modelswarm.plugin.snapshot import Snapshot

T = TypeVar("T")
Work = Callable[[Cluster], Awaitable[Exit]]


def run(where: Where, work: Work) -> None:
    """Do the work on the cluster and leave with its exit code."""

    async def connected() -> Exit:
        async with connect(where.kubeconfig, where.context) as cluster:
            return await work(cluster)

    raise typer.Exit(int(checked(lambda: asyncio.run(connected()))))


def checked(make: Callable[[], T]) -> T:
    """What ``make`` returns; its error becomes a line on standard error and the program's exit code."""
    try:
        return make()
    except ModelswarmError as error:
        line, code = failure_of(error)
        complain(line)
        raise typer.Exit(int(code)) from None


def complain(line: str) -> None:
    """One line on standard error."""
    text = "".join(char if char.isprintable() else " " for char in line)
    print(f"error: {text}", file=sys.stderr)


def show(view: object, form: Format, table: Callable[[], RenderableType]) -> None:
    """Print a view; ``table`` makes its form for people."""
    match form:
        case Format.JSON:
            sys.stdout.write(to_json(view))
        case Format.YAML:
            sys.stdout.write(to_yaml(view))
        case Format.TABLE:
            put(table())


def put(renderable: RenderableType, to: Console | None = None) -> None:
    """Without the blanks that fill up lines, so that it can be cut and compared."""
    target = to if to is not None else console()
    with target.capture() as captured:
        target.print(renderable)
    lines = (line.rstrip() for line in captured.get().rstrip("\n").splitlines())
    target.file.write("\n".join(lines) + "\n")


def note_unread(snapshot: Snapshot) -> None:
    """Say on standard error what is missing from the picture."""
    for kind, message in snapshot.unread.items():
        print(f"note: {kind} cannot be read, so what they say is missing: {message}", file=sys.stderr)
