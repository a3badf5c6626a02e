"""A model that the node's agent keeps: its one directory, read-only, at the same path in loader and engine.

The same path in both, because the loader puts links to these files where the engine looks for its model.
"""

from collections.abc import Sequence
from dataclasses import dataclass

from modelswarm.api import labels
from modelswarm.api.meta import JsonObject

DIRECTORY = "/var/lib/modelswarm/models"
VARIABLE = "MODELSWARM_NODE_MODEL"
VOLUME = "node-model"
_MOST_WEIGHT = 100
"""Of a preference; Kubernetes' scale."""


@dataclass(frozen=True, slots=True)
class NodeModel:
    """``root`` is the agents' directory on every node, ``content`` the manifest's digest without ``sha256:``."""

    root: str
    content: str

    @property
    def path(self) -> str:
        """In the containers."""
        return f"{DIRECTORY}/{self.content}"

    def env(self) -> JsonObject:
        return {"name": VARIABLE, "value": self.path}

    def volume(self, name: str) -> JsonObject:
        """Made where it is missing: the agent fills it in place, or (no agent) the loader finds it empty."""
        path = f"{self.root.rstrip('/')}/models/{self.content}"
        return {"name": name, "hostPath": {"path": path, "type": "DirectoryOrCreate"}}

    def mount(self, name: str) -> JsonObject:
        return {"name": name, "mountPath": self.path, "readOnly": True}


def prefer_warm_nodes(models: Sequence[NodeModel]) -> JsonObject:
    """Affinity that prefers nodes which have the models, and requires nothing: a cold node is warmed on demand."""
    weight = _MOST_WEIGHT // len(models)
    return {
        "nodeAffinity": {
            "preferredDuringSchedulingIgnoredDuringExecution": [
                {
                    "weight": weight,
                    "preference": {
                        "matchExpressions": [
                            {"key": labels.content_label(model.content), "operator": "In", "values": ["Ready"]}
                        ]
                    },
                }
                for model in models
            ]
        }
    }
