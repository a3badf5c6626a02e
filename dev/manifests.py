"""One file for ``kubectl apply --server-side -f``: what the chart installs, for those without Helm.

    python -m dev.manifests --output dist/modelswarm.yaml --registry registry.example.com

The agents are in the namespace ``ome``, as in config/p2p. There is no secret of the peers in the file, since it would
be the same for everybody who uses it; docs/how-to/install.md says how to make one.
"""

import argparse
import sys
from pathlib import Path

from dev.binaries import BinaryUnavailable
from dev.helm import REGISTRY, HelmFailed, setting, template

OPERATOR, AGENTS = "llmaz-system", "ome"

_NAMESPACES = f"""\
apiVersion: v1
kind: Namespace
metadata:
  name: {OPERATOR}
---
apiVersion: v1
kind: Namespace
metadata:
  name: {AGENTS}
  labels:
    # Agents keep models in a directory of the node, which only this level allows.
    pod-security.kubernetes.io/enforce: privileged
"""


def manifests(registry: str, tag: str = "") -> str:
    """Namespaces first, then the CRDs, then the rest. Raises HelmFailed and BinaryUnavailable."""
    values = setting(
        image__registry=registry,
        image__tag=tag,
        agent__namespace=AGENTS,
        agent__peerSecret__create=False,
        agent__peerSecret__optional=True,
    )
    rendered = template("--include-crds", "--skip-tests", *values, namespace=OPERATOR)
    # Helm does not manage these objects, so nothing in them should say so.
    kept = [line for line in rendered.splitlines() if not line.lstrip().startswith(_OF_HELM)]
    return "\n".join([_NAMESPACES.rstrip(), *kept, ""])


_OF_HELM = ("# Source: ", "helm.sh/chart: ", "app.kubernetes.io/managed-by: Helm")


def main(arguments: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="python -m dev.manifests", description="Render the chart into one file.")
    parser.add_argument("--output", type=Path, required=True, metavar="FILE", help="where it goes")
    parser.add_argument("--registry", default=REGISTRY, metavar="HOST[/PATH]", help="which registry has your images")
    parser.add_argument("--tag", default="", help="their tag; default: the chart's version")
    options = parser.parse_args(arguments)
    try:
        text = manifests(options.registry, options.tag)
    except (HelmFailed, BinaryUnavailable) as error:
        print(error, file=sys.stderr)
        return 1
    options.output.parent.mkdir(parents=True, exist_ok=True)
    options.output.write_text(text)
    print(f"wrote {options.output}; next: kubectl apply --server-side -f {options.output} (see docs/how-to/install.md)")
    if options.registry == REGISTRY:
        print(f"images are named {REGISTRY}/...: no image is published, so say where yours are with REGISTRY=HOST")
    return 0


if __name__ == "__main__":
    sys.exit(main())
