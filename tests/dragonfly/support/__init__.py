"""What the tests with an operator on the real Dragonfly are written with."""

from tests.dragonfly.support.bench import SMALL_SHARD, Bench
from tests.dragonfly.support.history import History
from tests.dragonfly.support.jobs import attempts_by_file, preheat, preheats_of
from tests.dragonfly.support.loaders import Load, load

__all__ = ["SMALL_SHARD", "Bench", "History", "Load", "attempts_by_file", "load", "preheat", "preheats_of"]
