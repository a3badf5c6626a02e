"""The images of modelswarm, built without Docker and without a registry: ``make images``, or

    from dev.images import build

    archives = build(["operator", "agent", "loader"])   # OCI archives, by target

The ``Dockerfile`` is built by Debian's buildah upon a Debian that debootstrap has made, without a network. What is
downloaded before that (Debian's packages and the Python packages of ``constraints.txt``) stays in the cache.
"""

from dev.images.building import Image, NotRoot, build, prepare, usual_targets
from dev.images.targets import TARGETS, image_name

__all__ = ["TARGETS", "Image", "NotRoot", "build", "image_name", "prepare", "usual_targets"]
