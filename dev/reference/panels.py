"""The parts of a Grafana dashboard, and the JSON that they become."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from enum import StrEnum
from types import MappingProxyType

Json = dict[str, object]

COLUMNS = 24
"""Grafana's grid."""
DATASOURCE: Mapping[str, str] = MappingProxyType({"type": "prometheus", "uid": "${datasource}"})


class Shape(StrEnum):
    """How a panel shows its queries."""

    LINES = "timeseries"
    NUMBER = "stat"
    TABLE = "table"
    BARS = "bargauge"


@dataclass(frozen=True, slots=True)
class Query:
    """``expr`` in PromQL. ``legend`` names its series; in a table, the column of its values."""

    expr: str
    legend: str = ""


@dataclass(frozen=True, slots=True)
class Panel:
    """``unit`` is one of Grafana's: bytes, Bps (bytes per second), s, percentunit, short."""

    title: str
    description: str
    shape: Shape
    queries: Sequence[Query]
    unit: str = "short"
    width: int = 12
    height: int = 8
    stacked: bool = False
    alarming: float | None = None
    """From this value on it is shown in red."""
    ceiling: float | None = None
    """The end of the axis."""


def number(
    title: str, description: str, expr: str, unit: str = "short", *, height: int = 4, alarming: float | None = None
) -> Panel:
    return Panel(title, description, Shape.NUMBER, [Query(expr)], unit, width=4, height=height, alarming=alarming)


def lines(
    title: str,
    description: str,
    *queries: Query,
    unit: str = "short",
    stacked: bool = False,
    alarming: float | None = None,
) -> Panel:
    return Panel(title, description, Shape.LINES, queries, unit, stacked=stacked, alarming=alarming)


def table(title: str, description: str, *queries: Query, unit: str = "short", width: int = 12) -> Panel:
    return Panel(title, description, Shape.TABLE, queries, unit, width)


@dataclass(frozen=True, slots=True)
class Row:
    """A question, and the panels that answer it."""

    title: str
    panels: Sequence[Panel]


@dataclass(frozen=True, slots=True)
class Dashboard:
    """``variables`` are label values that can be chosen: name, and the metric that has that label."""

    uid: str
    title: str
    description: str
    rows: Sequence[Row]
    variables: Sequence[tuple[str, str]] = ()

    def panels(self) -> Iterator[Panel]:
        for row in self.rows:
            yield from row.panels


def to_json(dashboard: Dashboard) -> Json:
    """What Grafana loads."""
    return {
        "uid": dashboard.uid,
        "title": dashboard.title,
        "description": dashboard.description,
        "tags": ["modelswarm"],
        "schemaVersion": 39,
        "editable": True,
        "graphTooltip": 1,
        "refresh": "30s",
        "time": {"from": "now-3h", "to": "now"},
        "timezone": "",
        "templating": {"list": [_datasource(), *(_variable(*each) for each in dashboard.variables)]},
        "annotations": {"list": []},
        "links": [],
        "panels": list(_placed(dashboard.rows)),
    }


def _datasource() -> Json:
    return {"name": "datasource", "label": "Data source", "type": "datasource", "query": "prometheus", "current": {}}


def _variable(name: str, metric: str) -> Json:
    query = f"label_values({metric}, {name})"
    return {
        "name": name,
        "label": name,
        "type": "query",
        "datasource": dict(DATASOURCE),
        "query": {"query": query, "refId": f"variable-{name}"},
        "refresh": 2,
        "sort": 1,
        "multi": True,
        "includeAll": True,
        "allValue": ".*",
        "current": {"text": ["All"], "value": ["$__all"]},
    }


def _placed(rows: Sequence[Row]) -> Iterator[Json]:
    """From left to right, a new line where the panel does not fit any more."""
    number, top = 1, 0
    for row in rows:
        yield {
            "id": number,
            "type": "row",
            "title": row.title,
            "collapsed": False,
            "gridPos": {"x": 0, "y": top, "w": COLUMNS, "h": 1},
            "panels": [],
        }
        number, top = number + 1, top + 1
        left, tallest = 0, 0
        for panel in row.panels:
            if left + panel.width > COLUMNS:
                left, top, tallest = 0, top + tallest, 0
            yield _panel(panel, number, {"x": left, "y": top, "w": panel.width, "h": panel.height})
            number, left, tallest = number + 1, left + panel.width, max(tallest, panel.height)
        top += tallest


def _panel(panel: Panel, number: int, place: Json) -> Json:
    steps: list[Json] = [{"color": "green", "value": None}]
    if panel.alarming is not None:
        steps.append({"color": "red", "value": panel.alarming})
    defaults: Json = {"unit": panel.unit, "min": 0, "thresholds": {"mode": "absolute", "steps": steps}}
    if panel.ceiling is not None:
        defaults["max"] = panel.ceiling
    if panel.shape is Shape.LINES:
        stacking = {"mode": "normal" if panel.stacked else "none", "group": "A"}
        defaults["custom"] = {
            "fillOpacity": 25 if panel.stacked else 5,
            "stacking": stacking,
            "showPoints": "never",
            "thresholdsStyle": {"mode": "off" if panel.alarming is None else "line"},
        }
    return {
        "id": number,
        "type": panel.shape.value,
        "title": panel.title,
        "description": panel.description,
        "datasource": dict(DATASOURCE),
        "gridPos": place,
        "targets": [_target(panel, query, index) for index, query in enumerate(panel.queries)],
        "fieldConfig": {"defaults": defaults, "overrides": []},
        "options": _options(panel),
        "transformations": _transformations(panel) if panel.shape is Shape.TABLE else [],
    }


def _target(panel: Panel, query: Query, index: int) -> Json:
    lasting = panel.shape is Shape.LINES
    return {
        "refId": _letter(index),
        "datasource": dict(DATASOURCE),
        "expr": query.expr,
        "legendFormat": query.legend or "__auto",
        "format": "table" if panel.shape is Shape.TABLE else "time_series",
        "instant": not lasting,
        "range": lasting,
    }


def _options(panel: Panel) -> Json:
    last: Json = {"calcs": ["lastNotNull"], "fields": "", "values": False}
    match panel.shape:
        case Shape.LINES:
            return {
                "legend": {"displayMode": "table", "placement": "bottom", "calcs": ["lastNotNull", "max"]},
                "tooltip": {"mode": "multi", "sort": "desc"},
            }
        case Shape.NUMBER:
            return {"reduceOptions": last, "colorMode": "value", "graphMode": "none", "textMode": "auto"}
        case Shape.TABLE:
            return {"showHeader": True, "cellHeight": "sm", "sortBy": []}
        case Shape.BARS:
            return {"reduceOptions": last, "orientation": "horizontal", "displayMode": "gradient"}


def _transformations(panel: Panel) -> list[Json]:
    """One table of all queries: a column per label, and one per query."""
    names = {f"Value #{_letter(index)}": query.legend for index, query in enumerate(panel.queries)}
    if len(panel.queries) == 1:
        names = {"Value": panel.queries[0].legend}
    hidden = {"Time": True, "__name__": True}
    # A column that has no name is of no interest either: the series stands for a fact, and its value is 1.
    hidden |= {column: True for column, name in names.items() if not name}
    renamed = {column: name for column, name in names.items() if name}
    return [
        {"id": "merge", "options": {}},
        {"id": "organize", "options": {"excludeByName": hidden, "renameByName": renamed, "indexByName": {}}},
    ]


def _letter(index: int) -> str:
    return chr(ord("A") + index)
