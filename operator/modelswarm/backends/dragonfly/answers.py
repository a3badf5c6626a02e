"""What the manager says, read leniently: keys differ between versions, and empty lists may be null."""

import json
import re
from datetime import datetime
from typing import Any

from pydantic import BaseModel, ConfigDict, Field, field_validator

from modelswarm.backends.dragonfly.reasons import DragonflyReason

PENDING, SUCCESS, FAILURE = "PENDING", "SUCCESS", "FAILURE"
MESSAGE_LENGTH = 240


class _Answer(BaseModel):
    model_config = ConfigDict(frozen=True, extra="ignore")


def _nothing_is_empty(value: object) -> object:
    return [] if value is None else value


class FileResult(_Answer):
    """One URL on one peer; ``description`` says what went wrong and may be empty."""

    url: str = ""
    description: str = ""


class Peer(_Answer):
    """One peer of a ``get_task`` (the capital letters are the manager's)."""

    host_type: str = ""
    is_finished: bool = Field(default=False, alias="IsFinished")


class ClusterResult(_Answer):
    success_tasks: list[FileResult] = []
    failure_tasks: list[FileResult] = []
    peers: list[Peer] = []

    _lists = field_validator("success_tasks", "failure_tasks", "peers", mode="before")(_nothing_is_empty)


class ClusterState(_Answer):
    """What one scheduler cluster did."""

    state: str = PENDING
    error: str = ""
    results: list[ClusterResult] = []

    _lists = field_validator("results", mode="before")(_nothing_is_empty)


class Outcome(_Answer):
    """The manager's last look at a job."""

    state: str = ""
    job_states: list[ClusterState] = []

    _lists = field_validator("job_states", mode="before")(_nothing_is_empty)


class Job(_Answer):
    """A job as the manager lists it. ``args`` holds credentials in clear, so it is never shown."""

    id: int
    bio: str = ""
    state: str = PENDING
    created_at: datetime
    updated_at: datetime
    args: dict[str, Any] = Field(default_factory=dict, repr=False)
    result: Outcome = Outcome()

    _dicts = field_validator("args", "result", mode="before")(lambda value: {} if value is None else value)

    @property
    def is_over(self) -> bool:
        return self.state in (SUCCESS, FAILURE)

    @property
    def carries_credentials(self) -> bool:
        return any(self.args.get(name) for name in ("headers", "username", "password"))

    @property
    def clusters(self) -> list[ClusterResult]:
        return [result for state in self.result.job_states for result in state.results]

    @property
    def error(self) -> str:
        return "; ".join(state.error for state in self.result.job_states if state.error)


_REASONS = (
    (DragonflyReason.NO_SCHEDULER, r"schedulers? not found|scheduler cluster id \d+: record not found"),
    # The last: the scheduler knows of a seed peer that does not answer, for the minute until it notices.
    (
        DragonflyReason.NO_SEED_PEER,
        r"no available seed peer|no seed peer found|no available peer|no peer found|error while dialing",
    ),
    (DragonflyReason.PLATFORM_MISMATCH, r"no matching manifest|no match for platform"),
    (DragonflyReason.RATE_LIMITED, r"\b429\b|too ?many ?requests|rate limit exceeded"),
    (DragonflyReason.SOURCE_DENIED, r"\b40[13]\b|unauthorized|forbidden|\bdenied\b"),
    (DragonflyReason.SOURCE_NOT_FOUND, r"\b404\b|\bnot found\b|MANIFEST_UNKNOWN|NAME_UNKNOWN"),
    (DragonflyReason.TIMEOUT, r"deadline ?exceeded|timed? ?out"),
)
_PATTERNS = tuple((reason, re.compile(pattern, re.IGNORECASE)) for reason, pattern in _REASONS)


def classify(text: str) -> DragonflyReason | None:
    """The reason that a failure's text speaks of; the manager has no other way to say it. None: none that we know."""
    plain = shown(text)
    return next((reason for reason, pattern in _PATTERNS if pattern.search(plain)), None)


_VARYING = re.compile(r"\b(?:group|task)_[0-9a-f-]{36}\s*|\b(?:task|group uuid) [0-9a-f_a-z-]{20,}\s*(?=failed)")
_PREFIX = re.compile(r"^.*\bfailed: (?=rpc error|task |failed)", re.DOTALL)
_SECRETS = re.compile(r"(?<=\?)[^\s\"')]+|\b(?:Bearer|Basic)\s+\S+", re.IGNORECASE)


def shown(text: str) -> str:
    """The text as it may be written into a condition: nothing that differs with every attempt, nothing secret.

    Queries of URLs go (origins redirect to signed ones), and the ids of groups and tasks with the hosts behind them.
    """
    plain = _SECRETS.sub("…", " ".join(text.split()))
    plain = _VARYING.sub("", _PREFIX.sub("", plain))
    return plain if len(plain) <= MESSAGE_LENGTH else plain[: MESSAGE_LENGTH - 1] + "…"


def error_text(body: bytes) -> str:
    """What an error's body says: ``errors`` or ``message`` of its first JSON document, else its text.

    A request that cannot be read is answered by two documents in a row.
    """
    text = body.decode(errors="replace").strip()
    try:
        document, _ = json.JSONDecoder().raw_decode(text)
    except ValueError:
        return text if not text.startswith("<") else ""
    if not isinstance(document, dict):
        return text
    return str(document.get("errors") or document.get("message") or document.get("error") or "")
