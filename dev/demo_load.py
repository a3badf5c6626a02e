"""Runs a Deployment's init container as the kubelet would, minus the container, and verifies what it brought."""

import base64
import hashlib
import json
import os
import subprocess
import sys
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from dev.controlplane import ControlPlane
from dev.demo_engine import Node
from dev.demo_steps import DemoFailed
from dev.installation import ROOT

TIMEOUT = 120.0
Object = dict[str, Any]


@dataclass(frozen=True, slots=True)
class Loaded:
    """What one loader brought; every file was compared."""

    node: str
    output: str
    files: int
    bytes: int
    by_source: dict[str, int]
    """Bytes by where the loader had them from."""
    seconds: float


def describe(deployment: Object) -> str:
    """The init container, one fact a line."""
    container = _init_container(deployment)
    lines = [f"name: {container['name']}", f"image: {container['image']}"]
    for env in container["env"]:
        reference = env.get("valueFrom", {}).get("secretKeyRef")
        value = f"(Secret {reference['name']}, if it exists)" if reference else env.get("value", "")
        lines.append(f"env: {env['name']}={value}")
    lines += [f"mount: {mount['mountPath']} ({mount['name']})" for mount in container["volumeMounts"]]
    return "\n".join(lines)


def load_on_all(
    nodes: Sequence[Node], cluster: ControlPlane, deployment: Object, *, hub: str, files: Path, scratch: Path
) -> list[Loaded]:
    """``load`` on all nodes at the same time; raises what the first one that failed raised."""

    def one(node: Node) -> Loaded:
        return load(node, cluster, deployment, hub=hub, files=files, scratch=scratch / node.name)

    with ThreadPoolExecutor(len(nodes)) as threads:
        return list(threads.map(one, nodes))


def load(node: Node, cluster: ControlPlane, deployment: Object, *, hub: str, files: Path, scratch: Path) -> Loaded:
    """Run ``modelswarm load`` with the container's environment and manifest; compare every file with ``files``."""
    container = _init_container(deployment)
    root, manifest = scratch / "models", scratch / "manifest"
    root.mkdir(parents=True)
    manifest.mkdir()
    _write_manifest(cluster, deployment, container, manifest)
    command = [sys.executable, "-m", "modelswarm", "load", f"--root={root}", f"--manifest-dir={manifest}"]
    result = subprocess.run(
        [*command, f"--termination-log={scratch / 'termination-log'}"],
        env={
            "PATH": os.environ.get("PATH", os.defpath),
            "HOME": str(scratch),
            "PYTHONPATH": str(ROOT / "operator"),
            "NO_PROXY": "127.0.0.1,localhost",
            **_environment(cluster, deployment, container),
            "HF_ENDPOINT": hub,
            **node.environment,
        },
        capture_output=True,
        text=True,
        timeout=TIMEOUT,
    )
    output = result.stdout.replace(str(scratch), "$SCRATCH") + result.stderr
    if result.returncode:
        raise DemoFailed(f"the model-loader on {node.name} ended with {result.returncode}:\n{output}")
    summary = json.loads((scratch / "termination-log").read_text())
    compared = _compare(files, root)
    if skipped := summary.get("skipped"):
        raise DemoFailed(f"the model-loader on {node.name} had to leave its way: {skipped}")
    return Loaded(node.name, output, compared, summary["bytes"], summary["bytesBySource"], summary["seconds"])


def _init_container(deployment: Object) -> Object:
    containers = deployment["spec"]["template"]["spec"].get("initContainers")
    if not containers:
        raise DemoFailed("the Deployment has no init container")
    found: Object = containers[0]
    return found


def _environment(cluster: ControlPlane, deployment: Object, container: Object) -> dict[str, str]:
    """What the kubelet would set. A reference to an optional Secret that does not exist leaves the variable out."""
    namespace, found = deployment["metadata"]["namespace"], {}
    for env in container["env"]:
        reference = env.get("valueFrom", {}).get("secretKeyRef")
        if reference is None:
            found[env["name"]] = env.get("value", "")
            continue
        text = cluster.kubectl("get", "secret", reference["name"], "-n", namespace, "--ignore-not-found", "-o", "json")
        data = json.loads(text).get("data", {}) if text.strip() else {}
        if reference["key"] in data:
            found[env["name"]] = base64.b64decode(data[reference["key"]]).decode()
        elif not reference.get("optional"):
            raise DemoFailed(f"{env['name']} needs Secret {reference['name']}, which does not exist")
    return found


def _write_manifest(cluster: ControlPlane, deployment: Object, container: Object, directory: Path) -> None:
    """The projected volume of the manifest, as files."""
    mounted = {mount["name"] for mount in container["volumeMounts"]}
    namespace = deployment["metadata"]["namespace"]
    for volume in deployment["spec"]["template"]["spec"]["volumes"]:
        if volume["name"] not in mounted:
            continue
        for source in volume.get("projected", {}).get("sources", []):
            reference = source["configMap"]
            config_map = json.loads(cluster.kubectl("get", "cm", reference["name"], "-n", namespace, "-o", "json"))
            for item in reference["items"]:
                content = base64.b64decode(config_map["binaryData"][item["key"]])
                (directory / item["path"]).write_bytes(content)
    if not any(directory.iterdir()):
        raise DemoFailed(
            "the init container mounts no manifest: it would ask the hub instead of loading what is pinned"
        )


def _compare(wanted: Path, root: Path) -> int:
    """How many files lie under ``root`` byte for byte as in ``wanted``; raises if one is missing or different."""
    models = [path for path in root.iterdir() if path.is_dir() and path.name.startswith("models--")]
    if len(models) != 1:
        raise DemoFailed(f"the loader left {len(models)} models under its root")
    here = dict(_digests(models[0]))
    count = 0
    for path, digest in _digests(wanted):
        if here.get(path) != digest:
            raise DemoFailed(f"{path} is {'missing' if path not in here else 'not what the hub has'}")
        count += 1
    return count


def _digests(folder: Path) -> Iterator[tuple[str, str]]:
    for path in sorted(folder.rglob("*")):
        if path.is_file():
            with path.open("rb") as stream:
                yield path.relative_to(folder).as_posix(), hashlib.file_digest(stream, "sha256").hexdigest()
