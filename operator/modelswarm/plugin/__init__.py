"""``kubectl swarm``: what people ask about models, images and nodes, answered from the cluster's objects.

``commands`` are what users type; ``cluster`` reads the API server into one ``Snapshot``; ``views`` turn that into what
is to be shown (pure); ``show`` prints it. Imports ``api``, ``content``, ``kube``, ``placement``, ``workload`` and
``settings``; nothing imports it.
"""
