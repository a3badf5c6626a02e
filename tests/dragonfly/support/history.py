"""What the conditions of all tasks have said so far: a reason that passes within seconds is seen too."""

import threading
from collections.abc import Callable
from types import TracebackType
from typing import Self

import httpx

from tests.integration.support.api import ApiFailed, Manifest

_EVERY = 0.15

Said = tuple[str, str, str, str]
"""Type, status, reason, message."""


class History:
    """Looks at ``tasks`` several times a second while the block lasts."""

    def __init__(self, tasks: Callable[[], list[Manifest]]) -> None:
        self._tasks = tasks
        self._said: dict[str, list[Said]] = {}
        self._ended = threading.Event()
        self._thread = threading.Thread(target=self._look, name="history", daemon=True)

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, kind: type[BaseException] | None, error: object, trace: TracebackType | None) -> None:
        self._ended.set()
        self._thread.join()

    def of(self, name: str, type_: str = "Ready") -> list[Said]:
        """What the condition has said, each once, in the order in which it came."""
        return [said for said in self._said.get(name, []) if said[0] == type_]

    def reasons(self, name: str, type_: str = "Ready") -> list[str]:
        return list(dict.fromkeys(reason for _, _, reason, _ in self.of(name, type_)))

    def messages(self, name: str, reason: str, type_: str = "Ready") -> list[str]:
        return [message for _, _, its, message in self.of(name, type_) if its == reason]

    def _look(self) -> None:
        while not self._ended.wait(_EVERY):
            try:
                tasks = self._tasks()
            except (httpx.HTTPError, ApiFailed):  # a busy API server; the next look is soon
                continue
            for task in tasks:
                said = self._said.setdefault(task["metadata"]["name"], [])
                for condition in task.get("status", {}).get("conditions", []):
                    new = (condition["type"], condition["status"], condition["reason"], condition["message"])
                    if new not in said:
                        said.append(new)
