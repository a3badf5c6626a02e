"""What happens while nobody watches is noticed when the watch is back, not only at the next resync."""

import os
import signal
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from dev.controlplane import ControlPlane
from dev.hub import HubThread
from dev.installation import NAMESPACE, SERVICE_ACCOUNT, OperatorProcess, install
from dev.registry import Registry
from modelswarm.api.labels import TASK
from tests.integration.support import Api, ApiFailed, Manifest, eventually, open_model, p2p_task, playground

HOME = "default"
OURS = "app.kubernetes.io/managed-by=modelswarm"
NAMES = ("gap-1", "gap-2", "gap-3")
RESTARTED = 40.0
"""Seconds. kopf waits a little longer after each failed attempt; a resync would come after hours (see the flags)."""


@dataclass
class Site:
    """An operator on a control plane of its own, which may be stopped."""

    cluster: ControlPlane
    api: Api
    operator: OperatorProcess

    def signal(self, number: int) -> None:
        pid = self.operator.child.pid
        assert pid is not None
        os.kill(pid, number)

    def add(self, name: str) -> None:
        self.api.apply(open_model(name, "facebook/opt-125m"))
        obj = playground(name, name)
        self.api.apply({**obj, "metadata": {**obj["metadata"], "namespace": HOME}})

    def deployment(self, name: str) -> Manifest | None:
        return self.api.find("Deployment", name, HOME)

    def model_task(self, name: str) -> Manifest | None:
        found = self.api.all("P2PTask", NAMESPACE, labels=f"llmaz.io/model-name={name}")
        return found[0] if found else None

    def manifest(self, task: str) -> Manifest | None:
        found = self.api.all("ConfigMap", NAMESPACE, labels=f"{TASK}={task}")
        return found[0] if found else None

    def wait_served(self) -> None:
        """An API server that is ready serves custom resources a moment later only."""

        def is_served() -> bool:
            try:
                return all(self.api.all(kind) is not None for kind in ("OpenModel", "Playground", "P2PTask"))
            except ApiFailed:
                return False

        eventually(is_served, RESTARTED)

    def tasks_known(self) -> int:
        """How many tasks the operator believes there are."""
        lines = (line for line in self.operator.metrics().splitlines() if line.startswith("modelswarm_p2ptasks{"))
        return int(sum(float(line.rpartition(" ")[2]) for line in lines))


@pytest.fixture(scope="module")
def site(hub_server: HubThread, registry: Registry, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Site]:
    with ControlPlane(controllers=False, scheduler=False) as cluster, Api(cluster) as api:
        install(cluster)
        log: Path = tmp_path_factory.mktemp("gap") / "operator.log"
        operator = OperatorProcess(
            cluster.service_account_kubeconfig(NAMESPACE, SERVICE_ACCOUNT),
            log,
            # It may be frozen for a while; and nothing may be repaired by a resync.
            arguments=[
                "--log-format=text",
                "--lease-seconds=120",
                "--resync-seconds=7200",
                f"--registries=docker.io={registry.url}",
            ],
            environment={"HF_ENDPOINT": hub_server.url},
        )
        with operator:
            operator.wait_leading()
            yield Site(cluster, api, operator)


def test_operator_goes_on_when_the_api_server_comes_back(site: Site) -> None:
    site.cluster.stop_apiserver()
    site.cluster.start_apiserver()
    site.wait_served()
    for name in NAMES:
        site.add(name)
    eventually(lambda: all(site.deployment(name) for name in NAMES), RESTARTED)
    assert site.operator.state() == "leading"


def test_what_was_deleted_or_edited_in_a_watch_gap_is_put_right(site: Site) -> None:
    api = site.api
    api.apply({**p2p_task("by-hand", "facebook/opt-125m"), "metadata": {"name": "by-hand", "namespace": HOME}})
    eventually(lambda: api.get("P2PTask", "by-hand", HOME).get("status", {}).get("phase") == "Succeeded", 10)
    eventually(lambda: site.tasks_known() == len(api.all("P2PTask")), 10)
    known = site.tasks_known()
    tasks = {name: _name(site.model_task(name)) for name in NAMES}

    site.signal(signal.SIGSTOP)
    # First the watches end, or the news would wait for the operator in its sockets.
    site.cluster.restart_apiserver()
    site.wait_served()
    deleted = _uid(site.deployment("gap-1")), _uid(site.model_task("gap-2")), _uid(site.manifest(tasks["gap-3"]))
    api.delete("Deployment", "gap-1", HOME)
    api.delete("P2PTask", tasks["gap-2"], NAMESPACE)
    api.delete("ConfigMap", _name(site.manifest(tasks["gap-3"])), NAMESPACE)
    api.delete("P2PTask", "by-hand", HOME)
    api.patch("Deployment", "gap-2", HOME, {"spec": {"replicas": 7}})
    api.patch("Service", "gap-2-lb", HOME, {"spec": {"selector": {"llmaz.io/playground": "somebody-else"}}})
    api.patch("P2PTask", tasks["gap-3"], NAMESPACE, {"spec": {"placement": {"copies": 9}}})
    # A new server has no memory of the versions before it: watches that go on from there are told 410 Gone.
    site.cluster.restart_apiserver()
    site.wait_served()
    site.signal(signal.SIGCONT)

    def put_right() -> bool:
        assert _uid(site.deployment("gap-1")) not in (None, deleted[0])
        assert _uid(site.model_task("gap-2")) not in (None, deleted[1])
        assert _uid(site.manifest(tasks["gap-3"])) not in (None, deleted[2])
        assert api.get("Deployment", "gap-2", HOME)["spec"]["replicas"] == 1
        assert api.get("Service", "gap-2-lb", HOME)["spec"]["selector"] == {"llmaz.io/playground": "gap-2"}
        assert api.get("P2PTask", tasks["gap-3"], NAMESPACE)["spec"]["placement"]["copies"] == 2
        ready = [task for task in api.all("P2PTask") if task.get("status", {}).get("phase") == "Succeeded"]
        assert len(ready) == known - 1
        return True

    eventually(put_right, RESTARTED)
    # Nobody makes the one by hand anew, and nobody believes in it any longer.
    assert api.find("P2PTask", "by-hand", HOME) is None
    eventually(lambda: site.tasks_known() == known - 1, 10)
    assert site.operator.state() == "leading"


def test_objects_that_are_new_after_a_gap_are_handled(site: Site) -> None:
    site.add("gap-4")
    eventually(lambda: site.deployment("gap-4"), 10)


def _uid(obj: Manifest | None) -> str | None:
    return None if obj is None else str(obj["metadata"]["uid"])


def _name(obj: Manifest | None) -> str:
    assert obj is not None
    return str(obj["metadata"]["name"])
