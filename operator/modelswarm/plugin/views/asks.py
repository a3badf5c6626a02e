"""What the objects in files would have the cluster bring: contents, where to, for whom. Pure."""

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Literal

from modelswarm.api.backendruntime import BackendRuntime
from modelswarm.api.openmodel import ModelSource, OpenModel
from modelswarm.api.p2ptask import Engine, P2PTask, Placement
from modelswarm.api.playground import Playground
from modelswarm.content.source import is_distributable, parse_source
from modelswarm.errors import ContentError, RenderError
from modelswarm.plugin.views.standing import source_name
from modelswarm.workload.render import OperatorPart, images, needs_models
from modelswarm.workload.tasks import common_node_selector, wanted_copies


@dataclass(frozen=True, slots=True)
class Ask:
    """One content for one object. ``source`` for models; images have none. ``consumers``: pods that will load it."""

    object: str
    kind: Literal["model", "image"]
    content: str
    source: ModelSource | None = None
    platforms: tuple[str, ...] = ()
    engine: Engine = Engine.AUTO
    selector: Mapping[str, str] = field(default_factory=dict)
    copies: int | Literal["All"] = 2
    consumers: int = 0


@dataclass(frozen=True, slots=True)
class Trouble:
    """An object of which it cannot be said what it asks for."""

    object: str
    reason: str
    message: str


@dataclass(frozen=True, slots=True)
class Wanted:
    """What was read from files, and what the cluster has beside it."""

    models: Mapping[str, OpenModel]
    playgrounds: tuple[Playground, ...]
    runtimes: Mapping[str, BackendRuntime]
    tasks: tuple[P2PTask, ...] = ()
    others: Mapping[str, OpenModel] = field(default_factory=dict)
    """OpenModels of the cluster."""
    elsewhere: tuple[Playground, ...] = ()
    """Playgrounds of the cluster that are not in the files."""


def asks_of(wanted: Wanted, operator: OperatorPart, copies: int) -> tuple[list[Ask], list[Trouble]]:
    """``copies``: on how many nodes a model lies at least. Models first, in the order of the files."""
    asks: list[Ask] = []
    troubles: list[Trouble] = []
    users = (*wanted.playgrounds, *wanted.elsewhere)
    asked: set[str] = set()
    for model in wanted.models.values():
        _collect(f"OpenModel {model.metadata.name}", _model(model, users, copies), asks, troubles)
        asked.add(model.metadata.name)
    for playground in wanted.playgrounds:
        title = f"Playground {playground.metadata.namespace}/{playground.metadata.name}"
        _collect(title, _playground(title, playground, wanted, operator, copies, asked), asks, troubles)
    for task in wanted.tasks:
        title = f"P2PTask {task.metadata.namespace}/{task.metadata.name}"
        _collect(title, _task(title, task), asks, troubles)
    return asks, troubles


def _collect(title: str, found: Iterator[Ask | Trouble], asks: list[Ask], troubles: list[Trouble]) -> None:
    try:
        for each in found:
            if isinstance(each, Ask):
                asks.append(each)
            else:
                troubles.append(each)
    except (ContentError, RenderError) as error:
        troubles.append(Trouble(title, error.reason, error.message))


def _model(model: OpenModel, users: Iterable[Playground], copies: int) -> Iterator[Ask]:
    users = tuple(users)
    name = model.metadata.name
    if not is_distributable(parse_source(model.spec.source)):
        return
    loading = [each for each in users if any(ref.name == name for ref in each.model_refs) and needs_models(each)]
    yield Ask(
        object=f"OpenModel {name}",
        kind="model",
        content=source_name(model.spec.source),
        source=model.spec.source,
        selector=common_node_selector(model),
        copies=wanted_copies(name, users, copies),
        consumers=sum(_pods(each) for each in loading),
    )


def _playground(
    title: str,
    playground: Playground,
    wanted: Wanted,
    operator: OperatorPart,
    copies: int,
    asked: set[str],
) -> Iterator[Ask | Trouble]:
    models: list[OpenModel] = []
    for ref in playground.model_refs:
        model = wanted.models.get(ref.name) or wanted.others.get(ref.name)
        if model is None:
            yield Trouble(title, "ModelNotFound", f"OpenModel {ref.name} is neither in the files nor in the cluster")
            continue
        models.append(model)
        if ref.name not in asked and needs_models(playground):
            asked.add(ref.name)
            yield from _model(model, (*wanted.playgrounds, *wanted.elsewhere), copies)
    runtime = wanted.runtimes.get(playground.backend_name)
    if runtime is None:
        name = playground.backend_name
        words = f"BackendRuntime {name} is neither in the files nor in the cluster"
        yield Trouble(title, "BackendRuntimeNotFound", words)
    elif len(models) == len(playground.model_refs):
        for image in images(playground, runtime, models, operator):
            yield Ask(object=title, kind="image", content=image, consumers=_pods(playground))


def _task(title: str, task: P2PTask) -> Iterator[Ask]:
    placement = task.spec.placement or Placement()
    image, source = task.spec.image, task.spec.model.source if task.spec.model is not None else None
    if source is not None:
        parse_source(source)
    if image is None and source is None:
        return
    yield Ask(
        object=title,
        kind="model" if image is None else "image",
        content=image.reference if image is not None else source_name(source or ModelSource()),
        source=source,
        platforms=image.platforms if image is not None else (),
        engine=task.spec.engine,
        selector=placement.node_selector,
        copies=placement.copies,
    )


def _pods(playground: Playground) -> int:
    elastic = playground.spec.elastic_config
    return max(playground.spec.replicas, elastic.max_replicas if elastic is not None else 0)
