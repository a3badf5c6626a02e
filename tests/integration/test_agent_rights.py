"""The rights in config/p2p are what an agent needs: nothing is refused, and nothing is given that it never uses."""

import asyncio
import json
from collections.abc import Iterator
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from typing import NamedTuple

import pytest
import yaml

from dev.audit import AuditEvent
from dev.controlplane import ControlPlane
from modelswarm.agent.provisions import Provisions
from modelswarm.agent.reporter import Reporter
from modelswarm.agent.scout import NodeView, Scout
from modelswarm.agent.standing import Capacity, Standing
from modelswarm.agent.wanted import Claim, Needs, SecretRef, Wanted
from modelswarm.api.meta import JsonObject
from modelswarm.api.nodecache import AgentStatus, ModelState
from modelswarm.api.openmodel import HubName
from modelswarm.content.source import HubSource
from modelswarm.kube.auth import load_configuration, open_client
from modelswarm.kube.client import KubeClient
from modelswarm.kube.events import EventRecorder
from modelswarm.kube.kinds import LEASE
from modelswarm.kube.objects import metadata
from tests.integration.support import eventually
from tests.integration.support.agents import DAEMONSET, USER, agent_kubeconfig, install_agents

ROOT = Path(__file__).parents[2]
NODE = "gpu-1"


class Right(NamedTuple):
    group: str
    resource: str
    verb: str
    name: str = ""


NEVER_SEEN = {
    Right("", "nodes", "get"): "asked when a label is refused, to see whether the Node is another one",
    Right("llmaz.io", "nodecaches", "patch"): "takes over the cache of an earlier Node of the same name",
    Right("", "configmaps", "create"): "a server-side apply of a new object: authorized as patch and as create",
    Right("", "secrets", "get", "modelhub-secret"): "as hf-token",
}
"""Rights that no request in the log shows, each with the reason why it is given all the same."""


@pytest.fixture(scope="module")
def used() -> Iterator[list[AuditEvent]]:
    """All requests of an agent that has met everything once."""
    with ControlPlane(controllers=False, scheduler=False, audit_log=True) as cluster:
        cluster.apply(ROOT / "crds")
        install_agents(cluster, NODE)
        secret = {"apiVersion": "v1", "kind": "Secret", "metadata": {"name": "hf-token", "namespace": "ome"}}
        cluster.apply(json.dumps({**secret, "stringData": {"token": "hf_secret"}}))
        probes = len(list(cluster.audit_events()))
        asyncio.run(_live_through(cluster, agent_kubeconfig(cluster, NODE)))

        def requests() -> list[AuditEvent]:
            return [event for event in list(cluster.audit_events())[probes:] if event.user == USER]

        # An entry may come after the answer; this is the last one.
        eventually(lambda: any((event.verb, event.resource) == ("delete", "leases") for event in requests()), 30)
        yield requests()


async def _live_through(cluster: ControlPlane, kubeconfig: Path) -> None:
    async with open_client(await load_configuration(kubeconfig)) as client:
        kube = KubeClient(client)
        events = EventRecorder(kube)
        seen: asyncio.Future[NodeView] = asyncio.get_running_loop().create_future()

        def heard(needs: Needs, node: NodeView) -> None:
            if not seen.done():
                seen.set_result(node)

        scout = Scout(kube, node=NODE, namespace="ome", root=Path("/mnt/models"), on_change=heard)
        tasks = [asyncio.create_task(work) for work in (scout.run(), events.run())]
        node = await asyncio.wait_for(seen, 30)
        agent = AgentStatus(metainfo_url="http://10.0.0.1:8081", torrent_address="10.0.0.1:6881", version="1")
        reporter = Reporter(kube, events, namespace="ome", agent=agent)
        claim = Claim("ClusterBaseModel", "", "m", "u", secret=SecretRef("ome", "hf-token", "token"))
        for state in (ModelState.FETCHING, ModelState.READY):
            standing = Standing(f"sha256:{1:064x}", "org/model", state, claims=(claim,))
            reporter.update([standing], Capacity(), node)
            await _reported(reporter, cluster, "Ready" if state is ModelState.READY else "Updating")
        again = Reporter(kube, events, namespace="ome", agent=agent)
        again.update([], Capacity(), replace(node, labels={"models.ome.io/clusterbasemodel.m": "Ready"}))
        await _reported(again, cluster, "")
        source = HubSource(HubName.HUGGINGFACE, "org/model")
        wanted = Wanted("model:x", None, "h", "org/model", "main", source, (claim,))
        credentials = await Provisions(kube, namespace="ome").credentials(wanted)
        assert credentials is not None
        assert credentials.hub_token == "hf_secret"
        await _hold_a_lease(kube)
        assert await events.drain(60)
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)


async def _reported(reporter: Reporter, cluster: ControlPlane, label: str) -> None:
    """Until the Node has this label of the model, which is written last."""
    path = r"jsonpath={.metadata.labels.models\.ome\.io/clusterbasemodel\.m}"
    running = asyncio.create_task(reporter.run())
    try:
        async with asyncio.timeout(60):
            while True:
                if await asyncio.to_thread(cluster.kubectl, "get", "node", NODE, "-o", path) == label:
                    return
                await asyncio.sleep(0.05)
    finally:
        running.cancel()
        await asyncio.gather(running, return_exceptions=True)


async def _hold_a_lease(kube: KubeClient) -> None:
    """The requests that coordination makes, and custody when nobody wants the model any more."""
    now = datetime(2026, 1, 1, tzinfo=UTC).strftime("%Y-%m-%dT%H:%M:%S.000000Z")
    lease: JsonObject = {
        "apiVersion": "coordination.k8s.io/v1",
        "kind": "Lease",
        "metadata": {"name": "ome-model-0123456789abcdef", "namespace": "ome"},
        "spec": {"holderIdentity": NODE, "renewTime": now},
    }
    name = "ome-model-0123456789abcdef"
    await kube.create(lease)
    await kube.replace(await kube.get(LEASE, name, "ome"))
    held = metadata(await kube.get(LEASE, name, "ome"))
    await kube.delete(LEASE, name, "ome", uid=str(held["uid"]), resource_version=str(held["resourceVersion"]))


def _given() -> set[Right]:
    rights: set[Right] = set()
    for document in yaml.safe_load_all(DAEMONSET.read_text()):
        if document["kind"] not in ("Role", "ClusterRole"):
            continue
        for rule in document["rules"]:
            rights |= {
                Right(group, resource, verb, name)
                for group in rule["apiGroups"]
                for resource in rule["resources"]
                for verb in rule["verbs"]
                for name in rule.get("resourceNames", [""])
            }
    return rights


def _is_request_for(event: AuditEvent, right: Right) -> bool:
    same = (event.api_group, event.resource, event.verb) == right[:3]
    return same and right.name in ("", event.name)


def test_no_request_of_the_agent_is_refused(used: list[AuditEvent]) -> None:
    assert used
    assert [event for event in used if event.code in (401, 403)] == []


def test_every_right_is_used_or_has_a_reason(used: list[AuditEvent]) -> None:
    unused = {right for right in _given() if not any(_is_request_for(event, right) for event in used)}
    assert unused == NEVER_SEEN.keys()


def test_the_api_server_selects_for_the_agent(used: list[AuditEvent]) -> None:
    """Nobody asks for all pods, all Nodes or all tasks."""
    lists = {event.resource: event.uri for event in used if event.verb in ("list", "watch")}
    assert f"metadata.name%3D{NODE}" in lists["nodes"]
    assert f"spec.nodeName%3D{NODE}" in lists["pods"]
    assert "status.engine%3DBitTorrent" in lists["p2ptasks"]


def test_secrets_are_only_read_by_name(used: list[AuditEvent]) -> None:
    asked = {(event.verb, event.namespace, event.name) for event in used if event.resource == "secrets"}
    assert asked == {("get", "ome", "hf-token")}
