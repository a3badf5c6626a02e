"""Pages and files that are made from the code: ``python -m dev.reference`` writes them, ``--check`` compares.

``metrics``, ``settings``, ``values`` and ``troubleshooting`` each make the page of that name; ``dashboard`` makes the
Grafana dashboard in the chart. ``pages`` knows them all.
"""
