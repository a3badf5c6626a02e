"""The gate: whether a Playground's workload may be created, and what it waits for. Pure.

A task that is Ready (also by fallback) lets through. One that cannot become Ready without a person keeps the gate
closed, whatever the time. Between the two, time without progress decides.
"""

import re
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from enum import StrEnum

from modelswarm.api.conditions import PlaygroundReason, TaskCondition, find, is_true
from modelswarm.api.p2ptask import P2PTask, Phase

_DURATION = re.compile(r"(?:([0-9]+)h)?(?:([0-9]+)m)?(?:([0-9]+)s)?")
LONGEST_WAIT = timedelta(days=366)
"""Longer is as good as for ever, and a clock can be added to it."""


class WaitKind(StrEnum):
    MODEL = "model"
    IMAGE = "image"


@dataclass(frozen=True, slots=True)
class Wait:
    """One thing that must be there: ``name`` is the OpenModel or the image, ``task`` None until it is created."""

    kind: WaitKind
    name: str
    task: P2PTask | None

    @property
    def ready(self) -> bool:
        return self.task is not None and is_true(self.task.status.conditions, TaskCondition.READY)

    @property
    def stuck(self) -> bool:
        """Only a person can help: a wrong source, missing credentials, or ``fallback: Fail`` after a failure."""
        return self.task is not None and self.task.status.phase is Phase.FAILED

    @property
    def last_progress(self) -> datetime | None:
        if self.task is None:
            return None
        status = self.task.status
        return status.last_progress_time or status.start_time or self.task.metadata.creation_timestamp


@dataclass(frozen=True, slots=True)
class Gate:
    """``reason`` and ``message`` say what is waited for (closed) or why it opened early (``timed_out``)."""

    open: bool
    reason: PlaygroundReason | None = None
    message: str = ""
    timed_out: bool = False
    look_again: float | None = None
    """Seconds after which time alone may change the answer."""


def decide(waits: Sequence[Wait], *, since: datetime, timeout: float, now: datetime) -> Gate:
    """The gate's state. ``since`` is when waiting began; ``timeout`` in seconds, 0 for never."""
    pending = [wait for wait in waits if not wait.ready]
    if not pending:
        return Gate(open=True)
    first = next((wait for wait in pending if wait.stuck), pending[0])
    reason = PlaygroundReason.WAITING_FOR_MODEL if first.kind is WaitKind.MODEL else PlaygroundReason.PREHEATING_IMAGE
    message = "; ".join(_describe(wait) for wait in pending)
    if any(wait.stuck for wait in pending) or not timeout:
        return Gate(open=False, reason=reason, message=message)
    deadline = max(since, *(wait.last_progress or now for wait in pending)) + _limit(timeout)
    if now >= deadline:
        return Gate(
            open=True,
            reason=PlaygroundReason.GATE_TIMEOUT,
            message=f"Started without waiting any longer, after {timeout:.0f} s without progress: {message}",
            timed_out=True,
        )
    return Gate(open=False, reason=reason, message=message, look_again=(deadline - now).total_seconds() + 0.1)


def _describe(wait: Wait) -> str:
    what = f"{wait.kind} {wait.name}"
    if wait.task is None:
        return f"{what}: no task yet"
    status = wait.task.status
    if status.phase in (Phase.FAILED, Phase.PENDING, Phase.RESOLVING, Phase.SUSPENDED):
        detail = _failure(wait.task) or status.phase.value
    else:
        parts = [part for part in (status.display.progress, status.display.ready) if part != "-"]
        detail = " ".join([*parts, *([f"ETA {status.display.eta}"] if status.display.eta != "-" else [])])
        detail = detail or status.phase.value
    return f"{what}: {detail}"


def _failure(task: P2PTask) -> str:
    """The reason and message of the condition that says why a task does not get on."""
    for type_ in (TaskCondition.ACCEPTED, TaskCondition.RESOLVED, TaskCondition.READY):
        condition = find(task.status.conditions, type_)
        if condition is not None and condition.status == "False":
            return f"{condition.reason}: {condition.message}"
    return ""


def _limit(timeout: float) -> timedelta:
    return timedelta(seconds=min(timeout, LONGEST_WAIT.total_seconds()))


def parse_duration(text: str) -> float | None:
    """Seconds in ``1h30m``, ``45s``, ``90`` (seconds) or ``0``; None where it is not a duration, or one of years."""
    text = text.strip()
    match = _DURATION.fullmatch(f"{text}s" if text.isascii() and text.isdigit() else text)
    if not text or match is None or len(text) > 32:
        return None
    hours, minutes, seconds = (int(part or 0) for part in match.groups())
    total = hours * 3600 + minutes * 60 + seconds
    return float(total) if total <= LONGEST_WAIT.total_seconds() else None
