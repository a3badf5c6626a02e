"""The node's side of engine BitTorrent: one process per node that fetches, spreads and keeps models.

``scout`` finds out which contents this node should hold, ``session`` brings one content here (``coordinator`` shares
the origin's work out, ``origin`` reads it, ``swarm`` spreads it, ``store`` keeps it), ``reporter`` says how far that
is. The room may import ``api``, ``content``, ``kube``, ``placement`` and the loader's legs to the origin; only ``cli``
imports it.
"""
