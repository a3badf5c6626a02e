"""The alerts, run by Prometheus' own promtool: each fires with its words, and is silent otherwise."""

import subprocess
from pathlib import Path
from typing import Any

import pytest
import yaml

from dev.binaries import locate
from dev.helm import CHART, ROOT

CASES = ROOT / "tests" / "alerts"
ALERTS = {rule["alert"]: rule for rule in yaml.safe_load((CHART / "alerts.yaml").read_text())["groups"][0]["rules"]}

each_alert = pytest.mark.parametrize("alert", sorted(ALERTS))


@pytest.fixture(scope="module")
def promtool() -> Path:
    return locate("promtool")["promtool"]


def run(promtool: Path, *arguments: str | Path) -> None:
    result = subprocess.run([promtool, *arguments], capture_output=True, text=True, timeout=120, cwd=ROOT)
    assert result.returncode == 0, result.stdout + result.stderr


def test_the_rules_are_rules(promtool: Path) -> None:
    run(promtool, "check", "rules", "--lint=all", "--lint-fatal", CHART / "alerts.yaml")


@each_alert
def test_it_fires_and_is_silent(alert: str, promtool: Path) -> None:
    cases: list[dict[str, Any]] = yaml.safe_load((CASES / f"{alert}.yaml").read_text())["tests"]
    expected = [check for case in cases for check in case["alert_rule_test"]]
    assert {check["alertname"] for check in expected} == {alert}
    assert {bool(check["exp_alerts"]) for check in expected} == {True, False}, (
        "it is not shown to fire and to be silent"
    )
    run(promtool, "test", "rules", CASES / f"{alert}.yaml")


def test_there_are_no_cases_of_other_alerts() -> None:
    assert {path.stem for path in CASES.glob("*.yaml")} == set(ALERTS)
