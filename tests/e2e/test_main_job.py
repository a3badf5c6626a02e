"""The main job on real nodes: a model is served on all of them, having left the hub once."""

import time

from dev.controlplane import KubectlFailed
from dev.installation import NAMESPACE
from tests.e2e.support import Place, Release
from tests.e2e.support.place import left_once
from tests.integration.support import COLLECTED, Manifest, eventually


def test_a_model_is_served_on_every_node(release: Release, place: Place) -> None:
    """llmaz's quick start with an engine that needs no GPU: one replica, then three, then six on the same nodes."""
    repository = place.repository(shards=4, shard_bytes=8 << 20)
    # Room for two on a node, so that six are on all three.
    runtime = place.runtime(cpu="800m")
    started = time.monotonic()
    name = place.serve("opt-125m", repository, runtime, replicas=1)
    deployment = eventually(lambda: place.scene.find("Deployment", name), 60)
    tasks = place.scene.tasks(model=place.scene.name("opt-125m"))
    assert len(tasks) == 3, "the model, the engine's image and the loader's"
    assert all(_became_ready(task) <= deployment["metadata"]["creationTimestamp"] for task in tasks)
    [first] = place.wait_replicas(name, 1)
    print(f"one replica after {time.monotonic() - started:.1f} s")
    place.check_files([first], repository)
    _answers(place, name)
    assert left_once(place, repository, most=1.05)

    spent = place.sent(repository)
    for count in (3, 6):
        place.scale(name, count)
        replicas, seconds = place.timed_replicas(name, count)
        print(f"{count} replicas after {seconds:.1f} s, on {sorted(replica.node for replica in replicas)}")
        place.check_files(replicas, repository)
    assert {replica.node for replica in replicas} == set(place.cluster.nodes)
    assert place.sent(repository) == spent
    # The pods have links into the node's copy and not one of their own.
    assert place.scene.column("playground", name, "MODEL") is not None
    place.remove(name)


def test_a_second_model_with_the_same_files_costs_nothing(release: Release, place: Place) -> None:
    """Content counts and not its name: warm nodes serve it without a byte from the hub."""
    repository = place.repository()
    runtime = place.runtime(cpu="100m")
    name = place.serve("first", repository, runtime, replicas=3)
    place.wait_replicas(name, 3)
    spent = place.sent(repository)
    again = place.serve("second", repository, runtime, replicas=3)
    replicas, seconds = place.timed_replicas(again, 3)
    print(f"three replicas of a model that the nodes have: {seconds:.1f} s")
    place.check_files(replicas, repository)
    assert place.sent(repository) == spent
    place.remove(name)
    place.remove(again)


def test_another_model_takes_over_when_it_is_warm(release: Release, place: Place) -> None:
    """The first serves until the second is there, and then nothing of the first is kept."""
    old, new = place.repository(), place.repository()
    runtime = place.runtime(cpu="100m")
    name = place.serve("moving", old, runtime, replicas=2)
    place.wait_replicas(name, 2)
    model = place.scene.name("moving")
    [before] = _model_tasks(place, model)
    copies = _manifest_copies(place)
    assert copies
    place.scene.model("moving", new.id)

    def moved() -> bool:
        replicas = place.replicas(name)
        assert replicas, "one is replaced at a time, so one always serves"
        return len(replicas) == 2 and all(place.serves(replica, new) for replica in replicas)

    eventually(moved, 60, every=0.5)
    eventually(lambda: before not in _model_tasks(place, model), COLLECTED)
    eventually(lambda: copies.isdisjoint(_manifest_copies(place)), COLLECTED)
    assert left_once(place, new, most=1.05)
    place.remove(name)


def _model_tasks(place: Place, model: str) -> list[str]:
    return [task["metadata"]["name"] for task in place.scene.tasks("model", model=model)]


def _manifest_copies(place: Place) -> set[str]:
    found = place.scene.api.all("ConfigMap", place.scene.namespace, labels="app.kubernetes.io/managed-by=modelswarm")
    return {obj["metadata"]["name"] for obj in found}


def _became_ready(task: Manifest) -> str:
    [ready] = [each for each in task["status"]["conditions"] if each["type"] == "Ready"]
    assert ready["status"] == "True", (task["metadata"]["namespace"] == NAMESPACE, ready)
    return str(ready["lastTransitionTime"])


def _answers(place: Place, name: str) -> None:
    """The Service, by address from outside and by name from a pod."""
    service = place.scene.get("Service", f"{name}-lb")
    address = service["spec"]["clusterIP"]
    if address == "None":
        [address] = [replica.address for replica in place.replicas(name)]
    eventually(lambda: place.ask(address).is_success, 10)
    [replica] = place.replicas(name)

    def inside() -> bool:
        """That node's rules follow a moment after another's."""
        try:
            said = place.scene.kubectl("exec", replica.pod, "--", "/standin", "get", f"http://{name}-lb:8080/health")
        except KubectlFailed as error:
            raise AssertionError(str(error)) from error
        return said.strip() == "ok"

    eventually(inside, 10)
