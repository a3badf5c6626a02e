"""What can be made to go wrong, and for which requests."""

import threading
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from fnmatch import fnmatchcase
from typing import Literal, Protocol

from pydantic import TypeAdapter

from dev.hub.answers import Answer, Call, JsonValue, Kind, json_answer


@dataclass(frozen=True, slots=True)
class Course:
    """How one answer is going to be sent. Byte counts are of the body of this one response.

    `flip_at` is an offset in the file, so a resumed download still meets the wrong byte.
    """

    answer: Answer
    delay: float = 0.0
    rate: float | None = None
    cut_after: int | None = None
    hang_after: int | None = None
    flip_at: int | None = None
    reset: bool = False
    silent: bool = False
    ignore_range: bool = False
    range_as_ok: bool = False

    @property
    def plain(self) -> bool:
        """Whether the body goes out whole and unchanged, at full speed."""
        return self.rate is None and self.cut_after is None and self.hang_after is None and self.flip_at is None


class Fault(Protocol):
    """Turns the course an answer would take into the one it takes."""

    def bend(self, course: Course) -> Course: ...


@dataclass(frozen=True, slots=True)
class RateLimit:
    """429. `header` chooses how the wait is told: the standard field, the hub's newer pair, or both."""

    retry_after: int = 1
    header: Literal["retry-after", "ratelimit", "both"] = "both"

    def bend(self, course: Course) -> Course:
        headers: dict[str, str] = {}
        if self.header != "ratelimit":
            headers["Retry-After"] = str(self.retry_after)
        if self.header != "retry-after":
            headers["RateLimit"] = f'"{course.answer.kind}";r=0;t={self.retry_after}'
            headers["RateLimit-Policy"] = f'"fixed window";"{course.answer.kind}";q=500;w=300'
        body = {"error": "We had to rate limit you. Please try again later."}
        answer = json_answer(course.answer.kind, body, status=429, headers=headers, name=course.answer.name)
        return replace(course, answer=answer)


@dataclass(frozen=True, slots=True)
class ServerError:
    """An error status with a page in place of the answer, as a gateway sends it."""

    status: int = 503

    def bend(self, course: Course) -> Course:
        page = f"<html><body><h1>{self.status}</h1></body></html>".encode()
        answer = Answer(course.answer.kind, self.status, page, "text/html", name=course.answer.name)
        return replace(course, answer=answer)


@dataclass(frozen=True, slots=True)
class Slow:
    """A late first byte (seconds before the status line), a slow body, or both."""

    bytes_per_second: float | None = None
    first_byte_delay: float = 0.0

    def bend(self, course: Course) -> Course:
        return replace(course, rate=self.bytes_per_second or course.rate, delay=course.delay + self.first_byte_delay)


@dataclass(frozen=True, slots=True)
class Truncate:
    """The connection is closed after `after` bytes of a body whose full length was announced."""

    after: int

    def bend(self, course: Course) -> Course:
        return replace(course, cut_after=self.after)


@dataclass(frozen=True, slots=True)
class WrongBytes:
    """The byte at `offset` of the file arrives inverted; length and headers are right."""

    offset: int = 0

    def bend(self, course: Course) -> Course:
        return replace(course, flip_at=self.offset)


@dataclass(frozen=True, slots=True)
class Refuse:
    """The connection is reset instead of answered."""

    def bend(self, course: Course) -> Course:
        return replace(course, reset=True)


@dataclass(frozen=True, slots=True)
class Hang:
    """Nothing comes, and the connection stays open: no answer at all, or none after `after` bytes of the body."""

    after: int | None = None

    def bend(self, course: Course) -> Course:
        return replace(course, silent=self.after is None, hang_after=self.after)


@dataclass(frozen=True, slots=True)
class IgnoreRange:
    """A range is answered with 200 and the whole file, as some mirrors do."""

    def bend(self, course: Course) -> Course:
        return replace(course, ignore_range=True)


@dataclass(frozen=True, slots=True)
class RangeAsOk:
    """A range is honoured, `Content-Range` and all, under status 200. ModelScope has been seen to do so."""

    def bend(self, course: Course) -> Course:
        return replace(course, range_as_ok=True)


FAULTS: Mapping[str, type[Fault]] = {
    "rate-limit": RateLimit,
    "server-error": ServerError,
    "slow": Slow,
    "truncate": Truncate,
    "wrong-bytes": WrongBytes,
    "refuse": Refuse,
    "hang": Hang,
    "ignore-range": IgnoreRange,
    "range-as-ok": RangeAsOk,
}


@dataclass(slots=True)
class Rule:
    """A fault and the requests it meets.

    `path` is a shell pattern held against the request's path, the file's name ("org/model/config.json")
    and the file's path in its repository ("config.json"). The first `skip` requests that fit are let
    through, the next `times` are struck, all of them when it is None. `hits` counts the struck ones.
    """

    path: str
    fault: Fault
    times: int | None = None
    skip: int = 0
    on: Kind | None = None
    method: str | None = None
    hits: int = field(default=0, init=False)
    seen: int = field(default=0, init=False)

    def fits(self, call: Call, answer: Answer) -> bool:
        if (self.on and self.on != answer.kind) or (self.method and self.method != call.method):
            return False
        names = {"/" + "/".join(call.segments), answer.name}
        parts = answer.name.split("/")
        names.update("/".join(parts[start:]) for start in range(1, len(parts)))
        return any(fnmatchcase(name, self.path) for name in names)


class Faults:
    """The rules in force, in the order they were added; every rule that fits bends the course further."""

    def __init__(self) -> None:
        self._rules: list[Rule] = []
        self._lock = threading.Lock()

    def add(self, rule: Rule) -> Rule:
        with self._lock:
            self._rules.append(rule)
        return rule

    def add_json(self, text: str | bytes) -> Rule:
        """Add the rule a JSON object describes: `{"fault": "truncate", "after": 100, "path": "*.gguf", "times": 1}`."""
        members = TypeAdapter(dict[str, str | int | float | None]).validate_json(text)
        name = members.pop("fault", None)
        if name not in FAULTS:
            raise ValueError(f"unknown fault {name!r}, known are {sorted(FAULTS)}")
        scope = {key: members.pop(key) for key in ("path", "times", "skip", "on", "method") if key in members}
        kind = FAULTS[str(name)]
        if unknown := members.keys() - kind.__annotations__.keys():
            raise ValueError(f"{name} has no {sorted(unknown)}")
        fault: Fault = TypeAdapter(kind).validate_python(members)
        # Checked here and not by Rule itself: rules are made in code everywhere else.
        return self.add(TypeAdapter(_Scope).validate_python(scope).rule(fault))

    def clear(self) -> None:
        with self._lock:
            self._rules.clear()

    def course(self, call: Call, answer: Answer) -> Course:
        """The course of `answer` under the rules that fit, which are counted as used."""
        course = Course(answer)
        with self._lock:
            for rule in self._rules:
                if not rule.fits(call, answer):
                    continue
                rule.seen += 1
                if rule.seen <= rule.skip or (rule.times is not None and rule.hits >= rule.times):
                    continue
                rule.hits += 1
                course = rule.fault.bend(course)
        return course

    def to_json(self) -> Sequence[JsonValue]:
        names = {kind: name for name, kind in FAULTS.items()}
        with self._lock:
            return [
                {"fault": names[type(rule.fault)], "path": rule.path, "hits": rule.hits, "times": rule.times}
                for rule in self._rules
            ]


@dataclass(frozen=True, slots=True)
class _Scope:
    path: str = "*"
    times: int | None = None
    skip: int = 0
    on: Kind | None = None
    method: str | None = None

    def rule(self, fault: Fault) -> Rule:
        return Rule(self.path, fault, self.times, self.skip, self.on, self.method)
