"""Write the generated pages, or (``--check``) fail if one is stale."""

import argparse
import sys

from dev.reference.pages import generated
from modelswarm.api.schema import check


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m dev.reference", description=__doc__)
    parser.add_argument("--check", action="store_true", help="write nothing; say what is not current")
    files = generated()
    if parser.parse_args().check:
        return 0 if check(files) else 1
    for path, text in files.items():
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    return 0


if __name__ == "__main__":
    sys.exit(main())
