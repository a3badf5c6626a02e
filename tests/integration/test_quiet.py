"""A cluster at rest: the operator reads its watches, renews its Lease, and writes nothing else. kopf never writes."""

import time
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from dev.audit import AuditEvent
from dev.controlplane import ControlPlane
from dev.hub import HubThread
from dev.installation import NAMESPACE, SERVICE_ACCOUNT, OperatorProcess, install
from dev.registry import Registry
from tests.integration.support import Api, eventually, open_model, playground, throughout

HOME = "default"
MODELS, PLAYGROUNDS = 10, 50
IDLE_SECONDS = 60.0
USER = f"system:serviceaccount:{NAMESPACE}:{SERVICE_ACCOUNT}"
READS = frozenset({"get", "list", "watch"})
LEASE = "modelswarm-operator"
KINDS = ("OpenModel", "Playground", "P2PTask", "Deployment", "Service", "ConfigMap", "BackendRuntime")


@dataclass
class Site:
    cluster: ControlPlane
    api: Api
    operator: OperatorProcess

    def requests(self) -> list[AuditEvent]:
        return [event for event in self.cluster.audit_events() if event.user == USER]

    def writes(self) -> list[AuditEvent]:
        """All but those that keep the Lease."""
        return [
            event
            for event in self.requests()
            if event.verb not in READS and (event.resource, event.name) != ("leases", LEASE)
        ]

    def settled(self) -> bool:
        """Every Playground is deployed, and no write has come for as long as a late one could take."""
        if len(self.api.all("Deployment", HOME)) < PLAYGROUNDS:
            return False
        if any(task.get("status", {}).get("phase") != "Succeeded" for task in self.api.all("P2PTask")):
            return False
        before = len(self.writes())
        time.sleep(10.0)  # absence over time: relists settle after two seconds
        return len(self.writes()) == before


@pytest.fixture(scope="module")
def site(hub_server: HubThread, registry: Registry, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Site]:
    """Fifty Playgrounds of ten models, and whatever the Deployment controller makes of them."""
    with ControlPlane(scheduler=False, audit_log=True) as cluster, Api(cluster) as api:
        install(cluster)
        log: Path = tmp_path_factory.mktemp("quiet") / "operator.log"
        operator = OperatorProcess(
            cluster.service_account_kubeconfig(NAMESPACE, SERVICE_ACCOUNT),
            log,
            # Resync and list often: that must not make it write either.
            arguments=["--log-format=text", "--resync-seconds=20", f"--registries=docker.io={registry.url}"],
            environment={"HF_ENDPOINT": hub_server.url},
        )
        with operator:
            operator.wait_leading()
            for number in range(MODELS):
                api.apply(open_model(f"model-{number}", "facebook/opt-125m"))
            for number in range(PLAYGROUNDS):
                obj = playground(f"quiet-{number}", f"model-{number % MODELS}")
                api.apply({**obj, "metadata": {**obj["metadata"], "namespace": HOME}})
            made = Site(cluster, api, operator)
            eventually(made.settled, 120)
            yield made


@pytest.mark.slow
def test_fifty_playgrounds_at_rest_cost_no_api_writes_but_the_lease(site: Site) -> None:
    before, events, cpu = len(site.writes()), _told(site), _cpu_seconds(site)
    renewals = len(site.requests())
    throughout(lambda: True, IDLE_SECONDS, every=5.0)
    late = site.writes()[before:]
    assert late == []
    assert _told(site) == events
    assert len(site.requests()) > renewals, "the Lease was renewed meanwhile"
    assert _cpu_seconds(site) - cpu < 0.1 * IDLE_SECONDS


def _told(site: Site) -> set[str]:
    """The operator's Events."""
    found = site.api.all("Event")
    return {event["metadata"]["uid"] for event in found if event.get("reportingController") == "modelswarm"}


def test_kopf_itself_writes_nothing_at_all(site: Site) -> None:
    by_kopf = [event for event in site.requests() if "kopf" in event.user_agent.lower()]
    assert {event.verb for event in by_kopf if event.resource} == {"list", "watch"}
    assert not [event for event in site.writes() if "kopf" in event.user_agent.lower()]
    for kind in KINDS:
        for obj in site.api.all(kind):
            metadata = obj["metadata"]
            where = f"{kind} {metadata['name']}"
            assert not [key for key in metadata.get("annotations", {}) if "kopf" in key], where
            assert not metadata.get("finalizers"), where
            assert not [entry for entry in metadata.get("managedFields", []) if "kopf" in entry["manager"]], where


def test_an_event_is_told_once_for_each_transition(site: Site) -> None:
    told = Counter(
        (event["regarding"]["kind"], event["regarding"]["name"], event["reason"], event["note"])
        for event in site.api.all("Event")
        if event.get("reportingController") == "modelswarm"
    )
    assert told
    repeated = {news: count for news, count in told.items() if count > 1}
    assert not repeated


def test_metrics_agree_that_nothing_is_left_to_do(site: Site) -> None:
    def look() -> dict[str, str]:
        values = dict(line.rsplit(" ", 1) for line in site.operator.metrics().splitlines() if not line.startswith("#"))
        depths = {name: value for name, value in values.items() if name.startswith("modelswarm_workqueue_depth")}
        assert len(depths) == 3
        assert set(depths.values()) == {"0.0"}
        return values

    # Not in the middle of a resync, which puts every key into its queue.
    values = eventually(look, 5)
    tasks = [float(value) for name, value in values.items() if name.startswith("modelswarm_p2ptasks{")]
    assert sum(tasks) == MODELS + 2 * PLAYGROUNDS


def _cpu_seconds(site: Site) -> float:
    lines = site.operator.metrics().splitlines()
    return next(float(line.split()[1]) for line in lines if line.startswith("process_cpu_seconds_total "))
