"""Objects that the API server must accept or refuse, and the small builders that they are written with."""

from typing import Any

Manifest = dict[str, Any]

HUB: Manifest = {"modelHub": {"modelID": "meta-llama/Meta-Llama-3-8B"}}


def openmodel(source: Any = None, *, name: str = "llama3-8b", **spec: Any) -> Manifest:
    return {
        "apiVersion": "llmaz.io/v1alpha1",
        "kind": "OpenModel",
        "metadata": {"name": name},
        "spec": {"familyName": "llama3", "source": HUB if source is None else source} | spec,
    }


def hub(**fields: Any) -> Manifest:
    return openmodel({"modelHub": {"modelID": "meta-llama/Meta-Llama-3-8B"} | fields})


def uri(text: str) -> Manifest:
    return openmodel({"uri": text})


def playground(*, name: str = "playground-llama3-8b", **spec: Any) -> Manifest:
    """A Playground of one model, unless ``spec`` claims others; a claim of None is left out."""
    claims = {key: value for key, value in spec.items() if key.startswith("modelClaim")}
    whole = ({} if claims else {"modelClaim": {"modelName": "llama3-8b"}}) | spec
    return {
        "apiVersion": "inference.llmaz.io/v1alpha1",
        "kind": "Playground",
        "metadata": {"name": name, "namespace": "default"},
        "spec": {key: value for key, value in whole.items() if value is not None},
    }


def models(*roles: str | None) -> Manifest:
    """A Playground of several models; a role of None is left out."""
    listed = [{"name": f"model-{index}"} | ({"role": role} if role else {}) for index, role in enumerate(roles)]
    return playground(modelClaims={"models": listed})


def configured(**config: Any) -> Manifest:
    return playground(backendRuntimeConfig=config)


def elastic(**config: Any) -> Manifest:
    return playground(elasticConfig=config)


def runtime(*configs: Any, name: str = "fake-backend", **spec: Any) -> Manifest:
    whole: Manifest = {"image": "busybox", "version": "latest"} | spec
    return {
        "apiVersion": "inference.llmaz.io/v1alpha1",
        "kind": "BackendRuntime",
        "metadata": {"name": name},
        "spec": {key: value for key, value in whole.items() if value is not None}
        | ({"recommendedConfigs": list(configs)} if configs else {}),
    }


def resources(limits: Any = None, requests: Any = None) -> Manifest:
    given = {"limits": limits, "requests": requests}
    return {key: value for key, value in given.items() if value is not None}


def task(*, name: str = "by-hand", **spec: Any) -> Manifest:
    """A model task, unless ``spec`` says what else; a part of None is left out."""
    whole: Manifest = ({} if "image" in spec else {"model": {"source": HUB}}) | spec
    return {
        "apiVersion": "llmaz.io/v1alpha1",
        "kind": "P2PTask",
        "metadata": {"name": name, "namespace": "default"},
        "spec": {key: value for key, value in whole.items() if value is not None},
    }


def image(reference: str = "docker.io/vllm/vllm-openai:v0.7.3", **fields: Any) -> Manifest:
    return {"reference": reference} | fields


def node_cache(*, name: str = "gpu-1") -> Manifest:
    return {"apiVersion": "llmaz.io/v1alpha1", "kind": "NodeCache", "metadata": {"name": name}}
