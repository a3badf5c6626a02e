"""The seam between what a hub says and how it is sent: calls come in, answers go out, no sockets here."""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from enum import StrEnum

from dev.hub.repository import Blob

JsonValue = bool | int | float | str | None | Sequence["JsonValue"] | Mapping[str, "JsonValue"]


class Kind(StrEnum):
    """What a request was for."""

    API = "api"
    """Metadata: JSON about repositories and their files."""
    RESOLVE = "resolve"
    """A file by repository, revision and path; small ones come with the answer, large ones by redirect."""
    CDN = "cdn"
    """A large file's bytes, on the other origin."""


@dataclass(frozen=True, slots=True)
class Call:
    """A request without its socket. `segments` are the decoded parts of the path."""

    method: str
    segments: tuple[str, ...]
    query: Mapping[str, str]
    token: str | None = None
    form: Mapping[str, Sequence[str]] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Answer:
    """A response before ranges, conditions, faults and throttling are applied to it.

    `name` is the repository and the path in it, as counters and fault patterns know it. `etag` goes
    without its quotes.
    """

    kind: Kind
    status: int = 200
    body: bytes | Blob = b""
    content_type: str = "application/json; charset=utf-8"
    headers: Mapping[str, str] = field(default_factory=dict)
    name: str = ""
    etag: str | None = None

    @property
    def size(self) -> int:
        return len(self.body) if isinstance(self.body, bytes) else self.body.size


def json_answer(
    kind: Kind, value: JsonValue, *, status: int = 200, headers: Mapping[str, str] | None = None, name: str = ""
) -> Answer:
    """An answer that carries `value` as JSON."""
    return Answer(kind, status, json.dumps(value).encode(), headers=headers or {}, name=name)
