"""Engine BitTorrent, as the operator sees it: which nodes should hold a model, and how far their agents are.

``nodes`` is what the agents report, ``observe`` turns it into an observation (pure), ``engine`` puts both together. No
byte passes here: the agents (``modelswarm.agent``) read tasks and report to their NodeCaches.
"""
