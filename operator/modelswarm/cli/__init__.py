"""The ``modelswarm`` command: one program, one subcommand per thing it can be.

The module of a subcommand is imported only when it is called, because the images differ in what is installed: the
loader's has no Kubernetes client and no YAML parser.
"""

import argparse
import importlib
import os
import signal
import sys
import threading
from collections.abc import Callable, Sequence
from typing import cast

from modelswarm import __version__

_COMMANDS = {
    "operator": ("modelswarm.operator", "run the controllers"),
    "agent": ("modelswarm.agent.process", "run a node's agent (engine BitTorrent)"),
    "load": ("modelswarm.loader", "load a model into a pod (the init container)"),
    "render": ("modelswarm.cli.render", "print what the operator would create for OpenModels and Playgrounds"),
}

Subcommand = Callable[[Sequence[str]], int | None]


def main(argv: Sequence[str] | None = None) -> int:
    """Run the subcommand with the arguments that follow it; the result is the exit code."""
    arguments = sys.argv[1:] if argv is None else argv
    width = max(map(len, (*_COMMANDS, "version")))
    parser = argparse.ArgumentParser(
        prog="modelswarm",
        usage="modelswarm COMMAND [OPTION...]",
        formatter_class=argparse.RawDescriptionHelpFormatter,
        epilog="commands:\n"
        + "".join(f"  {name:{width}}  {text}\n" for name, (_, text) in _COMMANDS.items())
        + f"  {'version':{width}}  print the version\n"
        + "\n`modelswarm COMMAND --help` tells more about one of them.",
    )
    parser.add_argument("--version", action="version", version=f"modelswarm {__version__}")
    parser.add_argument("command", choices=(*_COMMANDS, "version"), metavar="COMMAND", help="see below")
    parser.add_argument("rest", nargs=argparse.REMAINDER, help=argparse.SUPPRESS)
    parsed = parser.parse_args(arguments)
    if parsed.command == "version":
        print(f"modelswarm {__version__}")
        return 0
    module, _ = _COMMANDS[parsed.command]
    in_main_thread = threading.current_thread() is threading.main_thread()
    before = signal.signal(signal.SIGTERM, _leave) if in_main_thread else None
    try:
        return cast(Subcommand, importlib.import_module(module).main)(parsed.rest) or 0
    finally:
        if in_main_thread:
            signal.signal(signal.SIGTERM, before)


def _leave(number: int, _: object) -> None:
    """Until the subcommand has handlers of its own: the first process of a container ignores a signal that it does not
    handle, and would be waited for until the grace of its pod is over."""
    os._exit(128 + number)
