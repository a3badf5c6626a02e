"""docs/reference/metrics.md."""

from collections.abc import Iterable, Iterator, Mapping

from dev.reference.exported import Exported, of_agent, of_operator
from dev.reference.tables import GENERATED, code, page, table

LABELS: Mapping[str, str] = {
    "cause": "why an Event was dropped: `queue_full`, or the kind of answer of the API server",
    "code": "HTTP status of the API server's answer; `0`: there was none",
    "controller": "`model`, `playground`, `p2ptask`",
    "engine": "`BitTorrent`, `Dragonfly`, `Direct`; empty while none is chosen",
    "kind": "kind of the object, such as `P2PTask`",
    "model": "what users know the model by, such as `Qwen/Qwen2-0.5B-Instruct`",
    "model_hash": "OME's name for a model: the hex SHA-256 of `MODEL@COMMIT` (tasks) or `MODEL@BRANCH` (BaseModels)",
    "phase": "[phase](conditions.md#phases) of the P2PTask",
    "reason": "a [reason](troubleshooting.md)",
    "result": "`success`, `requeue_after`, `conflict`, `error`, `timeout`",
    "revision": "commit, or branch",
    "task": "name of the P2PTask",
    "task_namespace": "its namespace (Prometheus itself adds `namespace`: that of the pod that was scraped)",
    "state": "[state](agent.md#states) of the model on the node",
    "status": "HTTP status of the answer",
    "verb": "`get`, `list`, `watch`, `create`, `apply`, ...",
    "version": "version of the program",
}
SOURCES: Mapping[str, str] = {
    "modelswarm_agent_received_bytes_total": "`origin`, `peers`",
    "ome_p2p_download_total": "`p2p` (at least half of the bytes came from peers), `hf` (more than half came from the "
    "origin, whichever that is), `local` (it was on the node already)",
}
"""``source`` means two things. What is not named is as ``ome_p2p_download_total``."""

_INTRODUCTION = f"""\
# Metrics

{GENERATED.format(sources="what the programs export")}

Operator and agents serve them on port 8080 at `/metrics`. The chart's ServiceMonitor and PodMonitor
(`monitoring.serviceMonitor.enabled`) tell the Prometheus operator; the pods have `prometheus.io/scrape` annotations.
The PodMonitor adds the label `node`, which dashboard and alerts show; whoever scrapes otherwise can take it from
`__meta_kubernetes_pod_node_name`. Beside these there are `process_` and `python_` metrics of the client library,
and for each counter and histogram the time `_created`.

Each program counts from its start on. Series of a model (`model_hash`) begin with the model's first byte and end when
the node does not want it any more, so `rate()` misses what arrived before the first scrape;
`modelswarm_agent_received_bytes_total` has all of it. What models cost the origin since the agents started, by name:

```
sum by (model) (
  ome_p2p_download_bytes_hf_total * on (instance, model_hash) group_left (model) modelswarm_agent_model_info
)
```"""
_OF_OME = "The `ome_p2p_` metrics have the names and labels that OME's agent defines."


def metrics_page() -> str:
    """The page."""
    operator, agent = of_operator(), of_agent()
    shared = operator.keys() & agent.keys()
    sections = {
        "Operator": [each for each in operator.values() if each.name not in shared],
        "Agents": [each for each in agent.values() if each.name not in shared],
        "Both": [operator[name] for name in sorted(shared)],
    }
    parts: list[str | Iterable[str]] = [_INTRODUCTION]
    for title, exported in sections.items():
        parts += [f"## {title}", *([_OF_OME] if title == "Agents" else []), _rows(exported)]
    known = {each.name: each for each in (*operator.values(), *agent.values())}
    parts += ["## Labels", _label_rows(known.values()), "## Buckets", _bucket_rows(known.values())]
    return page(*parts)


def _rows(exported: Iterable[Exported]) -> Iterator[str]:
    rows = (
        (code(each.name), each.type, unit(each.name), ", ".join(map(code, each.labels)), _sentence(each.help))
        for each in exported
    )
    return table(("metric", "type", "unit", "labels", "what it counts"), rows)


def unit(name: str) -> str:
    """What the name says that is measured, as Prometheus' naming rules have it."""
    stem = name.removesuffix("_total")
    # OME's agent puts the unit elsewhere.
    if "_bytes" in stem:
        return "bytes"
    if stem.endswith("_seconds"):
        return "seconds"
    return "0 to 1" if stem.endswith("_ratio") else ""


def _label_rows(exported: Iterable[Exported]) -> Iterator[str]:
    used = {label for each in exported for label in each.labels}
    rows = [(code(label), LABELS[label]) for label in sorted(used - {"source"})]
    rows += [(f"`source` of `{name}`", text) for name, text in sorted(SOURCES.items())]
    return table(("label", "values"), rows)


def _bucket_rows(exported: Iterable[Exported]) -> Iterator[str]:
    by_bounds: dict[tuple[float, ...], list[str]] = {}
    for each in exported:
        if each.buckets:
            by_bounds.setdefault(each.buckets, []).append(each.name)
    rows = (
        (", ".join(map(code, sorted(names))), ", ".join(f"{bound:g}" for bound in bounds))
        for bounds, names in sorted(by_bounds.items(), key=lambda item: sorted(item[1]))
    )
    return table(("histogram", "upper bounds, in seconds"), rows)


def _sentence(text: str) -> str:
    return text[:1].upper() + text[1:]
