"""The chart's values, without helm: schema, documentation and what the programs understand belong together."""

import json
import re
from pathlib import Path
from typing import Any

import pytest
import yaml

from dev.reference.values import FREE
from modelswarm import __version__
from modelswarm.settings import OperatorSettings

ROOT = Path(__file__).parents[3]
CHART = ROOT / "charts" / "modelswarm"
TEXT = (CHART / "values.yaml").read_text()
VALUES: dict[str, Any] = yaml.safe_load(TEXT)
SCHEMA: dict[str, Any] = json.loads((CHART / "values.schema.json").read_text())
BY_OTHER_VALUES = {
    "namespace",
    "loader_image",
    "loader_ca",
    "credential_namespaces",
    "dragonfly_manager_url",
    "dragonfly_token_secret",
    "dragonfly_clusters",
    "dragonfly_schedulers",
    "dragonfly_platforms",
    "agent_root",
    "agent_namespace",
    "agent_service",
    "origin_readers",
    "turnstile_url",
    "turnstile_port",
    "metrics_port",
    "health_port",
    "leader_elect",
}
"""Settings of the operator that have a value of their own in the chart, or that its ports depend on."""


def test_the_schema_knows_every_value_and_no_other() -> None:
    def compare(values: dict[str, Any], schema: dict[str, Any], path: str) -> None:
        assert schema["additionalProperties"] is False, path
        assert set(schema["properties"]) - {"global"} == set(values), path
        for name, value in values.items():
            if isinstance(value, dict) and name not in FREE:
                compare(value, schema["properties"][name], f"{path}.{name}")

    compare(VALUES, SCHEMA, "values")


def test_every_value_is_documented_in_its_file() -> None:
    lines = TEXT.splitlines()
    for number, line in enumerate(lines):
        found = re.match(r"( *)([A-Za-z]+):(.*)", line)
        if found is None or (not found[3].strip() and not lines[number + 1].startswith(f"{found[1]}- ")):
            continue
        if found[1].startswith("    ") and found[2] in ("requests", "limits"):
            continue
        assert lines[number - 1].lstrip().startswith("#"), f"{found[2]} has no comment"


def test_settings_are_those_of_the_operator() -> None:
    known = set(SCHEMA["properties"]["operator"]["properties"]["settings"]["properties"])
    fields = set(OperatorSettings.model_fields)
    assert fields >= BY_OTHER_VALUES
    assert {name.replace("-", "_") for name in known} == fields - BY_OTHER_VALUES


def test_the_chart_has_the_programs_version() -> None:
    chart = yaml.safe_load((CHART / "Chart.yaml").read_text())
    assert chart["version"] == chart["appVersion"] == __version__


def test_the_chart_has_the_same_crds() -> None:
    """Written by `make crds`, like the others."""
    generated = {path.name: path.read_text() for path in (ROOT / "crds").glob("*.yaml")}
    assert {path.name: path.read_text() for path in (CHART / "crds").glob("*.yaml")} == generated


RUNBOOKS = ROOT / "docs" / "runbooks"
ALERTS = yaml.safe_load((CHART / "alerts.yaml").read_text())["groups"][0]["rules"]


def test_there_are_few_alerts() -> None:
    assert len({alert["alert"] for alert in ALERTS}) == len(ALERTS) <= 10


@pytest.mark.parametrize("alert", [pytest.param(alert, id=alert["alert"]) for alert in ALERTS])
def test_an_alert_has_a_runbook(alert: dict[str, Any]) -> None:
    assert alert["annotations"].keys() == {"summary", "description", "runbook_url"}
    runbook = ROOT / alert["annotations"]["runbook_url"]
    assert runbook == RUNBOOKS / f"{alert['alert']}.md"
    text = runbook.read_text()
    assert text.startswith(f"# {alert['alert']}\n")
    for part in ("**Means.**", "**Users feel.**", "**Check.**", "fix"):
        assert part in text


def test_the_list_of_runbooks_is_complete() -> None:
    listed = re.findall(r"^\| \[(\w+)\]\((\w+)\.md\) \| (\w+) \|", (RUNBOOKS / "README.md").read_text(), re.MULTILINE)
    assert listed == [(alert["alert"], alert["alert"], alert["labels"]["severity"]) for alert in ALERTS]
