"""What a reason means to a person: the cause in one sentence, what to do in one more, and whether to do it now."""

from dataclasses import dataclass
from enum import StrEnum


class Subject(StrEnum):
    """On what a reason stands. The same word may mean something else on another object."""

    OPENMODEL = "OpenModel"
    PLAYGROUND = "Playground"
    P2PTASK = "P2PTask"
    DRAGONFLY = "P2PTask with engine Dragonfly"
    NODECACHE = "NodeCache"
    LOADER = "model-loader"
    """In the termination message of the init container."""


class Grade(StrEnum):
    """Whether somebody has to do something."""

    FINE = "fine"
    WAIT = "wait"
    """It goes on by itself."""
    ACT = "act"
    """It does not get better, or not for long, until a person acts."""


@dataclass(frozen=True, slots=True)
class Remedy:
    """``cause`` and ``remedy`` are sentences in plain text; commands in them stand between backticks.

    ``on`` names the conditions that carry the reason (for a NodeCache: the states of a model).
    """

    grade: Grade
    cause: str
    remedy: str
    on: tuple[str, ...] = ()


NOTHING = "Nothing to do."


def fine(cause: str, *on: str) -> Remedy:
    """A good state."""
    return Remedy(Grade.FINE, cause, NOTHING, on)


def wait(cause: str, remedy: str, *on: str) -> Remedy:
    """A stage, or a fault that passes by itself."""
    return Remedy(Grade.WAIT, cause, remedy, on)


def act(cause: str, remedy: str, *on: str) -> Remedy:
    """A fault that waits for a person."""
    return Remedy(Grade.ACT, cause, remedy, on)
