"""How long the operator takes to see that the seeds have everything: an OpenModel, until its task is Ready."""

import json
import tempfile
import time
from pathlib import Path

import httpx

from dev.bench.dragonfly_bed import MODEL, Bed, SeedWatch
from dev.bench.dragonfly_report import Ready
from dev.controlplane import ControlPlane
from dev.dragonfly.configs import CLUSTER
from dev.dragonfly.stack import DragonflyStack
from dev.installation import NAMESPACE, SERVICE_ACCOUNT, OperatorProcess, install

OPEN_MODEL = {
    "apiVersion": "llmaz.io/v1alpha1",
    "kind": "OpenModel",
    "metadata": {"name": "bench"},
    "spec": {"familyName": "bench", "source": {"modelHub": {"modelID": MODEL}}},
}


class NotReady(RuntimeError):
    """The task did not become Ready by way of Dragonfly."""


def measure_ready(bed: Bed, stack: DragonflyStack, *, ask_scheduler: bool, timeout: float) -> Ready:
    """Raises NotReady. Control plane and operator run where the calling thread is, on the node ``control``.

    ``ask_scheduler``: whether the operator may ask the seeds themselves, or depends on the manager's looking.
    """
    stack.wait_preheatable()
    with tempfile.TemporaryDirectory(prefix="modelswarm-ready-") as scratch, ControlPlane(scheduler=False) as cluster:
        install(cluster)
        token = f"--from-literal=token={stack.token}"
        cluster.kubectl("-n", NAMESPACE, "create", "secret", "generic", "dragonfly-token", token)
        operator = OperatorProcess(
            cluster.service_account_kubeconfig(NAMESPACE, SERVICE_ACCOUNT),
            Path(scratch, "operator.log"),
            environment={
                "HF_ENDPOINT": bed.hub.url,
                "NO_PROXY": "*",
                "MODELSWARM_DRAGONFLY_MANAGER_URL": stack.manager_url,
                "MODELSWARM_DRAGONFLY_SEED_COUNT": str(bed.shape.seeds),
                "MODELSWARM_DRAGONFLY_SCHEDULERS": f"{CLUSTER}={stack.scheduler_address}" if ask_scheduler else "",
            },
        )
        with operator:
            operator.wait_leading()
            watch = bed.watch_seeds(bed.shape.seeds)
            cluster.apply(json.dumps(OPEN_MODEL))
            on_seed, ready = _wait(cluster, operator, watch, timeout)
            return Ready(ask_scheduler, on_seed, ready, bed.origin_bytes())


def _wait(cluster: ControlPlane, operator: OperatorProcess, watch: SeedWatch, timeout: float) -> tuple[float, float]:
    """Seconds since the watch began until the last byte was on the seeds, and until Ready."""
    deadline = watch.started + timeout
    with httpx.Client(base_url=cluster.server, verify=cluster.ssl_context(), timeout=10, trust_env=False) as client:
        while True:
            watch.look()
            condition = _condition(client)
            now = time.monotonic()
            if condition.get("status") == "True":
                if condition["reason"] != "Distributed" or not watch.received_all:
                    raise NotReady(f"the task is Ready, but {condition['reason']}; the seeds received {watch.received}")
                return watch.last_byte - watch.started, now - watch.started
            if not operator.child.running or now > deadline:
                log = operator.child.log_tail(20)
                raise NotReady(f"not Ready after {now - watch.started:.0f} s: {condition}; the operator's log:\n{log}")
            time.sleep(0.1)


def _condition(client: httpx.Client) -> dict[str, str]:
    """``Ready`` of the only task; empty while there is none."""
    items = client.get("/apis/llmaz.io/v1alpha1/p2ptasks").raise_for_status().json()["items"]
    found = [each for item in items for each in item.get("status", {}).get("conditions", []) if each["type"] == "Ready"]
    return found[0] if found else {}
