"""The program: ``kubectl-swarm``, which kubectl runs as ``kubectl swarm``."""

import signal
from typing import Annotated

import typer

from modelswarm import __version__
from modelswarm.plugin.commands.cache import cache
from modelswarm.plugin.commands.doctor import doctor
from modelswarm.plugin.commands.plan import plan
from modelswarm.plugin.commands.prefetch import prefetch
from modelswarm.plugin.commands.status import status
from modelswarm.plugin.commands.switch import resume, retry, suspend
from modelswarm.plugin.commands.tree import tree
from modelswarm.plugin.commands.why import why

PROGRAM = "kubectl-swarm"

app = typer.Typer(
    name=PROGRAM,
    help="Models and images on their way to the nodes: what moves, what stands, and why.",
    epilog="Exit codes: 0 well, 1 a problem was found, 2 wrong arguments, 3 cluster unreachable or refusing, "
    "4 no such object, 5 modelswarm is not installed.",
    no_args_is_help=True,
    rich_markup_mode=None,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)
for command in (status, tree, why, plan, prefetch, cache, retry, suspend, resume, doctor):
    app.command()(command)


def _print_version(wanted: bool) -> None:
    if wanted:
        print(f"{PROGRAM} {__version__}")
        raise typer.Exit


@app.callback()
def options(
    version: Annotated[
        bool, typer.Option("--version", callback=_print_version, is_eager=True, help="Print the version.")
    ] = False,
) -> None:
    """Models and images on their way to the nodes: what moves, what stands, and why."""


def main() -> None:
    # As other programs in a pipe: whose reader has gone is ended, without a word.
    signal.signal(signal.SIGPIPE, signal.SIG_DFL)
    app(prog_name=PROGRAM)
