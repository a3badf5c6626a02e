"""What names one object of a known kind."""

from dataclasses import dataclass


@dataclass(frozen=True, slots=True, order=True)
class Key:
    """Namespace (empty for cluster-scoped kinds) and name."""

    namespace: str
    name: str

    def __str__(self) -> str:
        return f"{self.namespace}/{self.name}" if self.namespace else self.name
