"""Completion: names of objects for the shell, and the answers that kubectl asks its plugins for.

kubectl runs ``kubectl_complete-swarm`` with the words after ``kubectl swarm``, and reads a candidate per line and a
last line with a number (cobra's protocol).
"""

import asyncio
import contextlib
import os
import shlex
import sys
from collections.abc import Mapping
from pathlib import Path

import typer

from modelswarm.errors import ModelswarmError
from modelswarm.kube.contexts import default_namespace
from modelswarm.kube.kinds import NODECACHE, OPENMODEL, P2PTASK, PLAYGROUND, Kind
from modelswarm.kube.objects import key_of
from modelswarm.plugin.cluster import connect

SECONDS = 2.0
"""For looking names up; a shell that hangs is worse than one that does not know."""
NO_FILES = 4
"""Cobra's directive: do not offer files instead."""

_KINDS = {"playground": PLAYGROUND, "p2ptask": P2PTASK, "openmodel": OPENMODEL, "node": NODECACHE}


def complete_playground(ctx: typer.Context, incomplete: str) -> list[str]:
    return _complete(ctx, incomplete, "playground")


def complete_task(ctx: typer.Context, incomplete: str) -> list[str]:
    return _complete(ctx, incomplete, "p2ptask")


def complete_switchable(ctx: typer.Context, incomplete: str) -> list[str]:
    return _complete(ctx, incomplete, "p2ptask", "playground")


def complete_object(ctx: typer.Context, incomplete: str) -> list[str]:
    return _complete(ctx, incomplete, *_KINDS)


def complete_node(ctx: typer.Context, incomplete: str) -> list[str]:
    return [each.partition("/")[2] for each in _complete(ctx, f"node/{incomplete}", "node")]


def _complete(ctx: typer.Context, incomplete: str, *words: str) -> list[str]:
    """Kinds until there is a slash, then names; nothing where the cluster does not answer at once."""
    word, slash, begun = incomplete.partition("/")
    if not slash:
        return [f"{each}/" for each in words if each.startswith(word)]
    kind = _KINDS.get(word) if word in words else None
    if kind is None:
        return []
    try:
        names = asyncio.run(_names(kind, ctx.params))
    except (ModelswarmError, TimeoutError):
        return []
    return [f"{word}/{name}" for name in names if name.startswith(begun)]


async def _names(kind: Kind, params: Mapping[str, object]) -> list[str]:
    """Of the cluster and namespace that earlier words of the line name."""
    kubeconfig, context, chosen = (params.get(name) for name in ("kubeconfig", "context", "namespace"))
    config, name = Path(str(kubeconfig)) if kubeconfig else None, str(context) if context else None
    namespace = str(chosen) if chosen else default_namespace(config, name)
    async with asyncio.timeout(SECONDS), connect(config, name) as cluster:
        found = await cluster.kube.list(kind, namespace if kind.namespaced else None, metadata_only=True)
    return sorted(key_of(obj).name for obj in found)


def main() -> None:
    """``kubectl_complete-swarm``. Asks typer in the words that it understands from fish: VALUE, tab, help."""
    from modelswarm.plugin.app import PROGRAM, app

    *before, last = sys.argv[1:] or [""]
    os.environ[f"_{PROGRAM.replace('-', '_').upper()}_COMPLETE"] = "complete_fish"
    os.environ["_TYPER_COMPLETE_FISH_ACTION"] = "get-args"
    os.environ["_TYPER_COMPLETE_ARGS"] = f"{shlex.join([PROGRAM, *before])} {shlex.quote(last) if last else ''}"
    with contextlib.suppress(SystemExit):
        app(prog_name=PROGRAM)
    print(f":{NO_FILES}")
