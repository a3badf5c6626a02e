"""The reporter on a real API server, with an agent's own rights: what is written, how often, and what survives."""

import asyncio
import itertools
import json
from collections.abc import AsyncIterator, Awaitable, Callable, Coroutine, Iterator
from contextlib import asynccontextmanager
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest

from dev.audit import AuditEvent
from dev.controlplane import ControlPlane
from modelswarm.agent.modelconfig import ModelConfigs
from modelswarm.agent.reporter import Reporter
from modelswarm.agent.scout import NodeView
from modelswarm.agent.standing import Capacity, Standing
from modelswarm.agent.wanted import Claim
from modelswarm.api.meta import JsonObject
from modelswarm.api.nodecache import MOST_MODELS, AgentStatus, ModelState
from modelswarm.errors import NotFound
from modelswarm.kube.auth import load_configuration, open_client
from modelswarm.kube.client import KubeClient
from modelswarm.kube.events import EventRecorder
from modelswarm.kube.kinds import CONFIGMAP, EVENT, NODE, NODECACHE
from modelswarm.kube.objects import metadata, version_of
from tests.integration.support.agents import add_node, agent_kubeconfig, install_agents

AGENT = AgentStatus(metainfo_url="http://10.0.3.7:8081", torrent_address="10.0.3.7:6881", version="0.1.0")
NOW = datetime(2026, 1, 1, tzinfo=UTC)
GIB = 1 << 30
CAPACITY = Capacity(total=100 * GIB, used=10 * GIB, free=90 * GIB)

numbers = itertools.count(1)


@pytest.fixture(scope="module")
def cluster() -> Iterator[ControlPlane]:
    with ControlPlane(controllers=False, scheduler=False, audit_log=True) as running:
        install_agents(running, "gpu-0")
        yield running


@pytest.fixture
async def admin(cluster: ControlPlane) -> AsyncIterator[KubeClient]:
    async with open_client(await load_configuration(cluster.kubeconfig)) as client:
        yield KubeClient(client)


class Scene:
    """A node of its own, and a reporter with its agent's rights."""

    def __init__(self, node: str, admin: KubeClient, kube: KubeClient, reporter: Reporter, view: NodeView) -> None:
        self.node = node
        self.admin = admin
        self.kube = kube
        self.reporter = reporter
        self.view = view

    def report(self, *standings: Standing, capacity: Capacity = CAPACITY) -> None:
        self.reporter.update(standings, capacity, self.view)

    async def cache(self) -> JsonObject:
        return await self.admin.get(NODECACHE, self.node)

    async def status(self) -> dict[str, Any]:
        found = (await self.cache()).get("status")
        return found if isinstance(found, dict) else {}

    async def labels(self) -> dict[str, str]:
        labels = metadata(await self.admin.get(NODE, self.node)).get("labels") or {}
        return {name: value for name, value in labels.items() if "modelswarm" in name or "ome.io" in name}

    async def entries(self) -> dict[str, Any]:
        data = (await self.admin.get(CONFIGMAP, self.node, "ome")).get("data") or {}
        assert isinstance(data, dict)
        return {key: json.loads(str(value)) for key, value in data.items()}

    async def eventually(self, look: Callable[[], Any], expected: object, seconds: float = 60.0) -> None:
        found: object = None
        try:
            async with asyncio.timeout(seconds):
                while True:
                    try:
                        found = await look()
                    except NotFound as error:
                        found = error
                    if found == expected:
                        return
                    await asyncio.sleep(0.02)
        except TimeoutError:
            assert found == expected

    async def states(self) -> dict[str, str]:
        return {model["content"]: model["state"] for model in (await self.status()).get("models", [])}


@asynccontextmanager
async def reporting(
    cluster: ControlPlane, admin: KubeClient, *, client: type[KubeClient] = KubeClient, **options: Any
) -> AsyncIterator[Scene]:
    node = f"gpu-{next(numbers)}"
    await asyncio.to_thread(add_node, cluster, node)
    kubeconfig = await asyncio.to_thread(agent_kubeconfig, cluster, node)
    uid = str(metadata(await admin.get(NODE, node))["uid"])
    async with open_client(await load_configuration(kubeconfig)) as session:
        kube = client(session)
        events = EventRecorder(kube)
        times = {"settle_seconds": 0.01, "progress_seconds": 1000.0, "ome_progress_seconds": 1000.0, **options}
        reporter = Reporter(kube, events, namespace="ome", agent=AGENT, now=lambda: NOW, **times)
        async with running(reporter.run(), events.run()):
            yield Scene(node, admin, kube, reporter, NodeView(node, uid, {"gpu": "a100"}))


@asynccontextmanager
async def running(*endless: Coroutine[Any, Any, None]) -> AsyncIterator[None]:
    tasks = [asyncio.create_task(each) for each in endless]
    try:
        yield
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)


def standing(number: int = 1, state: ModelState = ModelState.FETCHING, **fields: Any) -> Standing:
    return Standing(f"sha256:{number:064x}", "org/model", state, "c" * 40, bytes=GIB, **fields)


KEY = standing().key
LABEL = f"content.modelswarm.io/{'0' * 16}"
BASE_MODEL = Claim("ClusterBaseModel", "", "llama", "uid")


async def test_the_cache_belongs_to_the_node_and_says_what_is_there(cluster: ControlPlane, admin: KubeClient) -> None:
    async with reporting(cluster, admin) as scene:
        scene.report(standing(fetching_from="Peers", done_bytes=5, peer_bytes=5))
        await scene.eventually(scene.states, {KEY: "Fetching"})
        cache = await scene.cache()
        [owner] = metadata(cache)["ownerReferences"]
        assert (owner["kind"], owner["name"], owner["uid"]) == ("Node", scene.node, scene.view.uid)
        status = await scene.status()
        assert status["labels"] == {"gpu": "a100"}
        assert status["agent"] == AGENT.to_json()
        assert status["display"] == {"models": "0/1", "size": "10.0Gi", "free": "90.0Gi"}
        line = await asyncio.to_thread(cluster.kubectl, "get", "nc", scene.node, "--no-headers")
        assert line.split()[:4] == [scene.node, "0/1", "10.0Gi", "90.0Gi"]


async def test_a_node_that_takes_no_pods_says_so_at_once_and_no_longer_than_it_is_true(
    cluster: ControlPlane, admin: KubeClient
) -> None:
    async def closed() -> object:
        return (await scene.status()).get("closedBy", "open")

    async with reporting(cluster, admin) as scene:
        for taint, found in ((None, "open"), ("maintenance", "maintenance"), (None, "open")):
            scene.view = replace(scene.view, closed_by=taint)
            scene.report()
            await scene.eventually(closed, found)
            line = await asyncio.to_thread(cluster.kubectl, "get", "nc", scene.node, "--no-headers", "-o", "wide")
            assert ("maintenance" in line) is (taint is not None)


async def test_states_are_written_at_once_and_numbers_wait(cluster: ControlPlane, admin: KubeClient) -> None:
    async with reporting(cluster, admin) as scene:
        scene.report(standing(done_bytes=1))
        await scene.eventually(scene.states, {KEY: "Fetching"})
        before = version_of(await scene.cache())
        for done in range(2, 30):
            scene.report(standing(done_bytes=done))
            await asyncio.sleep(0.02)
        assert version_of(await scene.cache()) == before
        scene.report(standing(state=ModelState.READY, done_bytes=GIB, ready_time=NOW))
        await scene.eventually(scene.states, {KEY: "Ready"})
        assert (await scene.status())["models"][0]["doneBytes"] == GIB


async def test_numbers_are_written_after_a_while(cluster: ControlPlane, admin: KubeClient) -> None:
    async with reporting(cluster, admin, progress_seconds=0.2) as scene:
        for done in (1, 2):
            scene.report(standing(done_bytes=done))

            async def look() -> int:
                models = (await scene.status()).get("models") or [{}]
                return int(models[0].get("doneBytes", -1))

            await scene.eventually(look, done)


async def test_nothing_is_written_when_nothing_changes(cluster: ControlPlane, admin: KubeClient) -> None:
    async with reporting(cluster, admin, progress_seconds=0.05) as scene:
        ready = standing(state=ModelState.READY, claims=(BASE_MODEL,), ready_time=NOW)
        scene.report(ready)
        await scene.eventually(scene.labels, {LABEL: "Ready", "models.ome.io/clusterbasemodel.llama": "Ready"})
        await scene.eventually(lambda: _statuses(scene), {"clusterbasemodel.llama": "Ready"})
        node = metadata(await admin.get(NODE, scene.node))
        scene.view = replace(scene.view, labels=node["labels"])
        scene.report(ready)

        async def labels() -> object:
            return (await scene.status()).get("labels", {})

        await scene.eventually(labels, {})

        def requests() -> list[AuditEvent]:
            user = "system:serviceaccount:ome:ome-model-agent"
            return [event for event in cluster.audit_events() if event.user == user]

        seen = -1
        while seen != (now := len(requests())):  # an Event may be told, and a request be logged, later
            seen = now
            await asyncio.sleep(1)
        for _ in range(20):
            scene.report(ready)
            await asyncio.sleep(0.05)
        assert [event for event in requests()[seen:] if event.verb not in ("get", "list", "watch")] == []


async def _statuses(scene: Scene) -> dict[str, str]:
    return {key: entry["status"] for key, entry in (await scene.entries()).items()}


async def test_labels_come_and_go_and_others_stay(cluster: ControlPlane, admin: KubeClient) -> None:
    async with reporting(cluster, admin, label_limit=2) as scene:
        kubectl = cluster.kubectl
        await asyncio.to_thread(kubectl, "label", "node", scene.node, "user=label", "models.ome.io/by-hand=Ready")
        models = [
            replace(
                standing(number << 192, ModelState.READY, ready_time=datetime(2026, 1, number, tzinfo=UTC)),
                claims=(BASE_MODEL,) if number == 1 else (),
            )
            for number in (1, 2, 3)
        ]
        scene.report(*models)
        # The one that is wanted, and the latest of the others; not more than two.
        wanted = {f"content.modelswarm.io/{number:016x}": "Ready" for number in (1, 3)}
        ome = {"models.ome.io/clusterbasemodel.llama": "Ready"}
        by_hand = {"models.ome.io/by-hand": "Ready"}
        await scene.eventually(scene.labels, {**wanted, **ome, **by_hand})
        scene.report()
        await scene.eventually(scene.labels, by_hand)
        assert metadata(await admin.get(NODE, scene.node))["labels"]["user"] == "label"


async def test_labels_that_somebody_removes_come_back(cluster: ControlPlane, admin: KubeClient) -> None:
    async with reporting(cluster, admin) as scene:
        ready = standing(state=ModelState.READY)
        scene.report(ready)
        await scene.eventually(scene.labels, {LABEL: "Ready"})
        await asyncio.to_thread(cluster.kubectl, "label", "node", scene.node, f"{LABEL}-")
        await scene.eventually(scene.labels, {})
        for labels in ({"gpu": "a100", LABEL: "Ready"}, {"gpu": "a100"}):  # as the scout tells it
            scene.view = replace(scene.view, labels=labels)
            scene.report(ready)
        await scene.eventually(scene.labels, {LABEL: "Ready"})


async def test_omes_config_map_has_our_keys_and_keeps_those_of_others(cluster: ControlPlane, admin: KubeClient) -> None:
    namespaced = Claim("BaseModel", "team", "qwen", "uid")
    async with reporting(cluster, admin) as scene:
        other = {"other.basemodel.x": '{"status": "Ready"}'}
        await admin.create(
            {
                "apiVersion": "v1",
                "kind": "ConfigMap",
                "metadata": {"name": scene.node, "namespace": "ome"},
                "data": dict(other),
            }
        )
        await asyncio.to_thread(
            cluster.kubectl, "patch", "configmap", scene.node, "-n", "ome", "--type=merge", "-p", '{"data":{"z":"{}"}}'
        )
        scene.report(
            standing(1, ModelState.READY, claims=(BASE_MODEL,)),
            standing(2, ModelState.FETCHING, claims=(namespaced,), done_bytes=7),
        )
        ours = {"clusterbasemodel.llama": "Ready", "team.basemodel.qwen": "Updating"}

        async def look() -> dict[str, str]:
            return {key: str(entry.get("status")) for key, entry in (await scene.entries()).items()}

        await scene.eventually(look, {**ours, "other.basemodel.x": "Ready", "z": "None"})
        found = await admin.get(CONFIGMAP, scene.node, "ome")
        assert metadata(found)["labels"] == {"models.ome/basemodel-status": "true", "node": scene.node}
        assert (await scene.entries())["team.basemodel.qwen"]["progress"]["completedBytes"] == 7

        scene.report(standing(1, ModelState.READY, claims=(BASE_MODEL,)))
        await scene.eventually(look, {"clusterbasemodel.llama": "Ready", "other.basemodel.x": "Ready", "z": "None"})


async def test_no_config_map_without_models_of_ome(cluster: ControlPlane, admin: KubeClient) -> None:
    async with reporting(cluster, admin) as scene:
        scene.report(standing(state=ModelState.READY))
        await scene.eventually(scene.labels, {LABEL: "Ready"})
        await asyncio.sleep(0.2)
        with pytest.raises(NotFound):
            await admin.get(CONFIGMAP, scene.node, "ome")


async def test_entries_of_an_earlier_life_go(cluster: ControlPlane, admin: KubeClient) -> None:
    async with reporting(cluster, admin) as scene:
        scene.report(standing(state=ModelState.READY, claims=(BASE_MODEL,)))
        await scene.eventually(lambda: _statuses(scene), {"clusterbasemodel.llama": "Ready"})
        again = Reporter(scene.kube, scene.reporter._events, namespace="ome", agent=AGENT, settle_seconds=0.01)
        again.update([standing(state=ModelState.READY)], CAPACITY, scene.view)
        async with running(again.run()):
            await scene.eventually(scene.entries, {})
            await scene.eventually(scene.labels, {LABEL: "Ready"})


class Watched(KubeClient):
    """Has something happen before it writes."""

    before: Callable[[str], Awaitable[None]] | None = None
    """Called with the kind of what is written."""

    async def apply(self, obj: JsonObject, *, force: bool = True) -> JsonObject:
        await self._tell(obj)
        return await super().apply(obj, force=force)

    async def apply_status(self, obj: JsonObject) -> JsonObject:
        await self._tell(obj)
        return await super().apply_status(obj)

    async def _tell(self, obj: JsonObject) -> None:
        if self.before is not None:
            await self.before(str(obj["kind"]))


@pytest.mark.parametrize("when", ["NodeCache", "ConfigMap", "Node"])
async def test_what_becomes_true_between_two_writes_is_told_whole_by_the_next_ones(
    cluster: ControlPlane, admin: KubeClient, tmp_path: Path, when: str
) -> None:
    """Who sees the label finds OME's entry, with what the model's files say of it."""
    directory = tmp_path / KEY.removeprefix("sha256:")
    directory.mkdir()
    (directory / "config.json").write_text('{"model_type": "llama"}')
    labelled = []

    async def before(kind: str) -> None:
        if kind == "Node":
            labelled.append((await scene.entries())["clusterbasemodel.llama"])
        if kind == when:
            scene.report(standing(state=ModelState.READY, claims=(BASE_MODEL,)))

    async with reporting(cluster, admin, client=Watched, configs=ModelConfigs(tmp_path)) as scene:
        assert isinstance(scene.kube, Watched)
        scene.kube.before = before
        scene.report(standing(claims=(BASE_MODEL,)))
        ome = "models.ome.io/clusterbasemodel.llama"
        await scene.eventually(scene.labels, {LABEL: "Ready", ome: "Ready"})
        assert [entry["status"] for entry in labelled] == ["Updating", "Ready"]
        assert labelled[-1]["config"]["modelType"] == "llama"


async def test_who_reads_that_a_content_is_ready_finds_its_label(cluster: ControlPlane, admin: KubeClient) -> None:
    """The NodeCache opens a gate, and the pods behind it are placed by the label in the same moment."""
    written: list[tuple[str, dict[str, str]]] = []

    async def before(kind: str) -> None:
        written.append((kind, await scene.labels()))

    async with reporting(cluster, admin, client=Watched) as scene:
        assert isinstance(scene.kube, Watched)
        scene.report(standing())
        await scene.eventually(scene.states, {KEY: "Fetching"})
        scene.kube.before = before
        scene.report(standing(state=ModelState.READY))
        await scene.eventually(scene.states, {KEY: "Ready"})
        assert written == [("Node", {}), ("NodeCache", {LABEL: "Ready"})]


@pytest.mark.parametrize("during", ["Node", "NodeCache"])
async def test_a_label_that_goes_while_something_is_written_comes_back(
    cluster: ControlPlane, admin: KubeClient, during: str
) -> None:
    """During the first write of the labels, before it arrives; and during a status, after them."""
    ready = standing(state=ModelState.READY)
    striking: list[str] = []
    written: list[str] = []

    async def before(kind: str) -> None:
        written.append(kind)
        if kind in striking:
            striking.clear()
            await asyncio.to_thread(cluster.kubectl, "label", "node", scene.node, f"{LABEL}-")
            for labels in ({LABEL: "Ready"}, {}):  # as the scout tells it
                scene.view = replace(scene.view, labels=labels)
                scene.report(ready)

    async def labelled() -> tuple[int, dict[str, str]]:
        return min(written.count("Node"), 2), await scene.labels()

    async with reporting(cluster, admin, client=Watched) as scene:
        assert isinstance(scene.kube, Watched)
        scene.kube.before = before
        if during == "NodeCache":
            scene.report(ready)
            await scene.eventually(labelled, (1, {LABEL: "Ready"}))
            await scene.eventually(scene.states, {KEY: "Ready"})
            scene.view = replace(scene.view, labels={LABEL: "Ready"})
        striking.append(during)
        scene.report(ready, capacity=Capacity(total=200 * GIB, used=10 * GIB, free=190 * GIB))
        await scene.eventually(labelled, (2, {LABEL: "Ready"}))


async def test_events_tell_of_transitions(cluster: ControlPlane, admin: KubeClient) -> None:
    async with reporting(cluster, admin) as scene:

        async def reasons() -> list[str]:
            events = await admin.list(EVENT, "default")
            mine = [event for event in events if event["regarding"]["name"] == scene.node]  # type: ignore[index,call-overload]
            return sorted(str(event["reason"]) for event in mine)

        scene.report()
        await scene.eventually(scene.states, {})
        scene.report(standing())
        await scene.eventually(reasons, ["ModelFetching"])
        scene.report(standing(state=ModelState.FAILED, reason="InsufficientCapacity", message="need 2, free 1"))
        await scene.eventually(reasons, ["InsufficientCapacity", "ModelFetching"])
        scene.report(standing(state=ModelState.READY))
        await scene.eventually(reasons, ["InsufficientCapacity", "ModelFetching", "ModelReady"])


async def test_a_cache_that_was_deleted_comes_back(cluster: ControlPlane, admin: KubeClient) -> None:
    async with reporting(cluster, admin, resync_seconds=0.3) as scene:
        scene.report(standing())
        await scene.eventually(scene.states, {KEY: "Fetching"})
        first = metadata(await scene.cache())["uid"]
        await admin.delete(NODECACHE, scene.node)
        await scene.eventually(scene.states, {KEY: "Fetching"})
        assert metadata(await scene.cache())["uid"] != first


async def test_the_cache_of_an_earlier_node_of_this_name_is_taken_over(
    cluster: ControlPlane, admin: KubeClient
) -> None:
    async with reporting(cluster, admin) as scene:
        scene.report(standing())
        await scene.eventually(scene.states, {KEY: "Fetching"})
        await admin.delete(NODE, scene.node)
        await asyncio.to_thread(add_node, cluster, scene.node)
        uid = str(metadata(await admin.get(NODE, scene.node))["uid"])
        again = Reporter(scene.kube, scene.reporter._events, namespace="ome", agent=AGENT)
        again.update([standing(state=ModelState.READY)], CAPACITY, replace(scene.view, uid=uid))
        async with running(again.run()):
            await scene.eventually(scene.states, {KEY: "Ready"})
        assert uid in {owner["uid"] for owner in metadata(await scene.cache())["ownerReferences"]}


async def test_what_can_be_written_is_written(cluster: ControlPlane, admin: KubeClient) -> None:
    """Here the status is refused; the labels, which pods wait for, are not held back by it."""
    async with reporting(cluster, admin) as scene:
        bad = replace(standing(state=ModelState.READY), fetching_from="Moon", key=f"sha256:{0:064X}z")  # type: ignore[arg-type]
        scene.report(standing(state=ModelState.READY, claims=(BASE_MODEL,)), bad)
        await scene.eventually(scene.labels, {LABEL: "Ready", "models.ome.io/clusterbasemodel.llama": "Ready"})
        assert await _statuses(scene) == {"clusterbasemodel.llama": "Ready"}
        assert await scene.status() == {}


async def test_a_status_that_somebody_changed_is_put_right(cluster: ControlPlane, admin: KubeClient) -> None:
    async with reporting(cluster, admin, resync_seconds=0.3) as scene:
        scene.report(standing())
        await scene.eventually(scene.states, {KEY: "Fetching"})
        await admin.apply_status({**await scene.cache(), "status": {"usedBytes": 1}})
        await scene.eventually(scene.states, {KEY: "Fetching"})


async def test_a_thousand_models_with_everything_at_its_longest_fit(cluster: ControlPlane, admin: KubeClient) -> None:
    longest = [
        Standing(
            f"sha256:{number:064x}",
            "n" * 300,
            ModelState.WAITING,
            "r" * 200,
            claims=(Claim("P2PTask", "ns", "t", "u"),),
            bytes=1 << 62,
            done_bytes=1 << 62,
            origin_bytes=1 << 62,
            peer_bytes=1 << 62,
            bytes_per_second=1 << 62,
            reason="R" * 100,
            message="m" * 400,
            ready_time=NOW,
        )
        for number in range(MOST_MODELS + 100)
    ]
    async with reporting(cluster, admin, progress_seconds=0.1) as scene:
        scene.report(*longest)

        async def count() -> int:
            return len((await scene.status()).get("models", []))

        await scene.eventually(count, MOST_MODELS, 120)
        failed = [replace(each, state=ModelState.FAILED) for each in longest]
        scene.report(*failed)

        async def failures() -> int:
            return list((await scene.states()).values()).count("Failed")

        await scene.eventually(failures, MOST_MODELS, 120)
