"""The object that a user points at, or an error with names that look like it."""

from modelswarm.api.nodecache import NodeCache
from modelswarm.api.openmodel import OpenModel
from modelswarm.api.p2ptask import P2PTask
from modelswarm.api.playground import Playground
from modelswarm.errors import Forbidden
from modelswarm.plugin.reference import What, missing
from modelswarm.plugin.snapshot import Snapshot, in_namespace


def playground(snapshot: Snapshot, namespace: str, name: str) -> Playground:
    found = snapshot.playground(namespace, name)
    if found is None:
        existing = in_namespace((each.metadata for each in snapshot.playgrounds), namespace)
        raise missing(What.PLAYGROUND, name, existing, f" in namespace {namespace}")
    return found


def task(snapshot: Snapshot, namespace: str, name: str, *, anywhere: bool) -> P2PTask:
    """``anywhere``: no namespace was named, so a task of that name in one other namespace is meant, too.

    Tasks that controllers make have hashes in their names, and those of models live in the operator's namespace.
    """
    found = snapshot.task(namespace, name)
    if found is None and anywhere:
        elsewhere = [each for each in snapshot.tasks if each.metadata.name == name]
        found = elsewhere[0] if len(elsewhere) == 1 else None
    if found is None:
        existing = [each.metadata for each in snapshot.tasks]
        names = [meta.name for meta in existing] if anywhere else in_namespace(existing, namespace)
        raise missing(What.TASK, name, names, "" if anywhere else f" in namespace {namespace}")
    return found


def model(snapshot: Snapshot, name: str) -> OpenModel:
    found = snapshot.model(name)
    if found is None:
        _readable(snapshot, "openmodels")
        raise missing(What.MODEL, name, (each.metadata.name for each in snapshot.models))
    return found


def node(snapshot: Snapshot, name: str) -> NodeCache:
    found = snapshot.cache(name)
    if found is None:
        _readable(snapshot, "nodecaches")
        raise missing(What.NODE, name, (each.metadata.name for each in snapshot.caches), " or has no agent")
    return found


def _readable(snapshot: Snapshot, kind: str) -> None:
    if kind in snapshot.unread:
        raise Forbidden(snapshot.unread[kind], status=403)
