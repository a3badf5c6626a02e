"""What the operator benchmark applies: OpenModels, Playgrounds, BackendRuntimes, and where their bytes would be."""

import copy
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from dev.hub import Repository, make_model
from dev.installation import ROOT

Object = dict[str, Any]

MODELS = "/apis/llmaz.io/v1alpha1/openmodels"
TASKS = "/apis/llmaz.io/v1alpha1/p2ptasks"
RUNTIMES = "/apis/inference.llmaz.io/v1alpha1/backendruntimes"
ALL_PLAYGROUNDS = "/apis/inference.llmaz.io/v1alpha1/playgrounds"
PLAYGROUNDS = "/apis/inference.llmaz.io/v1alpha1/namespaces/default/playgrounds"
DEPLOYMENTS = "/apis/apps/v1/namespaces/default/deployments"
SERVICES = "/api/v1/namespaces/default/services"

HELD_REPOSITORY = "bench/held"
LOADER_IMAGE = "modelswarm/loader"
LOADER_TAG = "bench"


@dataclass(frozen=True, slots=True)
class Sizes:
    """How much of everything. Playground i serves OpenModel i modulo the number of models."""

    models: int
    playgrounds: int
    runtimes: int
    repositories: int

    @property
    def pairs(self) -> int:
        return max(self.models, self.playgrounds)


def repositories(folder: Path, sizes: Sizes) -> Iterator[Repository]:
    """Repositories whose files are small: the operator reads lists, never bytes."""
    for index in range(sizes.repositories):
        make_model(folder / str(index), shards=8, shard_bytes=64, seed=index)
        yield Repository.from_folder(folder / str(index), id=f"bench/model-{index}")
    yield Repository.from_folder(folder / "0", id=HELD_REPOSITORY)


def runtimes(sizes: Sizes) -> Iterator[Object]:
    """Copies of the shipped vLLM runtime, each with an image of its own."""
    shipped = yaml.safe_load((ROOT / "charts/modelswarm/backendruntimes/vllm.yaml").read_text())
    for index in range(sizes.runtimes):
        runtime = copy.deepcopy(shipped)
        runtime["metadata"] = {"name": f"bench-{index}"}
        runtime["spec"] |= {"image": engine_image(index), "version": "v1"}
        yield runtime


def engine_image(index: int) -> str:
    return f"bench/engine-{index}"


def model(name: str, repository: str) -> Object:
    return {
        "apiVersion": "llmaz.io/v1alpha1",
        "kind": "OpenModel",
        "metadata": {"name": name},
        "spec": {
            "familyName": "bench",
            "source": {"modelHub": {"modelID": repository}},
            "inferenceConfig": {"flavors": [{"name": "a100", "limits": {"nvidia.com/gpu": 1}}]},
        },
    }


def playground(name: str, model_name: str, runtime: int) -> Object:
    return {
        "apiVersion": "inference.llmaz.io/v1alpha1",
        "kind": "Playground",
        "metadata": {"name": name, "namespace": "default"},
        "spec": {
            "replicas": 1,
            "modelClaim": {"modelName": model_name},
            "backendRuntimeConfig": {"backendName": f"bench-{runtime}"},
        },
    }


def bulk(sizes: Sizes) -> Iterator[tuple[str, Object]]:
    """Path and object of everything that is created, in the order of creation: each model just before its user."""
    for index in range(sizes.pairs):
        if index < sizes.models:
            yield MODELS, model(f"bench-{index}", f"bench/model-{index % sizes.repositories}")
        if index < sizes.playgrounds:
            yield PLAYGROUNDS, playground(f"bench-{index}", f"bench-{index % sizes.models}", index % sizes.runtimes)
