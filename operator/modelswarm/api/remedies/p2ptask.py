"""Reasons on a P2PTask that do not come from engine Dragonfly or from a node."""

from collections.abc import Mapping
from types import MappingProxyType

from modelswarm.api.conditions import TaskReason
from modelswarm.api.remedies.remedy import Remedy, act, fine, wait
from modelswarm.errors import ContentReason

_A, _RES, _R, _D = "Accepted", "Resolved", "Ready", "Degraded"

P2PTASK: Mapping[str, Remedy] = MappingProxyType(
    {
        TaskReason.ACCEPTED: fine("The spec can be worked on; the message names the engine.", _A),
        TaskReason.RESOLVING: wait("The origin is being asked what there is.", "Wait.", _RES, _R, _D),
        TaskReason.RESOLVED: fine("The branch or tag is pinned; the message says to what.", _RES),
        TaskReason.RUNNING: wait("The engine is at work.", "Wait; `kubectl swarm status` shows progress and ETA.", _R),
        TaskReason.SUSPENDED: act(
            "The task is suspended (spec.suspend is true).",
            "Set it going again: `kubectl swarm resume NAME -n NAMESPACE`.",
            _R,
        ),
        TaskReason.DISTRIBUTED: fine("The bytes are on the nodes, verified.", _R),
        TaskReason.NOTHING_TO_DISTRIBUTE: fine(
            "Engine Direct: each consumer downloads by itself. The source is pinned, save for an image that could not "
            "be looked at (Degraded).",
            _R,
        ),
        TaskReason.FELL_BACK: act(
            "Distribution did not work in time, so consumers read the origin.",
            "Mend what the condition Degraded names.",
            _R,
        ),
        TaskReason.STALLED: act(
            "No newly verified byte came in for the operator's stall time (300 s by default).",
            "Look at the nodes in status.failures, and at the engine: `kubectl swarm doctor`.",
            _R,
            _D,
        ),
        TaskReason.DEADLINE_EXCEEDED: act(
            "The task was not Ready within spec.activeDeadlineSeconds.",
            "Give it more time, or see what held it up.",
            _R,
            _D,
        ),
        TaskReason.NO_AGENT: act(
            "No node has a ready agent; what was Ready stays so, and what was not falls back after a while (180 s by "
            "default).",
            "Bring the agents back: `kubectl get pods -A -l app.kubernetes.io/name=ome-model-agent`.",
            _R,
            _D,
        ),
        TaskReason.NO_MATCHING_NODE: act(
            "Agents are ready, but none on a node with the labels that the placement asks for, or all of those are "
            "cordoned or tainted, as the message says then.",
            "Label a node, or correct placement.nodeSelector (for a model: the nodeSelectors of its flavors), or "
            "uncordon one.",
            _R,
            _D,
        ),
        TaskReason.ENGINE_NOT_CONFIGURED: act(
            "The spec names an engine that this installation does not have.",
            "Use engine Auto, or configure that engine in the operator.",
            _R,
            _D,
        ),
        TaskReason.CREDENTIAL_NOT_FOUND: act(
            "The Secret with the credentials does not exist, or lacks a key.",
            "Create the Secret with the key that the message names, or remove the reference; it is looked at again.",
            _RES,
            _R,
            _D,
        ),
        TaskReason.CREDENTIAL_NOT_READABLE: act(
            "The operator may not read the Secret with the credentials.",
            "Run the two commands in the message, which allow it.",
            _RES,
            _R,
            _D,
        ),
        TaskReason.NAME_CLASH: act(
            "A ConfigMap with the name of the task's list of files belongs to somebody else.",
            "Remove that ConfigMap; it is looked at again.",
            _RES,
            _R,
        ),
        TaskReason.MANIFEST_REFUSED: act(
            "The API server does not take the ConfigMap with the list of files.",
            "Read its words in the message: a quota on ConfigMaps, or an admission policy in that namespace.",
            _RES,
            _R,
            _D,
        ),
        TaskReason.IMAGE_MOVED: act(
            "The tag points at another digest than the pinned one; nodes that pull from now on get the new image.",
            "Deploy by digest, or delete the task to pin it anew.",
            _D,
        ),
        TaskReason.HEALTHY: fine("It works as asked again.", _D),
        ContentReason.INVALID_REFERENCE: act(
            "The source or the image cannot name anything, or there is nothing to distribute.",
            "Make a new task with a correct source; the source and the image of a task cannot be changed.",
            _A,
            _R,
        ),
        ContentReason.SOURCE_NOT_FOUND: act(
            "The repository, bucket, image or file does not exist, or is private and shown to nobody without a token.",
            "Correct the source, create what it names, or give a token; it is asked again every five minutes, and at "
            "once after `kubectl swarm retry NAME -n NAMESPACE`.",
            _RES,
            _R,
        ),
        ContentReason.REVISION_NOT_FOUND: act(
            "The repository exists, and the branch, tag or commit does not.",
            "Correct the revision.",
            _RES,
            _R,
        ),
        ContentReason.ACCESS_DENIED: act(
            "The origin answers 401 or 403, or the repository is gated.",
            "Put a token that may read it into the Secret that spec.credentialsSecretRef names (for Hugging Face: "
            "accept the model's terms, too). For an image: a pull secret that the operator may read; without Dragonfly "
            "nobody waits for it.",
            _RES,
            _R,
            _D,
        ),
        ContentReason.NOTHING_MATCHES: act(
            "filename, allowPatterns and ignorePatterns leave no file.", "Correct the patterns.", _RES, _R
        ),
        ContentReason.PLATFORM_NOT_FOUND: act(
            "The image has no manifest for a platform that is wanted.",
            "Correct spec.image.platforms, or use another image.",
            _RES,
            _R,
        ),
        ContentReason.RATE_LIMITED: wait(
            "The origin answers 429, and is left alone as long as it asked for.",
            "Wait, or use a token: limits are higher then.",
            _RES,
            _R,
            _D,
        ),
        ContentReason.SOURCE_UNAVAILABLE: act(
            "The origin does not answer, or answers 5xx; it is asked again with growing distances.",
            "Look at the network, the proxy and the mirror between operator and origin.",
            _RES,
            _R,
            _D,
        ),
        "Failed": act("A node's agent failed without saying why.", "See the log of that node's agent.", _R),
    }
)
