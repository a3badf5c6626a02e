"""What the conditions of all tasks have said so far: a reason that passes within milliseconds is seen too."""

import threading
from collections.abc import Callable, Iterator
from types import TracebackType
from typing import Self

import httpx

from tests.integration.support.api import ApiFailed, Manifest

Said = tuple[str, str, str, str]
"""Type, status, reason, message."""


class History:
    """Follows tasks while the block lasts. ``watch`` gives each version of each task since a resource version (empty:
    the present ones first), and ends after some seconds; it is called again and again."""

    def __init__(self, watch: Callable[[str], Iterator[Manifest]]) -> None:
        self._watch = watch
        self._said: dict[str, list[Said]] = {}
        self._ended = threading.Event()
        self._thread = threading.Thread(target=self._follow, name="history", daemon=True)

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

    def _follow(self) -> None:
        since = ""
        while not self._ended.is_set():
            try:
                for task in self._watch(since):
                    since = task["metadata"]["resourceVersion"]
                    self._note(task)
            except httpx.HTTPError:  # a busy API server
                self._ended.wait(0.1)
            except ApiFailed:  # so long ago that it is forgotten
                since = ""
                self._ended.wait(0.1)

    def _note(self, task: Manifest) -> None:
        said = self._said.setdefault(task["metadata"]["name"], [])
        for condition in task.get("status", {}).get("conditions", []):
            new = (condition["type"], condition["status"], condition["reason"], condition["message"])
            if new not in said:
                said.append(new)
