"""Conditions: the vocabulary of every kind, and the one function that changes them.

Reasons are fixed words (``StrEnum``) that users and alerts may match on. Messages say what is wrong and what to do, and
carry nothing that changes by itself (no timestamps), so that an unchanged state is an unchanged object.
"""

from collections.abc import Iterable, Sequence
from datetime import datetime
from enum import StrEnum
from typing import Literal

from pydantic import Field

from modelswarm.api.meta import ApiModel, Time

Status = Literal["True", "False", "Unknown"]
MESSAGE_LENGTH = 32768


class Condition(ApiModel):
    """``metav1.Condition``."""

    type: str = Field(max_length=316)
    status: Status
    reason: str = Field(min_length=1, max_length=1024)
    message: str = Field(max_length=MESSAGE_LENGTH)
    last_transition_time: Time
    observed_generation: int | None = Field(default=None, ge=0)


class ModelCondition(StrEnum):
    """Conditions of an OpenModel. The words are llmaz's (``PENDING``, ``READY``); ``DEGRADED`` is ours."""

    PENDING = "Pending"
    READY = "Ready"
    DEGRADED = "Degraded"


class PlaygroundCondition(StrEnum):
    """Conditions of a Playground. The first two are llmaz's."""

    PROGRESSING = "Progressing"
    AVAILABLE = "Available"
    DEGRADED = "Degraded"


class TaskCondition(StrEnum):
    """Conditions of a P2PTask."""

    ACCEPTED = "Accepted"
    """The spec can be worked on: the source parses, the engine can serve it."""
    RESOLVED = "Resolved"
    """The branch or tag is pinned and the list of files is known."""
    READY = "Ready"
    """The bytes are where the spec wants them, or (reason FellBackToOrigin) consumers may go to the origin."""
    DEGRADED = "Degraded"
    """It works, but not as asked."""


class ModelReason(StrEnum):
    """Reasons on an OpenModel that do not come from its source or its P2PTask. The first two are llmaz's."""

    PENDING = "Pending"
    READY = "Ready"
    FORBIDDEN = "Forbidden"
    """The API server refuses the model's P2PTask: a quota, an admission policy, or missing rights."""
    INVALID_OBJECT = "InvalidObject"
    """The model's P2PTask would break a rule of the API server."""
    HEALTHY = "Healthy"


class PlaygroundReason(StrEnum):
    """Reasons on a Playground that are not a ``RenderReason``. The first five are llmaz's, word for word."""

    PENDING = "Pending"
    ABORT = "AbortProcessing"
    READY = "PlaygroundReady"
    IN_PROGRESS = "PlaygroundInProgress"
    NOT_READY = "PlaygroundNotReady"
    WAITING_FOR_MODEL = "WaitingForModel"
    PREHEATING_IMAGE = "PreheatingImage"
    GATE_TIMEOUT = "GateTimeout"
    IMAGE_MOVED = "ImageMoved"
    HEALTHY = "Healthy"
    UPDATE_WAITING = "UpdateWaiting"
    """A changed template is held until its bytes are there; the present version serves on."""
    MODEL_NOT_FOUND = "ModelNotFound"
    BACKEND_RUNTIME_NOT_FOUND = "BackendRuntimeNotFound"
    NAME_CLASH = "NameClash"
    """An object of that name exists already and belongs to somebody else."""
    FORBIDDEN = "Forbidden"
    """The API server refuses the workload: a quota, an admission policy, or missing rights."""
    LLMAZ_IS_RUNNING = "LlmazIsRunning"
    """llmaz's own controllers would fight with ours over every Playground."""
    INVALID_GATE_TIMEOUT = "InvalidGateTimeout"


class TaskReason(StrEnum):
    """Reasons on a P2PTask that are not a ``ContentReason`` or an engine's own."""

    ACCEPTED = "Accepted"
    RESOLVING = "Resolving"
    RESOLVED = "Resolved"
    RUNNING = "Running"
    SUSPENDED = "Suspended"
    DISTRIBUTED = "Distributed"
    NOTHING_TO_DISTRIBUTE = "NothingToDistribute"
    """Engine Direct: resolved is all there is to wait for."""
    FELL_BACK = "FellBackToOrigin"
    STALLED = "Stalled"
    DEADLINE_EXCEEDED = "DeadlineExceeded"
    NO_AGENT = "NoAgent"
    """Engine BitTorrent: no node has a ready agent."""
    NO_MATCHING_NODE = "NoMatchingNode"
    """Engine BitTorrent: agents are ready, but none on a node that the placement asks for."""
    CREDENTIAL_NOT_FOUND = "CredentialNotFound"
    CREDENTIAL_NOT_READABLE = "CredentialNotReadable"
    NAME_CLASH = "NameClash"
    """An object that the task needs to write exists already and belongs to somebody else."""
    MANIFEST_REFUSED = "ManifestRefused"
    """The API server does not take the ConfigMap with the list of files (a quota, a policy)."""
    IMAGE_MOVED = "ImageMoved"
    """The tag points at another digest than the pinned one."""
    ENGINE_NOT_CONFIGURED = "EngineNotConfigured"
    HEALTHY = "Healthy"


def find(conditions: Iterable[Condition], type_: str) -> Condition | None:
    """The condition of that type, if there is one."""
    return next((condition for condition in conditions if condition.type == type_), None)


def is_true(conditions: Iterable[Condition], type_: str) -> bool:
    condition = find(conditions, type_)
    return condition is not None and condition.status == "True"


def set_condition(
    conditions: Sequence[Condition],
    type_: str,
    status: Status,
    reason: str,
    message: str,
    *,
    generation: int | None,
    now: datetime,
) -> tuple[Condition, ...]:
    """The conditions with this one set.

    * ``lastTransitionTime`` moves only when ``status`` changes (metav1's rule), so a new reason keeps it.
    * A message that is too long for the API server is cut; it may quote what another program said.
    * The order of those that exist is kept; a new one goes last, so that an unchanged state is an unchanged list.
    """
    old = find(conditions, type_)
    moment = old.last_transition_time if old is not None and old.status == status else now.replace(microsecond=0)
    new = Condition(
        type=type_,
        status=status,
        reason=reason,
        message=message[:MESSAGE_LENGTH],
        last_transition_time=moment,
        observed_generation=generation,
    )
    if old is None:
        return (*conditions, new)
    return tuple(new if condition.type == type_ else condition for condition in conditions)
