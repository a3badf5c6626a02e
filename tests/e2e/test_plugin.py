"""``kubectl swarm`` on the real cluster, where there are pods to look into."""

import pytest

from tests.e2e.support import Place, Release
from tests.e2e.support.release import NAMESPACE
from tests.integration.support import Manifest, eventually
from tests.integration.support.plugin import Kubectl


@pytest.fixture
def kubectl(release: Release) -> Kubectl:
    return Kubectl(release.cluster.plane)


def by_area(lines: list[Manifest]) -> dict[str, list[Manifest]]:
    """What doctor finds, as ``-o json`` says it."""
    found: dict[str, list[Manifest]] = {}
    for each in lines:
        found.setdefault(each["area"], []).append(each)
    return found


def test_the_doctor_looks_into_the_pods_and_finds_all_well(release: Release, place: Place, kubectl: Kubectl) -> None:
    # Agents tell whom they find when they have a model.
    name = place.serve("told", place.repository(), place.runtime(cpu="100m"))
    place.wait_replicas(name, 1)

    def all_well() -> dict[str, list[Manifest]]:
        said = kubectl.swarm("doctor", "-o", "json")
        assert not [each for each in said.json if each["verdict"] != "ok"], said.out
        assert said.code == 0
        return by_area(said.json)

    found = eventually(all_well, 20, every=0.5)
    [operator] = release.operators()
    assert any(f"pod {operator} says" in each["finding"] for each in found["operator"])
    nodes = len(release.cluster.nodes)
    assert [each["finding"] for each in found["dns"]] == [f"agents find all {nodes - 1} others by ome-peers"]
    assert release.cluster.registry.host in found["mirrors"][0]["finding"]
    place.remove(name)


def test_the_doctor_finds_an_operator_that_does_not_run(release: Release, kubectl: Kubectl) -> None:
    plane = release.cluster.plane
    plane.kubectl("-n", NAMESPACE, "scale", "deployment/modelswarm-operator", "--replicas=0")
    try:
        plane.kubectl(
            "-n",
            NAMESPACE,
            "wait",
            "--for=delete",
            "pod",
            "-l",
            "app.kubernetes.io/name=modelswarm-operator",
            "--timeout=60s",
        )
        said = kubectl.swarm("doctor", "-o", "json")
        assert (said.code, {each["verdict"] for each in by_area(said.json)["operator"]}) == (1, {"problem"}), said
    finally:
        plane.kubectl("-n", NAMESPACE, "scale", "deployment/modelswarm-operator", "--replicas=1")
        release.wait()


def test_status_and_tree_tell_where_a_model_is(place: Place, kubectl: Kubectl) -> None:
    repository = place.repository()
    name = place.serve("told", repository, place.runtime(cpu="100m"), replicas=2)
    place.wait_replicas(name, 2)
    namespace = place.scene.namespace
    place.scene.has("Playground", name, "Available", "True", "PlaygroundReady", seconds=30)

    def distributed() -> bool:
        """The gate opens with the first copy."""
        tasks = {each["content"]: each for each in kubectl.swarm("status", "-A", "-o", "json").json["tasks"]}
        assert (tasks[repository.id]["phase"], tasks[repository.id]["percent"]) == ("Succeeded", 100)
        return True

    eventually(distributed, 30, every=0.5)
    rates = kubectl.swarm("status")
    assert rates.code == 0, rates

    def shown() -> bool:
        tree = kubectl.swarm("tree", name, "-n", namespace, "-o", "json").json
        assert (tree["kind"], tree["grade"]) == ("Playground", "fine")
        [model] = [each for each in tree["children"] if each["kind"] == "OpenModel"]
        [task] = model["children"]
        nodes = {each["name"]: each["state"] for each in task["children"]}
        assert {replica.node for replica in place.replicas(name)} <= nodes.keys() <= place.cluster.nodes.keys()
        assert list(nodes.values()).count("Ready") >= 2
        return True

    eventually(shown, 30, every=0.5)
    why = kubectl.swarm("why", f"playground/{name}", "-n", namespace, "-o", "json")
    assert (why.code, why.json["grade"]) == (0, "fine"), why
    place.remove(name)


@pytest.mark.usefixtures("release")
def test_why_tells_of_the_pod_that_no_node_takes(place: Place, kubectl: Kubectl) -> None:
    """The deepest cause is not in any of our objects: the scheduler says it to the pod."""
    name = place.serve("large", place.repository(), place.runtime(cpu="64"), replicas=1)
    namespace = place.scene.namespace

    def told() -> Manifest:
        why = kubectl.swarm("why", f"playground/{name}", "-n", namespace, "-o", "json")
        assert (why.code, "Insufficient cpu" in why.json["cause"]) == (1, True), why
        return dict(why.json)

    answer = eventually(told, 60, every=0.5)
    assert answer["steps"][-1]["object"].startswith(f"Pod {namespace}/")
    assert "Free or add a node" in answer["remedy"]
    place.remove(name)


@pytest.mark.usefixtures("release")
def test_why_tells_what_the_hub_said(place: Place, kubectl: Kubectl) -> None:
    model = place.scene.model("missing", "org/does-not-exist")
    place.scene.playground("served", model, backendName=place.runtime(cpu="100m"))

    def told() -> bool:
        why = kubectl.swarm("why", "playground/served", "-n", place.scene.namespace)
        assert (why.code, "SourceNotFound" in why.out) == (1, True), why
        return True

    assert eventually(told, 30, every=0.5)
    place.remove("served")
