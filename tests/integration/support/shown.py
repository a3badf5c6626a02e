"""What a reader of the documents finds in the cluster: objects that the commands look at, and what waits for them."""

import json

import yaml

from tests.integration.support.api import Manifest
from tests.integration.support.objects import open_model, p2p_task, playground
from tests.integration.support.ome import OME_CRDS, base_model

NAME = "opt-125m"
WORDS = {
    "CHART": "charts/modelswarm",
    "NAME": NAME,
    "TASK": NAME,
    "NAMESPACE": "default",
    "TASK_NAMESPACE": "default",
    "NODE": "node-1",
    "POD": "pod-1",
    "DAEMONSET": "ome-agent",
    "DIGITS": "0123abcd",
}
"""What the documents leave to the reader."""
NAMESPACES = ("default", "llmaz-system", "ome", "team-a")
CONTENT = "sha256:" + "ab" * 32


def object_(api_version: str, kind: str, name: str, namespace: str = "", **more: object) -> Manifest:
    labels = more.pop("labels", None)
    meta: Manifest = {"name": name, **({"namespace": namespace} if namespace else {})}
    return {"apiVersion": api_version, "kind": kind, "metadata": meta | ({"labels": labels} if labels else {}), **more}


def workload(kind: str, name: str, namespace: str) -> Manifest:
    containers = [{"name": "c", "image": "i"}]
    template = {"metadata": {"labels": {"app": name}}, "spec": {"containers": containers}}
    spec = {"selector": {"matchLabels": {"app": name}}, "template": template}
    return object_("apps/v1", kind, name, namespace, spec=spec)


def pod(name: str, namespace: str, **labels: str) -> Manifest:
    ended = {"exitCode": 0, "message": json.dumps({"bytesBySource": {"origin": 1}, "skipped": {}})}
    status = {
        "phase": "Running",
        "initContainerStatuses": [
            {"name": "model-loader", "state": {"terminated": ended}, "image": "i", "imageID": "i", "ready": True}
            | {"restartCount": 0}
        ],
    }
    spec = {"containers": [{"name": "c", "image": "i"}], "initContainers": [{"name": "model-loader", "image": "i"}]}
    return object_("v1", "Pod", name, namespace, labels={"app": "x", **labels}, spec=spec, status=status)


def world() -> list[Manifest]:
    """What the commands look at."""
    labels = {f"models.ome.io/clusterbasemodel.{name}": "Ready" for name in ("qwen2-0-5b", NAME)}
    labels[f"content.modelswarm.io/{WORDS['DIGITS']}"] = "yes"
    model: Manifest = {"content": CONTENT, "name": "facebook/opt-125m", "state": "Failed", "reason": "DigestMismatch"}
    task = p2p_task(NAME)
    task["metadata"]["namespace"] = "default"
    task["spec"]["pin"] = True
    return [
        *(object_("v1", "ServiceAccount", "default", namespace) for namespace in NAMESPACES),
        object_("v1", "Node", "node-1", labels=labels),
        open_model(NAME),
        in_default(playground(NAME, NAME)),
        available(task),
        base_model(NAME, "hf://facebook/opt-125m"),
        object_("llmaz.io/v1alpha1", "NodeCache", "node-1", status={"models": [model], "freeBytes": 1}),
        object_("coordination.k8s.io/v1", "Lease", "modelswarm-operator", "llmaz-system", spec={"holderIdentity": "x"}),
        object_(
            "coordination.k8s.io/v1",
            "Lease",
            "ome-model-0123",
            "llmaz-system",
            labels={"ome.io/type": "model-download"},
        ),
        pod(WORDS["POD"], "default"),
        pod("operator-1", "llmaz-system", **{"app.kubernetes.io/name": "modelswarm-operator"}),
        workload("DaemonSet", "ome-agent", "ome"),
    ]


def _crd(group: str, version: str, kind: str) -> Manifest:
    plural = f"{kind.lower()}s"
    schema = {"openAPIV3Schema": {"type": "object", "x-kubernetes-preserve-unknown-fields": True}}
    names = {"kind": kind, "plural": plural, "singular": kind.lower(), "listKind": f"{kind}List"}
    versions = [{"name": version, "served": True, "storage": True, "schema": schema}]
    spec = {"group": group, "scope": "Namespaced", "names": names, "versions": versions}
    return object_("apiextensions.k8s.io/v1", "CustomResourceDefinition", f"{plural}.{group}", spec=spec)


NOT_OURS = [
    *(object_("v1", "Namespace", namespace) for namespace in NAMESPACES),
    _crd("inference.llmaz.io", "v1alpha1", "Service"),
    *(_crd("monitoring.coreos.com", "v1", kind) for kind in ("ServiceMonitor", "PodMonitor", "PrometheusRule")),
    *yaml.safe_load_all(OME_CRDS),
]
"""Namespaces, and kinds that llmaz, OME and the Prometheus operator have."""


def llmaz() -> list[Manifest]:
    """What llmaz's installation consists of, as far as the switch to modelswarm touches it."""
    config = {"config.data": "init-container-image: inftyai/model-loader:v0.0.10\n"}
    hooks = [
        object_(
            "admissionregistration.k8s.io/v1",
            f"{kind}WebhookConfiguration",
            f"llmaz-{kind.lower()}-webhook-configuration",
        )
        for kind in ("Validating", "Mutating")
    ]
    return [
        workload("Deployment", "llmaz-controller-manager", "llmaz-system"),
        object_("v1", "ConfigMap", "llmaz-global-config", "llmaz-system", data=config),
        object_("inference.llmaz.io/v1alpha1", "Service", NAME, "default"),
        *hooks,
    ]


def in_default(obj: Manifest) -> Manifest:
    obj["metadata"]["namespace"] = "default"
    return obj


def running(obj: Manifest) -> Manifest:
    if obj["kind"] == "DaemonSet":
        counts = (
            "currentNumberScheduled",
            "desiredNumberScheduled",
            "numberReady",
            "updatedNumberScheduled",
            "numberAvailable",
        )
        return {"observedGeneration": obj["metadata"]["generation"], "numberMisscheduled": 0} | dict.fromkeys(counts, 1)
    counts = ("replicas", "updatedReplicas", "readyReplicas", "availableReplicas")
    return {"observedGeneration": obj["metadata"]["generation"]} | dict.fromkeys(counts, obj["spec"]["replicas"])


def available(obj: Manifest) -> Manifest:
    types = ("Available",) if obj["kind"] == "Playground" else ("Ready",)
    now = "2026-01-01T00:00:00Z"
    conditions = [
        {"type": type_, "status": "True", "reason": type_, "message": "", "lastTransitionTime": now} for type_ in types
    ]
    if obj["kind"] == "Playground":
        return obj | {"status": {"replicas": 1, "conditions": conditions}}
    examples = [{"name": "config.json", "id": "ab" * 32}]
    return obj | {"status": {"conditions": conditions, "phase": "FellBack", "dragonfly": {"examples": examples}}}
