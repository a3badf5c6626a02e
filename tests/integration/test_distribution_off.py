"""``--distribution=false``: plain llmaz behaviour. No tasks, no gate, and few writes."""

from collections.abc import Iterator

import pytest

from dev.controlplane import ControlPlane
from dev.installation import NAMESPACE, SERVICE_ACCOUNT, OperatorProcess
from tests.integration.support import Operators, Scene, Valve, eventually

USER = f"system:serviceaccount:{NAMESPACE}:{SERVICE_ACCOUNT}"
WRITES = {"create", "update", "patch", "delete", "deletecollection"}
PAIRS = 5
AT_MOST = 8
"""Writes per OpenModel and Playground until it serves, Leases and Events aside; llmaz itself makes 12.2."""


@pytest.fixture(scope="module", autouse=True)
def plain(operators: Operators) -> Iterator[OperatorProcess]:
    with operators.replaced("--distribution=false") as other:
        yield other


def test_the_deployment_comes_at_once_though_neither_hub_nor_registry_answers(
    scene: Scene, hub_valve: Valve, registry_valve: Valve
) -> None:
    hub_valve.shut()
    registry_valve.shut()
    model = scene.model()
    scene.playground("pg", model)
    pod = scene.pod_template("pg")["spec"]
    assert {"name": "REVISION", "value": "main"} in pod["initContainers"][0]["env"]
    scene.has("OpenModel", model, "Ready", "True", "Ready")
    assert scene.tasks(model=model) == []
    scene.make_ready("pg")
    scene.has("Playground", "pg", "Available", "True", "PlaygroundReady")


def test_a_pair_costs_at_most_eight_writes(scene: Scene, cluster: ControlPlane) -> None:
    names = [f"pair-{number}" for number in range(PAIRS)]
    for name in names:
        scene.model(name)
    for name in names:  # a Playground that is seen before its model has one more status
        scene.has("OpenModel", scene.name(name), "Ready", "True", "Ready")
    for name in names:
        scene.playground(name, scene.name(name))
    for name in names:
        scene.make_ready(name)
        scene.has("Playground", name, "Available", "True", "PlaygroundReady")
    # An entry may appear in the log a moment after its answer.
    writes = eventually(lambda: operator_writes(cluster, scene) if settled(cluster, scene) else None)
    what = sorted(f"{verb} {resource}" for verb, resource in writes if resource != "events")
    assert what
    assert len(what) <= AT_MOST * PAIRS, what
    assert not [resource for _, resource in writes if resource.startswith("p2ptasks")]


def operator_writes(cluster: ControlPlane, scene: Scene) -> list[tuple[str, str]]:
    """Verb and resource of what the operator wrote for this test's objects; Leases are nobody's."""
    return [
        (event.verb, event.resource)
        for event in cluster.audit_events()
        if event.user == USER
        and event.verb in WRITES
        and (event.namespace == scene.namespace or event.name.endswith(f"-{scene.suffix}"))
    ]


def settled(cluster: ControlPlane, scene: Scene) -> bool:
    """Every object's last status write is in the log."""
    return len([1 for _, resource in operator_writes(cluster, scene) if resource == "playgrounds/status"]) >= PAIRS
