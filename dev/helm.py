"""The pinned helm, and the chart rendered by it."""

import os
import subprocess
import tempfile
from collections.abc import Sequence
from pathlib import Path

from dev.binaries import locate

ROOT = Path(__file__).resolve().parent.parent
CHART = ROOT / "charts" / "modelswarm"
REGISTRY = "registry.invalid"
"""Stands for a registry where nobody named one. The name cannot exist (RFC 2606)."""


class HelmFailed(RuntimeError):
    """helm ended with an error. The message is its own."""


def helm(*arguments: str | Path, kubeconfig: Path | None = None) -> str:
    """Run helm and return its standard output. Raises HelmFailed. Nothing of the user's helm has any effect."""
    with tempfile.TemporaryDirectory(prefix="modelswarm-helm-") as home:
        own = {name: f"{home}/{name}" for name in ("HELM_CACHE_HOME", "HELM_CONFIG_HOME", "HELM_DATA_HOME")}
        settings = {name: value for name, value in os.environ.items() if not name.startswith("HELM_")} | own
        settings["KUBECONFIG"] = str(kubeconfig) if kubeconfig else os.devnull
        command = [locate("helm")["helm"], *arguments]
        result = subprocess.run(command, env=settings, capture_output=True, text=True, timeout=300)
    if result.returncode:
        raise HelmFailed(f"helm {arguments[0]}: {result.stderr.strip() or result.stdout.strip()}")
    return result.stdout


def template(*arguments: str | Path, release: str = "modelswarm", namespace: str = "llmaz-system") -> str:
    """The chart's objects as YAML, without a cluster. ``arguments`` are those of ``helm template``."""
    return helm("template", release, CHART, "--namespace", namespace, *arguments)


def setting(**values: str | int | bool) -> Sequence[str]:
    """``--set`` for each; two underscores are a dot: ``agent__enabled=False``."""
    found: list[str] = []
    for name, value in values.items():
        text = str(value).lower() if isinstance(value, bool) else str(value)
        found += ["--set", f"{name.replace('__', '.')}={text}"]
    return found
