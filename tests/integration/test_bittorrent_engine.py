"""Engine BitTorrent from the operator's side: agents are played by the test, which writes what they would report."""

from collections.abc import Iterator
from dataclasses import replace

import pytest

from dev.controlplane import ControlPlane
from dev.installation import NAMESPACE, OperatorProcess
from tests.integration.support import Manifest, Operators, Scene, eventually
from tests.integration.support.played import PlayedAgents, operator_with_agents

MODEL = "facebook/opt-125m"
RESTRICTED = "restricted-teams"
FLAGS = (
    "--agent-grace-seconds=20",
    "--stall-seconds=600",
    "--fallback-after-seconds=30",
    "--retry-seconds=2",
    f"--no-hostpath-namespaces={RESTRICTED}",
)
SECONDS = 60.0


@pytest.fixture(scope="module")
def operator(cluster: ControlPlane, operators: Operators) -> Iterator[OperatorProcess]:
    with operator_with_agents(cluster, operators, *FLAGS) as operator:
        yield operator


def task_of(scene: Scene, model: str) -> Manifest:
    """The model's task, once it is pinned."""

    def look() -> Manifest:
        tasks = [
            task
            for task in scene.api.all("P2PTask", NAMESPACE, labels=f"llmaz.io/model-name={model}")
            if "resolved" in task.get("status", {})
        ]
        assert len(tasks) == 1, tasks
        return tasks[0]

    return eventually(look, SECONDS)


def status(scene: Scene, task: Manifest) -> Manifest:
    found: Manifest = scene.api.get("P2PTask", task["metadata"]["name"], NAMESPACE)["status"]
    return found


def settled(scene: Scene, task: Manifest, **wanted: object) -> Manifest:
    def look() -> Manifest:
        now = status(scene, task)
        assert {key: now.get(key) for key in wanted} == wanted, now
        return now

    return eventually(look, SECONDS)


def test_a_model_goes_to_two_nodes_and_its_pods_use_the_nodes_copy(scene: Scene, agents: PlayedAgents) -> None:
    agents.add("n1", "n2", "n3")
    model = scene.model("m", MODEL)
    play = scene.playground("play", model)
    task = task_of(scene, model)
    now = settled(scene, task, engine="BitTorrent", phase="Running", desired=2, ready=0)
    digest, size = now["resolved"]["digest"], now["resolved"]["bytes"]
    assert len(now["nodes"]) == 2
    assert scene.find("Deployment", play) is None

    first, second = now["nodes"]
    agents.report(first, digest, state="Fetching", bytes=size, doneBytes=size, originBytes=size)
    agents.report(first, digest, state="Ready", bytes=size, doneBytes=size, originBytes=size)
    now = settled(scene, task, phase="Running", ready=1)
    assert now["display"]["ready"] == "1/2"
    template = scene.pod_template(play)
    assert template["metadata"]["annotations"]["modelswarm.io/contents"] == digest
    [volume] = [each for each in template["spec"]["volumes"] if each["name"] == "node-model"]
    assert volume["hostPath"]["path"] == f"/mnt/models/models/{digest.removeprefix('sha256:')}"

    agents.report(second, digest, state="Ready", bytes=size, doneBytes=size, peerBytes=size)
    now = settled(scene, task, phase="Succeeded", ready=2)
    assert (now["progress"]["originBytes"], now["progress"]["peerBytes"]) == (size, size)
    assert now["progress"]["percent"] == 100


def test_where_pods_may_not_mount_the_nodes_copy_they_read_the_origin(scene: Scene, agents: PlayedAgents) -> None:
    agents.add("n1")
    model = scene.model("m", MODEL)
    labels = {"pod-security.kubernetes.io/enforce": "restricted"}
    scene.api.apply({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": RESTRICTED, "labels": labels}})
    there = replace(scene, namespace=RESTRICTED)
    play = scene.name("play")
    for place in (scene, there):
        place.playground(play, model)
    task = task_of(scene, model)
    now = settled(scene, task, phase="Running", desired=1)
    agents.report("n1", now["resolved"]["digest"], state="Ready", bytes=now["resolved"]["bytes"])
    volumes = {place.namespace: place.pod_template(play)["spec"]["volumes"] for place in (scene, there)}
    mounted = {name: [each["name"] for each in found if "hostPath" in each] for name, found in volumes.items()}
    assert mounted == {scene.namespace: ["node-model"], RESTRICTED: []}
    there.delete("Playground", play)


def test_a_copy_waits_for_an_agent_that_is_away_and_is_made_elsewhere_when_it_stays_away(
    scene: Scene, agents: PlayedAgents
) -> None:
    agents.add("n1", "n2", "n3")
    task = task_of(scene, scene.model("m", MODEL))
    now = settled(scene, task, phase="Running", desired=2)
    digest, size = now["resolved"]["digest"], now["resolved"]["bytes"]
    before = now["nodes"]
    for name in before:
        agents.report(name, digest, state="Ready", bytes=size)
    settled(scene, task, phase="Succeeded", ready=2)
    [third] = {"n1", "n2", "n3"} - set(before)
    agents.ready(before[1], third)
    now = settled(scene, task, phase="Running", ready=1, desired=2)
    assert now["nodes"] == before
    [ready] = [each for each in now["conditions"] if each["type"] == "Ready"]
    assert (ready["status"], ready["message"].partition("; ")[2]) == ("True", f"waiting for the agent of {before[0]}")
    settled(scene, task, phase="Running", ready=1, desired=2, nodes=sorted([before[1], third]))
    agents.ready("n1", "n2", "n3")
    settled(scene, task, phase="Succeeded", ready=2, nodes=before)


def test_a_cordoned_node_gets_nothing_new_and_keeps_what_it_has(scene: Scene, agents: PlayedAgents) -> None:
    agents.add("n1", "n2", "n3")
    cordoned = "node.kubernetes.io/unschedulable"
    first = task_of(scene, scene.model("first", MODEL))
    now = settled(scene, first, phase="Running", desired=2)
    digest, size, before = now["resolved"]["digest"], now["resolved"]["bytes"], now["nodes"]
    agents.report(before[0], digest, state="Fetching", bytes=size, doneBytes=1)
    # The other one has not begun: its copy is made elsewhere, and comes back when pods may.
    [third] = {"n1", "n2", "n3"} - set(before)
    for name in before:
        agents.close(name, cordoned)
    settled(scene, first, phase="Running", desired=2, nodes=sorted([before[0], third]))
    agents.close(before[1], None)
    settled(scene, first, phase="Running", desired=2, nodes=before)
    for name in before:
        agents.report(name, digest, state="Ready", bytes=size)
    settled(scene, first, phase="Succeeded", desired=2, ready=2, nodes=before)


def test_where_every_node_is_cordoned_the_task_says_so_and_goes_on_when_one_is_opened(
    scene: Scene, agents: PlayedAgents
) -> None:
    agents.add("n1", "n2")
    for name in ("n1", "n2"):
        agents.close(name, "maintenance")
    task = task_of(scene, scene.model("m", MODEL))
    now = settled(scene, task, phase="FellBack")
    [degraded] = [each for each in now["conditions"] if each["type"] == "Degraded"]
    assert degraded["reason"] == "NoMatchingNode"
    assert "no node with a ready agent that matches takes pods: n1 (maintenance) and 1 more" in degraded["message"]
    agents.close("n2", None)
    settled(scene, task, desired=1, nodes=["n2"])


def test_nodes_that_cannot_go_on_are_named_with_their_reason(scene: Scene, agents: PlayedAgents) -> None:
    agents.add("n1", "n2")
    task = task_of(scene, scene.model("m", MODEL))
    digest = settled(scene, task, phase="Running", desired=2)["resolved"]["digest"]
    why = {"reason": "InsufficientCapacity", "message": "need 65.5Gi, free 40Gi"}
    agents.report("n1", digest, state="Failed", **why)
    now = settled(scene, task, failed=1)
    assert now["failures"] == [{"node": "n1", **why}]
    scene.cluster.kubectl(
        "wait", "--for=jsonpath={.status.failed}=1", "-n", NAMESPACE, f"p2ptask/{task['metadata']['name']}"
    )


def test_without_a_live_agent_the_task_falls_back_and_recovers_when_one_comes(
    scene: Scene, agents: PlayedAgents
) -> None:
    model = scene.model("m", MODEL)
    play = scene.playground("play", model)
    task = task_of(scene, model)
    now = settled(scene, task, phase="FellBack", engine="BitTorrent")
    conditions = {each["type"]: each for each in now["conditions"]}
    assert conditions["Ready"]["reason"] == "FellBackToOrigin"
    assert conditions["Degraded"]["reason"] == "NoAgent"
    scene.deployment(play)
    agents.add("n1")
    agents.report("n1", now["resolved"]["digest"], state="Ready", bytes=now["resolved"]["bytes"])
    settled(scene, task, phase="Succeeded", ready=1, desired=1)


def test_only_nodes_with_the_labels_of_the_placement_are_chosen(scene: Scene, agents: PlayedAgents) -> None:
    agents.add("cpu")
    agents.add("gpu", accelerator="h100")
    flavor = {"name": "h100", "limits": {"nvidia.com/gpu": "1"}, "nodeSelector": {"accelerator": "h100"}}
    task = task_of(scene, scene.model("m", MODEL, inferenceConfig={"flavors": [flavor]}))
    assert settled(scene, task, phase="Running", desired=1)["nodes"] == ["gpu"]


def test_an_image_is_left_to_the_kubelet(scene: Scene, agents: PlayedAgents) -> None:
    agents.add("n1")
    scene.playground("play", scene.model("m", MODEL))

    def engines() -> set[tuple[str, str]]:
        found = [task.get("status", {}) for task in scene.all("P2PTask") if "image" in task["spec"]]
        return {(each.get("engine", ""), each.get("phase", "")) for each in found}

    eventually(lambda: engines() == {("Direct", "Succeeded")}, SECONDS)
