"""The API server's audit log as data: who asked for what, how often.

Tests count requests with it. It is the only view that shows what really reached the API server: a client-side counter
misses retries, and a proxy in between would change the connection behaviour that is under test.
"""

import json
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import yaml

PROBE_USER = "modelswarm:readiness-probe"
"""Whoever polls for readiness does it under this name, so that the polling disturbs no count."""


@dataclass(frozen=True, slots=True)
class AuditEvent:
    """One completed request, or one watch that has started (a watch completes only when it is closed)."""

    stage: str
    user: str
    user_agent: str
    verb: str
    uri: str
    api_group: str
    resource: str
    """Plural resource with its subresource, for example ``pods`` or ``pods/status``; empty for other requests."""
    namespace: str
    name: str
    code: int
    received: str
    """When the request arrived, RFC 3339 with microseconds. Sorts as text."""
    denied: bool = False
    """Whether the rules (RBAC) do not allow it. An admission plugin that refuses something answers 403 too."""


def audit_policy(*, everything: bool) -> str:
    """The policy file, as YAML. Without ``everything`` it leaves out what the control plane says to itself."""
    components = ["system:apiserver", "system:kube-controller-manager", "system:kube-scheduler"]
    noise = [
        {"level": "None", "users": [*components, PROBE_USER]},
        {"level": "None", "userGroups": ["system:serviceaccounts:kube-system"]},
        {"level": "None", "nonResourceURLs": ["/readyz*", "/livez*", "/healthz*"]},
    ]
    policy = {
        "apiVersion": "audit.k8s.io/v1",
        "kind": "Policy",
        "omitStages": ["RequestReceived"],
        "rules": [*([] if everything else noise), {"level": "Metadata"}],
    }
    return yaml.safe_dump(policy, sort_keys=False)


def read_audit_log(path: Path) -> Iterator[AuditEvent]:
    """The events written so far, oldest first. An event may appear a moment after the client has its answer: poll.

    A watch counts once: at its start, or at its end when it was refused before it could start.
    """
    started: set[str] = set()
    try:
        log = path.open(encoding="utf-8")
    except FileNotFoundError:
        return
    with log:
        for line in log:
            if not line.endswith("\n"):
                return  # the API server is writing this line right now
            event = json.loads(line)
            if event["stage"] == "ResponseStarted":
                started.add(event["auditID"])
            elif event["auditID"] in started:
                continue
            yield _parse(event)


def _parse(event: dict[str, object]) -> AuditEvent:
    reference = _mapping(event.get("objectRef"))
    resource = str(reference.get("resource", ""))
    if subresource := reference.get("subresource"):
        resource = f"{resource}/{subresource}"
    return AuditEvent(
        stage=str(event["stage"]),
        user=str(_mapping(event.get("user")).get("username", "")),
        user_agent=str(event.get("userAgent", "")),
        verb=str(event["verb"]),
        uri=str(event["requestURI"]),
        api_group=str(reference.get("apiGroup", "")),
        resource=resource,
        namespace=str(reference.get("namespace", "")),
        name=str(reference.get("name", "")),
        code=int(str(_mapping(event.get("responseStatus")).get("code", 0))),
        received=str(event["requestReceivedTimestamp"]),
        denied=_mapping(event.get("annotations")).get("authorization.k8s.io/decision") == "forbid",
    )


def _mapping(value: object) -> dict[str, object]:
    return value if isinstance(value, dict) else {}
