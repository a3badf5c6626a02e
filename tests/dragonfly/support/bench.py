"""A cluster, a Dragonfly, a hub and operators, with the questions that tests ask of them."""

import random
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from dev.controlplane import ControlPlane
from dev.dragonfly.configs import CLUSTER
from dev.dragonfly.stack import DragonflyStack
from dev.hub import Hub, Repository
from dev.installation import NAMESPACE, SERVICE_ACCOUNT, OperatorProcess
from tests.dragonfly.support.history import History
from tests.dragonfly.support.jobs import Json, preheats_of
from tests.integration.support.api import Api, Manifest
from tests.integration.support.objects import p2p_task
from tests.integration.support.waiting import eventually

TOKEN_SECRET = "dragonfly-token"
SMALL_SHARD = 96 << 10
NOWHERE = "http://127.0.0.1:9"
"""Nobody listens on the port of discard; no test may ask a registry of the world."""
_USUAL = ("--leader-elect=false", "--log-format=text", "--log-level=info", f"--registries=docker.io={NOWHERE}")
LONGEST_WAIT = 240.0


@dataclass
class Bench:
    """Tasks live in the operator's namespace, where it may read its Secrets. Names keep the tests apart."""

    cluster: ControlPlane
    api: Api
    dragonfly: DragonflyStack
    hub: Hub
    logs: Path
    history: History
    _operators: int = field(default=0, init=False)
    _secrets: set[str] = field(default_factory=set, init=False)

    # Making

    def model(self, name: str, *, files: int = 1, size: int = SMALL_SHARD, gated: bool = False) -> str:
        """A repository of random bytes that no other test has, with small files beside the large; its id."""
        id = f"org/{name}"
        source = random.Random(id)
        content = {f"model-{number:02}.safetensors": source.randbytes(size) for number in range(files)}
        folder = self.logs / "models" / name
        folder.mkdir(parents=True)
        for path, data in content.items():
            (folder / path).write_bytes(data)
        repository = Repository.from_folder(folder, id=id, gated="manual" if gated else False, lfs_threshold=1024)
        self.hub.add(repository)
        return id

    def task(
        self,
        name: str,
        model: str | None = None,
        *,
        image: str | None = None,
        image_spec: Mapping[str, object] | None = None,
        **spec: Any,
    ) -> str:
        """Apply a task of engine Dragonfly; its uid. ``image_spec`` is added to what stands beside the reference."""
        obj = p2p_task(name, model, image=image, engine="Dragonfly", **spec)
        if image_spec is not None:
            obj["spec"]["image"].update(image_spec)
        obj["metadata"]["namespace"] = NAMESPACE
        return str(self.api.apply(obj)["metadata"]["uid"])

    def secret(self, name: str, values: Mapping[str, str], *, type_: str = "Opaque") -> None:
        metadata = {"name": name, "namespace": NAMESPACE}
        self._secrets.add(name)
        self.api.apply(
            {"apiVersion": "v1", "kind": "Secret", "metadata": metadata, "type": type_, "stringData": dict(values)}
        )

    def operator(
        self, *flags: str, manager_url: str | None = None, asks_seeds: bool = False, **environment: str
    ) -> OperatorProcess:
        """Not started. ``environment`` without its prefix ``MODELSWARM_``.

        One that ``asks_seeds`` is told of the scheduler, and so need not wait for the manager's looks.
        """
        self._operators += 1
        if asks_seeds:
            environment["DRAGONFLY_SCHEDULERS"] = f"{CLUSTER}={self.dragonfly.scheduler_address}"
        return OperatorProcess(
            self.cluster.service_account_kubeconfig(NAMESPACE, SERVICE_ACCOUNT),
            self.logs / f"operator-{self._operators}.log",
            arguments=[*_USUAL, *flags],
            environment={
                "HF_ENDPOINT": self.hub.url,
                "NO_PROXY": "*",
                "MODELSWARM_DRAGONFLY_MANAGER_URL": manager_url or self.dragonfly.manager_url,
                **{f"MODELSWARM_{name}": value for name, value in environment.items()},
            },
        )

    # Asking

    def get(self, name: str) -> Manifest:
        return self.api.get("P2PTask", name, NAMESPACE)

    def status(self, name: str) -> Json:
        status: Json = self.get(name).get("status", {})
        return status

    def condition(self, name: str, type_: str = "Ready") -> tuple[str, str, str]:
        """Status, reason and message."""
        for condition in self.status(name).get("conditions", []):
            if condition["type"] == type_:
                return condition["status"], condition["reason"], condition["message"]
        return "absent", "", ""

    def jobs(self, name: str) -> list[Json]:
        """The manager's preheat jobs of a task, the oldest first."""
        return preheats_of(self.dragonfly.api, self.get(name)["metadata"]["uid"])

    def lost_seed(self, name: str) -> bool:
        """Whether the task had to try again because the scheduler had lost sight of its seed (see ``jobs``)."""
        return "NoSeedPeer" in self.history.reasons(name)

    # Waiting

    def wait(self, name: str, status: str, *reasons: str, type_: str = "Ready", seconds: float = LONGEST_WAIT) -> str:
        """Until the condition has this status and one of the reasons; its message."""

        def look() -> str:
            now = self.condition(name, type_)
            said = self.history.of(name)
            assert now[0] == status, f"{name}: wanted {type_}={status}/{reasons}, have {now}; before: {said}"
            assert now[1] in reasons, f"{name}: wanted {type_}={status}/{reasons}, have {now}; before: {said}"
            return now[2] or " "

        return eventually(look, seconds, every=0.2)

    def wait_said(self, name: str, *reasons: str, seconds: float = 60.0) -> str:
        """Until the task's condition Ready has ever said one of the reasons; that one."""

        def look() -> str | None:
            found = [reason for reason in self.history.reasons(name) if reason in reasons]
            assert found, f"{name}: never said any of {reasons}, but {self.history.of(name)}"
            return found[0]

        return eventually(look, seconds, every=0.1)

    def wait_distributed(self, name: str, seconds: float = LONGEST_WAIT) -> None:
        """Ready, and everything that had to be cleaned away at the manager is gone."""
        self.wait(name, "True", "Distributed", seconds=seconds)
        eventually(lambda: self.status(name)["dragonfly"].get("complete"), 60.0, every=0.2)

    def wait_submitted(self, name: str, seconds: float = 60.0) -> None:
        """Until the status says that a job was made."""
        eventually(lambda: self.status(name).get("dragonfly", {}).get("jobs"), seconds, every=0.1)

    def clean(self) -> None:
        """Remove the Secrets, and all tasks, also if no operator takes away their finalizers."""
        for name in self._secrets:
            self.api.delete("Secret", name, NAMESPACE)
        for task in self.api.all("P2PTask", NAMESPACE):
            name = task["metadata"]["name"]
            if task["metadata"].get("finalizers"):
                self.api.patch("P2PTask", name, NAMESPACE, {"metadata": {"finalizers": None}})
            self.api.delete("P2PTask", name, NAMESPACE)


def traces(log: Path) -> list[str]:
    """Lines of an operator's log that begin a stack trace."""
    text = log.read_text(errors="replace") if log.exists() else ""
    return [line for line in text.splitlines() if "Traceback (most recent call last)" in line]
