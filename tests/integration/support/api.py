"""The API server as its administrator sees it, as plain dicts. Faster than a kubectl per request."""

import json
from collections.abc import Iterator
from types import TracebackType
from typing import Any, Self

import httpx

from dev.controlplane import ControlPlane

Manifest = dict[str, Any]

_KINDS: dict[str, tuple[str, str, bool]] = {
    "OpenModel": ("/apis/llmaz.io/v1alpha1", "openmodels", False),
    "P2PTask": ("/apis/llmaz.io/v1alpha1", "p2ptasks", True),
    "Playground": ("/apis/inference.llmaz.io/v1alpha1", "playgrounds", True),
    "BackendRuntime": ("/apis/inference.llmaz.io/v1alpha1", "backendruntimes", False),
    "Deployment": ("/apis/apps/v1", "deployments", True),
    "ReplicaSet": ("/apis/apps/v1", "replicasets", True),
    "Pod": ("/api/v1", "pods", True),
    "Service": ("/api/v1", "services", True),
    "ServiceAccount": ("/api/v1", "serviceaccounts", True),
    "ConfigMap": ("/api/v1", "configmaps", True),
    "Secret": ("/api/v1", "secrets", True),
    "Namespace": ("/api/v1", "namespaces", False),
    "Event": ("/apis/events.k8s.io/v1", "events", True),
    "ResourceQuota": ("/api/v1", "resourcequotas", True),
    "HorizontalPodAutoscaler": ("/apis/autoscaling/v2", "horizontalpodautoscalers", True),
    "Node": ("/api/v1", "nodes", False),
    "NodeCache": ("/apis/llmaz.io/v1alpha1", "nodecaches", False),
    "BaseModel": ("/apis/ome.io/v1beta1", "basemodels", True),
    "ClusterBaseModel": ("/apis/ome.io/v1beta1", "clusterbasemodels", False),
    "EndpointSlice": ("/apis/discovery.k8s.io/v1", "endpointslices", True),
    "Lease": ("/apis/coordination.k8s.io/v1", "leases", True),
}

_ADMIN = {"fieldManager": "test"}


class ApiFailed(RuntimeError):
    """The API server refused a request. The message is its own."""

    def __init__(self, response: httpx.Response) -> None:
        self.code = response.status_code
        try:
            message = response.json()["message"]
        except (ValueError, KeyError):
            message = response.text
        super().__init__(f"{self.code}: {message}")


class Api:
    """Requests to one control plane, as administrator."""

    def __init__(self, cluster: ControlPlane) -> None:
        self._http = httpx.Client(
            base_url=cluster.server, verify=cluster.ssl_context(), timeout=30, trust_env=False, headers={}
        )

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: object, trace: TracebackType | None) -> None:
        self._http.close()

    @staticmethod
    def path(kind: str, name: str = "", namespace: str | None = None) -> str:
        """Where the object is, or without a ``name`` all of them; without a ``namespace`` those of all namespaces."""
        base, plural, namespaced = _KINDS[kind]
        where = f"{base}/namespaces/{namespace}/{plural}" if namespaced and namespace else f"{base}/{plural}"
        return f"{where}/{name}" if name else where

    @staticmethod
    def is_namespaced(kind: str) -> bool:
        return _KINDS[kind][2]

    def get(self, kind: str, name: str, namespace: str | None = None) -> Manifest:
        return self._send("GET", self.path(kind, name, namespace))

    def find(self, kind: str, name: str, namespace: str | None = None) -> Manifest | None:
        """The object, or None where it does not exist."""
        try:
            return self.get(kind, name, namespace)
        except ApiFailed as error:
            if error.code == httpx.codes.NOT_FOUND:
                return None
            raise

    def all(self, kind: str, namespace: str | None = None, *, labels: str = "") -> list[Manifest]:
        query = {"labelSelector": labels} if labels else {}
        items: list[Manifest] = self._send("GET", self.path(kind, "", namespace), params=query)["items"]
        return items

    def versions(
        self, kind: str, namespace: str | None = None, *, since: str = "", seconds: int = 2
    ) -> Iterator[Manifest]:
        """What a watch of so long gives: each version since a ``resourceVersion``, or, without one, all that are there
        and what follows. Raises ``ApiFailed`` where that version is too long ago."""
        query = {"watch": "true", "timeoutSeconds": str(seconds)} | ({"resourceVersion": since} if since else {})
        with self._http.stream("GET", self.path(kind, "", namespace), params=query) as response:
            if response.is_error:
                response.read()
                raise ApiFailed(response)
            for line in response.iter_lines():
                obj: Manifest = (event := json.loads(line))["object"]
                if event["type"] == "ERROR":
                    raise ApiFailed(httpx.Response(obj.get("code", 500), json=obj))
                yield obj

    def create(self, obj: Manifest) -> Manifest:
        """POST; the kind's own rules apply, and an object of that name is an error."""
        metadata = obj["metadata"]
        return self._send("POST", self.path(obj["kind"], "", metadata.get("namespace")), json=obj, params=_ADMIN)

    def apply(self, obj: Manifest, *, subresource: str = "") -> Manifest:
        """Server-side apply as the user: what the object no longer says is removed, and nobody else's field."""
        metadata = obj["metadata"]
        path = self.path(obj["kind"], metadata["name"], metadata.get("namespace"))
        return self._send(
            "PATCH",
            path + (f"/{subresource}" if subresource else ""),
            json=obj,
            params={**_ADMIN, "force": "true"},
            headers={"Content-Type": "application/apply-patch+yaml"},
        )

    def patch(
        self, kind: str, name: str, namespace: str | None, change: Manifest, *, subresource: str = ""
    ) -> Manifest:
        """A merge patch."""
        path = self.path(kind, name, namespace) + (f"/{subresource}" if subresource else "")
        return self._send(
            "PATCH", path, json=change, params=_ADMIN, headers={"Content-Type": "application/merge-patch+json"}
        )

    def delete(self, kind: str, name: str, namespace: str | None = None) -> None:
        """Delete it; what is gone already is no error. The garbage collector takes what it owned."""
        try:
            self._send("DELETE", self.path(kind, name, namespace), params={"propagationPolicy": "Background"})
        except ApiFailed as error:
            if error.code != httpx.codes.NOT_FOUND:
                raise

    def _send(self, method: str, path: str, **rest: Any) -> Manifest:
        response = self._http.request(method, path, **rest)
        if response.is_error:
            raise ApiFailed(response)
        answer: Manifest = response.json()
        return answer
