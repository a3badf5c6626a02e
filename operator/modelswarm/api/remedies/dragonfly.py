"""Reasons on a P2PTask that come from engine Dragonfly.

All are about the manager's jobs, which are tried again by themselves, with growing distances.
"""

from collections.abc import Mapping
from types import MappingProxyType

from modelswarm.api.remedies.remedy import Remedy, act, wait

_R, _D = "Ready", "Degraded"

DRAGONFLY: Mapping[str, Remedy] = MappingProxyType(
    {
        "ManagerUnreachable": act(
            "The Dragonfly manager cannot be reached, does not answer in time, answers 5xx, or is something else.",
            "Check MODELSWARM_DRAGONFLY_MANAGER_URL (a wrong path is answered by a redirect), and the manager.",
            _R,
            _D,
        ),
        "Unauthorized": act(
            "The Dragonfly manager refuses the personal access token, or the Secret with it cannot be read.",
            "Renew the token in the Secret; no restart is needed.",
            _R,
            _D,
        ),
        "NoScheduler": act(
            "The scheduler cluster has no active scheduler, or does not exist.",
            "Check the scheduler and MODELSWARM_DRAGONFLY_CLUSTERS.",
            _R,
            _D,
        ),
        "NoSeedPeer": act(
            "There is no seed peer, it joined less than half a minute ago, or it does not answer the scheduler.",
            "Check the seed client.",
            _R,
            _D,
        ),
        "RateLimited": wait(
            "The manager or the origin answers 429.",
            "Raise the cluster's job_rate_limit, or give the origin a token.",
            _R,
            _D,
        ),
        "SourceDenied": act(
            "The origin answers the seed peer, or the manager, with 401 or 403.",
            "Set MODELSWARM_DRAGONFLY_ALLOW_GATED for files that need a token; give images a pull secret.",
            _R,
            _D,
        ),
        "SourceNotFound": act(
            "The origin answers the seed peer, or the manager, with 404.",
            "Correct the source, or make the origin reachable from the seed peers.",
            _R,
            _D,
        ),
        "PlatformMismatch": act("The image has no manifest for a platform.", "Set spec.image.platforms.", _R, _D),
        "Timeout": wait(
            "A job took longer than it may, or the manager stopped looking at it.",
            "Wait at first; else raise MODELSWARM_DRAGONFLY_JOB_SECONDS or make jobs smaller.",
            _R,
            _D,
        ),
        "JobLost": wait(
            "The manager does not know the job any more, or has forgotten about it (it was restarted).",
            "Wait: it is submitted again.",
            _R,
            _D,
        ),
        "Incomplete": wait(
            "A job ended, and not every file is confirmed on a seed peer.",
            "Wait at first: those files are tried again alone; else see the seed peer's log.",
            _R,
            _D,
        ),
        "Refused": act("The manager does not accept the request.", "Correct what the message names.", _R, _D),
        "ImagePreheatIneffective": act(
            "The layers lie on the seed peers under ids that the nodes will not ask for.",
            "Compare the chart values in the how-to about Dragonfly with those of the nodes' dfdaemon.",
            _R,
            _D,
        ),
        "ContentUnreadable": act(
            "What is to be distributed could not be listed (the manifest, or the registry).",
            "Mend what the message names.",
            _R,
            _D,
        ),
    }
)
