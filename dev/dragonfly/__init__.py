"""The real Dragonfly on this machine, for tests, demos and benchmarks: built, configured, started, killed, restarted.

Nothing of the product imports it. No part of it needs root; only installing the Debian packages of the databases does.
"""

from dev.dragonfly.daemon import Daemon, Download
from dev.dragonfly.stack import DragonflyStack

__all__ = ["Daemon", "Download", "DragonflyStack"]
