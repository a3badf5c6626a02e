"""The cause is the deepest that is known, and the sentence leads there."""

from typing import Any

import pytest

from modelswarm.api.remedies import Grade
from modelswarm.plugin.views.why import why_node, why_playground, why_task
from tests.unit.plugin.objects import cache, cached, condition, model, playground, snapshot, task, task_of

WAITS = condition("Available", "False", "WaitingForModel", "model llama: 0% 0/2")
RUNS = condition("Ready", "False", "Running", "The nodes' agents are fetching")
FULL = {"node": "gpu-7", "reason": "InsufficientCapacity", "message": "need 65.5Gi, free 40Gi"}


def test_a_playground_that_waits_for_nodes_without_space_says_node_and_numbers() -> None:
    llama = model()
    of = task_of(llama, RUNS, phase="Running", desired=2, failed=1, failures=[FULL], nodes=["gpu-1", "gpu-7"])
    nodes = cache("gpu-7", cached("Failed", **{k: FULL[k] for k in ("reason", "message")})), cache("gpu-1")
    found = why_playground(playground("chat", WAITS), snapshot(playground("chat", WAITS), llama, of, *nodes))
    assert found.grade is Grade.ACT
    assert found.cause == (
        f"Playground default/chat waits for model org/llama: P2PTask llmaz-system/{of.metadata.name} does not get on "
        "because 1 of 2 nodes report InsufficientCapacity (gpu-7: need 65.5Gi, free 40Gi): the model does not fit on "
        "the node, even with everything gone that may go."
    )
    assert "MODELSWARM_AGENT_QUOTA" in found.remedy
    assert [step.object for step in found.steps] == [
        "Playground default/chat",
        f"P2PTask llmaz-system/{of.metadata.name}",
        "Node gpu-7",
    ]


def test_of_several_things_that_are_waited_for_the_one_that_needs_somebody_is_told() -> None:
    llama = model()
    running = task_of(llama, RUNS, phase="Running", desired=2)
    denied = condition("Ready", "False", "AccessDenied", "the registry says 401")
    image = task("i", denied, owner="uid-chat", image="private/engine:v1", phase="Failed", engine=None, resolved=None)
    chat = playground("chat", WAITS)
    found = why_playground(chat, snapshot(chat, llama, running, image))
    assert found.grade is Grade.ACT
    assert "waits for image private/engine:v1" in found.cause
    assert "AccessDenied (the registry says 401)" in found.cause


def test_a_models_task_that_fails_does_not_count_where_the_namespaces_own_is_ready() -> None:
    llama = model()
    denied = task_of(llama, condition("Ready", "False", "AccessDenied"), phase="Failed")
    own = task("own", condition("Ready", "True", "Distributed"), owner="uid-chat", phase="Succeeded")
    own = own.model_copy(
        update={"metadata": own.metadata.model_copy(update={"labels": {"llmaz.io/model-name": "llama"}})}
    )
    chat = playground("chat", WAITS)
    assert "AccessDenied" not in why_playground(chat, snapshot(chat, llama, denied, own)).cause


@pytest.mark.parametrize(
    ("conditions", "grade", "cause", "remedy"),
    [
        pytest.param((), Grade.WAIT, "has not been looked at", "kubectl swarm doctor", id="nobody has looked at it"),
        pytest.param(
            (condition("Available", "True", "PlaygroundReady"),),
            Grade.FINE,
            "is as it should be: every wanted pod is ready",
            "Nothing to do",
            id="all is well",
        ),
        pytest.param(
            (condition("Available", "False", "ModelNotFound", "OpenModel llama does not exist"),),
            Grade.ACT,
            "says ModelNotFound (OpenModel llama does not exist)",
            "Create the OpenModel",
            id="the model does not exist",
        ),
        pytest.param(
            (condition("Available", "True", "PlaygroundReady"), condition("Degraded", "True", "GateTimeout", "slow")),
            Grade.ACT,
            "says GateTimeout (slow)",
            "gate-timeout",
            id="it serves, degraded",
        ),
        pytest.param(
            (condition("Available", "True", "PlaygroundReady"), condition("Progressing", "True", "UpdateWaiting", "x")),
            Grade.WAIT,
            "says UpdateWaiting (x)",
            "Wait",
            id="a new version waits",
        ),
        pytest.param(
            (condition("Available", "False", "Levitating", "high up"),),
            Grade.WAIT,
            "says Levitating (high up): this version does not know the reason",
            "See the message",
            id="a word of a newer version",
        ),
    ],
)
def test_a_playgrounds_own_reason(conditions: Any, grade: Grade, cause: str, remedy: str) -> None:
    chat = playground("chat", *conditions)
    found = why_playground(chat, snapshot(chat))
    assert found.grade is grade
    assert cause in found.cause
    assert remedy in found.remedy


def pod(**status: Any) -> dict[str, Any]:
    labels = {"llmaz.io/playground": "chat"}
    return {
        "metadata": {"name": "chat-1", "namespace": "default", "labels": labels},
        "spec": {"nodeName": "gpu-1"},
        "status": status,
    }


def waiting(reason: str, message: str = "") -> dict[str, Any]:
    return {"name": "model-runner", "state": {"waiting": {"reason": reason, "message": message}}}


LOADER = '{"result":"failed","reason":"InsufficientCapacity","message":"model.bin: the volume is full"}'


@pytest.mark.parametrize(
    ("status", "grade", "cause", "remedy"),
    [
        pytest.param(
            {"conditions": [{"type": "PodScheduled", "status": "False", "reason": "Unschedulable", "message": "0/3"}]},
            Grade.ACT,
            "Unschedulable (0/3)",
            "`kubectl describe pod -n default chat-1`",
            id="no node takes it",
        ),
        pytest.param(
            {"containerStatuses": [waiting("ImagePullBackOff", "back-off pulling")]},
            Grade.ACT,
            "ImagePullBackOff (back-off pulling)",
            "pull secret",
            id="the image cannot be pulled",
        ),
        pytest.param(
            {
                "initContainerStatuses": [
                    {
                        "name": "model-loader",
                        "state": {"waiting": {"reason": "CrashLoopBackOff"}},
                        "lastState": {"terminated": {"exitCode": 3, "message": LOADER}},
                    }
                ]
            },
            Grade.ACT,
            "InsufficientCapacity (model.bin: the volume is full)",
            "larger volume",
            id="the loader says why it ended",
        ),
        pytest.param(
            {"initContainerStatuses": [{"name": "model-loader", "state": {"running": {}}}], "phase": "Pending"},
            Grade.WAIT,
            "the model is being loaded into the pod",
            "Wait",
            id="the loader is at work",
        ),
        pytest.param({"phase": "Running"}, Grade.WAIT, "the engine has started", "kubectl logs", id="it starts"),
    ],
)
def test_a_pod_that_does_not_get_ready_is_looked_into(status: Any, grade: Grade, cause: str, remedy: str) -> None:
    chat = playground("chat", condition("Available", "False", "Pending", "Waiting for inference Deployment ready"))
    found = why_playground(chat, snapshot(chat, pods=(pod(**status),)))
    assert (found.grade, cause in found.cause, remedy in found.remedy) == (grade, True, True), found


@pytest.mark.parametrize(
    ("conditions", "status", "grade", "cause", "remedy"),
    [
        pytest.param(
            (condition("Ready", "True", "FellBackToOrigin"), condition("Degraded", "True", "NoAgent", "no agent")),
            {"phase": "FellBack"},
            Grade.ACT,
            "there were agents on gpu-1",
            "`kubectl get pods -A -l app.kubernetes.io/name=ome-model-agent`",
            id="fell back for want of agents: the nodes that had one are named",
        ),
        pytest.param(
            (condition("Ready", "False", "Suspended"),),
            {"phase": "Suspended"},
            Grade.ACT,
            "says Suspended: the task is suspended",
            "kubectl swarm resume t -n llmaz-system",
            id="suspended: the command has its names",
        ),
        pytest.param(
            (RUNS,),
            {"phase": "Running", "desired": 2, "ready": 1, "progress": {"percent": 71, "etaSeconds": 74}},
            Grade.WAIT,
            "1 of 2 nodes are complete, 71%, about 1m14s to go",
            "Wait",
            id="on its way",
        ),
        pytest.param(
            (condition("Ready", "False", "SourceNotFound"),),
            {"phase": "Failed", "engine": "Dragonfly"},
            Grade.ACT,
            "answers the seed peer",
            "seed peers",
            id="engine Dragonfly means something else by the word",
        ),
        pytest.param(
            (condition("Ready", "True", "Distributed"),),
            {"phase": "Running", "desired": 3, "ready": 2, "failed": 1, "failures": [FULL]},
            Grade.ACT,
            "1 of 3 nodes report InsufficientCapacity (gpu-7: need 65.5Gi, free 40Gi)",
            "quota",
            id="ready, and one copy cannot be made",
        ),
    ],
)
def test_a_task(conditions: Any, status: Any, grade: Grade, cause: str, remedy: str) -> None:
    of = task("t", *conditions, **status)
    found = why_task(of, snapshot(of, cache("gpu-1"), live=set()))
    assert (found.grade, cause in found.cause, remedy in found.remedy) == (grade, True, True), found


def test_nodes_that_wait_for_something_a_person_must_mend_are_told_before_the_task_has_failed() -> None:
    of = task("t", RUNS, phase="Running", desired=2, nodes=["a", "b"])
    refused = {"reason": "PeerRefused", "message": "another Secret"}
    found = why_task(of, snapshot(of, cache("a", cached("Waiting", **refused)), cache("b", cached("Fetching"))))
    assert "1 of 2 nodes report PeerRefused (a: another Secret)" in found.cause
    assert "same peer Secret" in found.remedy


@pytest.mark.parametrize(
    ("models", "live", "grade", "cause"),
    [
        pytest.param((), {"n"}, Grade.FINE, "0 models are complete", id="nothing is wanted"),
        pytest.param((cached("Ready"),), set(), Grade.ACT, "no ready endpoint", id="its agent is away"),
        pytest.param((cached("Ready"),), {"n"}, Grade.FINE, "1 models are complete", id="all is there"),
        pytest.param(
            (cached("Fetching", fetchingFrom="Peers"),), {"n"}, Grade.WAIT, "Fetching from peers", id="fetches"
        ),
        pytest.param(
            (cached("Failed", reason="DigestMismatch", message="a is wrong"), cached("Failed", "sha256:" + "b" * 64)),
            {"n"},
            Grade.ACT,
            "DigestMismatch (a is wrong) (and 1 more of its models have trouble)",
            id="two have failed",
        ),
    ],
)
def test_a_node(models: Any, live: set[str], grade: Grade, cause: str) -> None:
    node = cache("n", *models)
    found = why_node(node, snapshot(node, live=live))
    assert (found.grade, cause in found.cause) == (grade, True), found
