"""What a P2PTask's status should say, given what is known. Pure: data in, data out.

The order in which a task goes forward::

    Pending -> Resolving -> Running -> Succeeded
                   |           |
                   |           +--> FellBack (Ready, Degraded)   engine stalled, unreachable, or out of attempts
                   +--> Failed      a person must act, or ``fallback: Fail`` where it would have fallen back

An image that no engine brings (``Direct``) is only looked at: where the registry does not let us, the task is Succeeded
and Degraded, because kubelets pull with rights and from mirrors of their own.

A task is standing: Succeeded goes back to Running when copies are lost; FellBack stays Ready until the engine is back
and has done it (Succeeded); Failed goes on as soon as the source answers, or bytes come in again.
"""

from dataclasses import dataclass, replace
from datetime import datetime

from modelswarm.api.conditions import TaskCondition, TaskReason, find, is_true
from modelswarm.api.p2ptask import (
    Engine,
    Fallback,
    P2PTask,
    P2PTaskStatus,
    Phase,
)
from modelswarm.backends.engine import EngineState, Observation
from modelswarm.content.image import parse_reference
from modelswarm.controllers.pinning import Pin
from modelswarm.controllers.task_draft import Draft
from modelswarm.controllers.task_progress import display, next_progress
from modelswarm.errors import AccessDenied, ContentError, RateLimited, TaskBlocked

MAX_FAILURES = 20
BACKOFF_CAP_SECONDS = 60.0
BLOCKED_RETRY_SECONDS = 10.0
"""How often something in the cluster is tried again that we are not told of: a Secret, a right, a quota."""
TROUBLE_POLL_SECONDS = 10.0
"""How often an engine in trouble is asked again, unless it says otherwise."""

_RESOLVING = "Asking the origin what there is"


@dataclass(frozen=True, slots=True)
class Policy:
    """The operator's times, in seconds."""

    stall: float
    fallback_after: float
    retry: float


@dataclass(frozen=True, slots=True)
class Facts:
    """Everything a status follows from. What is not known is None or False."""

    engine: Engine | None
    """None while ``Auto`` has not chosen: that may need to know what the content is."""
    refused: ContentError | None = None
    """The spec cannot be worked on at all."""
    resolving: bool = False
    """Pinning has been going on long enough to say so."""
    overdue: bool = False
    """Pinning takes so long that nobody who can do without should wait for it."""
    retry_in: float | None = None
    """Pinning waits so many seconds before its next attempt."""
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


def advance(task: P2PTask, facts: Facts, policy: Policy, now: datetime) -> Decision:
    """The next status.

    Calling it again with its own result and the same facts changes nothing, except that ``facts.failure`` is an event:
    each counts as one more attempt.
    """
    draft = Draft(task, now)
    draft.set(engine=facts.engine)
    if task.spec.suspend:
        return _suspended(draft)
    if facts.refused is not None:
        draft.condition(TaskCondition.ACCEPTED, "False", facts.refused.reason, facts.refused.message)
        return _failed(draft, facts.refused.reason, facts.refused.message)
    chosen = f"Engine {facts.engine}" if facts.engine is not None else "The engine is chosen when it is resolved"
    draft.condition(TaskCondition.ACCEPTED, "True", TaskReason.ACCEPTED, chosen)
    return _within_deadline(draft, _pinned(draft, facts, policy))


def _within_deadline(draft: Draft, decision: Decision) -> Decision:
    """The hard limit until the first Ready. It is looked at last: who is Ready just now has made it, and who has given
    up already has a better reason (one that needs a person must not open the gate because time passes)."""
    limit, status = draft.task.spec.active_deadline_seconds, decision.status
    settled = status.completion_time is not None or status.phase in (Phase.FAILED, Phase.FELL_BACK)
    if limit is None or settled or decision.hold:
        return decision
    remaining = limit - (draft.now - (draft.task.status.start_time or draft.now)).total_seconds()
    if remaining > 0:
        return replace(decision, look_again=_earliest(decision.look_again, remaining))
    message = f"not ready within activeDeadlineSeconds ({limit} s)"
    return replace(decision, status=_give_up(draft, TaskReason.DEADLINE_EXCEEDED, message).status)


def _pinned(draft: Draft, facts: Facts, policy: Policy) -> Decision:
    task = draft.task
    if facts.failure is not None:
        return _pin_failed(draft, facts, facts.failure, policy)
    if facts.pin is not None:
        draft.set(resolved=facts.pin.resolved, manifest=facts.pin.manifest)
        revision = facts.pin.resolved.revision or facts.pin.resolved.digest
        draft.condition(TaskCondition.RESOLVED, "True", TaskReason.RESOLVED, f"Pinned to {revision}")
    elif task.status.resolved is None:
        return _not_pinned_yet(draft, facts)
    if facts.observation is None:
        if facts.pin is not None or task.status.phase is not Phase.FAILED:
            draft.set(phase=draft.standing_phase())
        return Decision(draft.build())
    return _observed(draft, facts, facts.observation, policy)


def _not_pinned_yet(draft: Draft, facts: Facts) -> Decision:
    """Keep what an earlier failure said (with its phase); else say Resolving, once that takes a while."""
    if not facts.resolving and not draft.task.status.conditions:
        return Decision(draft.task.status, look_again=facts.retry_in or 1.0, hold=True)
    if _only_looked_at(draft, facts):
        if is_true(draft.conditions, TaskCondition.READY):
            draft.set(phase=draft.standing_phase())
            return Decision(draft.build(), look_again=facts.retry_in)
        if facts.overdue and draft.task.status.phase is not Phase.FAILED:
            draft.condition(TaskCondition.RESOLVED, "False", TaskReason.RESOLVING, _RESOLVING)
            return Decision(_unseen(draft, TaskReason.RESOLVING, "the registry has not answered yet").build())
    first = facts.resolving and find(draft.conditions, TaskCondition.RESOLVED) is None
    if first:
        draft.condition(TaskCondition.RESOLVED, "False", TaskReason.RESOLVING, _RESOLVING)
    if draft.fell_back:
        draft.set(phase=Phase.FELL_BACK)
    elif first or draft.task.status.phase is Phase.SUSPENDED:
        draft.set(phase=Phase.RESOLVING)
        draft.condition(TaskCondition.READY, "False", TaskReason.RESOLVING, _RESOLVING)
    wakes_us = facts.resolving and not _only_looked_at(draft, facts)
    return Decision(draft.build(), look_again=None if wakes_us else facts.retry_in or 1.0)


def _only_looked_at(draft: Draft, facts: Facts) -> bool:
    """An image that nothing is done with: what its tag points at is good to know, and no reason to wait."""
    spec = draft.task.spec
    return spec.image is not None and facts.engine is Engine.DIRECT and spec.fallback is Fallback.DIRECT


def _unseen(draft: Draft, reason: str, why: str) -> Draft:
    """Ready without having been looked at: the kubelet may well have rights, mirrors or the image itself."""
    message = f"The image could not be looked at, nodes pull it all the same: {why}"
    draft.condition(TaskCondition.READY, "True", TaskReason.NOTHING_TO_DISTRIBUTE, message)
    draft.condition(TaskCondition.DEGRADED, "True", reason, message)
    draft.set(phase=Phase.SUCCEEDED, completion_time=draft.task.status.completion_time or draft.now)
    draft.say(message)
    return draft


def _unseen_for(draft: Draft, failure: ContentError | TaskBlocked, policy: Policy) -> Decision:
    """Nobody waits, so an origin that may be back soon is asked again soon, and then ever more seldom."""
    retry = policy.retry
    if isinstance(failure, TaskBlocked):
        retry = min(retry, BLOCKED_RETRY_SECONDS)
    elif failure.retry_after is not None:
        retry = failure.retry_after
    elif failure.retryable and not isinstance(failure, RateLimited):
        attempts = _one_more(draft.task)
        draft.set(attempts=attempts)
        retry = policy.retry if attempts > draft.task.spec.backoff_limit else backoff(attempts)
    return Decision(_unseen(draft, failure.reason, failure.message).build(), look_again=retry, retry_in=retry)


def _pin_failed(draft: Draft, facts: Facts, failure: ContentError | TaskBlocked, policy: Policy) -> Decision:
    """A failed attempt to pin: Failed at once where only a person helps; else back-off, then fallback."""
    task = draft.task
    retry = (
        min(policy.retry, BLOCKED_RETRY_SECONDS)
        if isinstance(failure, TaskBlocked)
        else failure.retry_after or policy.retry
    )
    draft.condition(TaskCondition.RESOLVED, "False", failure.reason, failure.message)
    if task.status.resolved is not None:
        # Only the manifest was lost: what was distributed is still there, and consumers resolve by themselves.
        draft.condition(TaskCondition.DEGRADED, "True", failure.reason, failure.message)
        if task.status.phase is Phase.SUSPENDED:
            draft.set(phase=draft.standing_phase())
        return Decision(draft.build(), look_again=retry, retry_in=retry)
    # A registry that says for certain that there is no such image speaks for the kubelet, too.
    uncertain = isinstance(failure, TaskBlocked | AccessDenied) or failure.retryable
    if uncertain and _only_looked_at(draft, facts):
        return _unseen_for(draft, failure, policy)
    if isinstance(failure, TaskBlocked) or not failure.retryable:
        decision = _failed(draft, failure.reason, failure.message)
        return replace(decision, look_again=retry, retry_in=retry)
    if draft.fell_back or task.status.phase is Phase.FAILED:
        draft.set(phase=Phase.FELL_BACK if draft.fell_back else Phase.FAILED)
        return Decision(draft.build(), look_again=retry, retry_in=retry)
    limited = isinstance(failure, RateLimited)
    attempts = task.status.attempts if limited else _one_more(task)
    draft.set(attempts=attempts, phase=Phase.RESOLVING)
    waited = (draft.now - (task.status.start_time or draft.now)).total_seconds()
    if attempts > task.spec.backoff_limit or waited >= policy.fallback_after:
        decision = _give_up(draft, failure.reason, failure.message)
        return replace(decision, look_again=retry, retry_in=retry)
    delay = failure.retry_after or (BACKOFF_CAP_SECONDS if limited else backoff(attempts))
    # Whatever the origin asks for, the next attempt comes when it is time to fall back: only a failure decides on it.
    delay = min(delay, max(1.0, policy.fallback_after - waited))
    draft.condition(TaskCondition.READY, "False", failure.reason, failure.message)
    draft.say(failure.message)
    return Decision(draft.build(), look_again=delay, retry_in=delay)


def _one_more(task: P2PTask) -> int:
    """The number of failed attempts with this one; past the limit nobody counts any further."""
    return min(task.status.attempts, task.spec.backoff_limit) + 1


def backoff(attempts: int) -> float:
    """Seconds before the next attempt: 2, 4, 8... up to the cap."""
    return min(BACKOFF_CAP_SECONDS, 2.0 ** min(attempts, 10))


def _observed(draft: Draft, facts: Facts, observation: Observation, policy: Policy) -> Decision:
    status = draft.task.status
    if observation.state is EngineState.UNREACHABLE:
        # It says nothing about the bytes, so every number stays as it was.
        draft.say(observation.message)
        return _not_ready(draft, facts, observation, policy, status.last_progress_time)
    draft.set(
        desired=observation.desired,
        ready=observation.ready,
        failed=observation.failed,
        failures=observation.failures[:MAX_FAILURES],
        nodes=observation.nodes,
        dragonfly=observation.dragonfly,
    )
    # Its last progress may be days old: what is fetched again counts, and is shown, from now on.
    was_ready = is_true(draft.conditions, TaskCondition.READY) and not draft.fell_back
    lost = was_ready and observation.state is not EngineState.READY
    progress, moved = next_progress(status, observation, draft.now, anew=lost)
    draft.set(progress=progress, display=display(observation, progress))
    if moved or lost:
        draft.set(last_progress_time=draft.now)
    if observation.state is EngineState.READY:
        complete = observation.ready >= observation.desired
        draft.condition(TaskCondition.READY, "True", observation.reason, observation.message)
        draft.set(
            phase=Phase.SUCCEEDED if complete else Phase.RUNNING,
            completion_time=status.completion_time or draft.now,
        )
        _degraded(draft, facts)
        return Decision(draft.build(), look_again=observation.poll_after)
    # A byte that is not shown yet (progress moves in steps) is a sign of life all the same.
    alive = observation.measured and observation.done_bytes > status.progress.done_bytes
    return _not_ready(draft, facts, observation, policy, draft.now if moved or alive else status.last_progress_time)


def _not_ready(
    draft: Draft, facts: Facts, observation: Observation, policy: Policy, last_byte: datetime | None
) -> Decision:
    """Running, or trouble: fall back when time without progress, or attempts, have run out; else go on."""
    task, status = draft.task, draft.task.status
    running = observation.state is EngineState.RUNNING
    poll = observation.poll_after or (None if running else TROUBLE_POLL_SECONDS)
    if draft.fell_back or (status.phase is Phase.FAILED and facts.pin is None and last_byte != draft.now):
        draft.set(phase=Phase.FELL_BACK if draft.fell_back else Phase.FAILED)
        draft.say(status.display.message)
        return Decision(draft.build(), look_again=observation.poll_after or policy.retry)
    if observation.state is EngineState.UNREACHABLE and is_true(draft.conditions, TaskCondition.READY):
        draft.condition(TaskCondition.DEGRADED, "True", observation.reason, observation.message)
        draft.set(phase=draft.standing_phase())
        return Decision(draft.build(), look_again=poll)
    left: float | None = None
    if status.completion_time is None:  # attempts and time count until the first Ready only
        if observation.state is EngineState.FAILED:
            draft.set(attempts=min(observation.attempts, task.spec.backoff_limit + 1))
            if observation.attempts > task.spec.backoff_limit:
                return replace(_give_up(draft, observation.reason, observation.message), look_again=policy.retry)
        limit = policy.fallback_after if observation.state is EngineState.UNREACHABLE else policy.stall
        left = limit - (draft.now - _idle_since(draft, last_byte)).total_seconds()
        if left <= 0:
            stalled = f"no newly verified byte for {policy.stall:.0f} s: {observation.message}"
            reason, message = (TaskReason.STALLED, stalled) if running else (observation.reason, observation.message)
            return replace(_give_up(draft, reason, message), look_again=observation.poll_after or policy.retry)
    draft.condition(TaskCondition.READY, "False", observation.reason, observation.message)
    draft.set(phase=Phase.RUNNING)
    if running:
        _degraded(draft, facts)
    return Decision(draft.build(), look_again=_earliest(poll, None if left is None else left + 0.1))


def _idle_since(draft: Draft, last_byte: datetime | None) -> datetime:
    """When the engine last moved, or could begin to: time that was spent on resolving is not the engine's."""
    began = last_byte or draft.task.status.start_time or draft.now
    resolved = find(draft.conditions, TaskCondition.RESOLVED)
    pinned = resolved is not None and resolved.status == "True"
    return max(began, resolved.last_transition_time) if resolved is not None and pinned else began


def _degraded(draft: Draft, facts: Facts) -> None:
    """What the engine says; else that the manifest is lost; else whether the tag still is what was pinned."""
    observation, resolved = facts.observation, draft.values.get("resolved", draft.task.status.resolved)
    if observation is not None and observation.degraded is not None:
        draft.condition(TaskCondition.DEGRADED, "True", *observation.degraded)
        return
    if (lost := find(draft.conditions, TaskCondition.RESOLVED)) is not None and lost.status == "False":
        draft.condition(TaskCondition.DEGRADED, "True", lost.reason, lost.message)
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


def _suspended(draft: Draft) -> Decision:
    draft.set(phase=Phase.SUSPENDED)
    if draft.task.status.completion_time is None:
        # As for a Job: the time until the first Ready starts anew when the work goes on.
        draft.set(start_time=None, last_progress_time=None)
    if not is_true(draft.conditions, TaskCondition.READY):
        draft.condition(TaskCondition.READY, "False", TaskReason.SUSPENDED, "spec.suspend is true")
    return Decision(draft.build())


def _give_up(draft: Draft, reason: str, message: str) -> Decision:
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
    draft.say(message)
    return Decision(draft.build())


def _failed(draft: Draft, reason: str, message: str) -> Decision:
    draft.condition(TaskCondition.READY, "False", reason, message)
    draft.set(phase=Phase.FAILED)
    draft.say(message)
    return Decision(draft.build())


def _earliest(*seconds: float | None) -> float | None:
    return min((value for value in seconds if value is not None), default=None)
