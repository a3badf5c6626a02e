"""Reasons in the termination message of the model-loader, beside those of the content (as on a P2PTask)."""

from collections.abc import Mapping
from types import MappingProxyType

from modelswarm.api.remedies.remedy import Remedy, act, wait

LOADER: Mapping[str, Remedy] = MappingProxyType(
    {
        "SourceChanged": act(
            "The origin has other bytes under this name than those that were pinned.",
            "Delete the model's P2PTask, so that what is there now is pinned.",
        ),
        "DigestMismatch": act(
            "A file came complete and wrong, however often it was fetched.",
            "Look for a mirror or proxy that changes what it passes on, and at the node's disk and memory.",
        ),
        "Incomplete": act("`modelswarm load --check` found files missing or wrong.", "Load the model again."),
        "InvalidSettings": act(
            "The environment or the options of the loader cannot work.", "Correct what the message names."
        ),
        "ManifestMismatch": act(
            "The mounted list of files is that of another source.",
            "Let the Playground's pods be made again; pods that were written by hand must name the right ConfigMap.",
        ),
        "UnsafePath": act(
            "A file would be written outside the model's directory.",
            "Remove the symbolic link that the message names, or distrust the repository.",
        ),
        "InsufficientCapacity": act(
            "The model does not fit on the pod's volume.", "Give the pod a larger volume or node a larger disk."
        ),
        "StorageError": act("The pod's volume cannot be read or written.", "Look at the volume and its rights."),
        "NodeUnavailable": act(
            "The node's agent does not have the model and does not bring it.",
            "See why: `kubectl swarm why node/NAME`.",
        ),
        "Interrupted": wait(
            "The loader was asked to stop; what was downloaded stays for the next start.", "Wait for the next pod."
        ),
        "InternalError": act("The loader has a defect.", "Report it, with the loader's log."),
    }
)
