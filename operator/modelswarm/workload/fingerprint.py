"""The template hash: has the *user* changed what should run?

A Deployment whose hash is unchanged is left alone (only ``replicas`` follows), so the hash must move with everything in
the pod template that a user decides, and with nothing else:

* It is taken over what was **written** in Playground, BackendRuntime and OpenModels, before any merging or rendering of
  ours, so that a new version of the operator, which may render differently, finds the same hash and rolls nothing.
* Only what reaches the pod counts: of a BackendRuntime the configuration that is used, of an OpenModel the flavor that
  is used. Neither ``replicas`` nor ``elasticConfig`` counts.
* A source counts as written (branch or tag), not as pinned. The commit comes with the P2PTask, and another commit with
  another task only, which needs another source. Otherwise a gate that opened by time-out, before the commit was known,
  would roll the Deployment once more when it becomes known.
* Loader image, scheduler name, manifests and their mounts are the operator's and do not count.
"""

import hashlib
import json
from collections.abc import Sequence

from modelswarm.api.backendruntime import BackendRuntime, RecommendedConfig, ResourceRequirements
from modelswarm.api.meta import JsonObject
from modelswarm.api.openmodel import Flavor, ModelSource, OpenModel
from modelswarm.api.playground import BackendRuntimeConfig, Playground
from modelswarm.workload.choice import skips_loader

FORMAT = 1
"""Part of what is hashed: another number rolls every Deployment. What is not set is left out, so that a later version
can hash one more field without changing the hash of those that do not set it."""


def template_hash(
    playground: Playground,
    runtime: BackendRuntime,
    config: RecommendedConfig,
    models: Sequence[OpenModel],
    flavor: Flavor | None,
) -> str:
    """16 hex digits over the user's part of the template."""
    spec, own = runtime.spec, playground.spec.backend_runtime_config or BackendRuntimeConfig()
    part: dict[str, object] = {
        "format": FORMAT,
        "image": [spec.image, own.version or spec.version],
        "command": spec.command,
        "lifecycle": spec.lifecycle,
        "probes": [spec.startup_probe, spec.liveness_probe, spec.readiness_probe],
        "args": [config.args, own.args or ()],
        "envs": [spec.envs, own.envs or ()],
        "resources": [_written(config.resources), _written(own.resources)],
        "sharedMemory": own.shared_memory_size if own.shared_memory_size is not None else config.shared_memory_size,
        "models": [{"name": model.metadata.name, "source": written_source(model.spec.source)} for model in models],
        "family": models[0].spec.family_name,
        "flavor": flavor.limits if flavor is not None else None,
        "inferenceFlavors": playground.inference_flavors,
        "skipModelLoader": skips_loader(playground),
    }
    part = {name: value for name, value in part.items() if value is not None}
    text = json.dumps(part, sort_keys=True, separators=(",", ":"), ensure_ascii=False)
    return hashlib.sha256(text.encode()).hexdigest()[:16]


def written_source(source: ModelSource) -> JsonObject:
    """The source as written: the fields that are set, without a ``uri`` that ``modelHub`` overrules."""
    fields = source.to_json()
    if source.model_hub is not None:
        fields.pop("uri", None)
    return fields


def _written(resources: ResourceRequirements | None) -> JsonObject | None:
    return resources.to_json() if resources is not None else None
