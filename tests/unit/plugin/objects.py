"""Objects as the API server would show them, with only what matters."""

from datetime import UTC, datetime, timedelta
from typing import Any

from modelswarm.api.nodecache import NodeCache
from modelswarm.api.openmodel import OpenModel
from modelswarm.api.p2ptask import P2PTask
from modelswarm.api.playground import Playground
from modelswarm.plugin.snapshot import Snapshot
from modelswarm.workload.tasks import model_task_name

NOW = datetime(2025, 6, 1, 12, 0, 0, tzinfo=UTC)
DIGEST = "sha256:" + "a" * 64
MI = 1 << 20


def condition(type_: str, status: str, reason: str, message: str = "") -> dict[str, Any]:
    moment = NOW - timedelta(minutes=5)
    return {"type": type_, "status": status, "reason": reason, "message": message, "lastTransitionTime": moment}


def model(name: str = "llama", *conditions: dict[str, Any]) -> OpenModel:
    return OpenModel.model_validate(
        {
            "metadata": {"name": name, "uid": f"uid-{name}"},
            "spec": {"familyName": "llama", "source": {"modelHub": {"modelID": f"org/{name}"}}},
            "status": {"conditions": conditions},
        }
    )


def playground(name: str = "chat", *conditions: dict[str, Any], models: tuple[str, ...] = ("llama",)) -> Playground:
    claim = {"modelClaim": {"modelName": models[0]}} if models else {}
    return Playground.model_validate(
        {
            "metadata": {"name": name, "namespace": "default", "uid": f"uid-{name}"},
            "spec": claim,
            "status": {"conditions": conditions},
        }
    )


def task(
    name: str = "t", *conditions: dict[str, Any], owner: str = "", image: str = "", spec: Any = None, **status: Any
) -> P2PTask:
    """Of ``org/llama``, pinned, with engine BitTorrent, unless ``status`` says otherwise."""
    what = {"image": {"reference": image}} if image else {"model": {"source": {"modelHub": {"modelID": "org/llama"}}}}
    references = [{"apiVersion": "v1", "kind": "K", "name": "o", "uid": owner, "controller": True}] if owner else []
    resolved = {"digest": DIGEST, "digestSource": "Hub", "files": 1, "bytes": 100 * MI}
    return P2PTask.model_validate(
        {
            "metadata": {
                "name": name,
                "namespace": "llmaz-system",
                "uid": f"uid-{name}",
                "ownerReferences": references,
            },
            "spec": {**what, **(spec or {})},
            "status": {"engine": "BitTorrent", "resolved": resolved, "conditions": conditions, **status},
        }
    )


def task_of(owner: OpenModel, *conditions: dict[str, Any], **status: Any) -> P2PTask:
    """The task that the operator makes for a model."""
    return task(model_task_name(owner), *conditions, owner=owner.metadata.uid, **status)


def cached(state: str, content: str = DIGEST, **entry: Any) -> dict[str, Any]:
    return {"content": content, "name": "org/llama", "state": state, "bytes": 100 * MI, **entry}


def cache(
    node: str, *models: dict[str, Any], free: int = 1000 * MI, version: str = "0.1.0", **labels: str
) -> NodeCache:
    agent = {"metainfoURL": "http://10.0.0.1:8081", "torrentAddress": "10.0.0.1:6881", "version": version}
    status = {
        "agent": agent,
        "labels": labels,
        "models": models,
        "capacityBytes": 2000 * MI,
        "usedBytes": 1000 * MI,
        "freeBytes": free,
    }
    return NodeCache.model_validate({"metadata": {"name": node, "uid": f"uid-{node}"}, "status": status})


def snapshot(
    *objects: OpenModel | Playground | P2PTask | NodeCache, live: set[str] | None = None, **more: Any
) -> Snapshot:
    """``live``: nodes with a ready agent; by default all that have a NodeCache."""
    caches = tuple(each for each in objects if isinstance(each, NodeCache))
    return Snapshot(
        NOW,
        tasks=tuple(each for each in objects if isinstance(each, P2PTask)),
        playgrounds=tuple(each for each in objects if isinstance(each, Playground)),
        models=tuple(each for each in objects if isinstance(each, OpenModel)),
        caches=caches,
        live=frozenset(live if live is not None else (each.metadata.name for each in caches)),
        **more,
    )
