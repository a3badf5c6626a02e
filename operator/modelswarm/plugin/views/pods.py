"""Why a Playground's pod does not get ready: the first thing that stands in its way. Pure.

The model-loader's termination message is JSON with a typed reason (docs/reference/loader.md).
"""

import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from types import MappingProxyType

from modelswarm.api.meta import JsonObject
from modelswarm.api.remedies import Remedy, Subject, find_remedy
from modelswarm.api.remedies.remedy import act, wait
from modelswarm.kube.objects import metadata

_LOOK = "Look at it: `kubectl describe pod -n NAMESPACE POD`."
_LOGS = "Read its log: `kubectl logs -n NAMESPACE POD --all-containers --previous`."

_REMEDIES: Mapping[str, Remedy] = MappingProxyType(
    {
        "Unschedulable": act("No node takes the pod.", f"Free or add a node that fits. {_LOOK}"),
        "NotScheduled": wait("No scheduler has placed the pod yet.", "Wait; else see whether the scheduler runs."),
        "ImagePullBackOff": act("The node cannot pull an image.", f"Check the image's name and pull secret. {_LOOK}"),
        "ErrImagePull": act("The node cannot pull an image.", f"Check the image's name and pull secret. {_LOOK}"),
        "CreateContainerConfigError": act("A ConfigMap or Secret of the pod is missing.", _LOOK),
        "CrashLoopBackOff": act("A container ends again and again.", _LOGS),
        "PodInitializing": wait("The model is being loaded into the pod.", "Wait."),
        "ContainerCreating": wait("The node is making the container.", "Wait."),
        "Loading": wait("The model is being loaded into the pod.", "Wait."),
        "Starting": wait("The engine has started and is not ready yet.", f"Wait; if it takes long: {_LOGS}"),
    }
)


@dataclass(frozen=True, slots=True)
class PodTrouble:
    """``reason`` as Kubernetes or the loader calls it. ``remedy`` has NAMESPACE, POD and NODE filled in."""

    pod: str
    reason: str
    message: str
    remedy: Remedy


def trouble_of(pod: JsonObject) -> PodTrouble | None:
    """None where the pod is ready, or on its way out."""
    meta, status = metadata(pod), _mapping(pod.get("status"))
    conditions = {str(each.get("type")): each for each in _items(status.get("conditions"))}
    if _mapping(conditions.get("Ready")).get("status") == "True" or meta.get("deletionTimestamp"):
        return None
    scheduled = _mapping(conditions.get("PodScheduled"))
    if scheduled.get("status") == "False":
        reason = str(scheduled.get("reason") or "Unschedulable")
        return _trouble(pod, reason, str(scheduled.get("message") or ""))
    for container in _containers(status):
        found = _of_container(container)
        if found is not None:
            return _trouble(pod, *found)
    if status.get("phase") == "Running":
        return _trouble(pod, "Starting", "")
    placed = bool(_mapping(pod.get("spec")).get("nodeName"))
    reason = str(status.get("reason") or ("ContainerCreating" if placed else "NotScheduled"))
    return _trouble(pod, reason, str(status.get("message") or ""))


def _of_container(container: Mapping[str, object]) -> tuple[str, str] | None:
    """Reason and message of a container that does not get on; None of one that is done or runs."""
    state, last = _mapping(container.get("state")), _mapping(container.get("lastState"))
    waiting = _mapping(state.get("waiting"))
    ended = _mapping(state.get("terminated")) or _mapping(last.get("terminated"))
    if ended and ended.get("exitCode") != 0 and "running" not in state:
        told = _termination(str(ended.get("message") or ""))
        if told is not None:
            return told
        code = ended.get("exitCode")
        words = f"container {container.get('name')} ended with exit code {code}"
        return str(waiting.get("reason") or ended.get("reason") or "Error"), words
    if waiting:
        return str(waiting.get("reason") or "ContainerCreating"), str(waiting.get("message") or "")
    if "running" in state and container.get("name") == "model-loader":
        return "Loading", ""
    return None


def _termination(text: str) -> tuple[str, str] | None:
    """The loader's reason and message, if that is what the text is."""
    try:
        told = json.loads(text)
    except ValueError:
        return None
    if not isinstance(told, dict) or not told.get("reason"):
        return None
    return str(told["reason"]), str(told.get("message") or "")


def _trouble(pod: JsonObject, reason: str, message: str) -> PodTrouble:
    meta = metadata(pod)
    remedy = _REMEDIES.get(reason) or find_remedy(Subject.LOADER, reason) or act("The pod is not ready.", _LOOK)
    node = str(_mapping(pod.get("spec")).get("nodeName") or "NODE")
    name, namespace = str(meta.get("name")), str(meta.get("namespace"))
    words = remedy.remedy.replace("node/NAME", f"node/{node}")
    words = words.replace("NAMESPACE", namespace).replace("POD", name)
    return PodTrouble(name, reason, message, Remedy(remedy.grade, remedy.cause, words, remedy.on))


def _containers(status: Mapping[str, object]) -> Iterator[Mapping[str, object]]:
    yield from _items(status.get("initContainerStatuses"))
    yield from _items(status.get("containerStatuses"))


def _items(value: object) -> list[Mapping[str, object]]:
    return [each for each in value if isinstance(each, dict)] if isinstance(value, list) else []


def _mapping(value: object) -> Mapping[str, object]:
    return value if isinstance(value, dict) else {}
