"""Small objects for the tests of this folder: llmaz's sample names, and what must hold for any pod."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import yaml

from modelswarm.api.backendruntime import BackendRuntime
from modelswarm.api.openmodel import OpenModel
from modelswarm.api.playground import Playground
from modelswarm.workload.pod import PinnedModel
from modelswarm.workload.render import OperatorPart, Workload, render_workload

FIXTURES = Path(__file__).parent / "fixtures"
OPERATOR = OperatorPart(loader_image="inftyai/model-loader:v0.0.10")
A100 = {"name": "a100", "limits": {"nvidia.com/gpu": 1}}
A10 = {"name": "a10", "limits": {"nvidia.com/gpu": 2}}


def hub(name: str = "llama3-8b", *, model_id: str = "meta-llama/Meta-Llama-3-8B", **fields: Any) -> OpenModel:
    return model(name, {"modelHub": {"modelID": model_id, **fields}}, flavors=[A100, A10])


def uri(name: str, uri: str) -> OpenModel:
    return model(name, {"uri": uri})


def model(name: str, source: dict[str, Any], *, family: str = "llama3", flavors: Sequence[Any] = ()) -> OpenModel:
    return OpenModel.model_validate(
        {
            "metadata": {"name": name, "uid": "model-uid"},
            "spec": {"familyName": family, "source": source, "inferenceConfig": {"flavors": list(flavors)}},
        }
    )


def playground(
    claim: str | Sequence[tuple[str, str]] = "llama3-8b",
    *,
    name: str = "playground-llama3-8b",
    flavors: Sequence[str] = (),
    skip: bool = False,
    replicas: int = 1,
    elastic: dict[str, Any] | None = None,
    **config: Any,
) -> Playground:
    """``claim``: the name of the only model, or pairs of name and role. Further keywords: backendRuntimeConfig."""
    spec: dict[str, Any] = {"replicas": replicas}
    claimed: dict[str, Any] = {"inferenceFlavors": list(flavors)} if flavors else {}
    if isinstance(claim, str):
        spec["modelClaim"] = {"modelName": claim, **claimed}
    else:
        spec["modelClaims"] = {"models": [{"name": name, "role": role} for name, role in claim], **claimed}
    if config:
        spec["backendRuntimeConfig"] = config
    if elastic is not None:
        spec["elasticConfig"] = elastic
    annotations = {"llmaz.io/skip-model-loader": "true"} if skip else {}
    metadata = {"name": name, "namespace": "default", "uid": "playground-uid", "annotations": annotations}
    return Playground.model_validate({"metadata": metadata, "spec": spec})


def runtime(name: str = "vllm", **fields: Any) -> BackendRuntime:
    """A BackendRuntime of the fixtures, with fields of its spec replaced."""
    document = yaml.safe_load((FIXTURES / "backendruntimes" / f"{name}.yaml").read_text())
    document["spec"].update(fields)
    return BackendRuntime.model_validate(document)


def render(
    play: Playground,
    *models: OpenModel,
    using: BackendRuntime | None = None,
    operator: OperatorPart = OPERATOR,
    pinned: Sequence[PinnedModel | None] | None = None,
) -> Workload:
    """The workload; every one that a test makes must also be one that the API server takes."""
    chosen = using or runtime(play.backend_name)
    workload = render_workload(play, chosen, models, operator, pinned or [None] * len(models))
    assert_acceptable(pod(workload))
    return workload


def pod(workload: Workload) -> dict[str, Any]:
    spec: Any = workload.deployment["spec"]
    result: dict[str, Any] = spec["template"]["spec"]
    return result


def runner(workload: Workload) -> dict[str, Any]:
    containers = pod(workload)["containers"]
    assert [container["name"] for container in containers] == ["model-runner"]
    result: dict[str, Any] = containers[0]
    return result


def loaders(workload: Workload) -> list[dict[str, Any]]:
    return list(pod(workload).get("initContainers", []))


def env(container: dict[str, Any]) -> dict[str, Any]:
    """Variables by name: the value, or where it comes from."""
    return {each["name"]: each.get("value", each.get("valueFrom")) for each in container.get("env", [])}


def assert_acceptable(spec: dict[str, Any]) -> None:
    """What server-side apply and the API server's validation insist on."""
    volumes = [volume["name"] for volume in spec.get("volumes", [])]
    assert len(set(volumes)) == len(volumes), f"volumes {volumes}"
    containers = [*spec.get("initContainers", []), *spec["containers"]]
    names = [container["name"] for container in containers]
    assert len(set(names)) == len(names), f"containers {names}"
    used = set()
    for container in containers:
        variables = [each["name"] for each in container.get("env", [])]
        assert len(set(variables)) == len(variables), f"env of {container['name']}: {variables}"
        paths = [mount["mountPath"].rstrip("/") for mount in container.get("volumeMounts", [])]
        assert len(set(paths)) == len(paths), f"mounts of {container['name']}: {paths}"
        used |= {mount["name"] for mount in container.get("volumeMounts", [])}
    assert used == set(volumes), "every volume is mounted, every mount has its volume"
