"""A node joins and gets what it should have; a node dies, and what it served is served elsewhere."""

import time

import pytest

from tests.e2e.support import Place, Release
from tests.e2e.support.place import size
from tests.integration.support import Api, Manifest, eventually

FOURTH = 4


def task(api: Api, name: str) -> tuple[int, int]:
    """How many nodes shall have it, and how many do."""
    status = api.get("P2PTask", name, "llmaz-system").get("status", {})
    return status.get("desired", 0), status.get("ready", 0)


def test_a_fourth_node_is_warmed_without_being_asked(release: Release, place: Place) -> None:
    repository = place.repository()
    source = {"modelHub": {"modelID": repository.id}}
    name = place.scene.suffix
    place.scene.api.apply(
        {
            "apiVersion": "llmaz.io/v1alpha1",
            "kind": "P2PTask",
            "metadata": {"name": name, "namespace": "llmaz-system"},
            "spec": {"model": {"source": source}, "placement": {"copies": "All"}},
        }
    )
    eventually(lambda: task(place.scene.api, name) == (3, 3), 60)
    spent = place.sent(repository)
    started = time.monotonic()
    place.cluster.join(FOURTH)
    joined = time.monotonic() - started
    eventually(lambda: task(place.scene.api, name) == (4, 4), 60)
    print(f"node Ready after {joined:.1f} s, warm after {time.monotonic() - started:.1f} s")
    assert place.sent(repository) == spent
    place.scene.api.delete("P2PTask", name, "llmaz-system")


def test_a_node_on_which_a_pod_lands_is_warmed_on_demand(release: Release, place: Place) -> None:
    """Two copies are wanted; the pod is sent to a node that has none."""
    repository = place.repository()
    runtime = place.runtime(cpu="100m")
    name = place.serve("served", repository, runtime, replicas=1)
    [first] = place.wait_replicas(name, 1)
    spent = place.sent(repository)
    [made] = place.scene.tasks("model", model=place.scene.name("served"))
    digest = made["status"]["resolved"]["digest"]
    label = f"content.modelswarm.io/{digest.removeprefix('sha256:')[:16]}"
    # A pod that was placed before the second node had its label warms a third one.
    eventually(lambda: {first.node, *chosen(place, made)} <= warm(place, label), 60)
    cold = sorted(set(place.cluster.nodes) - warm(place, label))
    others = [node for node in place.cluster.nodes if node != cold[0]]
    place.cluster.plane.kubectl("cordon", *others)
    try:
        place.scale(name, 2)
        replicas = place.wait_replicas(name, 2)
    finally:
        place.cluster.plane.kubectl("uncordon", *others)
    assert cold[0] in {replica.node for replica in replicas}
    place.check_files(replicas, repository)
    eventually(lambda: cold[0] in warm(place, label), 20)
    assert place.sent(repository) == spent <= 1.05 * size(repository)
    place.remove(name)


def chosen(place: Place, made: Manifest) -> list[str]:
    nodes: list[str] = place.scene.api.get("P2PTask", made["metadata"]["name"], "llmaz-system")["status"]["nodes"]
    return nodes


def warm(place: Place, label: str) -> set[str]:
    return {node["metadata"]["name"] for node in place.scene.api.all("Node", labels=f"{label}=Ready")}


@pytest.mark.usefixtures("release")
def test_a_dead_node_counts_no_more_and_comes_back_with_what_it_had(place: Place) -> None:
    repository = place.repository()
    runtime = place.runtime(cpu="100m")
    name = place.serve("served", repository, runtime, replicas=2)
    place.wait_replicas(name, 2)
    spent = place.sent(repository)
    victim = place.cluster.nodes["node-3"]
    victim.kill()
    started = time.monotonic()
    eventually(lambda: not ready(place, "node-3"), 60, every=0.2)
    print(f"NotReady after {time.monotonic() - started:.1f} s")
    place.cluster.join(3)
    eventually(lambda: len(place.replicas(name)) == 2 and ready(place, "node-3"), 90, every=0.2)
    place.check_files(place.replicas(name), repository)
    assert place.sent(repository) == spent
    place.remove(name)


def ready(place: Place, node: str) -> bool:
    conditions = place.scene.api.get("Node", node)["status"]["conditions"]
    return any(each["type"] == "Ready" and each["status"] == "True" for each in conditions)
