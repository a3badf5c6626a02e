"""What a job's answer means, file by file. Pure.

SUCCESS does not mean downloaded, and FAILURE does not mean that nothing was: only a file that the answer names as done
is confirmed (facts that were measured on manager v2.5.1 are in ``docs/decisions/0007-dragonfly-engine.md``).
"""

from dataclasses import dataclass

from modelswarm.backends.dragonfly.answers import FAILURE, SUCCESS, Job, classify, shown
from modelswarm.backends.dragonfly.items import Items
from modelswarm.backends.dragonfly.plan import Plan
from modelswarm.backends.dragonfly.reasons import DragonflyReason

_OF_SOME_FILE = frozenset(
    {
        DragonflyReason.INCOMPLETE,
        DragonflyReason.SOURCE_DENIED,
        DragonflyReason.SOURCE_NOT_FOUND,
        DragonflyReason.REFUSED,
    }
)
"""Reasons for which one file can be to blame while the others are fine, so that trying in parts helps."""


@dataclass(frozen=True, slots=True)
class Verdict:
    """``reason`` is None while the job runs, and when nothing is missing. ``suspects`` are files that it blames."""

    over: bool
    confirmed: Items
    reason: DragonflyReason | None = None
    message: str = ""
    suspects: Items = frozenset()


def divisible(reason: str) -> bool:
    """Whether a job that failed for this reason should be tried again in parts."""
    return reason in _OF_SOME_FILE


def judge(job: Job, plan: Plan, items: Items) -> Verdict:
    """What the answer says about these files of the plan."""
    numbers = {plan.key(plan.entries[number].url): number for number in items}
    done = {numbers.get(plan.key(file.url)) for result in job.clusters for file in result.success_tasks}
    confirmed = frozenset(number for number in done if number is not None)
    missing = items - confirmed
    if not job.is_over or not missing:
        return Verdict(job.is_over, confirmed)
    failures = {
        numbers.get(plan.key(file.url)): file.description
        for result in job.clusters
        for file in result.failure_tasks
        if numbers.get(plan.key(file.url)) in missing
    }
    suspects = {number for number in failures if number is not None}
    suspects |= {number for number in missing if plan.entries[number].task_id in job.error}
    said = job.error or next((text for text in failures.values() if text), "")
    reason = classify(said) or DragonflyReason.INCOMPLETE
    if job.state == FAILURE and job.result.state != FAILURE:
        reason, said = DragonflyReason.TIMEOUT, "the manager stopped looking before the job ended"
    elif job.state == SUCCESS and not said:
        said = "the manager reports success, but does not name these files among those that were downloaded"
    return Verdict(True, confirmed, reason, shown(said) or "no reason given", frozenset(suspects))


def is_held(job: Job) -> bool:
    """Whether a ``get_task`` found a peer that has the whole file."""
    return any(peer.is_finished for result in job.clusters for peer in result.peers)
