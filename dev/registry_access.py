"""What was asked of a registry, read from its access log. Tests count pulls from the origin with it."""

import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

_LINE = re.compile(
    r'^\S+ - (?P<user>\S+) \[[^]]+\] "(?P<method>[A-Z]+) (?P<uri>\S+) HTTP/[\d.]+" (?P<status>\d+) (?P<size>\d+) '
    r'"[^"]*" "(?P<agent>[^"]*)"$'
)


@dataclass(frozen=True, slots=True)
class AccessEntry:
    method: str
    uri: str
    """Path and query."""
    status: int
    size: int
    """Bytes of the answer's body."""
    user_agent: str


def read_access_log(path: Path) -> Iterator[AccessEntry]:
    """The requests in the log, oldest first. Other lines of the log are passed over."""
    try:
        log = path.open(encoding="utf-8", errors="replace")
    except FileNotFoundError:
        return
    with log:
        for line in log:
            if line.endswith("\n") and (match := _LINE.match(line)):
                yield AccessEntry(
                    match["method"], match["uri"], int(match["status"]), int(match["size"]), match["agent"]
                )
