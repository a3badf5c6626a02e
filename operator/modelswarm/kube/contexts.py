"""The namespace that a kubeconfig's context, or the pod we run in, means when none is named."""

import os
from pathlib import Path

from kubernetes_asyncio import config
from kubernetes_asyncio.config import ConfigException

DEFAULT = "default"
_IN_CLUSTER = Path("/var/run/secrets/kubernetes.io/serviceaccount/namespace")


def default_namespace(kubeconfig: Path | None = None, context: str | None = None) -> str:
    """As kubectl chooses it: the context's, else the pod's own, else ``default``."""
    path = str(kubeconfig or os.environ.get("KUBECONFIG") or Path.home() / ".kube" / "config")
    if not any(os.path.exists(each) for each in path.split(os.pathsep)):
        return _IN_CLUSTER.read_text().strip() if _IN_CLUSTER.exists() else DEFAULT
    try:
        every, current = config.list_kube_config_contexts(config_file=path)
    except ConfigException:
        return DEFAULT
    chosen = next((each for each in every if each["name"] == context), None) if context else current
    return str(((chosen or {}).get("context") or {}).get("namespace") or DEFAULT)
