"""The real Dragonfly on this machine, for tests, demos and benchmarks: built, configured, started, killed, restarted.

``stack.DragonflyStack`` is the way in. Nothing of the product imports this package. No part of it needs root; only
installing the Debian packages of the databases does.
"""
