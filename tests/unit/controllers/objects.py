"""Small objects for the tests of this folder, and a clock that stands still."""

from datetime import UTC, datetime, timedelta
from typing import Any

from modelswarm.api.conditions import Condition, find
from modelswarm.api.meta import ApiModel
from modelswarm.api.p2ptask import Engine, ManifestReference, P2PTask, P2PTaskStatus, Resolved
from modelswarm.api.playground import Playground, PlaygroundStatus
from modelswarm.backends.engine import EngineState, Observation
from modelswarm.controllers.pinning import Pin
from modelswarm.controllers.task_status import Decision, Facts, Policy

NOW = datetime(2025, 6, 1, 12, 0, tzinfo=UTC)
POLICY = Policy(stall=300, fallback_after=180, retry=250)
COMMIT = "7ae557604adf67be50417f59c2c2f167def9a775"
DIGEST = "sha256:" + "d" * 64
OTHER_DIGEST = "sha256:" + "e" * 64
MODEL: dict[str, Any] = {"model": {"source": {"modelHub": {"modelID": "Qwen/Qwen2-0.5B-Instruct"}}}}
IMAGE: dict[str, Any] = {"image": {"reference": "vllm/vllm-openai:v0.7.3"}}
PIN = Pin(
    Resolved(revision=COMMIT, digest=DIGEST, digest_source="Hub", files=3, bytes=1000),
    ManifestReference(name="task-manifest", shards=1),
)
IMAGE_PIN = Pin(Resolved(revision=DIGEST, digest=DIGEST, digest_source="Registry", files=3, bytes=1000), None)


def later(seconds: float) -> datetime:
    return NOW + timedelta(seconds=seconds)


def task(
    *,
    name: str = "task",
    namespace: str = "llmaz-system",
    uid: str = "task-uid",
    generation: int = 1,
    created: datetime | None = NOW,
    status: dict[str, Any] | None = None,
    **spec: Any,
) -> P2PTask:
    """A task for a hub model unless ``model`` or ``image`` is given; keywords are fields of its spec (camelCase)."""
    content = {} if {"model", "image"} & set(spec) else MODEL
    metadata = {
        "name": name,
        "namespace": namespace,
        "uid": uid,
        "generation": generation,
        "creationTimestamp": created,
    }
    return P2PTask.model_validate({"metadata": metadata, "spec": {**content, **spec}, "status": status or {}})


def after(before: P2PTask, decision: Decision | P2PTaskStatus) -> P2PTask:
    """The task once the status was written and read again: as JSON, not as our objects."""
    status = decision.status if isinstance(decision, Decision) else decision
    return before.model_copy(update={"status": P2PTaskStatus.model_validate(status.to_json())})


def with_spec(before: P2PTask, **changes: Any) -> P2PTask:
    """The task after its user changed the spec (field names of the model)."""
    metadata = before.metadata.model_copy(update={"generation": before.metadata.generation + 1})
    return before.model_copy(update={"spec": before.spec.model_copy(update=changes), "metadata": metadata})


def facts(**known: Any) -> Facts:
    return Facts(**{"engine": Engine.BITTORRENT, **known})


def running(done: int = 0, total: int = 1000, **fields: Any) -> Observation:
    return Observation(
        **{
            "state": EngineState.RUNNING,
            "reason": "Running",
            "message": "Two nodes are at it",
            "desired": 2,
            "done_bytes": done,
            "total_bytes": total,
            **fields,
        }
    )


def ready(copies: int = 2, **fields: Any) -> Observation:
    return running(
        1000, state=EngineState.READY, reason="Distributed", message="On every node", **{"ready": copies, **fields}
    )


def unreachable(**fields: Any) -> Observation:
    """As the controller makes it from an ``EngineError``: without any numbers."""
    return Observation(
        **{
            "state": EngineState.UNREACHABLE,
            "reason": "EngineUnavailable",
            "message": "the manager does not answer",
            **fields,
        }
    )


def failed(**fields: Any) -> Observation:
    return running(state=EngineState.FAILED, reason="JobFailed", message="the job failed", **fields)


def direct() -> Observation:
    return Observation(EngineState.READY, "NothingToDistribute", "Resolved", total_bytes=1000, measured=False)


def summary(status: ApiModel) -> dict[str, tuple[str, str]]:
    """Status and reason of every condition."""
    conditions: tuple[Condition, ...] = getattr(status, "conditions")  # noqa: B009
    return {condition.type: (condition.status, condition.reason) for condition in conditions}


def message(status: ApiModel, type_: str) -> str:
    condition = find(getattr(status, "conditions"), type_)  # noqa: B009
    assert condition is not None, f"no condition {type_}"
    return condition.message


def playground(status: PlaygroundStatus | None = None, *, generation: int = 1) -> Playground:
    return Playground.model_validate(
        {
            "metadata": {"name": "llama", "namespace": "default", "uid": "playground-uid", "generation": generation},
            "spec": {"modelClaim": {"modelName": "llama3-8b"}},
            "status": {} if status is None else status.to_json(),
        }
    )
