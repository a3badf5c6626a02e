"""What a P2PTask's status should say, given what is known. Pure: data in, data out.

The order in which a task goes forward::

    Pending -> Resolving -> Running -> Succeeded
                   |           |
                   |           +--> FellBack (Ready, Degraded)   engine stalled, unreachable, or out of attempts
                   +--> Failed      a person must act, or ``fallback: Fail`` where it would have fallen back

A task is standing: Succeeded goes back to Running when copies are lost, FellBack to Running when the engine is back.
"""

from dataclasses import dataclass, replace
from datetime import datetime

from modelswarm.api.conditions import Condition, TaskCondition, TaskReason, find, is_true, set_condition
from modelswarm.api.conditions import Status as ConditionStatus
from modelswarm.api.p2ptask import (
    Engine,
    Fallback,
    P2PTask,
    P2PTaskStatus,
    Phase,
    Progress,
    TaskDisplay,
)
from modelswarm.backends.engine import EngineState, Observation
from modelswarm.content.image import parse_reference
from modelswarm.controllers.pinning import Pin
from modelswarm.errors import ContentError, RateLimited, TaskBlocked

PROGRESS_STEP_PERCENT = 5
PROGRESS_STEP_SECONDS = 10
MAX_FAILURES = 20
BACKOFF_CAP_SECONDS = 60.0


@dataclass(frozen=True, slots=True)
class Policy:
    """The operator's times, in seconds (design 2.4)."""

    stall: float
    fallback_after: float
    retry: float


@dataclass(frozen=True, slots=True)
class Facts:
    """Everything a status follows from. What is not known is None or False."""

    engine: Engine
    refused: ContentError | None = None
    """The spec cannot be worked on at all."""
    resolving: bool = False
    """Pinning has been going on long enough to say so."""
    pin: Pin | None = None
    failure: ContentError | TaskBlocked | None = None
    """How the last attempt to pin ended, if it has not been counted yet."""
    observation: Observation | None = None
    image_digest: str | None = None
    """What the tag points at, if it was looked up just now."""


@dataclass(frozen=True, slots=True)
class Decision:
    """The status to write, and when to look again (seconds) if nothing happens before."""

    status: P2PTaskStatus
    look_again: float | None = None
    retry_in: float | None = None
    """After a counted failure: when pinning may start again."""
    hold: bool = False
    """Nothing worth a write yet: pinning has only just begun, and mostly ends before anybody could read of it."""


class _Draft:
    """A status being put together: plain assignments, then one frozen object."""

    def __init__(self, task: P2PTask, now: datetime) -> None:
        self.values: dict[str, object] = {}
        self.task = task
        self.now = now.replace(microsecond=0)
        self.conditions: tuple[Condition, ...] = task.status.conditions

    def set(self, **values: object) -> None:
        self.values.update(values)

    def condition(self, type_: TaskCondition, status: ConditionStatus, reason: str, message: str) -> None:
        self.conditions = set_condition(
            self.conditions, type_, status, reason, message, generation=self.task.metadata.generation, now=self.now
        )

    def recovered(self) -> None:
        """Degraded is said to be over only where it was ever said."""
        if find(self.conditions, TaskCondition.DEGRADED) is not None:
            self.condition(TaskCondition.DEGRADED, "False", TaskReason.HEALTHY, "Works as asked")

    def build(self) -> P2PTaskStatus:
        generation = self.task.metadata.generation
        return self.task.status.model_copy(
            update={
                "observed_generation": generation,
                "start_time": self.task.status.start_time or self.now,
                **self.values,
                "conditions": self.conditions,
            }
        )


def advance(task: P2PTask, facts: Facts, policy: Policy, now: datetime) -> Decision:
    """The next status. Calling it again with its own result and the same facts changes nothing."""
    draft = _Draft(task, now)
    draft.set(engine=facts.engine)
    if task.spec.suspend:
        return _suspended(draft)
    if facts.refused is not None:
        draft.condition(TaskCondition.ACCEPTED, "False", facts.refused.reason, facts.refused.message)
        return _failed(draft, facts.refused.reason, facts.refused.message)
    draft.condition(TaskCondition.ACCEPTED, "True", TaskReason.ACCEPTED, f"Engine {facts.engine}")
    deadline = _deadline(task, now)
    if deadline is not None and deadline <= 0:
        return _give_up(
            draft,
            TaskReason.DEADLINE_EXCEEDED,
            f"not ready within activeDeadlineSeconds ({task.spec.active_deadline_seconds} s)",
        )
    decision = _pinned(draft, facts, policy)
    return replace(decision, look_again=_earliest(decision.look_again, deadline))


def _pinned(draft: _Draft, facts: Facts, policy: Policy) -> Decision:
    task = draft.task
    if facts.failure is not None:
        return _pin_failed(draft, facts.failure, policy)
    if facts.pin is not None:
        draft.set(resolved=facts.pin.resolved, manifest=facts.pin.manifest)
        revision = facts.pin.resolved.revision or facts.pin.resolved.digest
        draft.condition(TaskCondition.RESOLVED, "True", TaskReason.RESOLVED, f"Pinned to {revision}")
    elif task.status.resolved is None:
        return _not_pinned_yet(draft, facts, policy)
    if facts.observation is None:
        draft.set(phase=task.status.phase if task.status.phase is not Phase.RESOLVING else Phase.RUNNING)
        return Decision(draft.build())
    return _observed(draft, facts, policy)


def _not_pinned_yet(draft: _Draft, facts: Facts, policy: Policy) -> Decision:
    """Keep what an earlier failure said (with its phase); else say Resolving, once that takes a while."""
    resolved = find(draft.conditions, TaskCondition.RESOLVED)
    if not facts.resolving and not draft.task.status.conditions:
        return Decision(draft.task.status, look_again=1.0, hold=True)
    if resolved is None and facts.resolving:
        draft.condition(TaskCondition.RESOLVED, "False", TaskReason.RESOLVING, "Asking the origin what there is")
        draft.condition(TaskCondition.READY, "False", TaskReason.RESOLVING, "Asking the origin what there is")
        draft.set(phase=Phase.RESOLVING)
    elif draft.task.status.phase is Phase.SUSPENDED:
        draft.set(phase=Phase.RESOLVING)
        draft.condition(TaskCondition.READY, "False", TaskReason.RESOLVING, "Asking the origin what there is")
    return Decision(draft.build(), look_again=None if facts.resolving else 1.0)


def _pin_failed(draft: _Draft, failure: ContentError | TaskBlocked, policy: Policy) -> Decision:
    """A failed attempt to pin: Failed at once where only a person helps; else back-off, then fallback."""
    task = draft.task
    draft.condition(TaskCondition.RESOLVED, "False", failure.reason, failure.message)
    if isinstance(failure, TaskBlocked) or not failure.retryable:
        decision = _failed(draft, failure.reason, failure.message)
        return replace(decision, look_again=policy.retry, retry_in=policy.retry)
    if task.status.resolved is not None:
        # Ready once: the manifest was lost and cannot be restored now. Consumers resolve by themselves meanwhile.
        draft.condition(TaskCondition.DEGRADED, "True", failure.reason, failure.message)
        return Decision(draft.build(), look_again=policy.retry, retry_in=policy.retry)
    if task.status.phase in (Phase.FELL_BACK, Phase.FAILED):
        return Decision(draft.build(), look_again=policy.retry, retry_in=failure.retry_after or policy.retry)
    attempts = task.status.attempts if isinstance(failure, RateLimited) else task.status.attempts + 1
    draft.set(attempts=attempts, phase=Phase.RESOLVING)
    waited = (draft.now - (task.status.start_time or draft.now)).total_seconds()
    if attempts > task.spec.backoff_limit or waited >= policy.fallback_after:
        decision = _give_up(draft, failure.reason, failure.message)
        return replace(decision, look_again=policy.retry, retry_in=policy.retry)
    delay = failure.retry_after or min(BACKOFF_CAP_SECONDS, 2.0**attempts)
    draft.condition(TaskCondition.READY, "False", failure.reason, failure.message)
    draft.set(display=_display(draft, None, failure.message))
    return Decision(draft.build(), look_again=delay, retry_in=delay)


def _observed(draft: _Draft, facts: Facts, policy: Policy) -> Decision:
    observation = facts.observation
    assert observation is not None
    status = draft.task.status
    draft.set(
        desired=observation.desired,
        ready=observation.ready,
        failed=observation.failed,
        failures=observation.failures[:MAX_FAILURES],
        dragonfly=observation.dragonfly,
    )
    progress, moved = _progress(status, observation, draft.now)
    draft.set(progress=progress, display=_display(draft, observation, observation.message, progress))
    if moved:
        draft.set(last_progress_time=draft.now)
    match observation.state:
        case EngineState.READY:
            complete = observation.ready >= observation.desired
            draft.condition(TaskCondition.READY, "True", observation.reason, observation.message)
            draft.set(
                phase=Phase.SUCCEEDED if complete else Phase.RUNNING,
                completion_time=status.completion_time or draft.now,
            )
            _degraded(draft, facts)
            return Decision(draft.build(), look_again=observation.poll_after)
        case EngineState.RUNNING | EngineState.UNREACHABLE | EngineState.FAILED:
            return _not_ready(draft, observation, policy, moved)


def _not_ready(draft: _Draft, observation: Observation, policy: Policy, moved: bool) -> Decision:
    """Running, or trouble: fall back when time without progress, or attempts, have run out; else go on."""
    task, status = draft.task, draft.task.status
    fallen = status.phase in (Phase.FELL_BACK, Phase.FAILED)
    since = draft.now if moved else (status.last_progress_time or status.start_time or draft.now)
    idle = (draft.now - since).total_seconds()
    limit = policy.stall if observation.state is EngineState.RUNNING else policy.fallback_after
    if observation.state is EngineState.FAILED and not fallen:
        draft.set(attempts=status.attempts + 1)
        if status.attempts + 1 > task.spec.backoff_limit:
            return replace(_give_up(draft, observation.reason, observation.message), look_again=policy.retry)
    if fallen or (idle >= limit and status.completion_time is None):
        reason = observation.reason if observation.state is not EngineState.RUNNING else TaskReason.STALLED
        message = (
            observation.message
            if observation.state is not EngineState.RUNNING
            else f"no newly verified byte for {policy.stall:.0f} s: {observation.message}"
        )
        if fallen and not moved:
            return Decision(draft.build(), look_again=observation.poll_after or policy.retry)
        return replace(_give_up(draft, reason, message), look_again=observation.poll_after or policy.retry)
    draft.condition(TaskCondition.READY, "False", observation.reason, observation.message)
    draft.set(phase=Phase.RUNNING)
    return Decision(draft.build(), look_again=_earliest(observation.poll_after, limit - idle + 0.1))


def _degraded(draft: _Draft, facts: Facts) -> None:
    """Degraded while Ready: what the engine says, else whether the tag still is what was pinned."""
    observation, resolved = facts.observation, draft.values.get("resolved", draft.task.status.resolved)
    if observation is not None and observation.degraded is not None:
        draft.condition(TaskCondition.DEGRADED, "True", *observation.degraded)
        return
    before = find(draft.conditions, TaskCondition.DEGRADED)
    if facts.image_digest is None and before is not None and before.reason == TaskReason.IMAGE_MOVED:
        return
    pinned = getattr(resolved, "digest", None)
    if facts.image_digest is not None and facts.image_digest != pinned and draft.task.spec.image is not None:
        reference = parse_reference(draft.task.spec.image.reference)
        draft.condition(
            TaskCondition.DEGRADED,
            "True",
            TaskReason.IMAGE_MOVED,
            f"{reference.canonical} now is {facts.image_digest}, pinned was {pinned}; nodes that pull from now on get "
            "the new one. Delete this task to pin it anew, or deploy by digest",
        )
        return
    draft.recovered()


def _suspended(draft: _Draft) -> Decision:
    draft.set(phase=Phase.SUSPENDED)
    if not is_true(draft.conditions, TaskCondition.READY):
        draft.condition(TaskCondition.READY, "False", TaskReason.SUSPENDED, "spec.suspend is true")
    return Decision(draft.build())


def _give_up(draft: _Draft, reason: str, message: str) -> Decision:
    """The engine (or the way to the origin) did not make it: consumers go to the origin, or the gate stays closed."""
    if draft.task.spec.fallback is Fallback.FAIL:
        return _failed(
            draft, reason, f"{message} (fallback: Fail keeps consumers waiting; delete the task to try again)"
        )
    draft.condition(
        TaskCondition.READY, "True", TaskReason.FELL_BACK, f"Consumers read the origin themselves: {reason}: {message}"
    )
    draft.condition(TaskCondition.DEGRADED, "True", reason, message)
    draft.set(phase=Phase.FELL_BACK, completion_time=draft.task.status.completion_time or draft.now)
    draft.set(display=_display(draft, None, message))
    return Decision(draft.build())


def _failed(draft: _Draft, reason: str, message: str) -> Decision:
    draft.condition(TaskCondition.READY, "False", reason, message)
    draft.set(phase=Phase.FAILED, display=_display(draft, None, message))
    return Decision(draft.build())


def _deadline(task: P2PTask, now: datetime) -> float | None:
    """Seconds left until the hard limit; None without one, or once the task has been Ready."""
    limit, start = task.spec.active_deadline_seconds, task.status.start_time
    if limit is None or task.status.completion_time is not None:
        return None
    return limit - (now - start).total_seconds() if start is not None else float(limit)


def _earliest(*seconds: float | None) -> float | None:
    return min((value for value in seconds if value is not None), default=None)


def _progress(status: P2PTaskStatus, observation: Observation, now: datetime) -> tuple[Progress, bool]:
    """The progress to show (in steps, never backwards), and whether bytes came in since the last that was shown."""
    if not observation.measured:
        return Progress(total_bytes=observation.total_bytes), False
    before = status.progress
    total = observation.total_bytes
    done = max(before.done_bytes, observation.done_bytes) if total == before.total_bytes else observation.done_bytes
    percent = done * 100 // total if total else 0
    moved = done > before.done_bytes
    seconds = (now - (status.last_progress_time or status.start_time or now)).total_seconds()
    finished = percent == 100 and before.percent != 100
    if moved and not finished and percent - before.percent < PROGRESS_STEP_PERCENT and seconds < PROGRESS_STEP_SECONDS:
        return before, False
    rate = int((done - before.done_bytes) / seconds) if moved and seconds > 0 else before.bytes_per_second
    return (
        Progress(
            percent=percent,
            done_bytes=done,
            total_bytes=total,
            origin_bytes=max(observation.origin_bytes, before.origin_bytes),
            peer_bytes=max(observation.peer_bytes, before.peer_bytes),
            bytes_per_second=0 if percent == 100 else rate,
            eta_seconds=None if percent == 100 or rate <= 0 else int((total - done) / rate),
        ),
        moved,
    )


def _display(
    draft: _Draft, observation: Observation | None, message: str, progress: Progress | None = None
) -> TaskDisplay:
    if observation is None or not observation.measured or progress is None:
        return TaskDisplay(message=message)
    return TaskDisplay(
        ready=f"{observation.ready}/{observation.desired}",
        progress=f"{progress.percent}%",
        eta="-" if progress.eta_seconds is None else format_seconds(progress.eta_seconds),
        origin=format_bytes(progress.origin_bytes),
        peer=format_bytes(progress.peer_bytes),
        message=message,
    )


def format_seconds(seconds: int) -> str:
    """``45s``, ``3m20s``, ``2h05m``."""
    if seconds < 60:
        return f"{seconds}s"
    if seconds < 3600:
        return f"{seconds // 60}m{seconds % 60:02}s"
    return f"{seconds // 3600}h{seconds % 3600 // 60:02}m"


def format_bytes(count: int) -> str:
    """``953.1Mi``: what people write for bytes in Kubernetes."""
    value = float(count)
    for unit in ("", "Ki", "Mi", "Gi"):
        if value < 1024:
            return f"{value:.1f}{unit}" if unit else f"{count}"
        value /= 1024
    return f"{value:.1f}Ti"
