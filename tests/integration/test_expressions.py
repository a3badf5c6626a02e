"""Dashboard and alerts ask only for metrics and labels that operator and agents export; parsed as Prometheus does."""

import json
import re

import pytest
import yaml

from dev.helm import CHART
from dev.promql import NotPromQL, parse
from dev.reference.dashboard import DASHBOARD
from dev.reference.exported import of_agent, of_operator

SCRAPED = frozenset({"job", "instance", "namespace", "pod", "node"})
"""Labels that a ServiceMonitor or the chart's PodMonitor adds."""
LABELS: dict[str, frozenset[str]] = {}
for each in (*of_operator().values(), *of_agent().values()):
    own = frozenset(each.labels)
    LABELS |= (
        {each.name: own} if each.type != "histogram" else {f"{each.name}_{part}": own for part in ("sum", "count")}
    )
    if each.type == "histogram":
        LABELS[f"{each.name}_bucket"] = own | {"le"}

RANGES = {"$__rate_interval": "5m", "$__range": "3h"}
IN_DASHBOARD = [
    pytest.param(query.expr, id=f"{panel.title}: {query.legend}")
    for panel in DASHBOARD.panels()
    for query in panel.queries
]
IN_ALERTS = [
    pytest.param(rule["expr"], id=rule["alert"])
    for rule in yaml.safe_load((CHART / "alerts.yaml").read_text())["groups"][0]["rules"]
]


def plain(expression: str) -> str:
    """As Grafana sends it."""
    for variable, value in RANGES.items():
        expression = expression.replace(variable, value)
    return expression.replace("$node", ".*")


@pytest.mark.parametrize("expression", [*IN_DASHBOARD, *IN_ALERTS])
def test_what_is_asked_for_exists(expression: str) -> None:
    [asked] = parse([plain(expression)])
    assert asked.selectors
    assert asked.unknown(LABELS, SCRAPED) == []


@pytest.mark.parametrize(
    ("expression", "unknown"),
    [
        pytest.param("sum(modelswarm_leaders)", ["modelswarm_leaders"], id="a metric"),
        pytest.param('modelswarm_leader{phase="x"}', ["phase of modelswarm_leader"], id="a label that is chosen by"),
        pytest.param("sum by (phase) (modelswarm_leader)", ["phase of modelswarm_leader"], id="a label of a sum"),
        pytest.param(
            "modelswarm_leader * on (phase) modelswarm_origin_readers",
            ["phase of modelswarm_leader and modelswarm_origin_readers"],
            id="a label of a join",
        ),
    ],
)
def test_what_does_not_exist_is_noticed(expression: str, unknown: list[str]) -> None:
    [asked] = parse([expression])
    assert asked.unknown(LABELS, SCRAPED) == unknown


def test_what_is_no_promql_is_refused() -> None:
    with pytest.raises(NotPromQL, match="unclosed left parenthesis"):
        parse(["sum(rate(modelswarm_reconcile_total[5m])"])


def test_the_file_has_these_expressions() -> None:
    dashboard = json.loads((CHART / "dashboards" / "modelswarm.json").read_text())
    there = [target["expr"] for panel in dashboard["panels"] for target in panel.get("targets", [])]
    assert there == [query.expr for panel in DASHBOARD.panels() for query in panel.queries]


def test_panels_do_not_overlap_and_say_what_they_show() -> None:
    dashboard = json.loads((CHART / "dashboards" / "modelswarm.json").read_text())
    taken: set[tuple[int, int]] = set()
    for panel in dashboard["panels"]:
        place = panel["gridPos"]
        cells = {(place["x"] + x, place["y"] + y) for x in range(place["w"]) for y in range(place["h"])}
        assert max(x for x, _ in cells) < 24
        assert not cells & taken, panel["title"]
        taken |= cells
        assert panel["type"] == "row" or panel["description"].endswith("."), panel["title"]
    numbers = [panel["id"] for panel in dashboard["panels"]]
    assert len(numbers) == len(set(numbers))


def test_legends_name_labels_that_the_query_keeps() -> None:
    for panel in DASHBOARD.panels():
        for query in panel.queries:
            named = set(re.findall(r"\{\{(\w+)\}\}", query.legend))
            kept = {label.strip() for found in re.findall(r"by \(([^)]*)\)", query.expr) for label in found.split(",")}
            assert named <= kept, (panel.title, query.legend)
