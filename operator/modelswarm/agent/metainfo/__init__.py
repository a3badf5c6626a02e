"""What agents tell each other over HTTP, on the seed's metainfo port.

``server`` and its routes (the seed's ``/metainfo/<hash>``, ``/health``, ``/stats``, ``/models``, and ours under
``/v1/``), ``client``, ``signing`` (both prove that they know the shared Secret), ``desk`` (reports that wait for an
answer).
"""
