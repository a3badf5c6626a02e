"""When to look at a job, when it is lost, and when to try again. Pure: seconds in, seconds out.

The manager looks at its own jobs at 0, 30, 90, 210, 450, 750... seconds and tells what it saw then; asking more often
tells nothing new. So a job is asked about just after each of these moments, and once a minute in case a version looks
more often. What 100 running tasks make of that is in docs/how-to/dragonfly.md, and held to by a test.
"""

import random

from modelswarm.backends.dragonfly.reasons import WANTS_A_PERSON, DragonflyReason

LOOKS = (0.0, 30.0, 90.0, 210.0, 450.0)
EVERY = 300.0
AFTER_LOOK = (1.0, 4.0)
"""Seconds after the manager's look, spread so that tasks made together do not ask together."""
AT_MOST = 60.0
SLACK = 60.0

PROBE_AGE = 95.0
"""A job that is pending for so long is asked about file by file: the manager's next look is two minutes away."""
PROBE_SECONDS = 32.0
"""A ``get_task`` is a job too; its answer is there after the manager's second look."""
PROBE_LOST = 150.0
PROBE_EVERY = 60.0
"""Seconds from one question to the next: the scheduler asks every host of the cluster for each."""

GLANCE_AT_LEAST = 2.0
GLANCE_AT_MOST = 10.0
"""Seconds between two looks of a task at the seed peers themselves, where these can be asked."""

BACKOFF = 10.0
BACKOFF_SLOW = 60.0
BACKOFF_CAP = 600.0


def next_look(age: float) -> float:
    """Age of a job at the manager's first look after this age."""
    for look in LOOKS:
        if look > age:
            return look
    return LOOKS[-1] + ((age - LOOKS[-1]) // EVERY + 1) * EVERY


def look_in(age: float, rng: random.Random) -> float:
    """Seconds until it is worth asking about a job of this age."""
    jitter = rng.uniform(*AFTER_LOOK)
    return min(next_look(age) - age + jitter, AT_MOST * rng.uniform(0.8, 1.0))


def glance_in(age: float, rng: random.Random) -> float:
    """Seconds until seed peers are asked again about a job of this age: a twentieth of it, so that nobody waits much
    longer than it took, and nobody asks often about what takes hours."""
    return min(GLANCE_AT_MOST, max(GLANCE_AT_LEAST, age / 20)) * rng.uniform(0.8, 1.0)


def is_forgotten(updated: float, age: float) -> bool:
    """Whether a pending job is one that the manager no longer looks at: it was restarted, and does not go on.

    Each look is written down (``updated``: the job's age at the last one) and follows the one before after at most
    twice the time that had passed by then. Versions differ in their first steps, hence the slack.
    """
    return age - updated > min(EVERY, max(SLACK, 2 * updated)) + SLACK


def backoff(attempt: int, reason: str) -> float:
    """Seconds before the next attempt; longer where only a person can help, none where a job merely got lost."""
    if reason == DragonflyReason.JOB_LOST:
        return 0.0 if attempt == 1 else BACKOFF
    first = BACKOFF_SLOW if reason in WANTS_A_PERSON else BACKOFF
    return min(BACKOFF_CAP, first * 2.0 ** min(attempt - 1, 10))
