"""Which images there are: the targets of the ``Dockerfile``."""

TARGETS = ("operator", "agent", "loader", "loader-dragonfly")
WITH_DFGET = "loader-dragonfly"
"""The one that needs Dragonfly's programs, whose first build takes half an hour."""
UID = 65532
"""User and group of all images, unless the pod says otherwise. Numeric, since ``runAsNonRoot`` accepts no name."""


def image_name(target: str, version: str) -> str:
    """As the manifests name it. A registry of one's own is put in front of it."""
    return f"modelswarm/{target}:v{version}"
