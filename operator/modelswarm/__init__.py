"""modelswarm gets model weights and images onto a cluster's nodes once from the origin and to everyone else from peers.

The package is divided into rooms; imports point one way (``pyproject.toml`` has the contracts that prove it)::

    api <- content, workload <- backends, kube <- controllers <- operator, cli
           content <- loader
"""

__version__ = "0.1.0"
