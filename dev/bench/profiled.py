"""``modelswarm`` under cProfile: ``python -m dev.bench.profiled FILE operator ...`` leaves its profile in FILE.

The figures of such a run are for finding out where time goes; the profiler itself takes a good part of it.
"""

import cProfile
import sys

from modelswarm.cli import main


def profiled(file: str, argv: list[str]) -> int:
    profile = cProfile.Profile()
    profile.enable()
    try:
        return main(argv)
    finally:
        profile.disable()
        profile.dump_stats(file)


if __name__ == "__main__":
    sys.exit(profiled(sys.argv[1], sys.argv[2:]))
