"""The main job on the real Dragonfly: an OpenModel is preheated once, and loaders on two nodes get it from there."""

import hashlib
import json
import os
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from dev.controlplane import ControlPlane
from dev.dragonfly.stack import DragonflyStack
from dev.hub import Hub
from dev.installation import NAMESPACE, ROOT, SERVICE_ACCOUNT, OperatorProcess, install
from tests.dragonfly.conftest import MODEL

OPEN_MODEL = {
    "apiVersion": "llmaz.io/v1alpha1",
    "kind": "OpenModel",
    "metadata": {"name": "preheated"},
    "spec": {"familyName": "preheated", "source": {"modelHub": {"modelID": MODEL}}},
}


@pytest.fixture(scope="module")
def cluster() -> Iterator[ControlPlane]:
    with ControlPlane(scheduler=False) as running:
        install(running)
        yield running


def ready_task(cluster: ControlPlane, seconds: float) -> dict[str, object]:
    """The model's task once it is Ready; the manager itself looks at a job after 30 s for the first time."""
    deadline = time.monotonic() + seconds
    while True:
        items = json.loads(cluster.kubectl("-n", NAMESPACE, "get", "p2ptasks", "-o", "json"))["items"]
        conditions = {each["type"]: each for item in items for each in item.get("status", {}).get("conditions", [])}
        if conditions.get("Ready", {}).get("status") == "True":
            assert conditions["Ready"]["reason"] == "Distributed", conditions
            found: dict[str, object] = items[0]["status"]
            return found
        assert time.monotonic() < deadline, conditions
        time.sleep(0.5)


def load(dragonfly: DragonflyStack, daemon: int, hub: Hub, revision: str, folder: Path) -> dict[str, object]:
    """``modelswarm load`` as the pod on that daemon's node would run it; its termination message."""
    folder.mkdir()
    program = dragonfly.daemons[daemon].command("unused", folder / "unused")[0]
    environment = {
        "PATH": os.environ["PATH"],
        "PYTHONPATH": str(ROOT / "operator"),
        "NO_PROXY": "127.0.0.1",
        "HF_ENDPOINT": hub.url,
        "MODEL_SOURCE_TYPE": "modelhub",
        "MODEL_ID": MODEL,
        "REVISION": revision,
        "MODELSWARM_DFDAEMON_SOCKET": str(dragonfly.daemons[daemon].socket),
        "MODELSWARM_DFGET": str(program),
        "MODELSWARM_TERMINATION_LOG": str(folder / "message"),
    }
    command = [sys.executable, "-m", "modelswarm", "load", "--root", str(folder / "models")]
    result = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=120)
    assert result.returncode == 0, result.stdout + result.stderr
    summary: dict[str, object] = json.loads((folder / "message").read_text())
    return summary


def test_a_model_leaves_the_origin_once_and_reaches_two_nodes(
    cluster: ControlPlane, dragonfly: DragonflyStack, origin: Hub, tmp_path: Path
) -> None:
    dragonfly.wait_preheatable()
    token = f"--from-literal=token={dragonfly.token}"
    cluster.kubectl("-n", NAMESPACE, "create", "secret", "generic", "dragonfly-token", token)
    kubeconfig = cluster.service_account_kubeconfig(NAMESPACE, SERVICE_ACCOUNT)
    environment = {"HF_ENDPOINT": origin.url, "MODELSWARM_DRAGONFLY_MANAGER_URL": dragonfly.manager_url}
    with OperatorProcess(kubeconfig, tmp_path / "operator.log", environment=environment) as operator:
        operator.wait_leading()
        cluster.apply(json.dumps(OPEN_MODEL))
        status = ready_task(cluster, 300)
    assert status["engine"] == "Dragonfly"
    resolved = status["resolved"]
    assert isinstance(resolved, dict)
    size = int(resolved["bytes"])
    preheated = origin.counters.total().content
    assert preheated <= 1.02 * size

    files = origin.repositories[MODEL].get("main").files
    for node in (0, 1):
        summary = load(dragonfly, node, origin, str(resolved["revision"]), tmp_path / f"node-{node}")
        sources = summary["bytesBySource"]
        assert isinstance(sources, dict)
        assert sources["dfdaemon"] >= 0.999 * size, summary
        root = next((tmp_path / f"node-{node}" / "models").glob("models--*"))
        for path, blob in files.items():
            assert hashlib.sha256((root / path).read_bytes()).hexdigest() == blob.sha256, path
    # Preheat and two nodes together. Those that are next to nothing are read by every node.
    assert origin.counters.total().content <= 1.02 * size

    assert dragonfly.token not in cluster.kubectl("get", "p2ptasks,openmodels,events,configmaps", "-A", "-o", "yaml")
    assert dragonfly.token not in (tmp_path / "operator.log").read_text()
