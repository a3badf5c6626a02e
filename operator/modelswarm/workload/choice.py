"""Which recommended configuration and which flavor a Playground runs with, and the models in their roles."""

from collections.abc import Sequence
from dataclasses import dataclass

from modelswarm.api import labels
from modelswarm.api.backendruntime import BackendRuntime, RecommendedConfig
from modelswarm.api.openmodel import Flavor, OpenModel
from modelswarm.api.playground import ModelRole, Playground
from modelswarm.content.source import HubSource, OllamaSource, Source, StoreSource, layout, parse_source
from modelswarm.errors import RenderError, RenderReason

DEFAULT_CONFIG = "default"
SPECULATIVE_CONFIG = "speculative-decoding"


@dataclass(frozen=True, slots=True)
class ServedModel:
    """One model of a Playground. ``path`` is what ``ModelPath`` stands for; empty where the engine has no such path."""

    name: str
    family: str
    source: Source
    path: str

    @property
    def engine_name(self) -> str:
        """What ``ModelName`` stands for: the OpenModel's name, but the engine's own name for it with ollama."""
        return self.source.model if isinstance(self.source, OllamaSource) else self.name


def skips_loader(playground: Playground) -> bool:
    """Whether the engine itself fetches the models (annotation ``llmaz.io/skip-model-loader: "true"``)."""
    return playground.metadata.annotations.get(labels.SKIP_MODEL_LOADER) == "true"


def serve_models(playground: Playground, models: Sequence[OpenModel]) -> tuple[ServedModel, ...]:
    """The models, main first. ``models`` are those of ``playground.model_refs``, in that order.

    Raises ``RenderError`` when the roles make no sense or two models would lie in the same place, and
    ``InvalidReference`` for a source that cannot be read.
    """
    _check_roles(playground)
    skip = skips_loader(playground)
    served = tuple(_serve(model, skip=skip) for _, model in zip(playground.model_refs, models, strict=True))
    if not skip:
        _check_places(served)
    return served


def choose_config(playground: Playground, runtime: BackendRuntime) -> RecommendedConfig:
    """The recommended configuration: the one that is named, else the one for the Playground's kind of inference.

    A runtime without that configuration is an error also when nothing was named: an engine started without the
    arguments that name the model would serve another one, or none.
    """
    config = playground.spec.backend_runtime_config
    name = (config.config_name if config is not None else None) or _inferred_config(playground)
    found = next((known for known in runtime.spec.recommended_configs if known.name == name), None)
    if found is None:
        known = ", ".join(known.name for known in runtime.spec.recommended_configs) or "none"
        raise RenderError(
            RenderReason.UNKNOWN_CONFIG,
            f"BackendRuntime {runtime.metadata.name!r} has no recommendedConfig {name!r} (it has: {known}); "
            f"set backendRuntimeConfig.configName to one that exists, or add it to the BackendRuntime",
        )
    return found


def choose_flavor(playground: Playground, main: OpenModel) -> Flavor | None:
    """The flavor whose limits the engine takes: the first that the Playground names, else the model's first."""
    flavors = {flavor.name: flavor for flavor in reversed(main.flavors)}
    for name in playground.inference_flavors:
        if name not in flavors:
            known = ", ".join(flavor.name for flavor in main.flavors) or "none"
            raise RenderError(
                RenderReason.UNKNOWN_FLAVOR,
                f"OpenModel {main.metadata.name!r} has no flavor {name!r} (it has: {known}); correct inferenceFlavors",
            )
    if playground.inference_flavors:
        return flavors[playground.inference_flavors[0]]
    return main.flavors[0] if main.flavors else None


def _inferred_config(playground: Playground) -> str:
    drafts = any(ref.role is ModelRole.DRAFT for ref in playground.model_refs)
    return SPECULATIVE_CONFIG if drafts else DEFAULT_CONFIG


def _check_roles(playground: Playground) -> None:
    roles = [ref.role for ref in playground.model_refs]
    if not roles:
        raise RenderError(
            RenderReason.NO_MODELS, "the Playground claims no model; set modelClaim.modelName or modelClaims.models"
        )
    mains, drafts = roles.count(ModelRole.MAIN), roles.count(ModelRole.DRAFT)
    if mains != 1 or drafts > 1:
        raise RenderError(
            RenderReason.INVALID_MODELS,
            f"modelClaims has {mains} main and {drafts} draft models; it takes one main model and at most one draft",
        )


def _serve(model: OpenModel, *, skip: bool) -> ServedModel:
    source = parse_source(model.spec.source)
    match source:
        case HubSource() if skip:
            path = source.model_id
        case StoreSource() | OllamaSource() if skip:
            path = model.spec.source.uri or ""
        case OllamaSource():
            path = ""
        case _:
            path = layout(source).model_path
    return ServedModel(model.metadata.name, model.spec.family_name, source, path)


def _check_places(models: Sequence[ServedModel]) -> None:
    """Two loaders must not write different bytes to one path (two repositories with a file of the same name)."""
    places: dict[str, tuple[str, object]] = {}
    for model in models:
        match model.source:
            case HubSource(hub=hub, model_id=model_id, revision=revision):
                origin: object = (hub, model_id, revision)
            case StoreSource():
                origin = model.source
            case _:
                continue
        name, other = places.setdefault(model.path, (model.name, origin))
        if other != origin:
            raise RenderError(
                RenderReason.INVALID_MODELS,
                f"the OpenModels {name!r} and {model.name!r} would both be loaded to {model.path}",
            )
