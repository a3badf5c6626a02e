"""The dashboard is what Grafana's own models of a dashboard know, and follows what its users expect of one."""

import json
from collections.abc import Iterator
from typing import Any

import pytest
from grafana_foundation_sdk.cog.encoder import JSONEncoder
from grafana_foundation_sdk.cog.plugins import register_default_plugins
from grafana_foundation_sdk.models.dashboard import Dashboard

from dev.helm import CHART

FILE: dict[str, Any] = json.loads((CHART / "dashboards" / "modelswarm.json").read_text())
PANELS: list[dict[str, Any]] = [panel for panel in FILE["panels"] if panel["type"] != "row"]
CHOSEN = {"type": "prometheus", "uid": "${datasource}"}

each_panel = pytest.mark.parametrize("panel", [pytest.param(panel, id=panel["title"]) for panel in PANELS])


def lost(given: object, understood: object, path: str = "") -> Iterator[str]:
    """What is in one and not in the other, which may have more."""
    match given, understood:
        case dict(), dict():
            for name, value in given.items():
                yield from lost(value, understood.get(name), f"{path}.{name}")
        case list(), list() if len(given) == len(understood):
            for index, value in enumerate(given):
                yield from lost(value, understood[index], f"{path}[{index}]")
        case _ if given != understood:
            yield f"{path}: {given!r} became {understood!r}"


def test_grafanas_models_keep_every_field() -> None:
    register_default_plugins()
    understood = json.loads(JSONEncoder().encode(Dashboard.from_json(FILE)))
    assert list(lost(FILE, understood)) == []


def test_a_field_that_grafana_does_not_know_is_noticed() -> None:
    register_default_plugins()
    understood = json.loads(JSONEncoder().encode(Dashboard.from_json({**FILE, "titel": "x"})))
    assert list(lost({"titel": "x"}, understood)) == [".titel: 'x' became None"]


@each_panel
def test_a_panel_asks_the_source_that_was_chosen(panel: dict[str, Any]) -> None:
    assert panel["datasource"] == CHOSEN
    assert [target["datasource"] for target in panel["targets"]] == [CHOSEN] * len(panel["targets"])
    assert [target["refId"] for target in panel["targets"]] == ["A", "B", "C"][: len(panel["targets"])]


@each_panel
def test_several_series_have_names(panel: dict[str, Any]) -> None:
    """Of a table: columns. One value alone needs none, for the title is its name."""
    if len(panel["targets"]) > 1 or panel["type"] in ("timeseries", "bargauge"):
        names = [target["legendFormat"] for target in panel["targets"]]
        assert "__auto" not in names
        assert len(set(names)) == len(names)


def test_variables_are_used_and_ask_the_source_too() -> None:
    source, *variables = FILE["templating"]["list"]
    assert (source["name"], source["type"], source["query"]) == ("datasource", "datasource", "prometheus")
    text = json.dumps(PANELS)
    for variable in variables:
        assert variable["datasource"] == CHOSEN
        assert f"${variable['name']}" in text


def test_titles_are_said_once_in_a_row() -> None:
    titles: set[str] = set()
    for panel in FILE["panels"]:
        if panel["type"] == "row":
            titles.clear()
        assert panel["title"] not in titles
        titles.add(panel["title"])
