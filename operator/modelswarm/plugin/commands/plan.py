"""``kubectl swarm plan``."""

import os
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Annotated

import typer

from modelswarm.api.backendruntime import BackendRuntime
from modelswarm.api.meta import Resource
from modelswarm.api.openmodel import OpenModel
from modelswarm.api.p2ptask import Engine, P2PTask
from modelswarm.api.playground import Playground
from modelswarm.cli.documents import RENDERED, Documents, read_documents
from modelswarm.content.manifest import Manifest, decode, from_binary_data, shard_name
from modelswarm.errors import InvalidReference, KubeError, RenderError
from modelswarm.kube.kinds import BACKENDRUNTIME, CONFIGMAP, NODE
from modelswarm.plugin.cluster import Cluster
from modelswarm.plugin.exits import Exit, usage
from modelswarm.plugin.installation import Installation
from modelswarm.plugin.options import Context, Format, Kubeconfig, Namespace, Output, Where
from modelswarm.plugin.origins import open_origins
from modelswarm.plugin.running import checked, note_unread, run, show
from modelswarm.plugin.show.plans import plan as table
from modelswarm.plugin.snapshot import Snapshot, entry
from modelswarm.plugin.views.asks import Trouble, Wanted, asks_of
from modelswarm.plugin.views.forecast import Engines, Known, PlanRow, forecast, rate_of
from modelswarm.workload.quantity import parse_quantity
from modelswarm.workload.render import OperatorPart

File = Annotated[
    list[str],
    typer.Option("--filename", "-f", metavar="FILE", help="YAML with objects, a directory, or - for standard input."),
]
EngineOption = Annotated[Engine, typer.Option(help="Suppose that this engine is the operator's choice.")]
Rate = Annotated[
    str | None, typer.Option(metavar="BYTES", help="Speed of the origin per second, as in 100Mi. Default: as measured.")
]
Files = Annotated[bool, typer.Option("--files", help="List every file.")]


@dataclass(frozen=True, slots=True)
class Plan:
    """``troubles``: objects of which nothing can be said. ``bytes_per_second``: what times are reckoned with."""

    contents: tuple[PlanRow, ...]
    troubles: tuple[Trouble, ...]
    bytes_per_second: int | None

    @property
    def is_sound(self) -> bool:
        return not self.troubles and not any(row.reason for row in self.contents)


def plan(
    filename: File,
    engine: EngineOption = Engine.AUTO,
    rate: Rate = None,
    files: Files = False,
    namespace: Namespace = None,
    output: Output = Format.TABLE,
    kubeconfig: Kubeconfig = None,
    context: Context = None,
) -> None:
    """Say what applying FILE would bring to which nodes, from where, and how long that takes. Changes nothing.

    Asks the model hub and the registry themselves, with HF_TOKEN and docker's credentials if there are any. Exit code
    1: something does not fit, or cannot be found.
    """
    where = Where(kubeconfig, context, namespace)
    speed = checked(lambda: _speed(rate))
    documents = checked(lambda: _read(filename, where))

    async def work(cluster: Cluster) -> Exit:
        installation = await cluster.installation()
        snapshot = await cluster.everything(where.namespaces)
        note_unread(snapshot)
        view = await _plan(cluster, installation, snapshot, documents, engine, speed)
        show(view, output, lambda: table(view.contents, view.troubles, view.bytes_per_second, files=files))
        return Exit.OK if view.is_sound else Exit.PROBLEM

    run(where, work)


async def _plan(
    cluster: Cluster,
    installation: Installation,
    snapshot: Snapshot,
    documents: Documents,
    preferred: Engine,
    speed: float | None,
) -> Plan:
    settings = installation.settings
    listing = await cluster.objects(BACKENDRUNTIME)
    runtimes = {each.metadata.name: each for each in map(BackendRuntime.model_validate, listing or ())}
    given = set(documents.playgrounds)
    wanted = Wanted(
        models=documents.models,
        playgrounds=tuple(documents.playgrounds.values()),
        runtimes={**runtimes, **documents.runtimes},
        tasks=tuple(documents.tasks.values()),
        others={each.metadata.name: each for each in snapshot.models},
        elsewhere=tuple(
            each for each in snapshot.playgrounds if (each.metadata.namespace, each.metadata.name) not in given
        ),
    )
    operator = OperatorPart(loader_image=settings.loader_image)
    asks, troubles = asks_of(wanted, operator, settings.placement_copies)
    async with open_origins(installation, os.environ) as origins:
        resolved, unresolved = await origins.resolve(asks, await _platforms(cluster))
    engines = Engines(
        dragonfly=settings.dragonfly_manager_url is not None or preferred is Engine.DRAGONFLY,
        # An operator that cannot be seen: agents that are there are there to be used.
        bittorrent=settings.agent_root is not None or (installation.operator is None and bool(snapshot.live)),
        preferred=preferred if preferred is not Engine.AUTO else settings.engine,
    )
    rate = speed if speed is not None else rate_of(snapshot.tasks)
    known = Known(snapshot, engines, await _held(cluster, snapshot, [manifest for _, manifest in resolved]), rate)
    rows = forecast(resolved, known)
    return Plan(rows, (*troubles, *unresolved), round(rate) if rate else None)


def _read(filenames: Sequence[str], where: Where) -> Documents:
    """Raises CommandError (usage) if a file cannot be read; notes go to standard error."""

    def report(line: str) -> None:
        print(f"note: {line}", file=sys.stderr)

    kinds: tuple[type[Resource], ...] = (*RENDERED, P2PTask)
    documents = read_documents(filenames, report, kinds=kinds, namespace=where.namespace)
    if documents.failed:
        raise usage("not all files could be read")
    if not (documents.models or documents.playgrounds or documents.tasks):
        names = ", ".join(each.KIND for each in (OpenModel, Playground, P2PTask))
        raise usage(f"there is nothing to plan in {', '.join(filenames)} (no {names})")
    return documents


def _speed(text: str | None) -> float | None:
    if text is None:
        return None
    try:
        value = float(parse_quantity(text))
    except RenderError as error:
        raise usage(f"--rate: {error.message}") from None
    if value <= 0:
        raise usage(f"--rate {text}: must be more than nothing")
    return value


async def _platforms(cluster: Cluster) -> tuple[str, ...]:
    """Of the nodes; none where they may not be listed, and then an image counts with all that it has."""
    found: set[str] = set()
    for node in await cluster.objects(NODE) or ():
        status = node.get("status")
        info = status.get("nodeInfo") if isinstance(status, dict) else None
        if isinstance(info, dict) and info.get("operatingSystem") and info.get("architecture"):
            found.add(f"{info['operatingSystem']}/{info['architecture']}")
    return tuple(sorted(found))


async def _held(cluster: Cluster, snapshot: Snapshot, wanted: Sequence[Manifest]) -> Mapping[str, frozenset[str]]:
    """By node, digests of the files of complete contents: another revision of a model shares most of its files.

    Only contents of the same origin are looked at, whose lists the user may read.
    """
    held: dict[str, frozenset[str]] = {}
    origins = {manifest.origin for manifest in wanted}
    seen: set[str] = set()
    for task in snapshot.tasks:
        resolved, reference = task.status.resolved, task.status.manifest
        if resolved is None or reference is None or resolved.digest in seen:
            continue
        nodes = [
            cache.metadata.name
            for cache in snapshot.caches
            if (model := entry(cache, resolved.digest)) is not None and model.state == "Ready"
        ]
        manifest = await _manifest(cluster, task) if nodes else None
        seen.add(resolved.digest)
        if manifest is None or manifest.origin not in origins:
            continue
        digests = frozenset(file.digest for file in manifest.files if file.digest is not None)
        for node in nodes:
            held[node] = held.get(node, frozenset()) | digests
    return held


async def _manifest(cluster: Cluster, task: P2PTask) -> Manifest | None:
    """The list of a task's files; None where it cannot be read."""
    reference = task.status.manifest
    if reference is None:
        return None
    shards: list[bytes] = []
    try:
        for index in range(reference.shards):
            found = await cluster.kube.get(CONFIGMAP, shard_name(reference.name, index), task.metadata.namespace)
            data = found.get("binaryData")
            shards.append(from_binary_data({str(k): str(v) for k, v in data.items()} if isinstance(data, dict) else {}))
        return decode(shards)
    except (KubeError, InvalidReference):
        return None
