"""The certificate authorities that loaders believe, where a company has its own: a ConfigMap beside the Playground."""

from dataclasses import dataclass

from modelswarm.api.meta import JsonObject

DIRECTORY = "/etc/modelswarm/ca"
VARIABLE = "SSL_CERT_FILE"
VOLUME = "ca-bundle"


@dataclass(frozen=True, slots=True)
class Authorities:
    """``config_map`` is in the namespace of the pod, and ``key`` has certificates in PEM."""

    config_map: str
    key: str

    @classmethod
    def parse(cls, text: str) -> "Authorities":
        """From ``CONFIGMAP/KEY``."""
        config_map, _, key = text.partition("/")
        return cls(config_map, key)

    def env(self) -> JsonObject:
        return {"name": VARIABLE, "value": f"{DIRECTORY}/{self.key}"}

    def volume(self) -> JsonObject:
        """Optional, as not every namespace has it, and most loaders never ask an origin."""
        items: list[JsonObject] = [{"key": self.key, "path": self.key}]
        return {"name": VOLUME, "configMap": {"name": self.config_map, "optional": True, "items": [*items]}}

    def mount(self) -> JsonObject:
        return {"name": VOLUME, "mountPath": DIRECTORY, "readOnly": True}
