"""A Playground, its BackendRuntime and its OpenModels become a Deployment, the ``-lb`` Service and an autoscaler.

What the user decides and what the operator decides come in as separate inputs. The user's part is hashed
(``fingerprint``); the operator's part (``OperatorPart``, ``PinnedModel``) is adopted with the user's next change only,
so that neither an upgrade of the operator nor a late pin rolls a running Deployment.
"""

import re
from collections.abc import Sequence
from dataclasses import dataclass

from modelswarm.api import labels
from modelswarm.api.backendruntime import BackendRuntime, HPATrigger, RecommendedConfig
from modelswarm.api.meta import JsonObject
from modelswarm.api.openmodel import OpenModel
from modelswarm.api.playground import BackendRuntimeConfig, Playground
from modelswarm.errors import RenderError, RenderReason
from modelswarm.workload.arguments import DRAFT_MODEL_PATH, MODEL_NAME, MODEL_PATH, render_arguments
from modelswarm.workload.authorities import Authorities
from modelswarm.workload.choice import ServedModel, choose_config, choose_flavor, serve_models, skips_loader
from modelswarm.workload.environment import merge_envs
from modelswarm.workload.fingerprint import template_hash
from modelswarm.workload.pod import Dfdaemon, Engine, PinnedModel, contents, needs_loader, pod_spec
from modelswarm.workload.quantity import canonical
from modelswarm.workload.resources import merge_resources, with_flavor

REVISION_HISTORY = 3
SERVICE_SUFFIX = "-lb"

_NAME_LENGTH = 63
_LABEL_VALUE = re.compile(r"([A-Za-z0-9]([A-Za-z0-9_.-]{0,61}[A-Za-z0-9])?)?")


@dataclass(frozen=True, slots=True)
class OperatorPart:
    """What the operator decides about a workload; adopted with the user's next change only."""

    loader_image: str
    scheduler_name: str | None = None
    progress_deadline_seconds: int = 7200
    """Above the longest wait, so that a slow load is not reported as a failed rollout."""
    dragonfly_socket: str | None = None
    """Where the nodes' dfdaemon listens; None where Dragonfly is not used."""
    dragonfly_tag: str = ""
    dragonfly_application: str = ""
    dragonfly_allow_gated: bool = False
    turnstile_url: str | None = None
    """Where loaders ask before they read the origin in an engine's place; None: they do not ask."""

    loader_ca: str | None = None
    """CONFIGMAP/KEY in the Playground's namespace with the authorities that loaders believe; None: the public ones."""

    @property
    def dfdaemon(self) -> Dfdaemon | None:
        """What loaders are told about the nodes' dfdaemon."""
        if self.dragonfly_socket is None:
            return None
        return Dfdaemon(
            self.dragonfly_socket,
            self.dragonfly_tag,
            self.dragonfly_application,
            self.dragonfly_allow_gated,
        )


@dataclass(frozen=True, slots=True)
class Workload:
    """Complete objects for server-side apply, with a controller reference to the Playground."""

    deployment: JsonObject
    service: JsonObject
    autoscaler: JsonObject | None
    template_hash: str
    images: tuple[str, ...]
    """The engine's image, then the loader's if the pod has one; each once."""


def render_workload(
    playground: Playground,
    runtime: BackendRuntime,
    models: Sequence[OpenModel],
    operator: OperatorPart,
    pinned: Sequence[PinnedModel | None],
) -> Workload:
    """What the Playground should run. ``models`` and ``pinned`` follow ``playground.model_refs`` (main first).

    Raises ``RenderError`` for what a person must correct, and ``InvalidReference`` for a source that cannot be read.
    """
    served = serve_models(playground, models)
    config = choose_config(playground, runtime)
    flavor = choose_flavor(playground, models[0])
    own = playground.spec.backend_runtime_config or BackendRuntimeConfig()
    shared_memory = own.shared_memory_size if own.shared_memory_size is not None else config.shared_memory_size
    engine = Engine(
        image=engine_image(playground, runtime),
        arguments=(*render_arguments(config.args, _variables(served)), *(own.args or ())),
        envs=merge_envs(runtime.spec.envs, own.envs or ()),
        resources=with_flavor(
            merge_resources(config.resources, own.resources), flavor.limits if flavor is not None else None
        ),
        shared_memory=canonical(shared_memory) if shared_memory is not None else None,
    )
    pod = pod_spec(
        runtime.spec,
        engine,
        served,
        pinned,
        skip_loader=skips_loader(playground),
        loader_image=operator.loader_image,
        scheduler_name=operator.scheduler_name,
        dfdaemon=operator.dfdaemon,
        turnstile=operator.turnstile_url,
        authorities=Authorities.parse(operator.loader_ca) if operator.loader_ca is not None else None,
    )
    digest = template_hash(playground, runtime, config, models, flavor)
    return Workload(
        deployment=_deployment(
            playground,
            served[0],
            pod,
            digest,
            contents(pinned, skip_loader=skips_loader(playground)),
            operator.progress_deadline_seconds,
        ),
        service=_service(playground, served[0]),
        autoscaler=_autoscaler(playground, served[0], config),
        template_hash=digest,
        images=_images(playground, runtime, served, operator),
    )


def images(
    playground: Playground, runtime: BackendRuntime, models: Sequence[OpenModel], operator: OperatorPart
) -> tuple[str, ...]:
    """The images of the pod, without rendering it: the engine's, then the loader's if there is one; each once."""
    return _images(playground, runtime, serve_models(playground, models), operator)


def needs_models(playground: Playground) -> bool:
    """Whether the workload has to wait for its models; not when the engine fetches them itself."""
    return not skips_loader(playground)


def engine_image(playground: Playground, runtime: BackendRuntime) -> str:
    """``image:version``; the Playground may choose another version."""
    config = playground.spec.backend_runtime_config
    return f"{runtime.spec.image}:{(config.version if config is not None else None) or runtime.spec.version}"


def service_name(playground: Playground) -> str:
    """The name under which clients reach the Playground; gateways refer to it, so it is part of the contract."""
    return playground.metadata.name + SERVICE_SUFFIX


def _images(
    playground: Playground, runtime: BackendRuntime, served: Sequence[ServedModel], operator: OperatorPart
) -> tuple[str, ...]:
    found = [engine_image(playground, runtime)]
    if needs_loader(served, skip_loader=skips_loader(playground)):
        found.append(operator.loader_image)
    return tuple(dict.fromkeys(found))


def _variables(served: Sequence[ServedModel]) -> dict[str, str]:
    variables = {MODEL_PATH: served[0].path, MODEL_NAME: served[0].engine_name}
    if len(served) > 1:
        variables[DRAFT_MODEL_PATH] = served[1].path
    return variables


def _deployment(
    playground: Playground,
    main: ServedModel,
    pod: JsonObject,
    digest: str,
    on_nodes: Sequence[str],
    deadline_seconds: int,
) -> JsonObject:
    annotations: JsonObject = {labels.TEMPLATE_HASH: digest}
    if (skip := playground.metadata.annotations.get(labels.SKIP_MODEL_LOADER)) is not None:
        annotations[labels.SKIP_MODEL_LOADER] = skip
    template_metadata: JsonObject = {
        "labels": {
            labels.MODEL_NAME: _label_value(main.name, "name"),
            labels.MODEL_FAMILY: _label_value(main.family, "spec.familyName", of=main.name),
            labels.PLAYGROUND: playground.metadata.name,
        }
    }
    template_annotations: JsonObject = {}
    if playground.inference_flavors:
        template_annotations[labels.INFERENCE_FLAVORS] = ",".join(playground.inference_flavors)
    if on_nodes:
        template_annotations[labels.CONTENTS] = ",".join(on_nodes)
    if template_annotations:
        template_metadata["annotations"] = template_annotations
    return {
        "apiVersion": "apps/v1",
        "kind": "Deployment",
        "metadata": _metadata(playground, main, playground.metadata.name, annotations),
        "spec": {
            "replicas": playground.spec.replicas,
            "revisionHistoryLimit": REVISION_HISTORY,
            "progressDeadlineSeconds": deadline_seconds,
            "strategy": {"type": "RollingUpdate", "rollingUpdate": {"maxSurge": 0, "maxUnavailable": 1}},
            "selector": {"matchLabels": {labels.PLAYGROUND: playground.metadata.name}},
            "template": {"metadata": template_metadata, "spec": pod},
        },
    }


def _service(playground: Playground, main: ServedModel) -> JsonObject:
    name = service_name(playground)
    if len(name) > _NAME_LENGTH:
        raise RenderError(
            RenderReason.INVALID_OBJECT,
            f"the Service of this Playground would be called {name}, and the name of a Service has at most "
            f"{_NAME_LENGTH} characters; choose a name of at most {_NAME_LENGTH - len(SERVICE_SUFFIX)} characters",
        )
    return {
        "apiVersion": "v1",
        "kind": "Service",
        "metadata": _metadata(playground, main, name, {labels.ACTIVATOR_MODEL_NAME: main.name}),
        "spec": {
            "selector": {labels.PLAYGROUND: playground.metadata.name},
            "ports": [
                {
                    "name": "http",
                    "protocol": "TCP",
                    "port": labels.SERVING_PORT,
                    "targetPort": labels.SERVING_PORT,
                }
            ],
        },
    }


def _autoscaler(playground: Playground, main: ServedModel, config: RecommendedConfig) -> JsonObject | None:
    """It scales the *Playground*, whose ``replicas`` the Deployment follows: one writer per field."""
    elastic = playground.spec.elastic_config
    if elastic is None:
        return None
    trigger: HPATrigger | None = None
    for choice in (elastic.scale_trigger, config.scale_trigger):
        if trigger is None and choice is not None:
            trigger = choice.hpa
    if trigger is None:
        return None
    spec: JsonObject = {
        "scaleTargetRef": {
            "apiVersion": playground.api_version_of_kind(),
            "kind": playground.KIND,
            "name": playground.metadata.name,
        },
        "minReplicas": elastic.min_replicas,
        "maxReplicas": elastic.max_replicas,
    }
    if trigger.metrics:
        spec["metrics"] = [*trigger.metrics]
    if trigger.behavior is not None:
        spec["behavior"] = trigger.behavior
    return {
        "apiVersion": "autoscaling/v2",
        "kind": "HorizontalPodAutoscaler",
        "metadata": _metadata(playground, main, playground.metadata.name, {}),
        "spec": spec,
    }


def _metadata(playground: Playground, main: ServedModel, name: str, annotations: JsonObject) -> JsonObject:
    metadata: JsonObject = {
        "name": name,
        "namespace": playground.metadata.namespace,
        "labels": {
            labels.MANAGED_BY: labels.MANAGER,
            labels.MODEL_NAME: main.name,
            labels.PLAYGROUND: playground.metadata.name,
        },
    }
    if annotations:
        metadata["annotations"] = annotations
    metadata["ownerReferences"] = [playground.owner_reference()]
    return metadata


def _label_value(value: str, field: str, *, of: str | None = None) -> str:
    if not _LABEL_VALUE.fullmatch(value):
        raise RenderError(
            RenderReason.INVALID_OBJECT,
            f"{field} {value!r} of OpenModel {of or value!r} cannot be the value of a label: at most 63 letters, "
            f"digits, '-', '_' and '.', beginning and ending with a letter or digit",
        )
    return value
