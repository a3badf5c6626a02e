"""``python -m modelswarm`` is the ``modelswarm`` command."""

import sys

from modelswarm.cli import main

if __name__ == "__main__":
    sys.exit(main())
