"""Agents as processes: real libtorrent and real sockets between them, the real API server and operator above them."""

import re
from collections.abc import Iterator

import pytest

from dev.hub import Kind, Slow
from tests.integration.support import Manifest, eventually
from tests.integration.support.fleet import SEGMENT, Swarm, Swarms, noise, still


@pytest.fixture(scope="module")
def three(swarms: Swarms) -> Iterator[Swarm]:
    with swarms(3) as swarm:
        yield swarm


@pytest.fixture
def swarm(three: Swarm) -> Iterator[Swarm]:
    yield three
    three.clean()


def test_a_model_reaches_every_node_and_leaves_the_origin_once(swarm: Swarm) -> None:
    """Sub-directories, empty files and many small ones among them."""
    model = swarm.publish(small=120)
    task = swarm.distribute(model)
    now = swarm.succeeded(task)
    size = swarm.size(model)
    swarm.is_right(model, now["resolved"]["digest"], swarm.nodes)
    assert swarm.sent(model) == size
    assert now["progress"]["originBytes"] == size
    assert now["progress"]["peerBytes"] == 2 * size
    eventually(lambda: swarm.lease(model)["metadata"]["labels"]["ome.io/status"] == "complete", 10)
    for node in swarm.nodes:
        entry = swarm.entry(node, now["resolved"]["digest"])
        assert (entry["state"], entry["originBytes"] + entry["peerBytes"]) == ("Ready", size)


def test_a_second_revision_costs_what_is_new_in_it(swarm: Swarm) -> None:
    model = swarm.publish()
    swarm.succeeded(swarm.distribute(model))
    changed = noise("changed", 2 << 20)
    commit = model.commit({"model-0.safetensors": changed}, base="main")
    swarm.hub.counters.reset()
    second = swarm.distribute(model, f"{swarm.name}-second", revision=commit)
    swarm.is_right(model, swarm.succeeded(second)["resolved"]["digest"], swarm.nodes, commit)
    assert swarm.sent(model) == len(changed)


def test_a_node_that_comes_late_asks_the_origin_for_nothing(swarm: Swarm) -> None:
    late = swarm.nodes[-1]
    swarm.fleet.kill(late)
    model = swarm.publish()
    task = swarm.distribute(model)
    content = swarm.succeeded(task, 2)["resolved"]["digest"]
    swarm.hub.counters.reset()
    swarm.fleet.start(late)
    now = swarm.succeeded(task, 3)
    swarm.is_right(model, content, [late])
    assert swarm.sent(model) == 0
    assert swarm.entry(late, content)["peerBytes"] == swarm.size(model)
    assert now["progress"]["originBytes"] == swarm.size(model)


def test_a_cordoned_node_keeps_its_copy_and_gets_no_other(swarm: Swarm) -> None:
    """From ``kubectl cordon`` to where the bytes are."""
    first, second = swarm.publish(), swarm.publish()
    task = swarm.distribute(first, placement={"copies": 1})
    [holder] = swarm.succeeded(task, 1)["nodes"]
    swarm.cluster.kubectl("cordon", holder)
    try:
        eventually(lambda: "closedBy" in swarm.api.get("NodeCache", holder)["status"], 20, 0.1)
        others = swarm.distribute(second, placement={"copies": 3})
        now = swarm.succeeded(others, 2)
        assert now["nodes"] == sorted({*swarm.nodes} - {holder})
        assert not swarm.is_complete(holder, now["resolved"]["digest"])
        [ready] = [each for each in now["conditions"] if each["type"] == "Ready"]
        assert ready["message"].endswith(f"; no pods are taken by {holder} (node.kubernetes.io/unschedulable)")
        before = swarm.succeeded(task, 1)
        assert before["nodes"] == [holder]
    finally:
        swarm.cluster.kubectl("uncordon", holder)
    # Opened again, it gets the third copy, from the others.
    sent = swarm.sent(second)
    assert swarm.succeeded(others, 3)["nodes"] == sorted(swarm.nodes)
    assert swarm.sent(second) == sent


def test_restarted_agents_serve_again_without_fetching(swarm: Swarm) -> None:
    *first, late = swarm.nodes
    swarm.fleet.kill(late)
    model = swarm.publish()
    task = swarm.distribute(model)
    content = swarm.succeeded(task, 2)["resolved"]["digest"]
    swarm.hub.counters.reset()
    for node in first:
        swarm.fleet.kill(node)
    swarm.fleet.start(*first)
    swarm.succeeded(task, 2)
    swarm.fleet.start(late)
    swarm.succeeded(task, 3)
    swarm.is_right(model, content, swarm.nodes)
    assert swarm.sent(model) == 0


def test_suspended_no_byte_moves_and_resumed_it_goes_on_from_there(swarm: Swarm) -> None:
    model = swarm.publish()
    swarm.hub.fail(f"{model.id}/*", Slow(bytes_per_second=80 << 10), on=Kind.CDN)
    task = swarm.distribute(model)
    eventually(lambda: swarm.sent(model) > swarm.size(model) * 0.2, 60)
    content = swarm.digest(task)
    swarm.distribute(model, suspend=True)
    eventually(lambda: swarm.hub.counters.active == 0, 10)
    assert still(lambda: swarm.sent(model), 1.0) < swarm.size(model)
    assert not any(swarm.is_complete(node, content) for node in swarm.nodes)
    swarm.hub.faults.clear()
    swarm.distribute(model, suspend=False)
    swarm.is_right(model, swarm.succeeded(task)["resolved"]["digest"], swarm.nodes)
    assert swarm.sent(model) <= 1.2 * swarm.size(model) + SEGMENT


def test_with_one_origin_node_one_node_reads(swarms: Swarms) -> None:
    with swarms(3, P2P_ORIGIN_NODES="1", MODELSWARM_AGENT_LEASE_SECONDS="60") as swarm:
        model = swarm.publish()
        content = swarm.succeeded(swarm.distribute(model))["resolved"]["digest"]
        readers = [node for node in swarm.nodes if swarm.entry(node, content)["originBytes"]]
        assert len(readers) == 1
        assert swarm.sent(model) == swarm.size(model)


def test_without_peers_every_node_downloads_by_itself(swarms: Swarms) -> None:
    with swarms(2, P2P_ENABLED="false") as swarm:
        model = swarm.publish()
        swarm.is_right(model, swarm.succeeded(swarm.distribute(model))["resolved"]["digest"], swarm.nodes)
        assert swarm.sent(model) == 2 * swarm.size(model)


def test_a_node_without_space_says_how_much_is_missing(swarms: Swarms) -> None:
    with swarms(1, MODELSWARM_AGENT_QUOTA="1Mi") as swarm:
        model = swarm.publish()
        task = swarm.distribute(model)

        def look() -> Manifest:
            failures = swarm.status(task).get("failures")
            assert failures, swarm.status(task)
            found: Manifest = failures[0]
            return found

        failure = eventually(look, 30)
        assert (failure["node"], failure["reason"]) == (swarm.nodes[0], "InsufficientCapacity")
        assert re.search(r"need [0-9.]+Mi, free [0-9.]+(Mi|Ki)?", failure["message"])
        assert swarm.sent(model) == 0
