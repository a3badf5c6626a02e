"""Several models, several tasks, and nodes that come and go: who holds what, and what travels for it."""

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from dev.hub import Kind, Slow
from dev.installation import NAMESPACE, ROOT
from modelswarm.content.manifest import from_binary_data, shard_name
from tests.integration.support import Manifest, eventually, throughout
from tests.integration.support.fleet import MIB, SOAK, Swarm, Swarms, noise, soak, still

LARGE = 4096 * MIB if SOAK else 96 * MIB
MANY = 50


@pytest.fixture(scope="module")
def four(swarms: Swarms) -> Iterator[Swarm]:
    with swarms(4) as swarm:
        yield swarm


@pytest.fixture
def swarm(four: Swarm) -> Iterator[Swarm]:
    yield four
    four.clean()


# Models that have something in common


def test_what_two_models_share_travels_once(swarm: Swarm) -> None:
    """Also when both are on their way at the same time."""
    shared = {f"shared-{number}.safetensors": noise(("shared", swarm.name, number), 6 * MIB) for number in range(3)}
    lfs = {".gitattributes": b"*.safetensors filter=lfs diff=lfs merge=lfs -text\n"}
    first = swarm.publish({**shared, **lfs, "own.safetensors": noise("first", 2 * MIB)})
    second = swarm.publish({**shared, **lfs, "deep/own.safetensors": noise("second", 3 * MIB)})
    swarm.hub.fail("swarm/*", Slow(bytes_per_second=MIB), on=Kind.CDN)
    tasks = [swarm.distribute(first), swarm.distribute(second)]
    for model, task in zip([first, second], tasks, strict=True):
        swarm.is_right(model, swarm.succeeded(task)["resolved"]["digest"], swarm.nodes)
    once = swarm.size(first) + 3 * MIB
    # A node that has begun a file for one model is waited for by the other; two nodes may begin at the same moment.
    assert swarm.sent(first) + swarm.sent(second) <= 1.5 * once


def test_one_model_for_two_tasks(swarm: Swarm) -> None:
    model = swarm.publish()
    one, other = swarm.distribute(model, f"{swarm.name}-one"), swarm.distribute(model, f"{swarm.name}-other")
    content = swarm.succeeded(one)["resolved"]["digest"]
    assert swarm.succeeded(other)["resolved"]["digest"] == content
    swarm.is_right(model, content, swarm.nodes)
    assert swarm.sent(model) == swarm.size(model)
    swarm.delete(one)
    throughout(lambda: all(swarm.is_complete(node, content) for node in swarm.nodes))
    swarm.succeeded(other)


def test_deleted_and_made_again_nothing_is_fetched(swarm: Swarm) -> None:
    model = swarm.publish()
    task = swarm.distribute(model)
    swarm.succeeded(task)
    swarm.hub.counters.reset()
    swarm.delete(task)
    # Nobody wants the model any more, so nobody needs a coordinator for it.
    eventually(lambda: not swarm.lease(model), 10)
    task = swarm.distribute(model)
    swarm.is_right(model, swarm.succeeded(task)["resolved"]["digest"], swarm.nodes)
    assert swarm.sent(model) == 0


def test_deleted_on_the_way_no_byte_moves_any_more(swarm: Swarm) -> None:
    model = swarm.publish()
    # Everything is in flight at once: slow enough that a busy machine has the time to stop it.
    swarm.hub.fail(f"{model.id}/*", Slow(bytes_per_second=80 << 10), on=Kind.CDN)
    task = swarm.distribute(model)
    eventually(lambda: swarm.sent(model) > swarm.size(model) * 0.2, 60)
    content = swarm.digest(task)
    swarm.delete(task)
    eventually(lambda: swarm.hub.counters.active == 0, 10)
    assert still(lambda: swarm.sent(model), 1.0) < swarm.size(model)
    assert not any(swarm.is_complete(node, content) for node in swarm.nodes)
    # Wanted again, it goes on.
    swarm.hub.faults.clear()
    swarm.is_right(model, swarm.succeeded(swarm.distribute(model))["resolved"]["digest"], swarm.nodes)
    assert swarm.sent(model) <= 1.2 * swarm.size(model)


# Where it goes


def test_a_node_that_is_labelled_gets_it_and_one_that_is_not_any_more_does_not_count(swarm: Swarm) -> None:
    first, second, third, fourth = swarm.nodes
    model = swarm.publish()
    for node in (first, second):
        swarm.label(node, disk="fast")
    task = swarm.distribute(model, placement={"nodeSelector": {"fleet": swarm.name, "disk": "fast"}})
    content = swarm.succeeded(task, 2)["resolved"]["digest"]
    swarm.is_right(model, content, [first, second])
    assert not swarm.directory(third, content).exists()
    swarm.label(third, disk="fast")
    swarm.succeeded(task, 3)
    swarm.is_right(model, content, [third])
    swarm.label(first, disk=None)
    swarm.succeeded(task, 2)
    assert swarm.sent(model) == swarm.size(model)
    assert not swarm.directory(fourth, content).exists()
    for node in (second, third):
        swarm.label(node, disk=None)


def test_a_copy_on_a_dead_node_is_made_elsewhere_from_the_one_that_is_left(swarm: Swarm) -> None:
    model = swarm.publish()
    task = swarm.distribute(model, placement={"copies": 2})
    now = swarm.succeeded(task, 2)
    dead, left = now["nodes"]
    swarm.hub.counters.reset()
    swarm.fleet.kill(dead)
    eventually(lambda: dead not in swarm.status(task)["nodes"], 60)
    now = swarm.succeeded(task, 2)
    [new] = set(now["nodes"]) - {left}
    swarm.is_right(model, now["resolved"]["digest"], [left, new])
    assert swarm.sent(model) == 0


def test_wanted_everywhere_after_all_it_comes_from_the_one_that_has_it(swarm: Swarm) -> None:
    """Three late comers at once: what one gets, the others get from it too."""
    model = swarm.publish()
    task = swarm.distribute(model, placement={"copies": 1})
    swarm.succeeded(task, 1)
    swarm.hub.counters.reset()
    swarm.distribute(model, task, placement={"copies": "All"})
    swarm.is_right(model, swarm.succeeded(task, len(swarm.nodes))["resolved"]["digest"], swarm.nodes)
    assert swarm.sent(model) == 0


def test_a_pod_warms_the_node_it_is_on(swarm: Swarm) -> None:
    model = swarm.publish()
    task = swarm.distribute(model, placement={"copies": 1})
    now = swarm.succeeded(task, 1)
    content = now["resolved"]["digest"]
    cold = next(node for node in swarm.nodes if node not in now["nodes"])
    swarm.hub.counters.reset()
    pod = _pod(f"{swarm.name}-consumer", cold, content)
    swarm.api.apply(pod)
    try:
        swarm.all_complete([cold], content)
        swarm.is_right(model, content, [cold])
        assert swarm.sent(model) == 0
        others = [node for node in swarm.nodes if node not in (cold, *now["nodes"])]
        assert not any(swarm.directory(node, content).exists() for node in others)
    finally:
        swarm.api.delete("Pod", pod["metadata"]["name"], NAMESPACE)


def test_a_loader_waits_for_the_nodes_agent_and_links_its_files(swarm: Swarm, tmp_path: Path) -> None:
    model = swarm.publish()
    swarm.hub.fail(f"{model.id}/*", Slow(bytes_per_second=100 << 10), on=Kind.CDN)
    task = swarm.distribute(model)
    content, node = swarm.digest(task), swarm.nodes[0]
    status = swarm.status(task)
    loader = _start_loader(swarm, node, content, status, tmp_path)
    try:
        output, _ = loader.communicate(timeout=300)
    finally:
        loader.kill()
        loader.wait()
    assert loader.returncode == 0, output
    assert "the node's agent is fetching it" in output
    summary = json.loads((tmp_path / "termination-log").read_text())
    assert summary["bytesBySource"] == {"node": sum(blob.size for blob in model.get("main").files.values())}
    loaded = {path.name: path for path in (tmp_path / "models").rglob("*.safetensors")}
    assert {name: path.read_bytes() for name, path in loaded.items()} == {
        name: (swarm.directory(node, content) / name).read_bytes() for name in loaded
    }
    assert len(loaded) == 3
    swarm.succeeded(task)
    assert swarm.sent(model) == swarm.size(model)


def _pod(name: str, node: str, content: str) -> Manifest:
    return {
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": {"name": name, "namespace": NAMESPACE, "annotations": {"modelswarm.io/contents": content}},
        "spec": {"nodeName": node, "containers": [{"name": "engine", "image": "engine"}]},
    }


def _start_loader(swarm: Swarm, node: str, content: str, status: Manifest, folder: Path) -> "subprocess.Popen[str]":
    """As the init container of a pod on the node would run."""
    manifests = folder / "manifest"
    manifests.mkdir()
    name, shards = str(status["manifest"]["name"]), int(str(status["manifest"].get("shards", 1)))
    for index in range(shards):
        found = swarm.api.get("ConfigMap", shard_name(name, index), NAMESPACE)
        (manifests / f"manifest-{index}.json.gz").write_bytes(from_binary_data(found["binaryData"]))
    model = status["resolved"]
    environment = {
        "MODEL_SOURCE_TYPE": "modelhub",
        "MODEL_ID": next(id for id in swarm.hub.repositories if id.endswith(swarm.tasks[-1])),
        "REVISION": str(model["revision"]),
        "HF_ENDPOINT": swarm.hub.url,
        "MODELSWARM_MANIFEST_DIR": str(manifests),
        "MODELSWARM_NODE_MODEL": str(swarm.directory(node, content)),
        "MODELSWARM_TERMINATION_LOG": str(folder / "termination-log"),
        "PYTHONPATH": str(ROOT / "operator"),
    }
    return subprocess.Popen(
        [sys.executable, "-m", "modelswarm", "load", "--root", str(folder / "models")],
        env={**os.environ, **environment},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )


# Shapes of models


def test_one_large_file(swarm: Swarm, tmp_path: Path) -> None:
    (tmp_path / ".gitattributes").write_text("*.gguf filter=lfs -text\n")
    with (tmp_path / "model.gguf").open("wb") as file:
        for number in range(LARGE // (32 * MIB)):
            file.write(noise(("large", number % 8), 32 * MIB - 1) + bytes([number & 0xFF]))
    model = swarm.publish(tmp_path)
    task = swarm.distribute(model)
    swarm.is_right(model, swarm.succeeded(task, seconds=1200)["resolved"]["digest"], swarm.nodes)
    assert swarm.sent(model) == swarm.size(model)


def test_three_thousand_small_files(swarm: Swarm) -> None:
    model = swarm.publish(shards=1, shard_bytes=3 * MIB, small=3000)
    task = swarm.distribute(model)
    swarm.is_right(model, swarm.succeeded(task, seconds=240)["resolved"]["digest"], swarm.nodes)
    assert swarm.sent(model) == swarm.size(model)


# The disk


def test_what_nobody_uses_leaves_when_another_needs_the_room(swarms: Swarms) -> None:
    """Least recently used first; never what is pinned, or what a pod on the node uses."""
    with swarms(1, MODELSWARM_AGENT_QUOTA="20Mi", MODELSWARM_AGENT_HIGH_WATERMARK="1.0") as swarm:
        [node] = swarm.nodes
        pinned, used, old, new, last = (swarm.publish(shards=1, shard_bytes=5 * MIB, small=1) for _ in range(5))
        contents = {}
        for model in (pinned, used, old):
            task = swarm.distribute(model, pin=model is pinned)
            contents[model.id] = swarm.succeeded(task, 1)["resolved"]["digest"]
        swarm.api.apply(_pod(f"{swarm.name}-user", node, contents[used.id]))
        for model in (used, old):
            swarm.delete(model.id.rpartition("/")[2])
        contents[new.id] = swarm.succeeded(swarm.distribute(new), 1)["resolved"]["digest"]
        assert not swarm.directory(node, contents[old.id]).exists()
        for model in (pinned, used, new):
            swarm.is_right(model, contents[model.id], [node])
        # What is wanted leaves as the last resort, so a pod has to use it.
        swarm.api.apply(_pod(f"{swarm.name}-user-2", node, contents[new.id]))
        task = swarm.distribute(last)
        failure = eventually(lambda: swarm.status(task).get("failures"), 30)[0]
        assert (failure["node"], failure["reason"]) == (node, "InsufficientCapacity")
        for model in (pinned, used, new):
            swarm.is_right(model, contents[model.id], [node])
        for name in (f"{swarm.name}-user", f"{swarm.name}-user-2"):
            swarm.api.delete("Pod", name, NAMESPACE)


# Many


@pytest.mark.slow
@soak
def test_many_agents_at_once_and_what_they_write(swarms: Swarms, capsys: pytest.CaptureFixture[str]) -> None:
    """Writes at the API server do not grow with the model, and end when it is everywhere."""
    # With a quota, what others do on this disk is no news.
    # With a Lease as long as a machine needs on which fifty agents share two cores.
    with swarms(MANY, MODELSWARM_AGENT_QUOTA="1Gi", MODELSWARM_AGENT_LEASE_SECONDS="60") as swarm:
        events = swarm.cluster.audit_events
        before = len(list(events()))
        model = swarm.publish(shards=4, shard_bytes=8 * MIB)
        task = swarm.distribute(model)
        content = swarm.succeeded(task, seconds=300)["resolved"]["digest"]
        swarm.is_right(model, content, swarm.nodes)
        assert swarm.sent(model) == swarm.size(model)

        def writes(since: int) -> dict[str, int]:
            found: dict[str, int] = {}
            for event in list(events())[since:]:
                if event.verb not in ("get", "list", "watch") and "ome-model-agent" in event.user:
                    found[event.resource] = found.get(event.resource, 0) + 1
            return found

        # Numbers that nobody waits for are written up to ten seconds after the last write.
        still(lambda: sum(writes(before).values()), 12.0, 60)
        made = writes(before)
        with capsys.disabled():
            print(f"\n{MANY} agents, one model: writes at the API server {made}")
        # Of the model: acquire, complete, and renewals every second in between.
        assert made.get("leases", 0) <= 60
        # Of each agent: its NodeCache and the label of its node, not more often than they are shown.
        assert made.get("nodecaches/status", 0) + made.get("nodes", 0) <= 12 * MANY
        now = len(list(events()))
        throughout(lambda: _none(writes(now)), 5.0, 0.5)


def _none(writes: dict[str, int]) -> bool:
    assert not writes, writes
    return True
