"""What PromQL expressions ask for, as Prometheus' own parser understands them."""

import json
import subprocess
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from dev.binaries import locate


class NotPromQL(ValueError):
    """An expression that Prometheus would refuse. The message is the parser's."""


@dataclass(frozen=True, slots=True)
class Selector:
    """A metric, and the labels that it is chosen by."""

    metric: str
    labels: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Use:
    """Labels by which series of ``metrics`` are grouped or matched."""

    labels: tuple[str, ...]
    metrics: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Asked:
    """What one expression needs to exist."""

    selectors: tuple[Selector, ...]
    uses: tuple[Use, ...]

    def unknown(self, labels: Mapping[str, frozenset[str]], everywhere: frozenset[str]) -> list[str]:
        """Metrics and labels that do not exist. ``labels``: those of each metric; ``everywhere``: those that the
        scraper adds to all."""
        found = [each.metric for each in self.selectors if each.metric not in labels]
        uses = (*self.uses, *(Use(each.labels, (each.metric,)) for each in self.selectors))
        for use in uses:
            there = everywhere.union(*(labels.get(metric, frozenset()) for metric in use.metrics))
            found += [f"{label} of {' and '.join(use.metrics)}" for label in use.labels if label not in there]
        return found


def parse(expressions: Sequence[str]) -> list[Asked]:
    """In the same order. Raises NotPromQL and BinaryUnavailable."""
    result = subprocess.run(
        [locate("promql")["promql"]], input=json.dumps(list(expressions)), capture_output=True, text=True, timeout=60
    )
    if result.returncode:
        raise NotPromQL(result.stderr.strip())
    return [
        Asked(
            tuple(Selector(each["metric"], tuple(each["labels"])) for each in found["selectors"]),
            tuple(Use(tuple(each["labels"]), tuple(each["metrics"])) for each in found["uses"]),
        )
        for found in json.loads(result.stdout)
    ]
