"""Reasons on an OpenModel. Where its P2PTask has failed or is degraded it carries that task's reason."""

from collections.abc import Mapping
from types import MappingProxyType

from modelswarm.api.conditions import ModelReason
from modelswarm.api.remedies.remedy import Remedy, act, fine, wait

OPENMODEL: Mapping[str, Remedy] = MappingProxyType(
    {
        ModelReason.PENDING: wait(
            "The model's P2PTask is at work.",
            "Wait: the message shows how far it is.",
            "Pending",
            "Ready",
        ),
        ModelReason.READY: fine(
            "The model can be served: its bytes are there, or there is nothing to distribute.", "Ready"
        ),
        ModelReason.HEALTHY: fine("Nothing is degraded any more.", "Degraded"),
        "FellBackToOrigin": act(
            "Distribution did not work, so whoever needs the model reads the origin.",
            "Mend what the condition Degraded of the model's P2PTask names.",
            "Ready",
        ),
        "NameClash": act(
            "A P2PTask with the name that the model's own task would have belongs to somebody else.",
            "Remove or rename that P2PTask.",
            "Ready",
        ),
        ModelReason.FORBIDDEN: act(
            "The API server refuses the model's P2PTask by a quota, an admission policy or missing rights; one that is "
            "there already goes on as it was (Degraded).",
            "Change the quota, policy or role that the message quotes; it is tried again every 30 s.",
            "Ready",
            "Degraded",
        ),
        ModelReason.INVALID_OBJECT: act(
            "The model's P2PTask would break a rule of the API server; one that is there already goes on as it was "
            "(Degraded).",
            "Correct the field that the message names; a P2PTask that cannot be changed is made anew if you delete it.",
            "Ready",
            "Degraded",
        ),
        "InvalidReference": act(
            "The model's spec.source cannot name anything.",
            "Correct spec.source; the message says how it is written.",
            "Ready",
        ),
    }
)
