"""config/p2p on a real API server: the two files in their order, and what an agent may do under them."""

import asyncio
import itertools
import json
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

from dev.controlplane import ControlPlane
from modelswarm.agent.settings import AgentSettings
from modelswarm.api.meta import JsonObject
from modelswarm.api.nodecache import NodeCache
from modelswarm.api.schema import crd_text
from modelswarm.errors import Forbidden, Invalid, KubeError
from modelswarm.kube.auth import load_configuration, open_client
from modelswarm.kube.client import KubeClient
from modelswarm.kube.events import EventRecorder
from modelswarm.kube.kinds import EVENT, NODE, NODECACHE
from modelswarm.kube.objects import metadata
from tests.integration.support import Manifest, eventually
from tests.integration.support.agents import AGENT, DAEMONSET, SERVICE, USER, agent_kubeconfig, install_agents
from tests.integration.support.ome import OME_CRDS, base_model

ROOT = Path(__file__).parents[2]
HERE, THERE = "gpu-1", "gpu-2"

numbers = itertools.count()


def documents(path: Path) -> list[Manifest]:
    return list(yaml.safe_load_all(path.read_text()))


# The files


def test_the_crd_in_the_file_is_the_generated_one() -> None:
    assert crd_text(NodeCache) in DAEMONSET.read_text()


def test_the_ports_are_the_seeds() -> None:
    [service] = [each for each in documents(SERVICE) if each["kind"] == "Service"]
    [daemonset] = [each for each in documents(DAEMONSET) if each["kind"] == "DaemonSet"]
    assert service["metadata"]["name"] == "ome-peers"
    assert {port["name"]: port["port"] for port in service["spec"]["ports"]} == {"torrent": 6881, "metainfo": 8081}
    [container] = daemonset["spec"]["template"]["spec"]["containers"]
    ports = {port["name"]: port["containerPort"] for port in container["ports"]}
    assert ports == {"http": 8080, "torrent": 6881, "metainfo": 8081}
    assert service["spec"]["selector"].items() <= daemonset["spec"]["template"]["metadata"]["labels"].items()


def test_the_variables_in_the_file_can_be_read() -> None:
    [daemonset] = [each for each in documents(DAEMONSET) if each["kind"] == "DaemonSet"]
    [container] = daemonset["spec"]["template"]["spec"]["containers"]
    environ = {env["name"]: env["value"] for env in container["env"] if "value" in env}
    fields = {env["name"] for env in container["env"] if "valueFrom" in env}
    assert fields == {"NODE_NAME", "POD_NAME", "POD_NAMESPACE", "POD_IP"}
    settings = AgentSettings.load([], {**environ, "NODE_NAME": HERE})
    assert settings == AgentSettings.load([], {"NODE_NAME": HERE}).model_copy(update={"peer_secret_optional": True})


@pytest.mark.parametrize("ome", ["before", "after", "never"])
def test_the_two_files_apply_in_order_on_an_empty_cluster(ome: str) -> None:
    """As the seed says, client-side; with OME's CRDs before, after, or not at all."""
    with ControlPlane(controllers=False, scheduler=False) as cluster:
        if ome == "before":
            cluster.apply(OME_CRDS)
        cluster.kubectl("apply", "-f", SERVICE)
        cluster.kubectl("apply", "-f", DAEMONSET)
        if ome == "after":
            cluster.apply(OME_CRDS)
        again = cluster.kubectl("apply", "-f", SERVICE) + cluster.kubectl("apply", "-f", DAEMONSET)
        assert {line.rpartition(" ")[2] for line in again.splitlines()} <= {"unchanged", "configured"}
        cluster.kubectl("get", "svc", "ome-peers", "-n", "ome")
        cluster.kubectl("get", "leases", "-n", "ome", "-l", "ome.io/type=model-download")
        cluster.kubectl("wait", "--for=condition=Established", "--timeout=20s", "crd/nodecaches.llmaz.io")
        cluster.wait_for_storage("nc")


# What an agent may do


@pytest.fixture(scope="module")
def cluster() -> Iterator[ControlPlane]:
    with ControlPlane(controllers=False, scheduler=False) as running:
        install_agents(running, HERE, THERE)
        yield running


@pytest.fixture
async def agent(cluster: ControlPlane) -> AsyncIterator[KubeClient]:
    """As the agent on the first node: with the token that the kubelet would give to its pod."""
    async with open_client(await load_configuration(agent_kubeconfig(cluster, HERE))) as client:
        yield KubeClient(client)


@pytest.fixture
async def admin(cluster: ControlPlane) -> AsyncIterator[KubeClient]:
    async with open_client(await load_configuration(cluster.kubeconfig)) as client:
        yield KubeClient(client)


def cache(name: str) -> JsonObject:
    return {"apiVersion": "llmaz.io/v1alpha1", "kind": "NodeCache", "metadata": {"name": name}}


def node(name: str, **labels: str) -> JsonObject:
    return {"apiVersion": "v1", "kind": "Node", "metadata": {"name": name, "labels": dict(labels)}}


def config_map(name: str, namespace: str = "ome") -> JsonObject:
    return {
        "apiVersion": "v1",
        "kind": "ConfigMap",
        "metadata": {"name": name, "namespace": namespace},
        "data": {"a": "b"},
    }


WARM = "content.modelswarm.io/0123456789abcdef"
OME = "models.ome.io/clusterbasemodel.m"


async def test_an_agent_writes_its_own_cache_labels_and_config_map(agent: KubeClient, admin: KubeClient) -> None:
    made = await agent.create(cache(HERE))
    meta = {"name": HERE, "uid": metadata(made)["uid"]}
    await agent.apply_status({**cache(HERE), "metadata": meta, "status": {"usedBytes": 7}})
    assert (await agent.get(NODECACHE, HERE))["status"] == {"usedBytes": 7}
    await agent.apply(config_map(HERE))
    uid = metadata(await agent.get(NODE, HERE))["uid"]
    for labels in ({WARM: "Ready", OME: "Updating"}, {OME: "Ready"}, {}):
        body = node(HERE, **labels)
        metadata(body)["uid"] = uid
        found = metadata(await agent.apply(body)).get("labels") or {}
        assert {name: value for name, value in found.items() if name in (WARM, OME)} == labels


def label(labels: dict[str, str], **more: Any) -> Callable[[KubeClient], Awaitable[object]]:
    body: JsonObject = {"apiVersion": "v1", "kind": "Node", "metadata": {"name": HERE, "labels": dict(labels)}, **more}
    return lambda kube: kube.apply(body)


def patch(name: str, *operations: JsonObject, subresource: str | None = None) -> Any:
    return lambda kube: kube.json_patch(NODE, name, None, operations, subresource=subresource)


SET_UNSCHEDULABLE: JsonObject = {"op": "add", "path": "/spec/unschedulable", "value": True}
ANNOTATE: JsonObject = {"op": "add", "path": "/metadata/annotations", "value": {"a": "b"}}
DROP_LABEL: JsonObject = {"op": "remove", "path": "/metadata/labels/kept"}
CHANGE_LABEL: JsonObject = {"op": "replace", "path": "/metadata/labels/kept", "value": "2"}


@pytest.mark.parametrize(
    ("attempt", "words"),
    [
        pytest.param(lambda kube: kube.create(cache(THERE)), "not gpu-2", id="another node's cache"),
        pytest.param(
            lambda kube: kube.apply_status({**cache(THERE), "status": {"usedBytes": 1}}),
            "not gpu-2",
            id="the status of another node's cache",
        ),
        pytest.param(
            lambda kube: kube.json_patch(
                NODECACHE, THERE, None, [{"op": "add", "path": "/metadata/labels", "value": {}}]
            ),
            "not gpu-2",
            id="the metadata of another node's cache",
        ),
        pytest.param(lambda kube: kube.apply(node(THERE, **{WARM: "Ready"})), "not gpu-2", id="another node's label"),
        pytest.param(lambda kube: kube.apply(config_map(THERE)), "not gpu-2", id="another node's ConfigMap"),
        pytest.param(label({"gpu": "a100"}), "may write only the labels", id="another label"),
        pytest.param(label({"content.modelswarm.iox/a": "1"}), "may write only the labels", id="a similar label"),
        pytest.param(patch(HERE, DROP_LABEL), "may write only the labels", id="a label of somebody else, removed"),
        pytest.param(patch(HERE, CHANGE_LABEL), "may write only the labels", id="a label of somebody else, changed"),
        pytest.param(patch(HERE, SET_UNSCHEDULABLE), "may change nothing of its Node but labels", id="the Node's spec"),
        pytest.param(patch(HERE, ANNOTATE), "may change nothing of its Node but labels", id="the Node's annotations"),
    ],
)
async def test_an_agent_writes_nothing_else(
    agent: KubeClient, admin: KubeClient, attempt: Callable[[KubeClient], Awaitable[object]], words: str
) -> None:
    await admin.apply(cache(THERE))
    await admin.apply(node(HERE, kept="1"))
    with pytest.raises((Forbidden, Invalid), match=words):
        await attempt(agent)


async def test_a_token_without_a_node_writes_nothing(cluster: ControlPlane) -> None:
    path = cluster.service_account_kubeconfig("ome", AGENT)
    async with open_client(await load_configuration(path)) as client:
        with pytest.raises(KubeError, match='the model agent of node ""'):
            await KubeClient(client).apply(cache(HERE))


async def test_others_are_not_bound_by_the_policy(admin: KubeClient) -> None:
    await admin.apply(cache("any-node"))
    await admin.apply(node("any-node", gpu="a100"))
    await admin.delete(NODECACHE, "any-node")


async def test_events_about_the_cache_are_written(agent: KubeClient, admin: KubeClient) -> None:
    cache_ = await admin.apply(cache(HERE))
    events = EventRecorder(agent)
    writer = asyncio.create_task(events.run())
    events.emit(cache_, "Normal", "ModelReady", "org/model is complete")
    assert await events.drain(60)
    writer.cancel()
    [found] = [each for each in await admin.list(EVENT, "default") if each.get("reason") == "ModelReady"]
    assert found["note"] == "org/model is complete"


RIGHTS = [
    *(("yes", (verb, kind, "-A")) for verb in ("list", "watch") for kind in ("pods", "nodes")),
    *(("yes", (verb, f"{kind}.ome.io", "-A")) for verb in ("list", "watch") for kind in ("basemodels",)),
    *(("yes", (verb, "p2ptasks.llmaz.io", "-A")) for verb in ("list", "watch")),
    *(("yes", (verb, "leases", "-n", "ome")) for verb in ("get", "create", "update", "delete")),
    ("yes", ("get", "secret/hf-token", "-n", "ome")),
    ("yes", ("get", "configmap/gpu-1", "-n", "ome")),
    ("no", ("list", "leases", "-n", "ome")),
    ("no", ("delete", "leases", "-n", "default")),
    ("no", ("get", "secret/another", "-n", "ome")),
    ("no", ("list", "secrets", "-n", "ome")),
    ("no", ("get", "secrets", "-A")),
    ("no", ("get", "secret/hf-token", "-n", "default")),
    ("no", ("get", "configmaps", "-n", "default")),
    ("no", ("list", "configmaps", "-n", "ome")),
    ("no", ("delete", "configmaps", "-n", "ome")),
    ("no", ("get", "leases", "-n", "default")),
    ("no", ("delete", "nodecaches.llmaz.io")),
    ("no", ("list", "nodecaches.llmaz.io")),
    ("no", ("update", "nodes")),
    ("no", ("patch", "nodes", "--subresource=status")),
    ("no", ("delete", "nodes")),
    ("no", ("patch", "p2ptasks.llmaz.io", "-A")),
    ("no", ("patch", "basemodels.ome.io", "-A")),
    ("no", ("create", "pods", "-A")),
]


def test_what_the_agent_may(cluster: ControlPlane) -> None:
    cluster.apply(ROOT / "crds")
    answers = {
        request: cluster.kubectl("auth", "can-i", *request, "--as", USER, check=False).strip() for _, request in RIGHTS
    }
    assert answers == {request: allowed for allowed, request in RIGHTS}


def test_the_operators_side_gives_it_the_lists_of_files_and_no_more(cluster: ControlPlane) -> None:
    cluster.apply(json.dumps({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": "llmaz-system"}}))
    cluster.apply(ROOT / "config" / "operator" / "rbac-for-agents.yaml")
    questions = {
        ("get", "configmap/any", "-n", "llmaz-system"): "yes",
        ("get", "secret/modelhub-secret", "-n", "llmaz-system"): "yes",
        ("get", "secret/dragonfly-token", "-n", "llmaz-system"): "no",
        ("list", "configmaps", "-n", "llmaz-system"): "no",
        ("patch", "configmap/any", "-n", "llmaz-system"): "no",
    }

    def look() -> bool:
        found = {each: cluster.kubectl("auth", "can-i", *each, "--as", USER, check=False).strip() for each in questions}
        assert found == questions
        return True

    # The API server learns of roles from its own watches.
    eventually(look)


def test_omes_models_are_read_with_these_rights(cluster: ControlPlane) -> None:
    cluster.apply(yaml.safe_dump(base_model(f"m{next(numbers)}", "hf://a/b")))
    assert "hf://a/b" in cluster.kubectl("get", "clusterbasemodels", "-o", "yaml", "--as", USER)
