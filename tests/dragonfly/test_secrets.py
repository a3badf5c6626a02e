"""A token and a password that are planted where users put them are found nowhere else when the work is done.

Looked through are all objects of the cluster (Secrets apart), what the operator and the loaders log and say, the
operator's metrics, the command lines of everything they start while it runs, and the manager's jobs.
"""

import base64
import json
import os
import subprocess
import threading
from collections.abc import Iterator
from pathlib import Path
from types import TracebackType
from typing import Self

import pytest

from dev.controlplane import ControlPlane
from dev.dragonfly.fault_proxy import Fault, FaultProxy, Route
from dev.dragonfly.stack import DragonflyStack
from dev.registry import Registry
from tests.dragonfly.support import Bench
from tests.dragonfly.support.addresses import AddressUnavailable, private_address
from tests.dragonfly.support.loaders import loader_command, loader_environment

HUB_TOKEN = "hf_PLANTEDplantedPLANTEDplanted0001"
PASSWORD = "PLANTED-registry-password-0002"
HUB_SECRET = "modelhub-secret"
PULL_SECRET = "aws-access-secret"
SHARD_BYTES = 5 << 20


def _forms(user: str, *secrets: str) -> list[str]:
    """As they are, and as they look in a header of Basic authentication or in a Secret's data."""
    plain = [*secrets, *(f"{user}:{secret}" for secret in secrets)]
    return [*secrets, *(base64.b64encode(text.encode()).decode().rstrip("=") for text in plain)]


class CommandLines:
    """All command lines on this machine that mention one of the secrets, seen a hundred times a second."""

    def __init__(self, secrets: list[str]) -> None:
        self._secrets = [secret.encode() for secret in secrets]
        self.looks = 0
        self.found: list[str] = []
        self._ended = threading.Event()
        self._thread = threading.Thread(target=self._watch, name="command-lines", daemon=True)

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, kind: type[BaseException] | None, error: object, trace: TracebackType | None) -> None:
        self._ended.set()
        self._thread.join()

    def _watch(self) -> None:
        while not self._ended.wait(0.01):
            self.looks += 1
            for entry in os.scandir("/proc"):
                if not entry.name.isdecimal():
                    continue
                try:
                    line = Path(entry.path, "cmdline").read_bytes()
                except OSError:
                    continue
                if any(secret in line for secret in self._secrets):
                    self.found.append(line.replace(b"\0", b" ").decode(errors="replace"))


@pytest.fixture(scope="module")
def registry() -> Iterator[Registry | None]:
    """None where this machine cannot have an address for it; the token is looked for all the same."""
    try:
        with private_address() as address, Registry(address=address, auth="basic", password=PASSWORD) as running:
            yield running
    except AddressUnavailable:
        yield None


@pytest.fixture
def proxy(dragonfly: DragonflyStack) -> Iterator[FaultProxy]:
    with FaultProxy(dragonfly.manager_url) as running:
        yield running


def test_what_is_planted_is_found_nowhere(
    bench: Bench, plane: ControlPlane, proxy: FaultProxy, registry: Registry | None, tmp_path: Path
) -> None:
    dragonfly, hub = bench.dragonfly, bench.hub
    secrets = _forms(registry.username if registry else "swarm", HUB_TOKEN, PASSWORD)
    hub.allow(HUB_TOKEN, "org/*")
    bench.secret(HUB_SECRET, {"HF_TOKEN": HUB_TOKEN})
    gated, public = bench.model("planted", size=SHARD_BYTES, gated=True), bench.model("planted-not", size=SHARD_BYTES)
    listed = threading.Event()
    proxy.fail(Route.DELETE, Fault(before=lambda: listed.wait(60)), mentions=gated)
    flags, image = [], None
    if registry is not None:
        flags = [f"--registries={registry.host}={registry.url}"]
        image = registry.push_image("team/planted", "v1", layer_bytes=SHARD_BYTES, seed="planted")
        bench.secret(PULL_SECRET, {".dockerconfigjson": json.dumps(registry.docker_config())})
    operator = bench.operator(
        *flags,
        "--log-level=debug",
        manager_url=proxy.url,
        asks_seeds=True,
        DRAGONFLY_ALLOW_GATED="true",
        DRAGONFLY_IMAGE_IDS="url",
        DRAGONFLY_PLATFORMS="linux/amd64",
    )
    dragonfly.wait_preheatable()
    with CommandLines(secrets) as lines, operator:
        operator.wait_leading()
        bench.task("planted", gated, credentialsSecretRef={"name": HUB_SECRET})
        bench.task("planted-not", public, credentialsSecretRef={"name": HUB_SECRET})
        if image is not None:
            bench.task("planted-image", image=image["reference"], image_spec={"pullSecrets": [{"name": PULL_SECRET}]})
        bench.wait_submitted("planted")
        assert HUB_TOKEN in _listed(dragonfly), "while the job runs, the seed's token is there"
        listed.set()
        names = ["planted", "planted-not", *(["planted-image"] if image is not None else [])]
        for name in names:
            bench.wait_distributed(name)
        dfget = _recording(bench, tmp_path)
        # The token goes to the daemon where it is needed, over its socket; where it is not, dfget is told the URL only.
        outputs = [
            _load(bench, gated, tmp_path / "gated", dfget, "MODELSWARM_DRAGONFLY_ALLOW_GATED"),
            _load(bench, public, tmp_path / "public", dfget, "MODELSWARM_CONTENT_PUBLIC"),
        ]
        metrics = operator.metrics()

    places = {
        "objects": plane.kubectl("get", _kinds(plane), "-A", "-o", "yaml", "--show-managed-fields"),
        "operator's log": operator.child.log.read_text(),
        "operator's metrics": metrics,
        "loaders' output": "".join(outputs),
        "manager's jobs": _listed(dragonfly),
    }
    for where, text in places.items():
        assert text
        for secret in [*secrets, *([] if where == "manager's jobs" else [dragonfly.token])]:
            assert secret not in text, where
    assert lines.found == []
    assert lines.looks > 100
    told = (tmp_path / "told").read_text()
    assert "--transfer-from-dfdaemon" in told, "dfget was started"
    assert not any(secret in told for secret in secrets), "dfget was told a secret"
    assert hub.leaked_tokens == [], "the CDN was sent a token of the hub"


def _recording(bench: Bench, folder: Path) -> Path:
    """A program that writes down its command line and its environment, and becomes dfget."""
    script = folder / "dfget"
    real = bench.dragonfly.daemons[0].command("unused", folder)[0]
    script.write_text(f'#!/bin/sh\ncat /proc/$$/cmdline /proc/$$/environ >> {folder}/told\nexec {real} "$@"\n')
    script.chmod(0o755)
    return script


def _load(bench: Bench, model: str, folder: Path, dfget: Path, allowed: str) -> str:
    """What a loader with the token in its environment prints, and its termination message."""
    folder.mkdir()
    daemon = bench.dragonfly.daemons[0]
    environment = loader_environment(daemon, bench.hub, model, bench.hub.repositories[model].head, folder)
    result = subprocess.run(
        loader_command(folder),
        env={**environment, "HF_TOKEN": HUB_TOKEN, "MODELSWARM_DFGET": str(dfget), allowed: "true"},
        capture_output=True,
        text=True,
        timeout=120,
    )
    assert result.returncode == 0, "the loader failed"
    message = (folder / "message").read_text()
    assert json.loads(message)["bytesBySource"] == {"dfdaemon": SHARD_BYTES}, message
    return result.stdout + result.stderr + message


def _listed(dragonfly: DragonflyStack) -> str:
    return json.dumps(dragonfly.api.jobs())


def _kinds(plane: ControlPlane) -> str:
    """Everything that can be listed, except Secrets."""
    names = plane.kubectl("api-resources", "--verbs=list", "-o", "name").split()
    return ",".join(name for name in names if name != "secrets")
