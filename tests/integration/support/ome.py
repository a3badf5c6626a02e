"""OME's two kinds, as small as they can be: what the agent reads, and a status. OME itself is not needed."""

from typing import Any

import yaml

from tests.integration.support.api import Manifest

GROUP, VERSION = "ome.io", "v1beta1"

_STORAGE: Manifest = {
    "type": "object",
    "required": ["storageUri"],
    "properties": {
        "storageUri": {"type": "string"},
        "path": {"type": "string"},
        "key": {"type": "string"},
        "parameters": {"type": "object", "additionalProperties": {"type": "string"}},
        "nodeSelector": {"type": "object", "additionalProperties": {"type": "string"}},
        "nodeAffinity": {"type": "object", "x-kubernetes-preserve-unknown-fields": True},
    },
}
_SCHEMA: Manifest = {
    "type": "object",
    "properties": {
        "spec": {
            "type": "object",
            "required": ["storage"],
            "properties": {"storage": _STORAGE},
            "x-kubernetes-preserve-unknown-fields": True,
        },
        "status": {"type": "object", "x-kubernetes-preserve-unknown-fields": True},
    },
}


def _crd(kind: str, scope: str) -> Manifest:
    plural = f"{kind.lower()}s"
    version = {
        "name": VERSION,
        "served": True,
        "storage": True,
        "subresources": {"status": {}},
        "schema": {"openAPIV3Schema": _SCHEMA},
    }
    return {
        "apiVersion": "apiextensions.k8s.io/v1",
        "kind": "CustomResourceDefinition",
        "metadata": {"name": f"{plural}.{GROUP}"},
        "spec": {
            "group": GROUP,
            "scope": scope,
            "names": {"kind": kind, "plural": plural, "singular": kind.lower(), "listKind": f"{kind}List"},
            "versions": [version],
        },
    }


OME_CRDS = yaml.safe_dump_all([_crd("BaseModel", "Namespaced"), _crd("ClusterBaseModel", "Cluster")])


def base_model(name: str, uri: str, namespace: str = "", **storage: Any) -> Manifest:
    """A BaseModel; without a namespace: a ClusterBaseModel."""
    metadata = {"name": name, **({"namespace": namespace} if namespace else {})}
    return {
        "apiVersion": f"{GROUP}/{VERSION}",
        "kind": "BaseModel" if namespace else "ClusterBaseModel",
        "metadata": metadata,
        "spec": {"storage": {"storageUri": uri, **storage}},
    }
