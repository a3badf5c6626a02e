"""Gathering what ``doctor`` judges. Nothing here fails for want of a right: what cannot be seen is left out."""

import asyncio
import re
from collections.abc import Mapping
from datetime import UTC, datetime

from modelswarm import __version__
from modelswarm.api.meta import JsonObject
from modelswarm.errors import Forbidden, KubeError, Unavailable
from modelswarm.kube.direct import Answer
from modelswarm.kube.kinds import ENDPOINTSLICE, LEASE, POD, SECRET, SERVICE
from modelswarm.kube.objects import key_of
from modelswarm.plugin.cluster import Cluster
from modelswarm.plugin.installation import AGENT, AGENT_SERVICE, OPERATOR, Installation
from modelswarm.plugin.snapshot import Snapshot
from modelswarm.plugin.views.facts import Asked, Facts, Right

MOST_AGENTS = 50
"""Agents that are asked one by one; of larger clusters it is a sample."""
AT_ONCE = 10
HEALTH_PORT, HTTP_PORT = 8081, 8080
_PEERS = re.compile(rb"^ome_p2p_peers_discovered(?:\{[^}]*\})? (\d+)", re.MULTILINE)


async def gather(cluster: Cluster) -> Facts:
    """Raises KubeError only where the API server does not answer at all, or does not accept the log-in."""
    answer = await cluster.kube.fetch("/version")
    if answer.status == 401:
        raise Forbidden("401", status=401)
    version = str(answer.json().get("gitVersion") or "")
    served, installation = await asyncio.gather(_served(cluster), cluster.installation())
    has_tasks = "p2ptasks" in served.get("llmaz.io/v1alpha1", frozenset())
    snapshot = await _snapshot(cluster, installation, has_tasks)
    selector = f"kubernetes.io/service-name={AGENT_SERVICE}"
    leases, services, slices, node_leases, model_leases = await asyncio.gather(
        cluster.objects(LEASE, installation.namespace),
        cluster.objects(SERVICE, installation.agent_namespace),
        cluster.objects(ENDPOINTSLICE, installation.agent_namespace, selector),
        cluster.objects(LEASE, "kube-node-lease"),
        cluster.objects(LEASE, installation.agent_namespace, "ome.io/type=model-download"),
    )
    operators, agents = await asyncio.gather(_operators(cluster, installation), _agents(cluster, installation))
    return Facts(
        snapshot=snapshot,
        installation=installation,
        version=__version__,
        here=datetime.now(UTC),
        # Fresh, to compare it with this machine's clock.
        server_time=(await cluster.kube.fetch("/version")).date,
        served=served,
        operator_lease=_named(leases, OPERATOR),
        service=_named(services, AGENT_SERVICE),
        slices=tuple(slices or ()),
        peer_secret=await _peer_secret(cluster, installation),
        node_leases=tuple(node_leases or ()),
        model_leases=tuple(model_leases or ()),
        operators=operators,
        agents=agents,
        rights=await _rights(cluster, installation, with_agents=bool(snapshot.caches)),
        server_version=version,
    )


async def _snapshot(cluster: Cluster, installation: Installation, has_tasks: bool) -> Snapshot:
    if has_tasks:
        try:
            return await cluster.moving((installation.namespace,))
        except Forbidden:
            pass
    return Snapshot(datetime.now(UTC), caches=await cluster.caches(), live=await cluster.live())


async def _served(cluster: Cluster) -> Mapping[str, frozenset[str]]:
    groups = ("llmaz.io/v1alpha1", "inference.llmaz.io/v1alpha1")
    answers = await asyncio.gather(*(cluster.kube.fetch(f"/apis/{group}") for group in groups))
    return {group: _plurals(answer) for group, answer in zip(groups, answers, strict=True)}


def _plurals(answer: Answer) -> frozenset[str]:
    resources = answer.json().get("resources") if answer.status == 200 else None
    return frozenset(
        str(each["name"])
        for each in (resources if isinstance(resources, list) else [])
        if isinstance(each, dict) and "name" in each
    )


async def _peer_secret(cluster: Cluster, installation: Installation) -> bool | None:
    """Whether it exists; its metadata is asked for, never its data."""
    name = f"metadata.name={installation.peer_secret.name}"
    try:
        found = await cluster.kube.list(SECRET, installation.agent_namespace, field_selector=name, metadata_only=True)
        return bool(found)
    except KubeError:
        return None


async def _operators(cluster: Cluster, installation: Installation) -> tuple[Asked, ...]:
    pods = await cluster.objects(POD, installation.namespace, f"app.kubernetes.io/name={OPERATOR}")
    return tuple([await _ask(cluster, pod, HEALTH_PORT, "/readyz") for pod in pods or () if _runs(pod)])


async def _agents(cluster: Cluster, installation: Installation) -> tuple[Asked, ...]:
    pods = [pod for pod in await cluster.objects(POD, installation.agent_namespace) or () if _runs(pod)]
    chosen = [pod for pod in pods if _spec(pod).get("serviceAccountName") == AGENT][:MOST_AGENTS]
    slots = asyncio.Semaphore(AT_ONCE)

    async def one(pod: JsonObject) -> Asked:
        async with slots:
            asked = await _ask(cluster, pod, HTTP_PORT, "/readyz")
            if asked.status == 0:
                return asked
            page = await _fetch(cluster, pod, HTTP_PORT, "/metrics")
            found = [int(each) for each in _PEERS.findall(page.body)] if isinstance(page, Answer) else []
            return Asked(asked.pod, asked.node, asked.status, asked.text, max(found) if found else None)

    return tuple(await asyncio.gather(*(one(pod) for pod in chosen)))


async def _ask(cluster: Cluster, pod: JsonObject, port: int, path: str) -> Asked:
    name, node = key_of(pod).name, str(_spec(pod).get("nodeName") or "")
    answer = await _fetch(cluster, pod, port, path)
    if isinstance(answer, str):
        return Asked(name, node, problem=answer)
    return Asked(name, node, answer.status, answer.body.decode(errors="replace").strip()[:200])


async def _fetch(cluster: Cluster, pod: JsonObject, port: int, path: str) -> Answer | str:
    """By the API server's proxy; a text says why there is no answer of the pod's."""
    key = key_of(pod)
    try:
        answer = await cluster.kube.fetch(f"/api/v1/namespaces/{key.namespace}/pods/{key.name}:{port}/proxy{path}")
    except Unavailable as error:
        return error.message
    # What the API server itself says is a Status object; an agent or operator answers in plain text.
    said = answer.json()
    if said.get("kind") == "Status":
        return str(said.get("message") or answer.status)
    return answer


def _rights_of(installation: Installation, *, with_agents: bool) -> tuple[Right, ...]:
    """As few as tell that the roles are there, and of this version."""
    namespace, agents = installation.namespace, installation.agent_namespace
    operator, agent = f"{namespace}:{OPERATOR}", f"{agents}:{AGENT}"
    found = [
        Right(operator, "list", "p2ptasks", "llmaz.io"),
        Right(operator, "patch", "p2ptasks/status", "llmaz.io"),
        Right(operator, "list", "playgrounds", "inference.llmaz.io"),
        Right(operator, "patch", "playgrounds/status", "inference.llmaz.io"),
        Right(operator, "create", "deployments", "apps"),
        Right(operator, "create", "configmaps"),
        Right(operator, "update", "leases", "coordination.k8s.io", namespace, OPERATOR),
    ]
    if with_agents or installation.agents is not None or installation.settings.agent_root is not None:
        found += [
            Right(operator, "list", "nodecaches", "llmaz.io"),
            Right(operator, "list", "endpointslices", "discovery.k8s.io", agents),
            Right(agent, "list", "p2ptasks", "llmaz.io"),
            Right(agent, "patch", "nodecaches/status", "llmaz.io"),
            Right(agent, "patch", "nodes"),
            Right(agent, "update", "leases", "coordination.k8s.io", agents),
            Right(agent, "get", "configmaps", "", namespace),
        ]
    mine = [Right("you", "list", plural, "llmaz.io") for plural in ("p2ptasks", "nodecaches", "openmodels")]
    mine += [Right("you", "list", "playgrounds", "inference.llmaz.io"), Right("you", "patch", "p2ptasks", "llmaz.io")]
    return (*found, *mine)


async def _rights(cluster: Cluster, installation: Installation, *, with_agents: bool) -> tuple[Right, ...]:
    wanted = _rights_of(installation, with_agents=with_agents)
    return tuple(await asyncio.gather(*(_review(cluster, right) for right in wanted)))


async def _review(cluster: Cluster, right: Right) -> Right:
    resource, _, subresource = right.resource.partition("/")
    attributes: JsonObject = {
        "verb": right.verb,
        "resource": resource,
        "subresource": subresource,
        "group": right.group,
        "namespace": right.namespace,
        "name": right.name,
    }
    mine = right.who == "you"
    spec: JsonObject = {"resourceAttributes": attributes}
    if not mine:
        namespace, _, _ = right.who.partition(":")
        groups: list[str] = ["system:serviceaccounts", f"system:serviceaccounts:{namespace}", "system:authenticated"]
        spec = {**spec, "user": f"system:serviceaccount:{right.who}", "groups": [*groups]}
    kind = "SelfSubjectAccessReview" if mine else "SubjectAccessReview"
    try:
        answer = await cluster.kube.review({"apiVersion": "authorization.k8s.io/v1", "kind": kind, "spec": spec})
    except KubeError:
        return right
    status = answer.get("status")
    allowed = isinstance(status, dict) and status.get("allowed") is True
    return Right(right.who, right.verb, right.resource, right.group, right.namespace, right.name, allowed)


def _named(objects: list[JsonObject] | None, name: str) -> JsonObject | None:
    return next((each for each in objects or () if key_of(each).name == name), None)


def _runs(pod: JsonObject) -> bool:
    status = pod.get("status")
    return isinstance(status, dict) and status.get("phase") == "Running"


def _spec(pod: JsonObject) -> JsonObject:
    found = pod.get("spec")
    return found if isinstance(found, dict) else {}
