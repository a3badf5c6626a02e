"""Reasons on an OpenModel. Where its P2PTask has failed or is degraded it carries that task's reason."""

from collections.abc import Mapping
from types import MappingProxyType

from modelswarm.api.remedies.remedy import Remedy, act, fine, wait

OPENMODEL: Mapping[str, Remedy] = MappingProxyType(
    {
        "Pending": wait(
            "The model's P2PTask is at work.",
            "Wait: the message shows how far it is.",
            "Pending",
            "Ready",
        ),
        "Ready": fine("The model can be served: its bytes are there, or there is nothing to distribute.", "Ready"),
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
        "InvalidReference": act(
            "The model's spec.source cannot name anything.",
            "Correct spec.source; the message says how it is written.",
            "Ready",
        ),
    }
)
