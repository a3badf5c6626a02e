"""``python -m dev.images [TARGET...]``: build images, and print of each its size, digest, time and archive.

``--wheels`` only downloads what others need for building them without a network.
"""

import argparse
import os
import sys

from dev.binaries import BinaryUnavailable
from dev.dragonfly.packages import PackagesMissing, ensure_packages
from dev.images.base import BaseUnavailable
from dev.images.buildah import PACKAGES, BuildFailed
from dev.images.building import NotRoot, prepare
from dev.images.context import WHEELS
from dev.images.targets import TARGETS
from dev.images.wheelhouse import WheelsUnavailable, copy_wheels

PREREQUISITE_MISSING = 3
"""Exit code when this machine lacks what a build needs, as opposed to a build that failed."""


def main(arguments: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="python -m dev.images", description="Build the images as OCI archives.")
    parser.add_argument("target", nargs="*", help=f"{', '.join(TARGETS)}; default: all")
    parser.add_argument(
        "--install-packages", action="store_true", help="let apt-get install the missing Debian packages (needs root)"
    )
    parser.add_argument("--wheels", action="store_true", help=f"build nothing; put all Python packages into {WHEELS}")
    options = parser.parse_args(arguments)
    if unknown := set(options.target) - set(TARGETS):
        parser.error(f"no such image: {', '.join(sorted(unknown))}")
    try:
        if options.wheels:
            print(f"{WHEELS}: {copy_wheels()} wheels; an image build finds them there by itself")
            return 0
        if os.geteuid() == 0:
            ensure_packages(PACKAGES, install=options.install_packages, purpose="building images")
        images = prepare(options.target or None)
    except (NotRoot, PackagesMissing) as error:
        print(error, file=sys.stderr)
        return PREREQUISITE_MISSING
    except (BaseUnavailable, BinaryUnavailable, BuildFailed, WheelsUnavailable) as error:
        print(error, file=sys.stderr)
        return 1
    for image in images.values():
        print(f"{image}\n  {image.archive}")
    for target in TARGETS:
        if target not in images and not options.target:
            print(f"{target} left out: it needs dfget, which 'make dragonfly' builds in half an hour")
    return 0


if __name__ == "__main__":
    sys.exit(main())
