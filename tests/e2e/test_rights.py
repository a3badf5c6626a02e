"""What operator and agents have asked of the API server in all tests, compared with what the chart allows them."""

import pytest

from dev.audit import AuditEvent
from dev.cluster.cluster import Cluster
from tests.e2e.support import Release
from tests.e2e.support.release import NAMESPACE
from tests.integration.support.chart import Grant, grants, rendered

OPERATOR, AGENT = f"{NAMESPACE}:modelswarm-operator", f"{NAMESPACE}:ome-model-agent"

Kind = tuple[str, str, str, str]
"""Account, group, resource, verb."""

NOT_SEEN_HERE: dict[Kind, str] = {}
"""Rights that no request of these tests shows, each with the reason why it is given all the same."""


@pytest.fixture(scope="module")
def events(cluster: Cluster, release: Release) -> list[AuditEvent]:
    accounts = {f"system:serviceaccount:{account}" for account in (OPERATOR, AGENT)}
    return [event for event in cluster.plane.audit_events() if event.user in accounts]


def allows(grant: Grant, event: AuditEvent) -> bool:
    same = (event.api_group, event.resource, event.verb) == (grant.group, grant.resource, grant.verb)
    return (
        same
        and event.user == f"system:serviceaccount:{grant.account}"
        and grant.namespace in ("", event.namespace)
        and grant.name in ("", event.name)
    )


def test_no_right_is_given_that_is_not_used(events: list[AuditEvent]) -> None:
    given = {grant for grant in grants(rendered()) if grant.account in (OPERATOR, AGENT)}
    assert {grant.account for grant in given} == {OPERATOR, AGENT}
    unused = [grant for grant in given if not any(allows(grant, event) for event in events)]
    found = {(grant.account, grant.group, f"{grant.resource}:{grant.name}".rstrip(":"), grant.verb) for grant in unused}
    assert found == NOT_SEEN_HERE.keys()


def test_nothing_was_refused(events: list[AuditEvent]) -> None:
    refused = {(event.user, event.verb, event.resource, event.namespace) for event in events if event.code == 403}
    assert not refused
