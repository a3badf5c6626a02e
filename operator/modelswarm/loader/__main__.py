"""``python -m modelswarm.loader``."""

import sys

from modelswarm.loader import main

sys.exit(main(sys.argv[1:]))
