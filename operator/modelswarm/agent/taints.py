"""For which of its taints no pod that uses a model comes to this node at present. Pure.

Which tainted nodes hold models is the administrator's choice, and the DaemonSet's tolerations are where it stands: the
taint of GPU nodes is tolerated by agents and by the pods that use the GPUs alike. So a taint that this agent tolerates
closes nothing, and one that it does not (it came after the agent did: a node under maintenance, or about to go) does.
Some close a node whoever tolerates them, as every DaemonSet's pods do. Two never do: whether a node is alive shows in
its agent's endpoint, which has patience with it.
"""

from collections.abc import Sequence

from modelswarm.api.meta import ApiModel
from modelswarm.placement import CONTROL_PLANE

UNSCHEDULABLE = "node.kubernetes.io/unschedulable"
"""Of a cordoned node."""
CLOSING = frozenset(
    {
        UNSCHEDULABLE,
        *(
            f"node.kubernetes.io/{word}"
            for word in (
                "disk-pressure",
                "memory-pressure",
                "network-unavailable",
                "out-of-service",
                "pid-pressure",
            )
        ),
        "node.cloudprovider.kubernetes.io/shutdown",
        "node.cloudprovider.kubernetes.io/uninitialized",
        # The node goes: the two autoscalers say so before they drain it.
        "ToBeDeletedByClusterAutoscaler",
        "karpenter.sh/disrupted",
    }
)
"""Keys of taints that say that something is wrong with the node, or that it is taken out of use."""
ALIVE = frozenset({"node.kubernetes.io/not-ready", "node.kubernetes.io/unreachable"})
"""Keys of taints that say whether the node's kubelet answers."""
_EFFECTS = ("NoSchedule", "NoExecute")


class Taint(ApiModel):
    """``core/v1 Taint``."""

    key: str = ""
    value: str = ""
    effect: str = ""


class Toleration(ApiModel):
    """``core/v1 Toleration``."""

    key: str = ""
    operator: str = ""
    value: str = ""
    effect: str = ""


class NodeSpec(ApiModel):
    """The part of a Node's ``spec`` that keeps pods away."""

    unschedulable: bool = False
    taints: tuple[Taint, ...] = ()


class PodSpec(ApiModel):
    tolerations: tuple[Toleration, ...] = ()


def closed_by(spec: NodeSpec, tolerations: Sequence[Toleration] | None) -> str | None:
    """The key of the taint that closes the node, of several the first in the alphabet; None: pods come.

    ``tolerations`` are those of the agent's own pod; None: not known, and only ``CLOSING`` closes a node.
    """
    keys = {taint.key for taint in spec.taints if taint.effect in _EFFECTS and _closes(taint, tolerations)}
    if spec.unschedulable:
        keys.add(UNSCHEDULABLE)
    return min(keys, default=None)


def tolerates(toleration: Toleration, taint: Taint) -> bool:
    """As ``core/v1 Toleration.ToleratesTaint``; an operator that is not known tolerates nothing."""
    if toleration.effect not in ("", taint.effect) or toleration.key not in ("", taint.key):
        return False
    match toleration.operator:
        case "" | "Equal":
            return bool(toleration.key) and toleration.value == taint.value
        case "Exists":
            return True
    return False


def _closes(taint: Taint, tolerations: Sequence[Toleration] | None) -> bool:
    if taint.key in CLOSING:
        return True
    # The control plane is spared by its labels, and not if there is nothing else.
    if taint.key in ALIVE or taint.key in CONTROL_PLANE or tolerations is None:
        return False
    return not any(tolerates(each, taint) for each in tolerations)
