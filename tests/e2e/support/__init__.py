"""What the tests on the real cluster are written with: an installation, and a place with models and workloads."""

from tests.e2e.support.place import Place, Replica
from tests.e2e.support.release import Release

__all__ = ["Place", "Release", "Replica"]
