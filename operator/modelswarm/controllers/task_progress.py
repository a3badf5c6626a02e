"""How a task's progress is shown: in steps, never backwards, with a speed only while something moves. Pure."""

from datetime import datetime

from modelswarm.api.p2ptask import P2PTaskStatus, Progress, TaskDisplay
from modelswarm.backends.engine import Observation

PROGRESS_STEP_PERCENT = 5
PROGRESS_STEP_SECONDS = 10
RATE_AFTER_SECONDS = 3
"""Bytes that came in a shorter time say little of the speed; times have whole seconds."""
RATE_VALID_SECONDS = 30
"""After so long without a new byte there is no speed and no ETA to speak of."""


def next_progress(
    status: P2PTaskStatus, observation: Observation, now: datetime, *, anew: bool = False
) -> tuple[Progress, bool]:
    """The progress to show (in steps, never backwards), and whether it shows newly verified bytes.

    ``anew``: what was there is lost, and the way begins again where the observation says.
    """
    if not observation.measured:
        return Progress(total_bytes=observation.total_bytes), False
    before, total = status.progress, observation.total_bytes
    # Where more or fewer copies are wanted, the old numbers mean nothing either.
    same = total == before.total_bytes and not anew
    done = max(before.done_bytes, observation.done_bytes) if same else observation.done_bytes
    percent = min(100, done * 100 // total) if total else 0
    moved = done > before.done_bytes
    seconds = (now - (status.last_progress_time or status.start_time or now)).total_seconds()
    finished = percent == 100 and before.percent != 100
    if same and not finished and percent - before.percent < PROGRESS_STEP_PERCENT and seconds < PROGRESS_STEP_SECONDS:
        return before, False
    rate = before.bytes_per_second if moved or seconds < RATE_VALID_SECONDS else 0
    # Before the first byte nodes were chosen, agents started and the origin asked: its time is no measure of a speed.
    if moved and status.last_progress_time is not None and seconds >= RATE_AFTER_SECONDS:
        rate = int((done - before.done_bytes) / seconds)
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


def display(observation: Observation, progress: Progress) -> TaskDisplay:
    """The short strings of ``kubectl get p2ptasks``."""
    if not observation.measured:
        return TaskDisplay(message=observation.message)
    return TaskDisplay(
        ready=f"{observation.ready}/{observation.desired}",
        progress=f"{progress.percent}%",
        eta="-" if progress.eta_seconds is None else format_seconds(progress.eta_seconds),
        origin=format_bytes(progress.origin_bytes),
        peer=format_bytes(progress.peer_bytes),
        message=observation.message,
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
