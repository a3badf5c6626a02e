"""How OME hears of models on a node: a label on the Node and an entry in a ConfigMap of the Node's name.

OME's InferenceService pods select ``models.ome.io/...=Ready``; its controller makes ``nodesReady`` from the ConfigMaps.
Names and shapes are OME's, the ways in which it shortens long names too: a label's name has 63 characters, a key of a
ConfigMap 253.
"""

import hashlib
import json
from collections.abc import Iterable, Mapping
from datetime import datetime
from types import MappingProxyType

from modelswarm.agent.standing import Standing
from modelswarm.agent.wanted import Claim
from modelswarm.api.meta import JsonObject, format_time
from modelswarm.api.nodecache import ModelState

DOMAIN = "models.ome.io"
LABEL_NAME = 49
"""Characters that OME allows after ``models.ome.io/``."""
CONFIGMAP_KEY = 253
CONFIGMAP_LABELS = MappingProxyType({"models.ome/basemodel-status": "true"})
"""By which OME's controller finds the ConfigMaps; ``node`` is added."""
SHORTEST_NAMESPACE = 8
_DIGITS = 8
"""Of the SHA-256 that stands for what was cut off."""

_UPDATING = "Updating"
_STATES = {ModelState.READY: "Ready", ModelState.FAILED: "Failed"}


def label_of(claim: Claim) -> str:
    """The Node label of a BaseModel or ClusterBaseModel."""
    return f"{DOMAIN}/{_name(claim, LABEL_NAME)}"


def key_of(claim: Claim) -> str:
    """Its key in the ConfigMap."""
    return _name(claim, CONFIGMAP_KEY)


def state_of(standing: Standing) -> str:
    """OME's word for how far it is."""
    return _STATES.get(standing.state, _UPDATING)


def labels(standings: Iterable[Standing]) -> dict[str, str]:
    """The Node labels of all models of OME."""
    return {label_of(claim): state_of(standing) for standing in standings for claim in _claims(standing)}


def entries(
    standings: Iterable[Standing], now: datetime, configs: Mapping[str, JsonObject] = MappingProxyType({})
) -> dict[str, str]:
    """The data of the ConfigMap: a JSON document per model. ``configs``: what models say of themselves, by content."""
    return {
        key_of(claim): json.dumps(_document(claim, standing, now, configs), separators=(",", ":"), sort_keys=True)
        for standing in standings
        for claim in _claims(standing)
    }


def config_map(node: str, namespace: str, data: Mapping[str, str]) -> JsonObject:
    """What we own of the ConfigMap, for a server-side apply: others' keys stay."""
    return {
        "apiVersion": "v1",
        "kind": "ConfigMap",
        "metadata": {
            "name": node,
            "namespace": namespace,
            "labels": {**CONFIGMAP_LABELS, "node": node},
            "annotations": {f"{DOMAIN}/node-name": node, f"{DOMAIN}/managed-by": "model-agent"},
        },
        "data": dict(data),
    }


def _claims(standing: Standing) -> list[Claim]:
    return [claim for claim in standing.claims if not claim.is_task]


def _document(claim: Claim, standing: Standing, now: datetime, configs: Mapping[str, JsonObject]) -> JsonObject:
    """As OME's own agent writes it, which leaves out what it does not know: ``config`` most of all."""
    document: JsonObject = {"name": claim.name, "status": state_of(standing)}
    if claim.described and standing.state is ModelState.READY and (config := configs.get(standing.key)):
        document["config"] = config
    if standing.state in (ModelState.FETCHING, ModelState.VERIFYING):
        document["progress"] = {
            "phase": "Downloading" if standing.state is ModelState.FETCHING else "Finalizing",
            "totalBytes": standing.bytes,
            "completedBytes": standing.done_bytes,
            "speedBytesPerSec": standing.bytes_per_second,
            "lastUpdated": format_time(now),
        }
    return document


def _name(claim: Claim, limit: int) -> str:
    if not claim.namespace:
        prefix = "clusterbasemodel."
        return prefix + _shortened(claim.name, limit - len(prefix))
    middle = ".basemodel."
    room = limit - len(middle)
    namespace, name = claim.namespace, claim.name
    if len(namespace) + len(name) > room:
        # The name gets what the namespace leaves, and that is cut to the least.
        namespace = _shortened(namespace, min(len(namespace), SHORTEST_NAMESPACE))
        name = _shortened(name, room - len(namespace))
    return f"{namespace}{middle}{name}"


def _shortened(text: str, limit: int) -> str:
    """``<8 hex digits>-<the end>`` where it is too long; only the digits where there is no room for more."""
    if len(text) <= limit:
        return text
    digits = hashlib.sha256(text.encode()).hexdigest()[:_DIGITS]
    room = limit - _DIGITS - 1
    return f"{digits}-{text[-room:]}" if room > 0 else digits[:limit]
