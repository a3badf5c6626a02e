"""Checks of the cluster and of the operator. Pure."""

import re
from collections.abc import Iterator
from datetime import UTC, datetime

from modelswarm.api.backendruntime import BackendRuntime
from modelswarm.api.meta import JsonObject
from modelswarm.api.nodecache import NodeCache
from modelswarm.api.openmodel import OpenModel
from modelswarm.api.p2ptask import P2PTask
from modelswarm.api.playground import Playground
from modelswarm.api.remedies import Grade
from modelswarm.kube.objects import metadata
from modelswarm.plugin.installation import OPERATOR
from modelswarm.plugin.units import duration
from modelswarm.plugin.views.check import Check, ok, problem, unknown
from modelswarm.plugin.views.facts import Facts, Right
from modelswarm.plugin.views.standing import of_task

OLDEST = (1, 31)
"""Of Kubernetes: tokens say on which node an agent is since then."""
SKEW_SECONDS = 5.0
LATE_SECONDS = 60.0
"""A Lease that its holder renews every ten seconds or so."""
KINDS = (OpenModel, P2PTask, NodeCache, Playground, BackendRuntime)


def check_server(facts: Facts) -> Iterator[Check]:
    match = re.match(r"v?(\d+)\.(\d+)", facts.server_version)
    if match is None:
        yield unknown("api server", "it does not tell its version")
    elif (int(match[1]), int(match[2])) < OLDEST:
        words = f"Kubernetes {facts.server_version}; 1.31 or later is needed"
        yield problem("api server", words, "Upgrade the cluster.")
    else:
        yield ok("api server", f"Kubernetes {facts.server_version}")


def check_kinds(facts: Facts) -> Iterator[Check]:
    absent = [
        kind.KIND for kind in KINDS if kind.PLURAL not in facts.served.get(kind.api_version_of_kind(), frozenset())
    ]
    if absent:
        words = f"the cluster does not have the kinds {', '.join(absent)}"
        crds = "helm show crds charts/modelswarm | kubectl apply --server-side -f -"
        yield problem("kinds", words, f"Apply the CRDs: `{crds}`.")
    else:
        yield ok("kinds", f"all {len(KINDS)} are there")


def check_operator(facts: Facts) -> Iterator[Check]:
    installation = facts.installation
    deployment = installation.operator
    if deployment is None:
        if not installation.seen:
            yield unknown("operator", "you may not list Deployments", "Ask for the right to list them.")
        else:
            words = f"no Deployment has the label app.kubernetes.io/name={OPERATOR}"
            yield unknown("operator", words, "Install the chart, or start the operator in another way.")
    else:
        name, status = metadata(deployment).get("name"), _mapping(deployment.get("status"))
        ready, wanted = _number(status.get("availableReplicas")), _number(_mapping(deployment["spec"]).get("replicas"))
        where = f"Deployment {installation.namespace}/{name}"
        if ready < wanted or wanted == 0:
            pods = f"kubectl describe pods -n {installation.namespace} -l app.kubernetes.io/name={OPERATOR}"
            yield problem("operator", f"{where}: {ready} of {wanted} pods are available", f"See them: `{pods}`.")
        else:
            yield ok("operator", f"{where}: {ready} of {wanted} pods are available")
    for asked in facts.operators:
        if asked.problem:
            yield unknown("operator", f"pod {asked.pod} could not be asked: {asked.problem}")
        elif asked.status == 200:
            yield ok("operator", f"pod {asked.pod} says: {asked.text}")
        else:
            look = f"See its log: `kubectl logs -n {installation.namespace} {asked.pod}`."
            yield problem("operator", f"pod {asked.pod} says: {asked.text or asked.status}", look)


def check_leader(facts: Facts) -> Iterator[Check]:
    lease, namespace = facts.operator_lease, facts.installation.namespace
    if lease is None:
        if not facts.installation.settings.leader_elect:
            yield ok("leases", "the operator runs without a Lease (leader-elect is off)")
        else:
            look = f"See the operator's log: `kubectl logs -n {namespace} deployment/{OPERATOR}`."
            yield problem("leases", f"there is no Lease {namespace}/{OPERATOR}: no operator has led yet", look)
        return
    spec = _mapping(lease.get("spec"))
    holder, renewed = str(spec.get("holderIdentity") or ""), moment(spec.get("renewTime"))
    late = _since(facts, renewed)
    if not holder or renewed is None:
        yield problem("leases", "no operator leads", f"Start the operator: `kubectl get pods -n {namespace}`.")
    elif late > _number(spec.get("leaseDurationSeconds"), 15) + SKEW_SECONDS:
        words = f"the operator {holder} leads and has not renewed its Lease for {duration(late)}"
        yield problem("leases", words, f"See whether it runs: `kubectl get pods -n {namespace}`; else compare clocks.")
    else:
        yield ok("leases", f"the operator {holder} leads")


def check_versions(facts: Facts) -> Iterator[Check]:
    found: dict[str, list[str]] = {}
    operator = _operator_version(facts.installation.operator)
    for who, version in (
        ("kubectl-swarm on this machine", facts.version),
        *([("the operator", operator)] if operator else []),
        *(
            (f"the agent of {cache.metadata.name}", cache.status.agent.version)
            for cache in facts.snapshot.caches
            if cache.status.agent is not None
        ),
    ):
        found.setdefault(version.removeprefix("v"), []).append(who)
    if len(found) == 1:
        yield ok("versions", f"all are {next(iter(found))}")
        return
    words = "; ".join(
        f"{version}: {', '.join(who[:3])}{f' and {len(who) - 3} more' if len(who) > 3 else ''}"
        for version, who in sorted(found.items())
    )
    yield problem("versions", words, "Bring all to one version: upgrade the chart, or install this plugin again.")


def check_clocks(facts: Facts) -> Iterator[Check]:
    if facts.server_time is None:
        yield unknown("clock", "the API server does not tell its time")
        return
    skew = abs((facts.here - facts.server_time).total_seconds())
    if skew > LATE_SECONDS:
        words = f"this machine's clock is {duration(skew)} away from the API server's"
        yield problem("clock", words, "Set this machine's clock (NTP).")
    else:
        yield ok("clock", "this machine and the API server agree")
    nodes = {cache.metadata.name for cache in facts.snapshot.caches}
    ahead, late, seen = [], [], 0
    for lease in facts.node_leases:
        name, renewed = str(metadata(lease).get("name")), moment(_mapping(lease.get("spec")).get("renewTime"))
        if name not in nodes or renewed is None:
            continue
        seen += 1
        apart = (facts.server_time - renewed).total_seconds()
        if apart < -SKEW_SECONDS:
            ahead.append(f"{name} by {duration(-apart)}")
        elif apart > LATE_SECONDS and facts.snapshot.is_live(name):
            late.append(f"{name} by {duration(apart)}")
    if ahead or late:
        words = "; ".join(
            part
            for part in (
                f"ahead of the API server: {', '.join(ahead)}" if ahead else "",
                f"behind it, or not renewing their Lease: {', '.join(late)}" if late else "",
            )
            if part
        )
        look = "Run NTP on the nodes: agents refuse each other's signatures otherwise."
        yield problem("clock", f"nodes {words}", look)
    elif seen:
        yield ok("clock", f"{seen} nodes agree with the API server")
    elif nodes:
        yield unknown("clock", "the nodes' Leases (namespace kube-node-lease) tell nothing of their clocks")


def check_rights(facts: Facts) -> Iterator[Check]:
    by_who: dict[str, list[Right]] = {}
    for right in facts.rights:
        by_who.setdefault(right.who, []).append(right)
    for who, rights in by_who.items():
        denied = [right for right in rights if right.allowed is False]
        if denied:
            words = f"{who} may not {'; '.join(_words(right) for right in denied)}"
            if who == "you":
                yield unknown("permissions", words, "Ask for these rights; commands that need them say so.")
            else:
                look = "Install the rights of this version: upgrade the chart, or apply config/ again."
                yield problem("permissions", words, look)
        elif any(right.allowed is None for right in rights):
            yield unknown("permissions", f"you may not ask what {who} may do")
        else:
            yield ok("permissions", f"{who} may do what is needed ({len(rights)} rights)")


def check_tasks(facts: Facts) -> Iterator[Check]:
    stuck = [
        (task, standing)
        for task in facts.snapshot.tasks
        if (standing := of_task(task)).grade is Grade.ACT and standing.reason != "Suspended"
    ]
    for task, standing in stuck[:20]:
        name, namespace = task.metadata.name, task.metadata.namespace
        words = f"p2ptask/{name} in {namespace}: {standing.reason}"
        yield problem("tasks", words, f"`kubectl swarm why p2ptask/{name} -n {namespace}` says more.")
    if len(stuck) > 20:
        yield problem("tasks", f"{len(stuck) - 20} more tasks need somebody", "`kubectl swarm status` lists them.")
    if not stuck:
        yield ok("tasks", f"none of {len(facts.snapshot.tasks)} needs anybody")


def moment(value: object) -> datetime | None:
    """A ``metav1.MicroTime``."""
    try:
        return datetime.fromisoformat(str(value).replace("Z", "+00:00")).astimezone(UTC)
    except ValueError:
        return None


def _since(facts: Facts, renewed: datetime | None) -> float:
    return ((facts.server_time or facts.here) - renewed).total_seconds() if renewed is not None else 0.0


def _operator_version(deployment: JsonObject | None) -> str:
    """The chart's label, else the image's tag."""
    if deployment is None:
        return ""
    label = _mapping(metadata(deployment).get("labels")).get("app.kubernetes.io/version")
    return str(label or "")


def _words(right: Right) -> str:
    what = f"{right.verb} {right.resource}{f'.{right.group}' if right.group else ''}"
    return f"{what} in {right.namespace}" if right.namespace else what


def _mapping(value: object) -> dict[str, object]:
    return value if isinstance(value, dict) else {}


def _number(value: object, default: int = 0) -> int:
    return value if isinstance(value, int) else default
