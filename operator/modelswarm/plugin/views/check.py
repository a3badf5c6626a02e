"""One line of ``kubectl swarm doctor``."""

from dataclasses import dataclass
from enum import StrEnum


class Verdict(StrEnum):
    """UNKNOWN: it could not be looked at, which is no problem by itself."""

    OK = "ok"
    PROBLEM = "problem"
    UNKNOWN = "unknown"


@dataclass(frozen=True, slots=True)
class Check:
    """``area`` groups lines; ``finding`` says what was seen; ``remedy`` what helps (empty where all is well)."""

    area: str
    verdict: Verdict
    finding: str
    remedy: str = ""


def ok(area: str, finding: str) -> Check:
    return Check(area, Verdict.OK, finding)


def problem(area: str, finding: str, remedy: str) -> Check:
    return Check(area, Verdict.PROBLEM, finding, remedy)


def unknown(area: str, finding: str, remedy: str = "") -> Check:
    return Check(area, Verdict.UNKNOWN, finding, remedy)
