"""How bytes are spread: one module or package per engine, behind the protocol in ``engine.py``.

Imports ``api`` and ``content``; knows nothing of controllers.
"""
