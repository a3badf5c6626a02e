"""The resource metrics API, as far as a HorizontalPodAutoscaler asks it, with loads that a test chooses.

It is registered as an APIService, so requests take the way that they take to a real metrics-server: through the API
server, to a Service.
"""

import json
import ssl
import threading
from datetime import UTC, datetime
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from types import TracebackType
from typing import Self
from urllib.parse import parse_qs, urlsplit

from dev.cluster.cluster import Cluster
from tests.integration.support import Api, Manifest

GROUP, VERSION = "metrics.k8s.io", "v1beta1"
NAME, NAMESPACE = "metrics", "kube-system"
_BASE = f"/apis/{GROUP}/{VERSION}"
_RUNNER = "model-runner"


class MetricsApi:
    """``millicores`` is what every pod is said to use. A context manager."""

    def __init__(self, cluster: Cluster, api: Api, directory: Path) -> None:
        self.millicores = 0
        self._cluster, self._api = cluster, api
        host = f"{NAME}.{NAMESPACE}.svc"
        certificate, key = cluster.plane.serving_certificate(host, (host,)).write(directory, "metrics")
        context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
        context.load_cert_chain(certificate, key)
        outer = self

        class Handler(BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                found = outer._answer(self.path)
                body = json.dumps(found or {}).encode()
                self.send_response(200 if found else 404)
                self.send_header("Content-Type", "application/json")
                self.send_header("Content-Length", str(len(body)))
                self.end_headers()
                self.wfile.write(body)

            def log_message(self, format: str, *args: object) -> None:
                pass

        self._server = ThreadingHTTPServer((cluster.address, 0), Handler)
        self._server.socket = context.wrap_socket(self._server.socket, server_side=True)

    def __enter__(self) -> Self:
        threading.Thread(target=self._server.serve_forever, name="metrics", daemon=True).start()
        self._cluster.plane.kubectl(
            "apply", "-f", "-", input=json.dumps({"kind": "List", "apiVersion": "v1", "items": self._objects()})
        )
        self._cluster.plane.kubectl(
            "wait", "--for=condition=Available", "--timeout=240s", f"apiservice/{VERSION}.{GROUP}"
        )
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._cluster.plane.kubectl("delete", f"apiservice/{VERSION}.{GROUP}")
        self._cluster.plane.kubectl("-n", NAMESPACE, "delete", f"service/{NAME}", f"endpointslice/{NAME}")
        self._server.shutdown()
        self._server.server_close()

    def _answer(self, target: str) -> Manifest | None:
        url = urlsplit(target)
        if url.path == _BASE:
            pods = {"name": "pods", "singularName": "", "namespaced": True, "kind": "PodMetrics", "verbs": ["list"]}
            return {
                "kind": "APIResourceList",
                "apiVersion": "v1",
                "groupVersion": f"{GROUP}/{VERSION}",
                "resources": [pods],
            }
        if not url.path.startswith(f"{_BASE}/namespaces/") or not url.path.endswith("/pods"):
            return None
        namespace = url.path.split("/")[5]
        labels = parse_qs(url.query).get("labelSelector", [""])[0]
        now = datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
        usage = {"cpu": f"{self.millicores}m", "memory": "8Mi"}
        items = [
            {
                "metadata": {"name": pod["metadata"]["name"], "namespace": namespace},
                "timestamp": now,
                "window": "1s",
                "containers": [{"name": _RUNNER, "usage": usage}],
            }
            for pod in self._api.all("Pod", namespace, labels=labels)
        ]
        return {"kind": "PodMetricsList", "apiVersion": f"{GROUP}/{VERSION}", "metadata": {}, "items": items}

    def _objects(self) -> list[Manifest]:
        metadata = {"name": NAME, "namespace": NAMESPACE}
        slice_ = {
            "apiVersion": "discovery.k8s.io/v1",
            "kind": "EndpointSlice",
            "metadata": {**metadata, "labels": {"kubernetes.io/service-name": NAME}},
            "addressType": "IPv4",
            "ports": [{"port": self._server.server_port, "protocol": "TCP"}],
            "endpoints": [{"addresses": [self._cluster.address], "conditions": {"ready": True}}],
        }
        service = {"port": 443, "targetPort": self._server.server_port, "protocol": "TCP"}
        authority = self._cluster.plane.kubectl(
            "config", "view", "--raw", "-o", "jsonpath={.clusters[0].cluster.certificate-authority-data}"
        )
        registration = {
            "group": GROUP,
            "version": VERSION,
            "groupPriorityMinimum": 100,
            "versionPriority": 100,
            "caBundle": authority,
            "service": {**metadata, "port": 443},
        }
        return [
            {"apiVersion": "v1", "kind": "Service", "metadata": metadata, "spec": {"ports": [service]}},
            slice_,
            {
                "apiVersion": "apiregistration.k8s.io/v1",
                "kind": "APIService",
                "metadata": {"name": f"{VERSION}.{GROUP}"},
                "spec": registration,
            },
        ]
