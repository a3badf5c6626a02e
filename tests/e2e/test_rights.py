"""What operator and agents have asked of the API server in all tests, compared with what the chart allows them.

The agents of ``test_seed`` count too: their rules are the chart's (``tests/integration/test_chart.py`` compares them).
"""

from datetime import datetime, timedelta

import pytest

from dev.audit import AuditEvent
from dev.cluster.cluster import Cluster
from tests.e2e.support import Release
from tests.e2e.support.release import NAMESPACE
from tests.integration.support.chart import Grant, grants, rendered

OPERATOR, AGENT = f"{NAMESPACE}:modelswarm-operator", f"{NAMESPACE}:ome-model-agent"
SEED = "ome"
"""Namespace of the first seed's agents."""
USERS = {
    f"system:serviceaccount:{OPERATOR}": OPERATOR,
    f"system:serviceaccount:{AGENT}": AGENT,
    f"system:serviceaccount:{SEED}:ome-model-agent": AGENT,
}
RULES_LOAD = timedelta(seconds=20)
"""An API server that has just started knows no rules for a moment, and refuses everybody."""

Right = tuple[str, str, str]
"""Account, ``GROUP/RESOURCE`` or ``GROUP/RESOURCE:NAME``, verb."""

_FROM_WATCH = "read from the watch; goes with list and watch in every tool"
_OWNERS = "asked by OwnerReferencesPermissionEnforcement, if it is on"
_APPLY = "a server-side apply of a new object: authorized as patch and as create"
_SECRET = "as modelhub-secret, for other kinds of sources"
NOT_SEEN: dict[Right, str] = {
    (OPERATOR, "llmaz.io/openmodels", "get"): _FROM_WATCH,
    (OPERATOR, "llmaz.io/nodecaches", "get"): _FROM_WATCH,
    (OPERATOR, "inference.llmaz.io/playgrounds", "get"): _FROM_WATCH,
    (OPERATOR, "inference.llmaz.io/backendruntimes", "get"): _FROM_WATCH,
    (OPERATOR, "llmaz.io/openmodels/finalizers", "update"): _OWNERS,
    (OPERATOR, "llmaz.io/p2ptasks/finalizers", "update"): _OWNERS,
    (OPERATOR, "inference.llmaz.io/playgrounds/finalizers", "update"): _OWNERS,
    (OPERATOR, "llmaz.io/p2ptasks", "create"): _APPLY,
    (OPERATOR, "apps/deployments", "create"): _APPLY,
    (OPERATOR, "/services", "create"): _APPLY,
    (OPERATOR, "autoscaling/horizontalpodautoscalers", "create"): _APPLY,
    (OPERATOR, "/secrets:oss-access-secret", "get"): _SECRET,
    (OPERATOR, "/secrets:aws-access-secret", "get"): _SECRET,
    (AGENT, "/secrets:oss-access-secret", "get"): _SECRET,
    (AGENT, "/secrets:aws-access-secret", "get"): _SECRET,
    (AGENT, "/secrets:modelhub-secret", "get"): "read when a task names it; the models of these tests are public",
    (AGENT, "/secrets:hf-token", "get"): "read when a BaseModel names it; the models of these tests are public",
    (AGENT, "/configmaps", "create"): _APPLY,
    (AGENT, "/nodes", "get"): "asked when a label is refused, to see whether the Node is another one",
    (AGENT, "llmaz.io/nodecaches", "patch"): "takes over the cache of an earlier Node of the same name",
}
"""Rights that need not be seen, each with the reason why it is given all the same."""


@pytest.fixture(scope="module")
def events(cluster: Cluster, release: Release) -> list[AuditEvent]:
    """Those of the first seed, and of the release that all other tests share."""
    return [
        event
        for event in cluster.plane.audit_events()
        if event.user in USERS and (f":{SEED}:" in event.user or datetime.fromisoformat(event.received) > release.since)
    ]


def allows(grant: Grant, event: AuditEvent) -> bool:
    return (
        (event.api_group, event.resource, event.verb) == (grant.group, grant.resource, grant.verb)
        and USERS[event.user] == grant.account
        and (grant.namespace in ("", event.namespace) or (event.namespace == SEED and grant.namespace == NAMESPACE))
        and grant.name in ("", event.name)
    )


def test_no_right_is_given_that_is_not_used(events: list[AuditEvent]) -> None:
    given = {grant for grant in grants(rendered()) if grant.account in (OPERATOR, AGENT)}
    assert {grant.account for grant in given} == {OPERATOR, AGENT}
    unused = {
        (grant.account, f"{grant.group}/{grant.resource}" + (f":{grant.name}" if grant.name else ""), grant.verb)
        for grant in given
        if not any(allows(grant, event) for event in events)
    }
    print(f"{len(given)} rights, {len(events)} requests, {len(unused)} rights not seen")
    unexplained = sorted(unused - NOT_SEEN.keys())
    assert not unexplained, "\n".join(map(str, unexplained))


def test_nothing_was_refused(events: list[AuditEvent], release: Release) -> None:
    """By the rules, that is: a namespace that is being deleted refuses new objects of everybody.

    The first seed's agents are not looked at: deleting their file takes their rules before it takes them.
    """

    def rules_loaded(event: AuditEvent) -> bool:
        at = datetime.fromisoformat(event.received)
        return not any(stopped <= at <= ready + RULES_LOAD for stopped, ready in release.restarts)

    refused = {
        (USERS[event.user], event.verb, event.resource, event.namespace, event.received)
        for event in events
        if event.denied and rules_loaded(event) and f":{SEED}:" not in event.user
    }
    assert not refused, "\n".join(map(str, sorted(refused)))
