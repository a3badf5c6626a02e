"""Dashboard and alerts ask only for metrics and labels that operator and agents export; parsed as Prometheus does."""

import json
import re
import subprocess
from pathlib import Path

import pytest
import yaml

from dev.binaries import locate
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


HASH = "ab" * 32


def on_node(number: int, metric: str, values: str, **labels: str) -> tuple[str, str]:
    """A series as the PodMonitor has it scraped."""
    pod = {
        "job": "ome-model-agent",
        "instance": f"10.0.0.{number}:8080",
        "namespace": "ome",
        "pod": f"agent-{number}",
        "node": f"gpu-{number}",
    }
    return (
        f"{metric}{{{','.join(f'{name}={chr(34)}{value}{chr(34)}' for name, value in (pod | labels).items())}}}",
        values,
    )


def brought_to_three_nodes() -> list[tuple[str, str]]:
    """A model of 60 bytes per minute, half an hour long: node 1 reads it from the origin, the others from node 1."""
    series = []
    for number in (1, 2, 3):
        source, name = ("origin", "hf") if number == 1 else ("peers", "p2p")
        other = "peers" if source == "origin" else "origin"
        model = {"model": "org/m", "revision": "main"}
        series += [
            on_node(number, "modelswarm_agent_model_info", "1x60", model_hash=HASH, **model),
            on_node(number, "modelswarm_agent_received_bytes_total", "0+60x30 1800x30", source=source),
            on_node(number, "modelswarm_agent_received_bytes_total", "0x60", source=other),
            on_node(number, f"ome_p2p_download_bytes_{name}_total", "0+60x30 1800x30", model_hash=HASH),
            on_node(number, "modelswarm_agent_store_used_bytes", "0+60x30 1800x30"),
            on_node(number, "modelswarm_agent_store_capacity_bytes", "3600x60"),
        ]
    return series


@pytest.mark.parametrize(
    ("panel", "query", "at", "expected"),
    [
        pytest.param("From the origin", 0, "20m", {"{}": 1}, id="bytes per second from the origin"),
        pytest.param("From peers", 0, "20m", {"{}": 2}, id="bytes per second from peers"),
        pytest.param(
            "Bytes per second, by source", 0, "20m", {'{source="origin"}': 1, '{source="peers"}': 2}, id="by source"
        ),
        pytest.param(
            "Bytes per second, by node",
            0,
            "20m",
            {f'{{node="gpu-{number}", instance="10.0.0.{number}:8080"}}': 1 for number in (1, 2, 3)},
            id="by node",
        ),
        pytest.param("Models on their way", 0, "20m", {'{model="org/m", revision="main"}': 1}, id="model, origin"),
        pytest.param("Models on their way", 1, "20m", {'{model="org/m", revision="main"}': 2}, id="model, peers"),
        pytest.param("Models on their way", 1, "50m", {}, id="a model that has arrived is not on its way"),
        pytest.param(
            "By model, since the agents started", 0, "50m", {'{model="org/m", revision="main"}': 1800}, id="cost"
        ),
        pytest.param(
            "By model, since the agents started", 1, "50m", {'{model="org/m", revision="main"}': 3600}, id="spared"
        ),
        pytest.param("Part from peers", 0, "20m", {"{}": 2 / 3}, id="part from peers"),
        pytest.param(
            "Space taken, by node",
            0,
            "50m",
            {f'{{node="gpu-{number}", instance="10.0.0.{number}:8080"}}': 0.5 for number in (1, 2, 3)},
            id="space",
        ),
        pytest.param("Tasks with a problem", 0, "20m", {"{}": 0}, id="no problem is zero, not nothing"),
    ],
)
def test_what_a_panel_shows(panel: str, query: int, at: str, expected: dict[str, float], tmp_path: Path) -> None:
    [found] = [each for each in DASHBOARD.panels() if each.title == panel and len(each.queries) > query]
    check = {
        "expr": plain(found.queries[query].expr),
        "eval_time": at,
        "exp_samples": [{"labels": labels, "value": value} for labels, value in expected.items()],
    }
    series = [{"series": name, "values": values} for name, values in brought_to_three_nodes()]
    case = {"interval": "1m", "input_series": series, "promql_expr_test": [check]}
    path = tmp_path / "case.yaml"
    path.write_text(yaml.safe_dump({"rule_files": [], "fuzzy_compare": True, "tests": [case]}))
    command = [locate("promtool")["promtool"], "test", "rules", path]
    result = subprocess.run(command, capture_output=True, text=True, timeout=60)
    assert result.returncode == 0, result.stdout + result.stderr


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
