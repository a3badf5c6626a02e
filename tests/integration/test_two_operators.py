"""Several operators at once: one leads, the others wait; whoever is not the leader writes nothing."""

import asyncio
import os
import signal
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

import httpx
import pytest

from dev.audit import AuditEvent
from dev.controlplane import ControlPlane
from dev.hub import HubThread
from dev.installation import NAMESPACE, SERVICE_ACCOUNT, OperatorProcess, install
from dev.registry import Registry
from modelswarm.health import STUCK_SECONDS, Health
from tests.integration.support import Api, Valve, eventually, open_model, playground

LEASE, LEASE_SECONDS = "modelswarm-operator", 16
WRITES = frozenset({"create", "update", "patch", "delete", "deletecollection"})
LLMAZ_LEASE = "fbb36db9.llmaz.io"

# A second ServiceAccount with the same rights, so that the audit log tells who asked.
SECOND = f"""
apiVersion: v1
kind: ServiceAccount
metadata: {{name: second, namespace: {NAMESPACE}}}
---
apiVersion: rbac.authorization.k8s.io/v1
kind: ClusterRoleBinding
metadata: {{name: second}}
roleRef: {{apiGroup: rbac.authorization.k8s.io, kind: ClusterRole, name: modelswarm-operator}}
subjects: [{{kind: ServiceAccount, name: second, namespace: {NAMESPACE}}}]
---
apiVersion: rbac.authorization.k8s.io/v1
kind: RoleBinding
metadata: {{name: second, namespace: {NAMESPACE}}}
roleRef: {{apiGroup: rbac.authorization.k8s.io, kind: Role, name: modelswarm-operator}}
subjects: [{{kind: ServiceAccount, name: second, namespace: {NAMESPACE}}}]
"""


@dataclass
class Candidate:
    """One of the operators, and what the audit log says of it."""

    account: str
    process: OperatorProcess
    cluster: ControlPlane

    @property
    def user(self) -> str:
        return f"system:serviceaccount:{NAMESPACE}:{self.account}"

    def requests(self, since: int = 0) -> list[AuditEvent]:
        return [event for event in self.cluster.audit_events() if event.user == self.user][since:]

    def signal(self, number: int) -> None:
        pid = self.process.child.pid
        assert pid is not None
        os.kill(pid, number)

    def becomes(self, state: str, seconds: float) -> None:
        def look() -> bool:
            found = self.process.state()
            assert found == state, f"{found!r}; the end of its log:\n{self.process.child.log_tail()}"
            return True

        eventually(look, seconds)

    def exit_code(self, seconds: float = 10.0) -> int:
        """Wait for the end."""
        child = self.process.child
        eventually(lambda: not child.running, seconds, every=0.01)
        assert child._process is not None
        return child._process.returncode


@dataclass
class Pair:
    """Both operators on one cluster, and what is asked of them."""

    cluster: ControlPlane
    api: Api
    first: Candidate
    second: Candidate
    made: int = 0

    def new_playground(self) -> str:
        """An OpenModel and a Playground; the name of both."""
        self.made += 1
        name = f"pair-{self.made}"
        self.api.apply(open_model(name, "facebook/opt-125m"))
        obj = playground(name, name)
        self.api.apply({**obj, "metadata": {**obj["metadata"], "namespace": "default"}})
        return name

    def deployed(self, *names: str, seconds: float = 10.0) -> None:
        """Until all of them are."""

        def look() -> bool:
            missing = [name for name in names if not self.is_deployed(name)]
            assert not missing, "\n".join(
                [f"without a Deployment: {missing}; the ends of the logs:"]
                + [each.process.child.log_tail() for each in (self.first, self.second)]
            )
            return True

        eventually(look, seconds)

    def is_deployed(self, name: str) -> bool:
        return self.api.find("Deployment", name, "default") is not None

    def holder(self) -> str:
        lease = self.api.find("Lease", LEASE, NAMESPACE)
        return "" if lease is None else str(lease["spec"].get("holderIdentity") or "")

    def acquired(self) -> datetime:
        """When whoever holds the Lease took it; by the clock of this machine, where both operators run."""
        return datetime.fromisoformat(self.api.get("Lease", LEASE, NAMESPACE)["spec"]["acquireTime"])


@pytest.fixture(scope="module")
def own_cluster() -> Iterator[ControlPlane]:
    with ControlPlane(controllers=False, scheduler=False, audit_log=True) as running:
        install(running)
        running.apply(SECOND)
        yield running


@pytest.fixture(scope="module")
def slow_hub(hub_server: HubThread) -> Iterator[Valve]:
    with Valve(hub_server.url) as valve:
        yield valve


@pytest.fixture
def pair(
    own_cluster: ControlPlane, slow_hub: Valve, registry: Registry, tmp_path: Path, request: pytest.FixtureRequest
) -> Iterator[Pair]:
    def candidate(account: str) -> Candidate:
        process = OperatorProcess(
            own_cluster.service_account_kubeconfig(NAMESPACE, account),
            tmp_path / f"{account}.log",
            arguments=[
                "--log-format=text",
                f"--lease-seconds={LEASE_SECONDS}",
                f"--registries=docker.io={registry.url}",
            ],
            environment={"HF_ENDPOINT": slow_hub.url, "POD_NAME": account},
        )
        return Candidate(account, process, own_cluster)

    with Api(own_cluster) as api:
        both = Pair(own_cluster, api, candidate(SERVICE_ACCOUNT), candidate("second"))
        try:
            both.first.process.start()
            both.first.process.wait_leading()
            yield both
        finally:
            slow_hub.open()
            for other in (both.first, both.second):
                other.process.kill()
            api.delete("Lease", LEASE, NAMESPACE)
            for kind in ("Playground", "OpenModel", "P2PTask", "Deployment", "Service", "ConfigMap"):
                for obj in api.all(kind, labels="" if kind in ("Playground", "OpenModel") else OURS):
                    api.delete(kind, obj["metadata"]["name"], obj["metadata"].get("namespace"))


OURS = "app.kubernetes.io/managed-by=modelswarm"


def _start_second(pair: Pair) -> None:
    before = len(pair.second.requests())
    pair.second.process.start()
    pair.second.becomes("standing by", 20)
    # It has looked at the Lease: from then on the time counts in which it does not change.
    eventually(lambda: any(event.resource == "leases" for event in pair.second.requests(before)), 10)


def test_of_two_operators_one_leads_and_the_other_writes_nothing(pair: Pair) -> None:
    before = len(pair.second.requests())
    _start_second(pair)
    name = pair.new_playground()
    pair.deployed(name)
    # Two rounds of the standby's tries.
    eventually(lambda: len(pair.second.requests(before)) >= 3, 15)
    assert pair.first.process.state() == "leading"
    assert pair.second.process.state() == "standing by"
    assert pair.holder().startswith(SERVICE_ACCOUNT)
    seen = {(event.verb, event.resource, event.name) for event in pair.second.requests(before)}
    assert seen == {("get", "leases", LEASE)}


def test_when_the_leader_is_killed_the_other_leads_after_the_lease_has_run_out(pair: Pair) -> None:
    _start_second(pair)
    pair.first.process.kill()
    killed = datetime.now(UTC)
    name = pair.new_playground()
    pair.second.becomes("leading", 30)
    assert (pair.acquired() - killed).total_seconds() < LEASE_SECONDS * 1.5 + 8
    pair.deployed(name)


def test_when_the_leader_is_asked_to_stop_the_other_leads_at_once(pair: Pair) -> None:
    _start_second(pair)
    pair.first.signal(signal.SIGTERM)
    assert pair.first.exit_code(5) == 0
    ended = datetime.now(UTC)
    pair.second.becomes("leading", 10)
    assert (pair.acquired() - ended).total_seconds() < LEASE_SECONDS / 2, "it did not wait for the Lease to run out"
    name = pair.new_playground()
    pair.deployed(name)


def test_a_leader_that_was_frozen_past_its_lease_ends_and_writes_nothing_more(pair: Pair, slow_hub: Valve) -> None:
    _start_second(pair)
    slow_hub.shut()  # the leader is in the middle of its work when it is frozen
    begun = pair.new_playground()
    eventually(lambda: pair.api.all("P2PTask", NAMESPACE, labels=f"llmaz.io/model-name={begun}"), 5)
    pair.first.signal(signal.SIGSTOP)
    slow_hub.open()
    later = [pair.new_playground() for _ in range(10)]
    pair.second.becomes("leading", 40)
    pair.deployed(begun, *later, seconds=20)
    frozen = len(pair.first.requests())
    # A change right before it wakes, so that its watches have news to act upon.
    pair.api.delete("Deployment", begun, "default")
    woken = datetime.now(UTC)
    pair.first.signal(signal.SIGCONT)
    assert pair.first.exit_code(10) == 1
    pair.deployed(begun)
    written = [event for event in pair.first.requests(frozen) if event.verb in WRITES and event.resource != "leases"]
    assert written == [], f"woken at {woken:%T.%f}"
    assert all(event.code == 409 for event in pair.first.requests(frozen) if event.verb in WRITES)
    assert pair.holder().startswith("second")


def test_sigterm_lets_the_work_in_flight_end_and_gives_the_lease_back(pair: Pair, slow_hub: Valve) -> None:
    slow_hub.shut()
    before = len(pair.first.requests())
    name = pair.new_playground()
    eventually(lambda: pair.api.all("P2PTask", NAMESPACE, labels=f"llmaz.io/model-name={name}"), 5)
    pair.first.signal(signal.SIGTERM)
    assert pair.first.exit_code(10) == 0
    assert "cut off" not in pair.first.process.child.log.read_text()
    assert pair.holder() == ""
    # A write that its own webhook could no longer answer would be a 500. So is, in the audit log alone, a list or watch
    # that the end cut off before its first byte: nobody was there to read it.
    assert not [event for event in pair.first.requests(before) if event.code >= 500 and event.verb in WRITES]
    assert "Traceback" not in pair.first.process.child.log.read_text()


def test_healthz_answers_while_leading(pair: Pair) -> None:
    port = pair.first.process.health_port
    assert httpx.get(f"http://127.0.0.1:{port}/healthz", trust_env=False).status_code == 200
    assert "modelswarm_leader 1.0" in pair.first.process.metrics()


async def test_a_stuck_reconcile_makes_healthz_fail() -> None:
    age = 0.0
    health = Health(lambda: age)
    port = await health.start(0, "127.0.0.1")
    async with httpx.AsyncClient(base_url=f"http://127.0.0.1:{port}", trust_env=False) as http:
        assert (await http.get("/healthz")).status_code == 200
        age = STUCK_SECONDS + 1
        assert (await http.get("/healthz")).status_code == 500
    await asyncio.wait_for(health.stop(), 5)
