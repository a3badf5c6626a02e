"""A node's disk fills while a model is on its way: the others are served, what is wrong is said with numbers, and when
there is room again, it goes on by itself."""

import re
from collections.abc import Iterator

import pytest

from dev.cluster.node import Node
from dev.hub import Kind, Slow
from tests.e2e.support import Place, Release
from tests.e2e.support.place import PATIENCE, left_once, size
from tests.e2e.support.release import NAMESPACE
from tests.integration.support import Manifest, eventually
from tests.integration.support.plugin import Kubectl

VICTIM = "node-2"
MODELS = "/mnt/models"
FILLER = f"{MODELS}/of-somebody-else"
MIB = 1 << 20
# The agents leave one GiB free of every disk, so that is what is filled first.
DISK = 1024 + 192
SHARDS, SHARD_BYTES = 4, 24 * MIB
PER_RESPONSE = MIB // 2
"""Bytes per second of each of the hub's responses, so that the disk fills in the middle."""


@pytest.fixture
def small(release: Release, place: Place) -> Iterator[Node]:
    """A node with a small file system of its own for models, in memory; its agent has seen it."""
    node = place.cluster.nodes[VICTIM]
    node.run(["mount", "-t", "tmpfs", "-o", f"size={DISK}m", "tmpfs", MODELS])
    release.restart_agent(VICTIM)
    yield node
    node.run(["umount", "--lazy", MODELS])
    release.restart_agent(VICTIM)


def fill(node: Node) -> None:
    """Somebody else writes until nothing is free."""
    node.run(["sh", "-c", f"cat /dev/zero >{FILLER}"], check=False)
    free = node.run(["df", "--output=avail", "--block-size=1", MODELS]).stdout.split()[1]
    assert int(free) < MIB


def test_a_disk_fills_and_there_is_room_again(release: Release, place: Place, small: Node) -> None:
    repository = place.repository(shards=SHARDS, shard_bytes=SHARD_BYTES)
    for kind in (Kind.CDN, Kind.RESOLVE):
        place.hub.fail(f"*{repository.id}*", Slow(bytes_per_second=PER_RESPONSE), on=kind)
    api, name = place.scene.api, place.scene.suffix
    source = {"modelHub": {"modelID": repository.id}}
    api.apply(
        {
            "apiVersion": "llmaz.io/v1alpha1",
            "kind": "P2PTask",
            "metadata": {"name": name, "namespace": NAMESPACE},
            "spec": {"model": {"source": source}, "placement": {"copies": "All"}},
        }
    )

    def task() -> Manifest:
        found: Manifest = api.get("P2PTask", name, NAMESPACE).get("status", {})
        return found

    def cached() -> Manifest:
        models = api.get("NodeCache", VICTIM).get("status", {}).get("models", [])
        [found] = [each for each in models if each["name"] == repository.id]
        return dict(found)

    eventually(lambda: place.sent(repository) > size(repository) // 5, PATIENCE)
    assert place.sent(repository) < size(repository) * 0.8, "too fast to be disturbed in the middle"
    fill(small)

    def others_have_it() -> bool:
        status = task()
        assert status.get("ready") == len(place.cluster.nodes) - 1, status
        return True

    eventually(others_have_it, 90, every=0.2)

    def said() -> tuple[str, str]:
        """By the node and by the task, with both numbers."""
        model, failures = cached(), task().get("failures", [])
        assert (model.get("reason"), model["state"]) == ("InsufficientCapacity", "Failed"), model
        [failure] = [each for each in failures if each["node"] == VICTIM]
        assert failure["reason"] == "InsufficientCapacity", failures
        for message in (model["message"], failure["message"]):
            assert re.search(r"need [0-9.]+[KMG]i, free [0-9.]+", message), message
        return model["message"], failure["message"]

    print(eventually(said, PATIENCE, every=0.2))
    kubectl = Kubectl(place.cluster.plane)

    def explained() -> bool:
        """Not in the moment in which the agent tries again."""
        why = kubectl.swarm("why", f"node/{VICTIM}")
        assert (why.code, "InsufficientCapacity" in why.out, "remedy" in why.out) == (1, True, True), why
        assert VICTIM in kubectl.swarm("why", f"p2ptask/{name}", "-n", NAMESPACE).out
        return True

    eventually(explained, 10, every=0.5)

    small.run(["rm", FILLER])
    place.hub.faults.clear()

    def everywhere() -> bool:
        status = task()
        assert (status.get("phase"), status.get("ready")) == ("Succeeded", len(place.cluster.nodes)), (status, cached())
        return True

    eventually(everywhere, 90, every=0.2)
    print(f"left the hub {place.sent(repository) / size(repository):.3f} times")
    assert left_once(place, repository, 1.2)
    assert cached()["state"] == "Ready"
    api.delete("P2PTask", name, NAMESPACE)
