"""One test's corner of the cluster: its namespace, its names, and questions about what is there."""

import json
from dataclasses import dataclass, field
from typing import Any

from dev.controlplane import ControlPlane
from dev.installation import NAMESPACE
from tests.integration.support.api import Api, Manifest
from tests.integration.support.objects import open_model, playground
from tests.integration.support.waiting import eventually


def kubectl_json(cluster: ControlPlane, *args: str) -> Manifest:
    """What kubectl prints with ``-o json``."""
    answer: Manifest = json.loads(cluster.kubectl(*args, "-o", "json"))
    return answer


POD_READY = ("ContainersReady", "Initialized", "PodScheduled", "Ready")


@dataclass(slots=True)
class Scene:
    """``suffix`` makes the names of cluster-scoped objects this test's own; they are removed when it ends."""

    cluster: ControlPlane
    api: Api
    namespace: str
    suffix: str
    _made: list[tuple[str, str]] = field(default_factory=list)

    # Writing

    def name(self, base: str) -> str:
        return f"{base}-{self.suffix}"

    def apply(self, obj: Manifest) -> Manifest:
        """Apply in this test's namespace unless the object names another."""
        obj = self._placed(obj)
        return self.api.apply(obj)

    def create(self, obj: Manifest) -> Manifest:
        return self.api.create(self._placed(obj))

    def model(self, base: str = "llama3-8b", source: Manifest | str | None = None, **spec: Any) -> str:
        """Apply an OpenModel; its full name."""
        self.apply(open_model(self.name(base), source, **spec))
        return self.name(base)

    def playground(self, base: str, *models: str, annotations: Manifest | None = None, **spec: Any) -> str:
        """Apply a Playground; its name (namespaced, so it needs no suffix)."""
        self.apply(playground(base, *models, annotations=annotations, **spec))
        return base

    def delete(self, kind: str, name: str) -> None:
        self.api.delete(kind, name, self.namespace)

    def clean(self) -> None:
        """Remove everything, without waiting for it."""
        self.api.delete("Namespace", self.namespace)
        for kind, name in reversed(self._made):
            self.api.delete(kind, name)

    def _placed(self, obj: Manifest) -> Manifest:
        kind, metadata = obj["kind"], obj["metadata"]
        if not self.api.is_namespaced(kind):
            self._made.append((kind, metadata["name"]))
            return obj
        return {**obj, "metadata": {"namespace": self.namespace, **metadata}}

    # Reading

    def get(self, kind: str, name: str) -> Manifest:
        return self.api.get(kind, name, self.namespace)

    def find(self, kind: str, name: str) -> Manifest | None:
        return self.api.find(kind, name, self.namespace)

    def all(self, kind: str) -> list[Manifest]:
        return self.api.all(kind, self.namespace)

    def deployment(self, name: str, seconds: float = 10.0) -> Manifest:
        """The Deployment, once it exists."""
        return eventually(lambda: self.find("Deployment", name), seconds)

    def pod_template(self, name: str) -> Manifest:
        template: Manifest = self.deployment(name)["spec"]["template"]
        return template

    def conditions(self, kind: str, name: str, namespace: str | None = None) -> dict[str, tuple[str, str, str]]:
        """Status, reason and message by type."""
        found = self.api.find(kind, name, namespace or self.namespace) or {}
        return {
            condition["type"]: (condition["status"], condition["reason"], condition["message"])
            for condition in found.get("status", {}).get("conditions", [])
        }

    def has(
        self, kind: str, name: str, type_: str, status: str, reason: str, *, seconds: float = 10.0, saying: str = ""
    ) -> str:
        """Wait for a condition; its message. ``saying`` is a part of the message."""

        def look() -> str:
            now = self.conditions(kind, name)
            have = now.get(type_, ("absent", "", ""))
            assert have[:2] == (status, reason), f"{kind} {name}: wanted {type_}={status}/{reason}, have {now}"
            assert saying in have[2]
            return have[2] or " "

        return eventually(look, seconds)

    def tasks(self, kind: str | None = None, *, model: str | None = None) -> list[Manifest]:
        """This test's tasks: of its namespace, and of the OpenModel ``model`` in the operator's namespace."""
        found = self.all("P2PTask")
        if model is not None:
            found += self.api.all("P2PTask", NAMESPACE, labels=f"llmaz.io/model-name={model}")
        return [task for task in found if kind is None or kind in task["spec"]]

    def model_task(self, model: str) -> Manifest:
        """The one task of an OpenModel, once there is exactly one."""

        def look() -> Manifest | None:
            found = self.api.all("P2PTask", NAMESPACE, labels=f"llmaz.io/model-name={model}")
            return found[0] if len(found) == 1 else None

        return eventually(look)

    def image_task(self, reference: str) -> Manifest:
        def look() -> Manifest | None:
            found = [task for task in self.tasks("image") if task["spec"]["image"]["reference"] == reference]
            return found[0] if len(found) == 1 else None

        return eventually(look)

    def events(self, name: str, namespace: str | None = None) -> list[tuple[str, str, str]]:
        """Type, reason and note of the Events about an object."""
        return [
            (event["type"], event["reason"], event["note"])
            for event in self.api.all("Event", namespace)
            if event["regarding"]["name"] == name
        ]

    def kubectl(self, *args: str, input: str | None = None) -> str:
        """kubectl in this test's namespace."""
        return self.cluster.kubectl("-n", self.namespace, *args, input=input)

    def kubectl_json(self, *args: str) -> Manifest:
        return kubectl_json(self.cluster, "-n", self.namespace, *args)

    def column(self, resource: str, name: str, column: str) -> str:
        """What ``kubectl get`` shows in a column."""
        header, row = self.kubectl("get", resource, name, "-o", "wide").splitlines()[:2]
        start = header.index(column)
        following = [header.index(word) for word in header[start:].split()[1:2]]
        return row[start : following[0] if following else None].strip()

    # Pods: no kubelet runs, so somebody else says that they are ready

    def make_ready(self, deployment: str, seconds: float = 20.0) -> Manifest:
        """Let every pod of the present template get ready; returns the Deployment when its rollout is complete."""

        def step() -> Manifest | None:
            live = self.deployment(deployment)
            self._set_pods(live, "True")
            status, wanted = live.get("status", {}), live["spec"]["replicas"]
            counts = [status.get(key, 0) for key in ("replicas", "updatedReplicas", "availableReplicas")]
            observed = status.get("observedGeneration", 0) >= live["metadata"]["generation"]
            return live if observed and counts == [wanted] * 3 else None

        return eventually(step, seconds)

    def make_unready(self, deployment: str) -> None:
        """Let every pod lose its readiness, and wait until the Deployment has noticed."""
        self._set_pods(self.deployment(deployment), "False")
        eventually(lambda: not self.deployment(deployment)["status"].get("availableReplicas"))

    def _set_pods(self, deployment: Manifest, ready: str) -> None:
        selector = ",".join(f"{k}={v}" for k, v in deployment["spec"]["selector"]["matchLabels"].items())
        for pod in self.api.all("Pod", self.namespace, labels=selector):
            has = {c["type"]: c["status"] for c in pod.get("status", {}).get("conditions", [])}
            if has.get("Ready") == ready or "deletionTimestamp" in pod["metadata"]:
                continue
            now = pod["metadata"]["creationTimestamp"]
            conditions = [{"type": type_, "status": ready, "lastTransitionTime": now} for type_ in POD_READY]
            status = {"phase": "Running", "conditions": conditions}
            if self.api.find("Pod", pod["metadata"]["name"], self.namespace):
                self.api.patch("Pod", pod["metadata"]["name"], self.namespace, {"status": status}, subresource="status")
