"""Every check on facts that are right, and on facts that are wrong in one way."""

from datetime import timedelta
from typing import Any

import pytest

from modelswarm.api.meta import JsonObject
from modelswarm.api.p2ptask import P2PTask
from modelswarm.plugin.installation import installation_of
from modelswarm.plugin.views.check import Check, Verdict
from modelswarm.plugin.views.doctor import examine
from modelswarm.plugin.views.doctor_cluster import KINDS
from modelswarm.plugin.views.facts import Asked, Facts, Right
from tests.unit.plugin.objects import MI, NOW, cache, cached, condition, snapshot, task


def moment(seconds: float = 0.0) -> str:
    return (NOW + timedelta(seconds=seconds)).strftime("%Y-%m-%dT%H:%M:%S.%fZ")


def lease(name: str, holder: str = "h", renewed: float = -1.0, **labels: str) -> JsonObject:
    spec: JsonObject = {"holderIdentity": holder, "renewTime": moment(renewed), "leaseDurationSeconds": 15}
    return {"metadata": {"name": name, "labels": {**labels}}, "spec": spec}


def workload(kind: str, name: str, namespace: str, env: dict[str, str], **status: int) -> JsonObject:
    variables = [{"name": key, "value": value} for key, value in env.items()]
    return {
        "apiVersion": "apps/v1",
        "kind": kind,
        "metadata": {"name": name, "namespace": namespace, "labels": {"app.kubernetes.io/version": "0.1.0"}},
        "spec": {"replicas": 1, "template": {"spec": {"containers": [{"name": "c", "env": [*variables]}]}}},
        "status": {**status},
    }


OPERATOR_ENV = {"MODELSWARM_AGENT_ROOT": "/mnt/models", "HF_ENDPOINT": "https://mirror.test"}
AGENT_ENV = {"PEERS_SERVICE": "ome-peers.ome.svc.cluster.local", "HF_ENDPOINT": "https://mirror.test"}


def installed(
    operator: dict[str, str] = OPERATOR_ENV,
    agents: dict[str, str] = AGENT_ENV,
    ready: int = 2,
    peer_secret: dict[str, Any] | None = None,
) -> Any:
    daemons = workload("DaemonSet", "ome-model-agent", "ome", agents, desiredNumberScheduled=2, numberReady=ready)
    if peer_secret is not None:
        daemons["spec"]["template"]["spec"]["volumes"] = [{"name": "peer-secret", "secret": peer_secret}]
    return installation_of(
        workload("Deployment", "modelswarm-operator", "llmaz-system", operator, availableReplicas=1), daemons
    )


def facts(**changes: Any) -> Facts:
    """All is well, but for the changes."""
    served: dict[str, frozenset[str]] = {}
    for kind in KINDS:
        group = kind.api_version_of_kind()
        served[group] = served.get(group, frozenset()) | {kind.PLURAL}
    right = {
        "snapshot": snapshot(cache("a"), cache("b")),
        "installation": installed(),
        "version": "0.1.0",
        "here": NOW,
        "server_time": NOW,
        "served": served,
        "operator_lease": lease("modelswarm-operator"),
        "service": {"metadata": {"name": "ome-peers", "namespace": "ome"}, "spec": {"clusterIP": "None"}},
        "slices": ({"ports": [{"port": 6881}, {"port": 8081}]},),
        "peer_secret": True,
        "node_leases": (lease("a"), lease("b")),
        "model_leases": (lease("ome-model-1"), lease("ome-model-2", renewed=-9999, **{"ome.io/status": "complete"})),
        "operators": (Asked("op", "a", 200, "leading"),),
        "agents": (Asked("x", "a", 200, "ok", 1), Asked("y", "b", 200, "ok", 1)),
        "rights": (Right("llmaz-system:modelswarm-operator", "list", "p2ptasks", "llmaz.io", allowed=True),),
        "server_version": "v1.31.2",
    }
    return Facts(**{**right, **changes})


def bad(found: tuple[Check, ...]) -> list[Check]:
    return [each for each in found if each.verdict is not Verdict.OK]


def test_all_is_well() -> None:
    found = examine(facts())
    assert bad(found) == []
    areas = {each.area for each in found}
    assert {"dns", "ports", "leases", "mirrors", "versions", "clock", "permissions"} <= areas


TASK = task("t", condition("Ready", "False", "AccessDenied", "401"), phase="Failed")
SUSPENDED = task("s", condition("Ready", "False", "Suspended"), phase="Suspended")


def refused(reason: str) -> Any:
    return snapshot(cache("a", cached("Waiting", reason=reason)), cache("b"))


@pytest.mark.parametrize(
    ("changes", "area", "finding"),
    [
        pytest.param({"server_version": "v1.30.9"}, "api server", "1.31 or later", id="an old cluster"),
        pytest.param({"served": {}}, "kinds", "OpenModel, P2PTask", id="no CRDs"),
        pytest.param({"version": "0.2.0"}, "versions", "0.2.0: kubectl-swarm", id="another version of the plugin"),
        pytest.param(
            {"snapshot": snapshot(cache("a", version="v0.0.9"), cache("b"))},
            "versions",
            "0.0.9: the agent of a",
            id="an old agent",
        ),
        pytest.param(
            {"installation": installed(ready=1)}, "agents", "DaemonSet ome/ome-model-agent: 1 of 2", id="agents missing"
        ),
        pytest.param({"operators": (Asked("op", "a", 503, "no"),)}, "operator", "op says: no", id="operator not ready"),
        pytest.param({"operator_lease": None}, "leases", "no Lease", id="no operator has ever led"),
        pytest.param(
            {"operator_lease": lease("modelswarm-operator", renewed=-90)},
            "leases",
            "has not renewed its Lease for 1m30s",
            id="the operator has gone",
        ),
        pytest.param(
            {"operator_lease": lease("modelswarm-operator", holder="")},
            "leases",
            "no operator leads",
            id="nobody leads",
        ),
        pytest.param(
            {"rights": (Right("ns:op", "create", "deployments", "apps", allowed=False),)},
            "permissions",
            "ns:op may not create deployments.apps",
            id="a right is missing",
        ),
        pytest.param({"here": NOW + timedelta(hours=1)}, "clock", "1h00m away", id="this machine's clock"),
        pytest.param(
            {"node_leases": (lease("a", renewed=30),)}, "clock", "ahead of the API server: a by 30s", id="ahead"
        ),
        pytest.param({"node_leases": (lease("a", renewed=-300),)}, "clock", "a by 5m00s", id="behind"),
        pytest.param(
            {"installation": installed(agents={**AGENT_ENV, "HF_ENDPOINT": "https://me:secret@other.test"})},
            "mirrors",
            "HF_ENDPOINT is https://mirror.test for the operator and other.test for the agents",
            id="two mirrors, and no password in the answer",
        ),
        pytest.param(
            {
                "installation": installed(
                    {**OPERATOR_ENV, "HF_ENDPOINT": "mirror"}, {**AGENT_ENV, "HF_ENDPOINT": "mirror"}
                )
            },
            "mirrors",
            "HF_ENDPOINT: not a URL",
            id="no URL",
        ),
        pytest.param(
            {"snapshot": snapshot(cache("a"), cache("b"), live={"a"})}, "agents", "no ready agent on b", id="away"
        ),
        pytest.param(
            {"agents": (Asked("x", "a", 503, "disk"),)}, "agents", "a says: disk", id="an agent says what it lacks"
        ),
        pytest.param({"service": None}, "dns", "no Service ome-peers", id="no Service"),
        pytest.param(
            {"service": {"metadata": {"namespace": "ome"}, "spec": {"clusterIP": "10.0.0.1"}}},
            "dns",
            "not headless",
            id="a Service with an address",
        ),
        pytest.param(
            {"installation": installed(agents={**AGENT_ENV, "PEERS_SERVICE": "ome-peers.other.svc"})},
            "dns",
            "agents look for ome-peers.other.svc",
            id="another namespace",
        ),
        pytest.param({"agents": (Asked("x", "a", 200, "ok", 0),)}, "dns", "a (0 of 1)", id="DNS names nobody"),
        pytest.param({"slices": ({"ports": [{"port": 6881}]},)}, "ports", "the ports 8081", id="a port is missing"),
        pytest.param(
            {"snapshot": refused("PeerUnavailable")}, "ports", "PeerUnavailable (ports 6881, 8081)", id="closed"
        ),
        pytest.param({"snapshot": refused("PeerRefused")}, "ports", "PeerRefused", id="another secret"),
        pytest.param(
            {"peer_secret": False},
            "secret",
            "Secret ome/ome-peers: any pod that reaches port 8081",
            id="no peer secret",
        ),
        pytest.param(
            {"peer_secret": False, "installation": installed(peer_secret={"secretName": "mine", "optional": True})},
            "secret",
            "Secret ome/mine: any pod that reaches port 8081",
            id="no peer secret of another name",
        ),
        pytest.param(
            {"peer_secret": False, "installation": installed(peer_secret={"secretName": "mine"})},
            "secret",
            "Secret ome/mine: agents do not start without it",
            id="no peer secret, and it must be there",
        ),
        pytest.param(
            {"model_leases": (lease("ome-model-1", "gone", -9999),)}, "leases", "ome-model-1 of gone", id="no successor"
        ),
        pytest.param(
            {
                "snapshot": snapshot(
                    cache("a").model_copy(
                        update={
                            "status": cache("a").status.model_copy(update={"used_bytes": 1999 * MI, "free_bytes": MI})
                        }
                    ),
                    cache("b"),
                )
            },
            "disks",
            "almost full: a (1.0Mi of 2.0Gi free)",
            id="a full disk",
        ),
        pytest.param({"snapshot": snapshot(cache("a"), cache("b"), TASK)}, "tasks", "p2ptask/t in", id="a failed task"),
    ],
)
def test_one_thing_is_wrong(changes: dict[str, Any], area: str, finding: str) -> None:
    found = [each for each in bad(examine(facts(**changes))) if each.area == area]
    assert [each.verdict for each in found] == [Verdict.PROBLEM], found
    assert finding in found[0].finding
    assert found[0].remedy
    assert "secret@" not in repr(found)


def test_what_cannot_be_seen_is_no_problem() -> None:
    blind = Facts(
        snapshot=snapshot(cache("a"), unread={"x": "y"}).__class__(NOW, caches=(cache("a"),), live=None),
        installation=installation_of(None, None, seen=False),
        version="0.1.0",
        here=NOW,
        server_time=NOW,
        served=facts().served,
        operator_lease=lease("modelswarm-operator"),
        service=facts().service,
        rights=(Right("you", "patch", "p2ptasks", "llmaz.io", allowed=False), Right("ns:op", "list", "x")),
        server_version="v1.36.0",
    )
    found = examine(blind)
    assert [each for each in found if each.verdict is Verdict.PROBLEM] == []
    assert "you may not patch p2ptasks.llmaz.io" in [each.finding for each in found]


def test_a_suspended_task_is_somebodys_wish() -> None:
    assert bad(examine(facts(snapshot=snapshot(cache("a"), cache("b"), SUSPENDED)))) == []


def test_of_many_failed_tasks_some_are_named() -> None:
    tasks: list[P2PTask] = [
        task(f"t{number}", condition("Ready", "False", "AccessDenied"), phase="Failed") for number in range(30)
    ]
    found = [each for each in examine(facts(snapshot=snapshot(cache("a"), cache("b"), *tasks))) if each.area == "tasks"]
    assert (len(found), found[-1].finding) == (21, "10 more tasks need somebody")


@pytest.mark.parametrize(
    ("asked", "words"),
    [
        pytest.param(
            Asked("x", "a", problem="address not allowed"), "whom they find: address not allowed", id="no way"
        ),
        pytest.param(Asked("x", "a", 200, "ok"), "none has one", id="no model yet, so nobody was looked for"),
    ],
)
def test_why_nothing_is_known_of_dns_is_said(asked: Asked, words: str) -> None:
    [line] = [each for each in examine(facts(agents=(asked,))) if each.area == "dns"]
    assert (line.verdict, words in line.finding) == (Verdict.UNKNOWN, True), line


def test_without_agents_nothing_is_said_of_them() -> None:
    alone = installation_of(
        facts().installation.operator and workload("Deployment", "o", "n", {}, availableReplicas=1), None
    )
    found = examine(facts(installation=alone, snapshot=snapshot(), node_leases=(), agents=(), model_leases=()))
    assert bad(found) == []
    assert "dns" not in {each.area for each in found}
