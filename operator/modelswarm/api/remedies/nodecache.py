"""Reasons of a model in a NodeCache; those of failed models stand in ``status.failures`` of P2PTasks, too."""

from collections.abc import Mapping
from types import MappingProxyType

from modelswarm.api.remedies.remedy import Remedy, act, wait

_W, _FE, _FA = "Waiting", "Fetching", "Failed"

NODECACHE: Mapping[str, Remedy] = MappingProxyType(
    {
        "Preparing": wait("The list of files or the disk is being looked at.", "Wait.", _W),
        "NoCoordinator": wait(
            "No node coordinates the model at the moment.",
            "Wait: one takes over within the Lease's time (two minutes).",
            _W,
        ),
        "Suspended": act(
            "All tasks that want the model are suspended.",
            "Set one going again: `kubectl swarm resume NAME -n NAMESPACE`.",
            _W,
        ),
        "SpaceNeeded": act(
            "The model was here, and its space was needed for something else.",
            "Give the node a larger disk or quota, or pin the task (spec.pin: true); it comes back with a pod that "
            "names it, or with space.",
            "Evicted",
        ),
        "Damaged": wait(
            "Files of the model have changed on the disk, and are fetched again.",
            "Find out who writes to the directory.",
            _W,
            _FE,
        ),
        "InsufficientCapacity": act(
            "The model does not fit on the node, even with everything gone that may go.",
            "Give the node a larger disk or quota (MODELSWARM_AGENT_QUOTA), or place fewer models there.",
            _FA,
        ),
        "StorageFailed": act("The file system of the node refuses to read or write.", "Look at the node's disk.", _FA),
        "StoreBusy": act(
            "Another agent works in the same directory of the node.",
            "Let only one agent use it; the message names directory and holder.",
            _FA,
        ),
        "DigestMismatch": wait(
            "A file does not have the origin's digest, and is read again.",
            "Wait at first; if it comes back, look at disk and memory of the node that the message names.",
            _FE,
            _FA,
        ),
        "PeerShunned": act(
            "A node published wrong bytes and is shunned; what is here now is right.",
            "Look at disk and memory of the node that the message names.",
            _FE,
        ),
        "SourceNotFound": act(
            "The repository, bucket or file does not exist, or is private and shown to nobody without a token.",
            "Correct the source, or give a token.",
            _FA,
        ),
        "RevisionNotFound": act(
            "The repository exists, and the branch, tag or commit does not.", "Correct the revision.", _FA
        ),
        "NothingMatches": act("The patterns leave no file.", "Correct the patterns.", _FA),
        "PlatformNotFound": act("There is nothing for a platform that is wanted.", "Correct the platform.", _FA),
        "SourceUnavailable": act(
            "The origin does not answer this node, or answers 5xx; it is asked again.",
            "Look at the network, the proxy and the mirror between node and origin.",
            _FE,
            _FA,
        ),
        "SourceChanged": act(
            "The origin has other bytes under this name than those that were pinned.",
            "Delete the P2PTask, so that what is there now is pinned.",
            _FE,
            _FA,
        ),
        "RateLimited": wait(
            "The origin wants to be left alone for a while (429).",
            "Wait, or use a token: limits are higher then.",
            _W,
            _FE,
        ),
        "AccessDenied": act(
            "The origin refuses: there is no token, or one that may not read the model.",
            "Mend the Secret that the message names (for Hugging Face: accept the model's terms, too).",
            _FE,
            _FA,
        ),
        "CredentialNotFound": act(
            "The Secret with the credentials, or the key in it, does not exist.", "Create it.", _FA
        ),
        "CredentialNotReadable": act(
            "The agent may not read the Secret with the credentials.",
            "Run the commands in the message, which allow it.",
            _FA,
        ),
        "ManifestNotReadable": act(
            "The agent may not read the ConfigMap with the list of files.",
            "Run the commands in the message, which allow it.",
            _FA,
        ),
        "ManifestNotFound": act(
            "The ConfigMap with the list of files is not there.",
            "See the condition Resolved of the P2PTask: the operator writes that list.",
            _FA,
        ),
        "ManifestInvalid": act(
            "The list of files is another one than the P2PTask's status says.",
            "See the condition Resolved of the P2PTask, and who else writes that ConfigMap.",
            _FA,
        ),
        "InvalidPlan": act("The model's Lease makes no sense.", "Delete the Lease that the message names.", _FA),
        "UnsupportedStorage": act(
            "storageUri has a scheme that agents do not fetch.",
            "Use hf://, or bring the model to the node in another way.",
            _FA,
        ),
        "InvalidReference": act("The source or storageUri cannot name anything.", "Correct it.", _FA),
        "PathOutsideRoot": act(
            "storage.path is not below MODEL_DIR, or is in the store's own directories.",
            "Choose another path.",
            _FA,
        ),
        "PlainTextToken": act(
            "storage.parameters.token shows a token to whoever reads the model.",
            "Put the token into a Secret and name that in storage.key; then renew the token.",
            _FA,
        ),
        "NoSuchPath": act(
            "The path of local:// does not exist on the node, as far as the agent can see.",
            "Create it, or mount it into the agent.",
            _FA,
        ),
        "TooManyMembers": wait(
            "More nodes want the model at once than a coordinator serves.",
            "Wait: they come later, from complete nodes.",
            _FE,
            _FA,
        ),
        "PeerUnavailable": act(
            "Other nodes do not answer, or send nothing; they are tried again.",
            "Check NetworkPolicies and the ports 6881 and 8081 between nodes: `kubectl swarm doctor`.",
            _W,
        ),
        "PeerRefused": act(
            "Another node does not accept this node's signature.",
            "Give all agents the same peer Secret, and keep the nodes' clocks within a few minutes.",
            _W,
        ),
        "SwarmFailed": act(
            "BitTorrent itself failed on the node; it is tried again.",
            "Read the message and the agent's log.",
            _W,
        ),
        "ApiServerUnavailable": wait(
            "The API server does not answer the node's agent; it is tried again.", "Wait.", _W
        ),
        "ApiServerForbidden": act(
            "The API server refuses the node's agent something.",
            "Install the agent's rights of the same version as the agent (the chart, or "
            "config/p2p/model-agent-daemonset.yaml).",
            _W,
        ),
        "InternalError": act("The agent has a defect; it tries again.", "Report it, with the agent's log.", _FA),
    }
)
