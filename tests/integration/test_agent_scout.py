"""The informer and the scout on a real API server: selectors, gaps, kinds that come later, labels that change."""

import asyncio
import itertools
import json
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest
import yaml

from dev.controlplane import ControlPlane
from modelswarm.agent.basemodel import model_hash
from modelswarm.agent.scout import Scout
from modelswarm.api.meta import JsonObject
from modelswarm.kube.auth import load_configuration, open_client
from modelswarm.kube.client import KubeClient
from modelswarm.kube.informer import Informer, wait_synced
from modelswarm.kube.key import Key
from modelswarm.kube.kinds import CONFIGMAP, NODE, P2PTASK, POD, Kind
from modelswarm.kube.objects import metadata
from tests.integration.support import Manifest
from tests.integration.support.ome import OME_CRDS, base_model
from tests.integration.support.played import make_namespace

ROOT = Path(__file__).parents[2]
CONTENT = "sha256:" + "ab" * 32
COMMIT = "7ae557604adf67be50417f59c2c2f167def9a775"

numbers = itertools.count()


@pytest.fixture(scope="module")
def api_server() -> Iterator[ControlPlane]:
    with ControlPlane(controllers=False, scheduler=False) as cluster:
        cluster.apply(ROOT / "crds")
        yield cluster


@pytest.fixture
async def kube(api_server: ControlPlane) -> AsyncIterator[KubeClient]:
    async with open_client(await load_configuration(api_server.kubeconfig)) as api_client:
        yield KubeClient(api_client)


@pytest.fixture
def name() -> str:
    return f"thing-{next(numbers)}"


async def until(holds: Callable[[], object], seconds: float = 60.0) -> None:
    async with asyncio.timeout(seconds):
        while not holds():  # noqa: ASYNC110 - what is waited for is another process
            await asyncio.sleep(0.02)


@asynccontextmanager
async def running(part: Informer | Scout) -> AsyncIterator[None]:
    task = asyncio.create_task(part.run())
    try:
        yield
    finally:
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)


class Told:
    def __init__(self) -> None:
        self.news: list[str] = []

    def __call__(self, key: Key, before: JsonObject | None, after: JsonObject | None) -> None:
        self.news.append(f"{'+' if before is None else '-' if after is None else '~'}{key.name}")


def config_map(name: str, label: str = "x", value: str = "1") -> JsonObject:
    return {
        "apiVersion": "v1",
        "kind": "ConfigMap",
        "metadata": {"name": name, "namespace": "default", "labels": {"of": label}},
        "data": {"value": value},
    }


# The informer


@pytest.fixture
def told() -> Told:
    return Told()


def informer(kube: KubeClient, kind: Kind, told: Told, **options: Any) -> Informer:
    return Informer(kube, kind, on_change=told, absent_pause=0.3, **options)


async def test_a_label_selector_is_the_servers(kube: KubeClient, name: str, told: Told) -> None:
    await kube.create(config_map(f"{name}-a", name))
    await kube.create(config_map(f"{name}-other", "other"))
    part = informer(kube, CONFIGMAP, told, namespace="default", label_selector=f"of={name}")
    async with running(part):
        assert await wait_synced(part, seconds=20)
        await kube.create(config_map(f"{name}-b", name))
        await kube.apply(config_map(f"{name}-b", name, "2"))
        # What no longer matches is gone, for whoever selects by it.
        await kube.apply(config_map(f"{name}-a", "moved"))
        await until(lambda: len(told.news) == 4)
    assert told.news == [f"+{name}-a", f"+{name}-b", f"~{name}-b", f"-{name}-a"]
    assert "managedFields" not in metadata(part.objects[Key("default", f"{name}-b")])


async def test_only_the_metadata_of_this_nodes_pods(
    api_server: ControlPlane, kube: KubeClient, name: str, told: Told
) -> None:
    pods = {where: pod(f"{name}-{where}", where) for where in (f"{name}-here", f"{name}-there")}
    for each in pods.values():
        await kube.create(each)
    part = informer(
        kube, POD, told, field_selector=f"spec.nodeName={name}-here,status.phase!=Succeeded", metadata_only=True
    )
    async with running(part):
        assert await wait_synced(part, seconds=20)
        [found] = part.objects.values()
        assert (found["kind"], metadata(found)["name"]) == ("Pod", f"{name}-{name}-here")
        assert "spec" not in found
        assert metadata(found)["annotations"] == {"modelswarm.io/contents": CONTENT}
        finished = json.dumps({"status": {"phase": "Succeeded"}})
        api_server.kubectl(
            "patch", "pod", f"{name}-{name}-here", "--subresource=status", "--type=merge", "-p", finished
        )
        await until(lambda: not part.objects)


async def test_more_than_a_page_and_objects_that_are_large(kube: KubeClient, name: str, told: Told) -> None:
    large = "x" * 900_000
    await asyncio.gather(*(kube.create(config_map(f"{name}-{index}", name)) for index in range(600)))
    part = informer(kube, CONFIGMAP, told, namespace="default", label_selector=f"of={name}")
    async with running(part):
        assert await wait_synced(part, seconds=60)
        assert len(part.objects) == 600
        await kube.create(config_map(f"{name}-large", name, large))
        await until(lambda: Key("default", f"{name}-large") in part.objects)
    assert part.objects[Key("default", f"{name}-large")]["data"] == {"value": large}


async def test_a_deletion_while_the_server_was_away_is_noticed(api_server: ControlPlane, name: str) -> None:
    """Killed and started again: the watch breaks, and what happened meanwhile is seen all the same."""
    told = Told()
    async with open_client(await load_configuration(api_server.kubeconfig)) as first:
        kube = KubeClient(first, timeout=5)
        for each in ("stays", "goes"):
            await kube.create(config_map(f"{name}-{each}", name))
        part = informer(kube, CONFIGMAP, told, namespace="default", label_selector=f"of={name}")
        async with running(part):
            assert await wait_synced(part, seconds=20)
            await asyncio.to_thread(api_server.restart_apiserver)
            await asyncio.to_thread(api_server.kubectl, "delete", "configmap", f"{name}-goes")
            await until(lambda: f"-{name}-goes" in told.news, 60)
    assert {key.name for key in part.objects} == {f"{name}-stays"}


async def test_a_version_that_is_too_old_is_a_new_list(kube: KubeClient, name: str, told: Told) -> None:
    await kube.create(config_map(name, name))
    part = informer(kube, CONFIGMAP, told, namespace="default", label_selector=f"of={name}")
    part._version = "1"  # as if we had slept for a day: etcd is compacted, and the server says 410
    async with running(part):
        await until(lambda: told.news == [f"+{name}"], 60)


async def test_a_kind_that_is_installed_later_and_removed_again(
    api_server: ControlPlane, kube: KubeClient, told: Told
) -> None:
    kind = Kind("later.example.com", "v1", "Thing", "things", False)
    part = informer(kube, kind, told)
    crd = {
        "apiVersion": "apiextensions.k8s.io/v1",
        "kind": "CustomResourceDefinition",
        "metadata": {"name": "things.later.example.com"},
        "spec": {
            "group": "later.example.com",
            "scope": "Cluster",
            "names": {"kind": "Thing", "plural": "things"},
            "versions": [
                {"name": "v1", "served": True, "storage": True, "schema": {"openAPIV3Schema": {"type": "object"}}}
            ],
        },
    }
    async with running(part):
        assert await wait_synced(part, seconds=20)
        assert part.exists is False
        await asyncio.to_thread(api_server.apply, json.dumps(crd))
        thing = json.dumps({"apiVersion": "later.example.com/v1", "kind": "Thing", "metadata": {"name": "a"}})
        await asyncio.to_thread(api_server.apply, thing)
        await until(lambda: told.news == ["+a"])
        await asyncio.to_thread(api_server.kubectl, "delete", "crd", "things.later.example.com")
        await until(lambda: part.exists is False)
        assert told.news == ["+a", "-a"]


# The scout


def pod(name: str, node: str, contents: str = CONTENT) -> JsonObject:
    return {
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": {"name": name, "namespace": "default", "annotations": {"modelswarm.io/contents": contents}},
        "spec": {"nodeName": node, "containers": [{"name": "c", "image": "i"}]},
    }


def node(name: str, **labels: str) -> JsonObject:
    return {"apiVersion": "v1", "kind": "Node", "metadata": {"name": name, "labels": dict(labels)}}


def content_of(text: str) -> str:
    return f"sha256:{model_hash(text)}"


async def make_task(
    kube: KubeClient, name: str, *, content: str = CONTENT, engine: str = "BitTorrent", nodes: tuple[str, ...] = ()
) -> None:
    task: Manifest = {
        "apiVersion": "llmaz.io/v1alpha1",
        "kind": "P2PTask",
        "metadata": {"name": name, "namespace": "default"},
        "spec": {"model": {"source": {"modelHub": {"modelID": "org/model"}}}},
    }
    await kube.create(task)
    resolved = {"revision": COMMIT, "digest": content, "digestSource": "Hub", "files": 1, "bytes": 7}
    status = {"phase": "Running", "engine": engine, "resolved": resolved, "nodes": list(nodes)}
    await kube.apply_status({**task, "status": status})


@asynccontextmanager
async def scouting(kube: KubeClient, node: str, **options: Any) -> AsyncIterator[Scout]:
    scout = Scout(
        kube, node=node, namespace="ome", root=Path("/mnt/models"), settle_seconds=0.02, absent_seconds=0.3, **options
    )
    async with running(scout):
        async with asyncio.timeout(20):
            await scout.synced.wait()
        yield scout


async def test_tasks_of_this_engine_that_name_this_node(kube: KubeClient, name: str) -> None:
    contents = [content_of(f"{name}-{letter}") for letter in "abcd"]
    await kube.create(node(name))
    await make_task(kube, f"{name}-a", content=contents[0], nodes=(name, "other"))
    await make_task(kube, f"{name}-b", content=contents[1], nodes=("other",))
    await make_task(kube, f"{name}-c", content=contents[2], nodes=(name,), engine="Dragonfly")
    async with scouting(kube, name) as scout:
        assert set(scout.needs.wanted) == {contents[0]}
        await make_task(kube, f"{name}-d", content=contents[3], nodes=(name,))
        await until(lambda: contents[3] in scout.needs.wanted)
        change = [{"op": "add", "path": "/spec/suspend", "value": True}]
        await kube.json_patch(P2PTASK, f"{name}-d", "default", change)  # type: ignore[arg-type]
        await until(lambda: scout.needs.wanted[contents[3]].suspended)
        await kube.delete(P2PTASK, f"{name}-d", "default")
        await until(lambda: contents[3] not in scout.needs.wanted)


async def test_a_pod_that_lands_here_brings_its_content(kube: KubeClient, name: str) -> None:
    content = content_of(name)
    await kube.create(node(name))
    await make_task(kube, name, content=content, nodes=("elsewhere",))
    async with scouting(kube, name) as scout:
        assert not scout.needs.wanted
        await kube.create(pod(name, name, f"{content}, {CONTENT}"))
        await until(lambda: scout.needs.wanted)
        assert scout.needs.wanted[content].pods == {f"default/{name}"}
        assert scout.needs.in_use == {content, CONTENT}
        await kube.delete(POD, name, "default")
        await kube.json_patch(POD, name, "default", [{"op": "remove", "path": "/metadata/annotations"}])
        await until(lambda: not scout.needs.wanted)


async def test_omes_models_appear_with_their_kinds_and_follow_the_nodes_labels(
    api_server: ControlPlane, kube: KubeClient, name: str
) -> None:
    await kube.create(node(name, gpu="a100"))
    key = f"model:{model_hash('org/ome@main')}"
    async with scouting(kube, name) as scout:
        assert not scout.needs.wanted
        await asyncio.to_thread(api_server.apply, OME_CRDS)
        affinity = {"requiredDuringSchedulingIgnoredDuringExecution": {"nodeSelectorTerms": [GPU]}}
        models = [
            base_model("cluster-wide", "hf://org/ome", path="/mnt/models/ome", nodeAffinity=affinity),
            base_model("unknown", "s3://bucket/x"),
        ]
        await asyncio.to_thread(api_server.apply, yaml.safe_dump_all(models))
        await until(lambda: key in scout.needs.wanted)
        assert scout.needs.wanted[key].paths == (Path("/mnt/models/ome"),)
        await until(lambda: scout.needs.noted)
        assert [each.reason for each in scout.needs.noted] == ["UnsupportedStorage"]

        await asyncio.to_thread(api_server.kubectl, "label", "node", name, "gpu=t4", "--overwrite")
        await until(lambda: key not in scout.needs.wanted)
        await asyncio.to_thread(api_server.kubectl, "label", "node", name, "gpu=a100", "--overwrite")
        await until(lambda: key in scout.needs.wanted)
        await asyncio.to_thread(api_server.kubectl, "delete", "clusterbasemodels", "--all")
        await until(lambda: not scout.needs.wanted and not scout.needs.noted)


async def test_a_node_that_is_cordoned_or_tainted_later_takes_no_pods(
    api_server: ControlPlane, kube: KubeClient, name: str
) -> None:
    def kubectl(*command: str) -> str:
        return api_server.kubectl(*command)

    async def closed_by(expected: str | None) -> None:
        await until(lambda: scout.node is not None and scout.node.closed_by == expected)

    await kube.create(node(name))
    await asyncio.to_thread(make_namespace, api_server)
    agent: dict[str, Any] = pod(f"{name}-agent", name)
    agent["metadata"]["namespace"] = "ome"
    agent["spec"]["tolerations"] = [{"key": "nvidia.com/gpu", "operator": "Exists", "effect": "NoSchedule"}]
    await kube.create(agent)
    await asyncio.to_thread(kubectl, "taint", "node", name, "nvidia.com/gpu=present:NoSchedule")
    async with scouting(kube, name, pod=f"{name}-agent") as scout:
        await closed_by(None)
        for close, reopen, taint in (
            (("cordon", name), ("uncordon", name), "node.kubernetes.io/unschedulable"),
            (("taint", "node", name, "mend=now:NoExecute"), ("taint", "node", name, "mend-"), "mend"),
        ):
            await asyncio.to_thread(kubectl, *close)
            await closed_by(taint)
            await asyncio.to_thread(kubectl, *reopen)
            await closed_by(None)


async def test_an_agent_that_is_no_pod_of_the_cluster_goes_by_the_known_taints(
    api_server: ControlPlane, kube: KubeClient, name: str
) -> None:
    await kube.create(node(name))
    await asyncio.to_thread(api_server.kubectl, "taint", "node", name, "mend=now:NoSchedule")
    async with scouting(kube, name, pod="nobody") as scout:
        assert scout.node is not None
        assert scout.node.closed_by is None
        await asyncio.to_thread(api_server.kubectl, "cordon", name)
        await until(lambda: scout.node is not None and scout.node.closed_by is not None)


GPU = {"matchExpressions": [{"key": "gpu", "operator": "In", "values": ["a100"]}]}


async def test_a_node_that_does_not_exist_is_waited_for(
    kube: KubeClient, name: str, caplog: pytest.LogCaptureFixture
) -> None:
    scout = Scout(kube, node=name, namespace="ome", root=Path("/mnt/models"), settle_seconds=0.02)
    async with running(scout):
        await until(lambda: f"there is no Node {name}" in caplog.text)
        assert not scout.synced.is_set()
        await kube.create(node(name, a="1"))
        await until(scout.synced.is_set)
        assert scout.node is not None
        assert scout.node.labels["a"] == "1"
        assert scout.node.uid


async def test_listeners_hear_of_changes_and_of_nothing_else(kube: KubeClient, name: str) -> None:
    await kube.create(node(name))
    heard: list[int] = []
    async with scouting(kube, name, on_change=lambda needs, node: heard.append(len(needs.wanted))) as scout:
        for each in range(5):
            heartbeat = [{"op": "add", "path": "/metadata/annotations", "value": {"beat": str(each)}}]
            await kube.json_patch(NODE, name, None, heartbeat)  # type: ignore[arg-type]
        content = content_of(name)
        await make_task(kube, name, content=content, nodes=(name,))
        await until(lambda: content in scout.needs.wanted)
    assert heard == [0, 1]
