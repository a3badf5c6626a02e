"""A Playground ``pg`` of a hub model, its controller, and what other controllers would have done by now."""

from typing import Any

from modelswarm.api.meta import JsonObject
from modelswarm.api.openmodel import OpenModel
from modelswarm.api.playground import Playground
from modelswarm.controllers.playground import PlaygroundController
from modelswarm.controllers.queue import Key
from modelswarm.controllers.runner import Result
from modelswarm.kube.kinds import (
    AUTOSCALER,
    BACKENDRUNTIME,
    CONFIGMAP,
    DEPLOYMENT,
    OPENMODEL,
    P2PTASK,
    PLAYGROUND,
    SERVICE,
    Kind,
)
from modelswarm.kube.objects import metadata
from modelswarm.workload.tasks import model_task
from tests.unit.controllers.fake_kube import world
from tests.unit.controllers.objects import COMMIT, DIGEST
from tests.unit.controllers.strict_kube import StrictKube, of_kind, see
from tests.unit.workload.objects import playground, runtime

KEY = Key("default", "pg")
LOADER = "modelswarm/loader:v1"
ENGINE = "vllm/vllm-openai:v0.7.3"
SYSTEM = "llmaz-system"
READY = {
    "phase": "Succeeded",
    "conditions": [{"type": "Ready", "status": "True", "reason": "Distributed"}],
    "resolved": {"revision": COMMIT, "digest": DIGEST, "digestSource": "Hub", "files": 1, "bytes": 1},
}
DENIED = {"phase": "Failed", "conditions": [{"type": "Resolved", "status": "False", "reason": "AccessDenied"}]}
PINNED = {**READY, "manifest": {"name": "the-manifest", "shards": 1}}


def put_inputs(kube: StrictKube, model: OpenModel, *, image: str = "vllm/vllm-openai", replicas: int = 1) -> None:
    """As users do, who leave the status alone."""
    kube.put(of_kind("llmaz.io/v1alpha1", "OpenModel", model))
    before = kube.objects.get((PLAYGROUND, KEY), {})
    status = {"status": before["status"]} if "status" in before else {}
    wanted = of_kind("inference.llmaz.io/v1alpha1", "Playground", playground("m", name="pg", replicas=replicas))
    kube.put({**wanted, **status})
    kube.put(of_kind("inference.llmaz.io/v1alpha1", "BackendRuntime", runtime(image=image)))


def put_model_task(kube: StrictKube, model: OpenModel, status: dict[str, Any]) -> None:
    wanted = model_task(model, namespace=SYSTEM)
    assert wanted is not None
    kube.put({**wanted, "status": _status(status)})


def finish(kube: StrictKube, status: dict[str, Any] = READY) -> None:
    """All tasks in the Playground's namespace are through."""
    for task in tasks(kube).values():
        kube.put({**task, "status": _status(status)})


def tasks(kube: StrictKube, content: str = "") -> dict[str, JsonObject]:
    """Those in the Playground's namespace, by name; ``content`` is model or image."""
    return {
        key.name: obj
        for (kind, key), obj in kube.objects.items()
        if kind is P2PTASK and key.namespace == KEY.namespace and content in str(obj["spec"])
    }


async def look(kube: StrictKube, *, unseen: Kind | None = None, **settings: Any) -> Result:
    """One reconcile by an operator that has just started and has seen everything, but for what is ``unseen`` yet."""
    given = world(kube, **{"loader_image": LOADER, "credential_namespaces": (KEY.namespace,), **settings})
    kinds = (OPENMODEL, BACKENDRUNTIME, PLAYGROUND, P2PTASK, DEPLOYMENT, SERVICE, AUTOSCALER, CONFIGMAP)
    see(given, *(kind for kind in kinds if kind is not unseen))
    return await PlaygroundController(given).reconcile(KEY)


def reason(kube: StrictKube) -> str | None:
    """Of the Playground's Available; None while it has said nothing."""
    found = Playground.model_validate(kube.objects[PLAYGROUND, KEY])
    return next((each.reason for each in found.status.conditions if each.type == "Available"), None)


def deployment(kube: StrictKube) -> Any:
    return kube.objects.get((DEPLOYMENT, KEY))


def name_of(obj: JsonObject) -> str:
    return str(metadata(obj)["name"])


def _status(status: dict[str, Any]) -> JsonObject:
    said = {"message": "as it is", "lastTransitionTime": "2025-06-01T11:00:00Z"}
    return {**status, "conditions": [{**said, **each} for each in status["conditions"]]}
