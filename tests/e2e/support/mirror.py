"""What the public registries are in a cluster that cannot reach them: images of the stand-in engine, under the names
and with the programs of real ones, in the cluster's registry, which nodes and operator take for the public ones."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import yaml

from dev.binaries import _target
from dev.cluster.archive import program_image, push
from dev.cluster.cluster import Cluster
from dev.cluster.configuration import DIRECTORY
from dev.cluster.programs import find_programs


@dataclass(frozen=True, slots=True)
class Engine:
    """An image that a BackendRuntime of the chart names. ``program`` is where the command looks for it."""

    registry: str
    repository: str
    tag: str
    program: str


LLAMACPP = Engine("ghcr.io", "ggerganov/llama.cpp", "server", "llama-server")
VLLM = Engine("docker.io", "vllm/vllm-openai", "v0.7.3", "usr/bin/python3")


def mirror(cluster: Cluster, folder: Path, *engines: Engine) -> None:
    """Let every node pull these images."""
    program, (_, architecture) = find_programs().standin, _target()
    for number, engine in enumerate(engines):
        name = f"{engine.registry}/{engine.repository}:{engine.tag}"
        entrypoint = [f"/{engine.program}"]
        archive = program_image(
            folder / f"engine-{number}.tar", program, entrypoint, name, architecture, place=engine.program
        )
        push(archive, cluster.registry, engine.repository, engine.tag)
        for node in cluster.nodes.values():
            hosts = node.path(f"{DIRECTORY}/certs.d/{engine.registry}/hosts.toml")
            hosts.parent.mkdir(parents=True, exist_ok=True)
            hosts.write_text(f'[host."http://{cluster.registry.host}"]\n  capabilities = ["pull", "resolve"]\n')


def values(cluster: Cluster, hub: str, *engines: Engine) -> str:
    """Values for the chart, as YAML: where the origins are (docs/how-to/air-gapped.md)."""
    inside = f"http://{cluster.registry.host}"
    registries = {cluster.registry.host: inside, **{engine.registry: inside for engine in engines}}
    chosen: Mapping[str, object] = {
        "env": {"HF_ENDPOINT": hub},
        "operator": {"settings": {"registries": ",".join(f"{host}={url}" for host, url in registries.items())}},
    }
    return yaml.safe_dump(chosen)
