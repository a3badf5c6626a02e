"""Reasons on a Playground. Its Degraded also carries the reasons of the P2PTasks that it uses."""

from collections.abc import Mapping
from types import MappingProxyType

from modelswarm.api.conditions import PlaygroundReason
from modelswarm.api.remedies.remedy import Remedy, act, fine, wait
from modelswarm.errors import RenderReason

_A, _P, _D = "Available", "Progressing", "Degraded"

PLAYGROUND: Mapping[str, Remedy] = MappingProxyType(
    {
        PlaygroundReason.PENDING: wait(
            "The Deployment exists and its pods have not been ready yet.",
            "Wait; if it takes long, look at the pods: "
            "`kubectl describe pods -n NAMESPACE -l llmaz.io/playground=NAME`.",
            _P,
            _A,
        ),
        PlaygroundReason.ABORT: act(
            "There can be no workload for this Playground; the reason of Available says why.",
            "Do what the reason of Available asks for.",
            _P,
        ),
        PlaygroundReason.READY: fine("Every wanted pod is ready.", _A),
        PlaygroundReason.IN_PROGRESS: wait(
            "The Playground was ready, and is on its way to be so again.", "Wait, or look at the pods.", _P
        ),
        PlaygroundReason.NOT_READY: act(
            "The Playground was ready, and at least one pod is missing now.",
            "Look at the pods: `kubectl describe pods -n NAMESPACE -l llmaz.io/playground=NAME`.",
            _A,
        ),
        PlaygroundReason.WAITING_FOR_MODEL: wait(
            "A model is being distributed, and the Deployment comes after that.",
            "Wait: the message has percent, copies and ETA. If it names a failure, mend that one.",
            _P,
            _A,
        ),
        PlaygroundReason.PREHEATING_IMAGE: wait(
            "An image (the engine's or the model-loader's) is being distributed, and the Deployment comes after that.",
            "Wait: the message has percent, copies and ETA. If it names a failure, mend that one.",
            _P,
            _A,
        ),
        PlaygroundReason.UPDATE_WAITING: wait(
            "The spec was changed and the bytes of the new version are not there yet; the present version serves on.",
            "Wait; meanwhile only replicas is followed.",
            _P,
        ),
        PlaygroundReason.GATE_TIMEOUT: act(
            "The Deployment was created though a P2PTask is not Ready, because nothing had moved for the gate's time.",
            "See why the P2PTask does not move; the annotation modelswarm.io/gate-timeout (30m, 90s, 0 for never) sets "
            "the time for one Playground.",
            _D,
        ),
        PlaygroundReason.IMAGE_MOVED: act(
            "The image's tag points at another digest than the one that was brought to the nodes.",
            "Deploy by digest, or delete the image's P2PTask so that it is pinned anew.",
            _D,
        ),
        PlaygroundReason.HEALTHY: fine("It works as asked again.", _D),
        PlaygroundReason.MODEL_NOT_FOUND: act(
            "An OpenModel that the Playground names does not exist.",
            "Create the OpenModel; the Playground goes on by itself.",
            _A,
        ),
        PlaygroundReason.BACKEND_RUNTIME_NOT_FOUND: act(
            "The BackendRuntime that the Playground names does not exist.",
            "Create it, or name another one in spec.backendRuntimeConfig.backendName.",
            _A,
        ),
        PlaygroundReason.NAME_CLASH: act(
            "A Deployment, Service, autoscaler or P2PTask of the Playground's name belongs to somebody else, or to a "
            "deleted Playground.",
            "Remove that object or rename the Playground; what a deleted Playground left is collected by itself.",
            _A,
        ),
        PlaygroundReason.FORBIDDEN: act(
            "The API server refuses the workload by a quota, an admission policy or missing rights.",
            "Change the quota, policy or role that the message quotes; it is tried again every 30 s.",
            _A,
        ),
        PlaygroundReason.LLMAZ_IS_RUNNING: act(
            "llmaz's own controller manager is running in this cluster and would fight over every Playground.",
            "Scale it down and remove its webhooks, which would refuse every change; the message has the commands. "
            "Take init-container-image out of llmaz-global-config: it replaces modelswarm's loader by llmaz's.",
            _A,
        ),
        PlaygroundReason.INVALID_GATE_TIMEOUT: act(
            "The annotation modelswarm.io/gate-timeout is not a duration of at most a year, so the operator's setting "
            "is used.",
            "Write it as 30m, 1h30m, 90s or 0.",
            _D,
        ),
        RenderReason.NO_MODELS: act("The Playground names no model.", "Set spec.modelClaim or spec.modelClaims.", _A),
        RenderReason.INVALID_MODELS: act(
            "The roles of the models make no sense together, or two models would lie in the same place.",
            "Correct spec.modelClaims as the message says.",
            _A,
        ),
        RenderReason.UNKNOWN_CONFIG: act(
            "The BackendRuntime has no recommended configuration of that name.",
            "Correct spec.backendRuntimeConfig.configName.",
            _A,
        ),
        RenderReason.BAD_TEMPLATE_VARIABLE: act(
            "An argument of the configuration uses a variable that does not exist.",
            "Correct the BackendRuntime.",
            _A,
        ),
        RenderReason.UNKNOWN_FLAVOR: act("The model has no flavor of that name.", "Correct inferenceFlavors.", _A),
        RenderReason.INVALID_QUANTITY: act(
            "A resource or size is not a Kubernetes quantity.", "Write it like 500m, 4 or 8Gi.", _A
        ),
        RenderReason.UNSUPPORTED_SOURCE: act(
            "The model's source cannot be served in this combination.", "Change what the message names.", _A
        ),
        RenderReason.INVALID_OBJECT: act(
            "What would be created breaks a rule of the API server.",
            "Correct the field that the message names; often these are the API server's own words.",
            _A,
        ),
        "InvalidReference": act(
            "The source of a model, or an image, cannot name anything.",
            "Correct the OpenModel or the BackendRuntime.",
            _A,
        ),
    }
)
