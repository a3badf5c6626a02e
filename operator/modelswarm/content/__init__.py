"""What is distributed: sources, hubs, object stores, image references, the manifest.

Imports ``api`` and ``errors`` only.
"""
