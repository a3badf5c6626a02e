"""Objects as a user writes them. What is not given is left to the API server's defaults."""

from typing import Any

from tests.integration.support.api import Manifest

LLAMA = "meta-llama/Meta-Llama-3-8B"
"""The repository that llmaz's own tests use; the hub stand-in has a small one under that name."""


def open_model(name: str, source: Manifest | str | None = None, **spec: Any) -> Manifest:
    """``source``: a modelID, a URI, or what stands under ``spec.source``."""
    match source:
        case None:
            source = {"modelHub": {"modelID": LLAMA}}
        case str() if "://" in source:
            source = {"uri": source}
        case str():
            source = {"modelHub": {"modelID": source}}
    return {
        "apiVersion": "llmaz.io/v1alpha1",
        "kind": "OpenModel",
        "metadata": {"name": name},
        "spec": {"familyName": "llama3", "source": source, **spec},
    }


def playground(name: str, *models: str, annotations: Manifest | None = None, **spec: Any) -> Manifest:
    """A Playground of one model, or of a main model and drafts. ``backendName`` and its like go into their place."""
    claim: Manifest = {"modelClaim": {"modelName": models[0]}} if models else {}
    if len(models) > 1:
        roles = ["main", *["draft"] * (len(models) - 1)]
        claim = {"modelClaims": {"models": [{"name": n, "role": r} for n, r in zip(models, roles, strict=True)]}}
    config = {key: spec.pop(key) for key in _CONFIG if key in spec}
    if config:
        spec["backendRuntimeConfig"] = config
    return {
        "apiVersion": "inference.llmaz.io/v1alpha1",
        "kind": "Playground",
        "metadata": {"name": name, **({"annotations": annotations} if annotations else {})},
        "spec": {**claim, **spec},
    }


_CONFIG = ("backendName", "version", "configName", "args", "envs", "resources", "sharedMemorySize")


def backend_runtime(name: str, image: str, version: str = "v1", **spec: Any) -> Manifest:
    """A runtime with one recommended config, ``default``."""
    return {
        "apiVersion": "inference.llmaz.io/v1alpha1",
        "kind": "BackendRuntime",
        "metadata": {"name": name},
        "spec": {
            "command": ["serve"],
            "image": image,
            "version": version,
            "recommendedConfigs": [{"name": "default", "args": ["--model", "{{ .ModelPath }}"]}],
            **spec,
        },
    }


def p2p_task(name: str, source: Manifest | str | None = None, *, image: str | None = None, **spec: Any) -> Manifest:
    """A task made by hand: of a model, or of an ``image``."""
    what = {"image": {"reference": image}} if image else {"model": {"source": open_model("", source)["spec"]["source"]}}
    return {
        "apiVersion": "llmaz.io/v1alpha1",
        "kind": "P2PTask",
        "metadata": {"name": name},
        "spec": {**what, **spec},
    }
