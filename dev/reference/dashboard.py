"""charts/modelswarm/dashboards/modelswarm.json: the questions of whoever runs it, each a row with its answers."""

import json

from dev.reference.panels import Dashboard, Panel, Query, Row, Shape, lines, number, table, to_json

_AGENTS = '{node=~"$node"}'
_RECEIVED = f"modelswarm_agent_received_bytes_total{_AGENTS}"
_INFO = "on (instance, model_hash) group_left (model, revision) modelswarm_agent_model_info"


def _rate(series: str) -> str:
    """Per second."""
    return f"rate({series}[$__rate_interval])"


def _from(source: str) -> str:
    return f'modelswarm_agent_received_bytes_total{{source="{source}"}}'


def _by_node(value: str, function: str = "sum") -> Query:
    return Query(f"{function} by (node, instance) ({value})", "{{node}} {{instance}}")


def _by_model(value: str, legend: str) -> Query:
    return Query(f"sum by (model, revision) ({value} * {_INFO})", legend)


def _moving(source: str, legend: str) -> Query:
    query = _by_model(_rate(f"ome_p2p_download_bytes_{source}_total{_AGENTS}"), legend)
    return Query(f"{query.expr} > 0", legend)


_NOW = Row(
    "Now",
    [
        number(
            "Tasks on their way",
            "P2PTasks that are being resolved or distributed.",
            'sum(modelswarm_p2ptasks{phase=~"Pending|Resolving|Running"}) or vector(0)',
        ),
        number(
            "Tasks done",
            "P2PTasks of which every wanted copy is there.",
            'sum(modelswarm_p2ptasks{phase="Succeeded"}) or vector(0)',
        ),
        number(
            "Tasks with a problem",
            "P2PTasks that do not go on as asked. The table below names them.",
            "count(modelswarm_p2ptask_problem) or vector(0)",
            alarming=1,
        ),
        number(
            "From the origin",
            "Bytes per second that all nodes together read from the origin.",
            f"sum({_rate(_from('origin'))})",
            "Bps",
        ),
        number(
            "From peers",
            "Bytes per second that nodes get from each other.",
            f"sum({_rate(_from('peers'))})",
            "Bps",
        ),
        number(
            "Origin bytes saved",
            "Bytes that came from peers in the time shown, and would have left the origin otherwise.",
            f"sum(increase({_from('peers')}[$__range]))",
            "bytes",
        ),
    ],
)

_MOVING = Row(
    "What is moving, from where, how fast?",
    [
        lines(
            "Bytes per second, by source",
            "All nodes together. The origin's share should be small as soon as several nodes want the same model.",
            Query(f"sum by (source) ({_rate(_RECEIVED)})", "{{source}}"),
            unit="Bps",
            stacked=True,
        ),
        lines(
            "Bytes per second, by node",
            "What each node receives, from the origin and from peers.",
            _by_node(_rate(_RECEIVED)),
            unit="Bps",
        ),
        table(
            "Models on their way",
            "Bytes per second of each model that arrives on some node, all nodes together.",
            _moving("hf", "from the origin"),
            _moving("p2p", "from peers"),
            unit="Bps",
        ),
        lines(
            "P2PTasks by phase",
            "Running and Resolving should come and go; FellBack and Failed should not be there.",
            Query("sum by (phase) (modelswarm_p2ptasks)", "{{phase}}"),
            stacked=True,
        ),
        lines(
            "Time from wanted to complete",
            "Of models that became complete on a node in the time shown: half of them, and 95 of 100, were quicker.",
            *(
                Query(
                    f"histogram_quantile({quantile}, sum by (le, source) "
                    f"(rate(ome_p2p_download_duration_seconds_bucket{_AGENTS}[$__range])))",
                    f"{{{{source}}}}, {name}",
                )
                for quantile, name in ((0.5, "half"), (0.95, "95 %"))
            ),
            unit="s",
        ),
        lines(
            "Models that are being fetched",
            "By node; and those of them that another node coordinates.",
            _by_node(f"ome_p2p_downloads_in_flight{_AGENTS}"),
            Query(f"sum(ome_p2p_leases_waiting{_AGENTS})", "coordinated by another node"),
        ),
    ],
)

_STUCK = Row(
    "What is stuck?",
    [
        table(
            "P2PTasks with a problem",
            "kubectl swarm why p2ptask/NAME says what helps; so does docs/reference/troubleshooting.md.",
            Query("max by (task_namespace, task, engine, phase, reason) (modelswarm_p2ptask_problem)"),
            width=24,
        ),
        lines(
            "Models on nodes that do not go on",
            "Waiting and Failed, by node. kubectl describe nodecache NODE says why.",
            Query(
                'sum by (node, instance, state) (modelswarm_agent_models{node=~"$node", state=~"Waiting|Failed"}) > 0',
                "{{node}} {{instance}} {{state}}",
            ),
        ),
        lines(
            "Failed downloads",
            "Attempts that failed on a node, by reason; each is tried again.",
            Query(f"sum by (reason) ({_rate(f'ome_p2p_download_failures_total{_AGENTS}')}) * 60", "{{reason}}"),
            Query(f"sum({_rate(f'ome_p2p_verification_failures_total{_AGENTS}')}) * 60", "files with a wrong digest"),
        ),
        lines(
            "Loaders at the origin",
            "Init containers that read the origin because an engine has failed them, and those that wait for a turn.",
            Query("max(modelswarm_origin_readers)", "reading"),
            Query("max(modelswarm_origin_readers_waiting)", "waiting"),
            alarming=10,
        ),
        lines(
            "Oldest reconcile",
            "A reconcile is cut off after a minute; the kubelet restarts an operator with one of five minutes.",
            Query("max by (controller) (modelswarm_workqueue_longest_running_processor_seconds)", "{{controller}}"),
            unit="s",
        ),
    ],
)

_DISKS = Row(
    "How full are the disks?",
    [
        Panel(
            "Space taken, by node",
            "Part of the space for models (the quota) that models take. Above 90 % unused models leave.",
            Shape.BARS,
            [
                _by_node(
                    f"modelswarm_agent_store_used_bytes{_AGENTS} / modelswarm_agent_store_capacity_bytes{_AGENTS}",
                    "max",
                )
            ],
            unit="percentunit",
            alarming=0.95,
            ceiling=1,
        ),
        lines(
            "Space left, by node",
            "What models may still take.",
            _by_node(f"modelswarm_agent_store_free_bytes{_AGENTS}", "max"),
            unit="bytes",
        ),
        lines(
            "Needed by running downloads",
            "Space that is promised to downloads and not yet taken.",
            _by_node(f"modelswarm_agent_store_reserved_bytes{_AGENTS}", "max"),
            unit="bytes",
        ),
        lines(
            "Models by state, and evictions",
            "All nodes together; evictions per hour.",
            Query(f"sum by (state) (modelswarm_agent_models{_AGENTS})", "{{state}}"),
            Query(f"sum({_rate(f'modelswarm_agent_evictions_total{_AGENTS}')}) * 3600", "evictions per hour"),
        ),
    ],
)

_SAVED = Row(
    "What was the origin spared?",
    [
        Panel(
            "Bytes in the time shown, by source",
            "Without peers, all of it would have left the origin.",
            Shape.BARS,
            [Query(f"sum by (source) (increase({_RECEIVED}[$__range]))", "{{source}}")],
            unit="bytes",
            width=8,
        ),
        number(
            "Part from peers",
            "Of all bytes of models in the time shown. N nodes with the same model: at best (N - 1) / N.",
            f"sum(increase({_from('peers')}[$__range])) "
            "/ sum(increase(modelswarm_agent_received_bytes_total[$__range]))",
            "percentunit",
            height=8,
        ),
        table(
            "By model, since the agents started",
            "Bytes of each model that some node has or wants now, all nodes together.",
            _by_model("ome_p2p_download_bytes_hf_total", "from the origin"),
            _by_model("ome_p2p_download_bytes_p2p_total", "from peers"),
            unit="bytes",
        ),
        lines(
            "Sent to peers, by node",
            "Who serves the others.",
            _by_node(_rate(f"ome_p2p_bytes_uploaded_total{_AGENTS}")),
            unit="Bps",
        ),
        lines(
            "Complete models offered to peers",
            "By node.",
            _by_node(f"ome_p2p_seeding_torrents{_AGENTS}"),
        ),
    ],
)

_PROGRAMS = Row(
    "Operator and agents",
    [
        lines(
            "Reconciles per second, by result",
            "Errors and time-outs are tried again, with growing distances.",
            Query(f"sum by (result) ({_rate('modelswarm_reconcile_total')})", "{{result}}"),
            stacked=True,
        ),
        lines(
            "Reconcile time, and time in the queue",
            "99 of 100 were quicker.",
            *(
                Query(
                    f"histogram_quantile(0.99, sum by (le, controller) ({_rate(f'modelswarm_{name}_seconds_bucket')}))",
                    f"{{{{controller}}}}, {what}",
                )
                for name, what in (("reconcile_time", "reconcile"), ("workqueue_queue_duration", "in the queue"))
            ),
            unit="s",
        ),
        lines(
            "Requests to the API server, by answer",
            "Code 0: there was no answer.",
            Query(f"sum by (job, code) ({_rate('modelswarm_api_requests_total')})", "{{job}} {{code}}"),
        ),
        lines(
            "Leader, and versions",
            "One process of the operator leads; during an update there are two versions for a while.",
            Query("sum(modelswarm_leader)", "leaders"),
            Query("count by (job, version) (modelswarm_build_info)", "{{job}} {{version}}"),
        ),
    ],
)

DASHBOARD = Dashboard(
    uid="modelswarm",
    title="modelswarm",
    description="What is moving, from where and how fast; what is stuck; disks; what the origin was spared.",
    rows=[_NOW, _MOVING, _STUCK, _DISKS, _SAVED, _PROGRAMS],
    variables=[("node", "modelswarm_agent_store_capacity_bytes")],
)


def dashboard_json() -> str:
    """The file."""
    return json.dumps(to_json(DASHBOARD), indent=1) + "\n"
