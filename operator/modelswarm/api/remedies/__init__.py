"""Why a thing is as it is, and what helps: an entry for every typed reason, by the object that carries it.

``kubectl swarm why`` answers from it, and the troubleshooting page is made from it.
"""

from collections.abc import Mapping
from types import MappingProxyType

from modelswarm.api.remedies.dragonfly import DRAGONFLY
from modelswarm.api.remedies.loader import LOADER
from modelswarm.api.remedies.nodecache import NODECACHE
from modelswarm.api.remedies.openmodel import OPENMODEL
from modelswarm.api.remedies.p2ptask import P2PTASK
from modelswarm.api.remedies.playground import PLAYGROUND
from modelswarm.api.remedies.remedy import NOTHING, Grade, Remedy, Subject

__all__ = ["NOTHING", "REMEDIES", "Grade", "Remedy", "Subject", "find_remedy"]

REMEDIES: Mapping[Subject, Mapping[str, Remedy]] = MappingProxyType(
    {
        Subject.OPENMODEL: OPENMODEL,
        Subject.PLAYGROUND: PLAYGROUND,
        Subject.P2PTASK: P2PTASK,
        Subject.DRAGONFLY: DRAGONFLY,
        Subject.NODECACHE: NODECACHE,
        Subject.LOADER: LOADER,
    }
)

_ALSO: Mapping[Subject, tuple[Subject, ...]] = MappingProxyType(
    {
        Subject.OPENMODEL: (Subject.P2PTASK, Subject.DRAGONFLY, Subject.NODECACHE),
        Subject.PLAYGROUND: (Subject.P2PTASK, Subject.DRAGONFLY, Subject.NODECACHE),
        Subject.P2PTASK: (Subject.NODECACHE, Subject.DRAGONFLY),
        Subject.DRAGONFLY: (Subject.P2PTASK,),
        Subject.LOADER: (Subject.P2PTASK,),
    }
)
"""An object passes on the reasons of what it waits for."""


def find_remedy(subject: Subject, reason: str) -> Remedy | None:
    """What is known of a reason on such an object, or on what it waits for; None for a word of a newer version."""
    for each in (subject, *_ALSO.get(subject, ())):
        if (found := REMEDIES[each].get(reason)) is not None:
            return found
    return None
