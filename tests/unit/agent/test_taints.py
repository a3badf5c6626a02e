"""Which taints keep copies away from a node: those of nodes that go or are ill, and those that came after the agent."""

from pathlib import Path
from typing import Any

import pytest
import yaml

from modelswarm.agent.taints import ALIVE, CLOSING, NodeSpec, PodSpec, Taint, Toleration, closed_by, tolerates

ROOT = Path(__file__).parents[3]
CORDONED = "node.kubernetes.io/unschedulable"


def of_the_manifest() -> tuple[Toleration, ...]:
    """What the agents' DaemonSet tolerates."""
    documents = yaml.safe_load_all((ROOT / "config" / "p2p" / "model-agent-daemonset.yaml").read_text())
    [spec] = [each["spec"]["template"]["spec"] for each in documents if each["kind"] == "DaemonSet"]
    # As the DaemonSet controller adds them.
    auto = [
        {"key": key, "operator": "Exists", "effect": "NoSchedule"} for key in sorted(CLOSING) if "kubernetes" in key
    ]
    return PodSpec.model_validate({"tolerations": [*spec["tolerations"], *auto]}).tolerations


OURS = of_the_manifest()
ALL = (Toleration(operator="Exists"),)


def taint(key: str, effect: str = "NoSchedule", value: str = "") -> dict[str, str]:
    return {"key": key, "effect": effect, "value": value}


def node(*taints: dict[str, str], **spec: Any) -> NodeSpec:
    return NodeSpec.model_validate({"taints": taints, **spec})


@pytest.mark.parametrize(
    ("spec", "tolerations", "expected"),
    [
        pytest.param(node(), OURS, None, id="a node like any other"),
        pytest.param(node(unschedulable=True), OURS, CORDONED, id="cordoned"),
        pytest.param(node(taint(CORDONED), unschedulable=True), OURS, CORDONED, id="cordoned, and tainted for it"),
        pytest.param(node(unschedulable=True), ALL, CORDONED, id="cordoned, whatever the agent tolerates"),
        pytest.param(node(taint("nvidia.com/gpu", value="present")), OURS, None, id="GPU nodes"),
        pytest.param(node(taint("nvidia.com/gpu", "NoExecute")), OURS, "nvidia.com/gpu", id="an effect it does not"),
        pytest.param(node(taint("sku", value="gpu")), OURS, "sku", id="a taint that came after the agent"),
        pytest.param(node(taint("sku", value="gpu")), ALL, None, id="a taint that the administrator tolerates"),
        pytest.param(node(taint("sku", value="gpu")), None, None, id="nobody knows what is tolerated"),
        pytest.param(node(taint("sku", "PreferNoSchedule")), OURS, None, id="what is only preferred"),
        pytest.param(node(taint("node-role.kubernetes.io/control-plane")), OURS, None, id="the control plane"),
        pytest.param(node(taint("node-role.kubernetes.io/control-plane")), (), None, id="... not tolerated"),
        pytest.param(node(taint("node.kubernetes.io/not-ready")), OURS, None, id="a kubelet that does not answer"),
        pytest.param(
            node(taint("node.kubernetes.io/disk-pressure")), OURS, "node.kubernetes.io/disk-pressure", id="a full disk"
        ),
        pytest.param(
            node(taint("node.kubernetes.io/disk-pressure")), None, "node.kubernetes.io/disk-pressure", id="... anyway"
        ),
        pytest.param(
            node(taint("ToBeDeletedByClusterAutoscaler", value="1700000000")),
            ALL,
            "ToBeDeletedByClusterAutoscaler",
            id="a node that goes",
        ),
        pytest.param(node(taint("z"), taint("a"), taint("m")), (), "a", id="of several always the same one"),
    ],
)
def test_closed_by(spec: NodeSpec, tolerations: tuple[Toleration, ...] | None, expected: str | None) -> None:
    assert closed_by(spec, tolerations) == expected


@pytest.mark.parametrize(
    ("toleration", "expected"),
    [
        pytest.param({"key": "k", "operator": "Exists"}, True, id="exists"),
        pytest.param({"key": "k", "operator": "Exists", "effect": "NoSchedule"}, True, id="exists, this effect"),
        pytest.param({"key": "k", "operator": "Exists", "effect": "NoExecute"}, False, id="exists, another effect"),
        pytest.param({"key": "x", "operator": "Exists"}, False, id="another key"),
        pytest.param({"operator": "Exists"}, True, id="everything"),
        pytest.param({"operator": "Exists", "effect": "NoExecute"}, False, id="everything of another effect"),
        pytest.param({"key": "k", "value": "v"}, True, id="equal, without saying so"),
        pytest.param({"key": "k", "operator": "Equal", "value": "v"}, True, id="equal"),
        pytest.param({"key": "k", "operator": "Equal", "value": "w"}, False, id="another value"),
        pytest.param({"key": "k"}, False, id="no value is another value"),
        pytest.param({"value": "v"}, False, id="no key and a value: nothing"),
        pytest.param({"key": "k", "operator": "Gt", "value": "1"}, False, id="an operator that is not known"),
    ],
)
def test_tolerates_as_kubernetes_does(toleration: dict[str, str], expected: bool) -> None:
    given = Toleration.model_validate(toleration)
    assert tolerates(given, Taint(key="k", value="v", effect="NoSchedule")) is expected


def test_no_taint_is_of_two_minds() -> None:
    assert not ALIVE & CLOSING
