"""The Kubernetes API: log-in, requests as plain dicts, the store that watches feed, the Lease, Events.

Knows nothing of models or playgrounds beyond where their kinds live. Imports ``errors``, ``api`` and ``metrics`` only;
the one room besides ``main`` that imports kubernetes_asyncio, and the one room where ``Any`` may appear in a signature.
"""
