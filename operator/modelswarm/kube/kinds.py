"""The kinds that operator and agents touch, and where the API server keeps them."""

from dataclasses import dataclass
from urllib.parse import quote

from modelswarm.api.meta import JsonObject


@dataclass(frozen=True, slots=True)
class Kind:
    group: str
    version: str
    kind: str
    plural: str
    namespaced: bool

    @property
    def api_version(self) -> str:
        return f"{self.group}/{self.version}" if self.group else self.version

    def path(self, namespace: str | None = None, name: str | None = None, subresource: str | None = None) -> str:
        """The URL path of an object, or of the collection if there is no name (of all namespaces without one)."""
        parts = ["/apis" if self.group else "/api", self.api_version]
        if self.namespaced and namespace:
            parts += ["namespaces", quote(namespace, safe="")]
        elif self.namespaced and name:
            raise ValueError(f"{self.kind} {name} needs a namespace")
        parts.append(self.plural)
        parts += [quote(part, safe="") for part in (name, subresource) if part]
        return "/".join(parts)


OPENMODEL = Kind("llmaz.io", "v1alpha1", "OpenModel", "openmodels", False)
P2PTASK = Kind("llmaz.io", "v1alpha1", "P2PTask", "p2ptasks", True)
NODECACHE = Kind("llmaz.io", "v1alpha1", "NodeCache", "nodecaches", False)
PLAYGROUND = Kind("inference.llmaz.io", "v1alpha1", "Playground", "playgrounds", True)
BACKENDRUNTIME = Kind("inference.llmaz.io", "v1alpha1", "BackendRuntime", "backendruntimes", False)
DEPLOYMENT = Kind("apps", "v1", "Deployment", "deployments", True)
SERVICE = Kind("", "v1", "Service", "services", True)
AUTOSCALER = Kind("autoscaling", "v2", "HorizontalPodAutoscaler", "horizontalpodautoscalers", True)
CONFIGMAP = Kind("", "v1", "ConfigMap", "configmaps", True)
SECRET = Kind("", "v1", "Secret", "secrets", True)
SERVICEACCOUNT = Kind("", "v1", "ServiceAccount", "serviceaccounts", True)
NODE = Kind("", "v1", "Node", "nodes", False)
POD = Kind("", "v1", "Pod", "pods", True)
ENDPOINTSLICE = Kind("discovery.k8s.io", "v1", "EndpointSlice", "endpointslices", True)
LEASE = Kind("coordination.k8s.io", "v1", "Lease", "leases", True)
EVENT = Kind("events.k8s.io", "v1", "Event", "events", True)
BASEMODEL = Kind("ome.io", "v1beta1", "BaseModel", "basemodels", True)
"""OME's, as the next one; read by the agents where they exist."""
CLUSTERBASEMODEL = Kind("ome.io", "v1beta1", "ClusterBaseModel", "clusterbasemodels", False)

KINDS = (
    OPENMODEL,
    P2PTASK,
    NODECACHE,
    PLAYGROUND,
    BACKENDRUNTIME,
    DEPLOYMENT,
    SERVICE,
    AUTOSCALER,
    CONFIGMAP,
    SECRET,
    SERVICEACCOUNT,
    NODE,
    POD,
    ENDPOINTSLICE,
    LEASE,
    EVENT,
    BASEMODEL,
    CLUSTERBASEMODEL,
)

_BY_NAME = {(kind.api_version, kind.kind): kind for kind in KINDS}


def kind_of(obj: JsonObject) -> Kind:
    """The kind of an object by its ``apiVersion`` and ``kind``; ValueError for one that is not in the list above."""
    name = (obj.get("apiVersion"), obj.get("kind"))
    try:
        return _BY_NAME[name]  # type: ignore[index]  # whatever else it holds is simply not found
    except (KeyError, TypeError):
        raise ValueError(f"{name[0]} {name[1]} is not a kind that modelswarm knows") from None
