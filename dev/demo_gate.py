"""Watching the gate from outside: tasks as kubectl shows them, and that no Deployment exists before they are Ready."""

import json
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from types import TracebackType
from typing import Any, Self, TypeVar

import httpx

from dev.binaries import locate
from dev.controlplane import ControlPlane
from dev.demo_console import Columns, Console
from dev.demo_steps import DemoFailed
from dev.installation import OperatorProcess
from dev.process import Child

LOOK_EVERY = 0.05
SHOW_EVERY = 0.5
TASKS = "/apis/llmaz.io/v1alpha1/p2ptasks"
DEPLOYMENTS = "/apis/apps/v1/namespaces/default/deployments"
WIDTHS = (12, 33, 6, 5, 8, 3, 9, 3)
"""Of the columns of ``kubectl get p2ptasks -A``, so that its header fits what comes later."""

Object = dict[str, Any]
_Argument = TypeVar("_Argument")


@dataclass(frozen=True, slots=True)
class Opened:
    """How the gate opened. ``gap``: seconds from the last task's Ready to the Deployment, both as watches saw them."""

    deployment: Object
    gap: float
    looks: int
    """How often the Deployment was looked for while a task was not Ready. It was never there."""


@dataclass(slots=True)
class _Moments:
    ready: dict[str, float] = field(default_factory=dict)
    created: dict[str, float] = field(default_factory=dict)


class GateWatch:
    """``kubectl get p2ptasks -A -w`` is relayed while the block lasts; ``wait`` ends when the Deployment is there."""

    def __init__(
        self, cluster: ControlPlane, operator: OperatorProcess, console: Console, playground: str, patience: float
    ) -> None:
        self._cluster = cluster
        self._operator = operator
        self._console = console
        self._playground = playground
        self._patience = patience
        self._client = httpx.Client(base_url=cluster.server, verify=cluster.ssl_context(), timeout=10, trust_env=False)
        self._moments = _Moments()
        self._stop = threading.Event()
        self._threads: list[threading.Thread] = []

    def __enter__(self) -> Self:
        log = self._cluster.directory / "kubectl-watch.log"
        cache = self._cluster.directory / "kubectl-cache"
        command: list[str | Path] = [locate("kubectl")["kubectl"], "--cache-dir", cache]
        self._kubectl = Child(
            "kubectl",
            [*command, "get", "p2ptasks", "-A", "-w"],
            log=log,
            env={"KUBECONFIG": str(self._cluster.kubeconfig), "KUBERC": "off"},
        )
        self._console.say("$ kubectl get p2ptasks -A -w")
        self._kubectl.start()
        self._run(self._relay, log)
        self._run(self._follow, TASKS)
        self._run(self._follow, DEPLOYMENTS)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self._stop.set()
        self._kubectl.stop()
        for thread in self._threads:
            thread.join()
        self._client.close()

    def wait(self) -> Opened:
        deadline, shown, looks = time.monotonic() + self._patience, _Shown(), 0
        while time.monotonic() < deadline:
            # The Deployment first: if it is there although a task is not Ready afterwards, the gate has leaked.
            deployment = self._deployment()
            waiting = [name for name, ready in self._tasks().items() if not ready]
            if deployment is not None:
                if waiting:
                    raise DemoFailed(f"the Deployment exists although {', '.join(waiting)} is not Ready")
                return self._opened(deployment, looks)
            if not self._operator.child.running:
                raise DemoFailed("the operator ended")
            looks += 1
            if waiting and shown.due():
                self._show(shown)
            time.sleep(LOOK_EVERY)
        raise DemoFailed(f"no Deployment after {self._patience:g} s; {self._state()}")

    def _opened(self, deployment: Object, looks: int) -> Opened:
        deadline = time.monotonic() + 30
        moments = self._moments
        while self._playground not in moments.created or len(moments.ready) < len(self._tasks()):
            if time.monotonic() > deadline:
                raise DemoFailed("the watches did not show what the API server has")
            time.sleep(0.02)
        time.sleep(0.3)  # let kubectl's last lines come
        if looks == 0:
            raise DemoFailed("the Deployment was there at the first look: nothing waited")
        # Two watches tell of the two, and either may be the later one to be noted.
        gap = moments.created[self._playground] - max(moments.ready.values())
        return Opened(deployment, max(0.0, gap), looks)

    def _show(self, shown: "_Shown") -> None:
        """What users see while the Playground waits; once for each different answer, from its first status on."""
        text = self._cluster.kubectl("get", "pl", self._playground)
        has_status = len(text.splitlines()[-1].split()) > 3  # NAME MODEL AGE, and then more
        if has_status and shown.is_new(text):
            self._console.say("$ kubectl get pl         # what it waits for is its status")
            self._console.lines(text)

    def _state(self) -> str:
        return self._cluster.kubectl("get", "pl,p2pt", "-A", "-o", "wide", check=False).strip()

    def _deployment(self) -> Object | None:
        response = self._client.get(f"{DEPLOYMENTS}/{self._playground}")
        if response.status_code == httpx.codes.NOT_FOUND:
            return None
        found: Object = response.raise_for_status().json()
        return found

    def _tasks(self) -> dict[str, bool]:
        items = self._client.get(TASKS).raise_for_status().json()["items"]
        return {item["metadata"]["name"]: _is_ready(item) for item in items}

    # Threads

    def _run(self, function: Callable[[_Argument], None], argument: _Argument) -> None:
        thread = threading.Thread(target=function, args=(argument,), daemon=True)
        self._threads.append(thread)
        thread.start()

    def _follow(self, path: str) -> None:
        """Note when each object became Ready (tasks) or appeared (Deployments)."""
        while not self._stop.is_set():
            timeout = httpx.Timeout(10, read=2)  # begun again in the wrong moment, a change is seen late
            try:
                with self._client.stream("GET", path, params={"watch": "1"}, timeout=timeout) as response:
                    for line in response.iter_lines():
                        self._note(path, json.loads(line), time.monotonic())
                        if self._stop.is_set():
                            return
            except httpx.TransportError:
                continue  # a quiet watch: begin again, which shows what there is

    def _note(self, path: str, event: Object, now: float) -> None:
        if event["type"] not in ("ADDED", "MODIFIED"):
            return
        name = event["object"]["metadata"]["name"]
        if path == DEPLOYMENTS:
            self._moments.created.setdefault(name, now)
        elif _is_ready(event["object"]):
            self._moments.ready.setdefault(name, now)

    def _relay(self, log: Path) -> None:
        columns = Columns(*WIDTHS)
        with log.open() as stream:
            rest = ""
            while True:
                stopped = self._stop.is_set()
                rest += stream.read()
                *lines, rest = rest.split("\n")
                for line in lines:
                    self._console.say(f"  {columns.align(line)}")
                if stopped:
                    return
                time.sleep(0.02)


@dataclass(slots=True)
class _Shown:
    """What was shown last, so that the same is not shown again."""

    status: str = ""
    next: float = 0.0

    def due(self) -> bool:
        now = time.monotonic()
        if now < self.next:
            return False
        self.next = now + SHOW_EVERY
        return True

    def is_new(self, text: str) -> bool:
        before, self.status = self.status, _without_age(text)
        return self.status != before


def _without_age(text: str) -> str:
    return "\n".join(line.rsplit(maxsplit=1)[0] for line in text.splitlines() if line)


def _is_ready(task: Object) -> bool:
    conditions = task.get("status", {}).get("conditions") or []
    return any(condition["type"] == "Ready" and condition["status"] == "True" for condition in conditions)
