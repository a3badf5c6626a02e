"""charts/modelswarm/dashboards/modelswarm.json: the questions of whoever runs it, each a row with its answers."""

import json

from dev.reference.panels import Dashboard, Panel, Query, Row, Shape, to_json

_AGENTS = '{node=~"$node"}'
_RECEIVED = f"modelswarm_agent_received_bytes_total{_AGENTS}"
_INFO = "on (instance, model_hash) group_left (model, revision) modelswarm_agent_model_info"

_NOW = Row(
    "Now",
    [
        Panel(
            "Tasks on their way",
            "P2PTasks that are being resolved or distributed.",
            Shape.NUMBER,
            [Query('sum(modelswarm_p2ptasks{phase=~"Pending|Resolving|Running"}) or vector(0)')],
            width=4,
            height=4,
        ),
        Panel(
            "Tasks done",
            "P2PTasks of which every wanted copy is there.",
            Shape.NUMBER,
            [Query('sum(modelswarm_p2ptasks{phase="Succeeded"}) or vector(0)')],
            width=4,
            height=4,
        ),
        Panel(
            "Tasks with a problem",
            "P2PTasks that do not go on as asked. The table below names them.",
            Shape.NUMBER,
            [Query("count(modelswarm_p2ptask_problem) or vector(0)")],
            width=4,
            height=4,
            alarming=1,
        ),
        Panel(
            "From the origin",
            "Bytes per second that all nodes together read from the origin.",
            Shape.NUMBER,
            [Query('sum(rate(modelswarm_agent_received_bytes_total{source="origin"}[$__rate_interval]))')],
            unit="Bps",
            width=4,
            height=4,
        ),
        Panel(
            "From peers",
            "Bytes per second that nodes get from each other.",
            Shape.NUMBER,
            [Query('sum(rate(modelswarm_agent_received_bytes_total{source="peers"}[$__rate_interval]))')],
            unit="Bps",
            width=4,
            height=4,
        ),
        Panel(
            "Origin bytes saved",
            "Bytes that came from peers in the time shown, and would have left the origin otherwise.",
            Shape.NUMBER,
            [Query('sum(increase(modelswarm_agent_received_bytes_total{source="peers"}[$__range]))')],
            unit="bytes",
            width=4,
            height=4,
        ),
    ],
)

_MOVING = Row(
    "What is moving, from where, how fast?",
    [
        Panel(
            "Bytes per second, by source",
            "All nodes together. The origin's share should be small as soon as several nodes want the same model.",
            Shape.LINES,
            [Query(f"sum by (source) (rate({_RECEIVED}[$__rate_interval]))", "{{source}}")],
            unit="Bps",
            stacked=True,
        ),
        Panel(
            "Bytes per second, by node",
            "What each node receives, from the origin and from peers.",
            Shape.LINES,
            [Query(f"sum by (node, instance) (rate({_RECEIVED}[$__rate_interval]))", "{{node}} {{instance}}")],
            unit="Bps",
        ),
        Panel(
            "Models on their way",
            "Bytes per second of each model that arrives on some node, and on how many nodes it is not complete.",
            Shape.TABLE,
            [
                Query(
                    f"sum by (model, revision) (rate(ome_p2p_download_bytes_hf_total{_AGENTS}[$__rate_interval]) "
                    f"* {_INFO}) > 0",
                    "from the origin",
                ),
                Query(
                    f"sum by (model, revision) (rate(ome_p2p_download_bytes_p2p_total{_AGENTS}[$__rate_interval]) "
                    f"* {_INFO}) > 0",
                    "from peers",
                ),
            ],
            unit="Bps",
        ),
        Panel(
            "P2PTasks by phase",
            "Running and Resolving should come and go; FellBack and Failed should not be there.",
            Shape.LINES,
            [Query("sum by (phase) (modelswarm_p2ptasks)", "{{phase}}")],
            stacked=True,
        ),
        Panel(
            "Time from wanted to complete",
            "Of models that became complete on a node in the time shown: half of them, and 95 of 100, were quicker.",
            Shape.LINES,
            [
                Query(
                    f"histogram_quantile({quantile}, sum by (le, source) "
                    f"(rate(ome_p2p_download_duration_seconds_bucket{_AGENTS}[$__range])))",
                    f"{{{{source}}}}, {name}",
                )
                for quantile, name in ((0.5, "half"), (0.95, "95 %"))
            ],
            unit="s",
        ),
        Panel(
            "Models that are being fetched",
            "By node; and those of them that another node coordinates.",
            Shape.LINES,
            [
                Query(f"sum by (node, instance) (ome_p2p_downloads_in_flight{_AGENTS})", "{{node}} {{instance}}"),
                Query(f"sum(ome_p2p_leases_waiting{_AGENTS})", "coordinated by another node"),
            ],
        ),
    ],
)

_STUCK = Row(
    "What is stuck?",
    [
        Panel(
            "P2PTasks with a problem",
            "kubectl swarm why p2ptask/NAME says what helps; so does docs/reference/troubleshooting.md.",
            Shape.TABLE,
            [Query("max by (task_namespace, task, engine, phase, reason) (modelswarm_p2ptask_problem)")],
            width=24,
        ),
        Panel(
            "Models on nodes that do not go on",
            "Waiting and Failed, by node. kubectl describe nodecache NODE says why.",
            Shape.LINES,
            [
                Query(
                    'sum by (node, instance, state) (modelswarm_agent_models{node=~"$node", state=~"Waiting|Failed"})'
                    " > 0",
                    "{{node}} {{instance}} {{state}}",
                )
            ],
        ),
        Panel(
            "Failed downloads",
            "Attempts that failed on a node, by reason; each is tried again.",
            Shape.LINES,
            [
                Query(
                    f"sum by (reason) (rate(ome_p2p_download_failures_total{_AGENTS}[$__rate_interval])) * 60",
                    "{{reason}}",
                ),
                Query(
                    f"sum(rate(ome_p2p_verification_failures_total{_AGENTS}[$__rate_interval])) * 60",
                    "files with a wrong digest",
                ),
            ],
        ),
        Panel(
            "Loaders at the origin",
            "Init containers that read the origin because an engine has failed them, and those that wait for a turn.",
            Shape.LINES,
            [
                Query("max(modelswarm_origin_readers)", "reading"),
                Query("max(modelswarm_origin_readers_waiting)", "waiting"),
            ],
            alarming=10,
        ),
        Panel(
            "Oldest reconcile",
            "A reconcile is cut off after a minute; the kubelet restarts an operator with one of five minutes.",
            Shape.LINES,
            [Query("max by (controller) (modelswarm_workqueue_longest_running_processor_seconds)", "{{controller}}")],
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
                Query(
                    f"max by (node, instance) (modelswarm_agent_store_used_bytes{_AGENTS} "
                    f"/ modelswarm_agent_store_capacity_bytes{_AGENTS})",
                    "{{node}} {{instance}}",
                )
            ],
            unit="percentunit",
            alarming=0.95,
            ceiling=1,
        ),
        Panel(
            "Space left, by node",
            "What models may still take.",
            Shape.LINES,
            [Query(f"max by (node, instance) (modelswarm_agent_store_free_bytes{_AGENTS})", "{{node}} {{instance}}")],
            unit="bytes",
        ),
        Panel(
            "Needed by running downloads",
            "Space that is promised to downloads and not yet taken.",
            Shape.LINES,
            [
                Query(
                    f"max by (node, instance) (modelswarm_agent_store_reserved_bytes{_AGENTS})", "{{node}} {{instance}}"
                )
            ],
            unit="bytes",
        ),
        Panel(
            "Models by state, and evictions",
            "All nodes together; evictions per hour.",
            Shape.LINES,
            [
                Query(f"sum by (state) (modelswarm_agent_models{_AGENTS})", "{{state}}"),
                Query(
                    f"sum(rate(modelswarm_agent_evictions_total{_AGENTS}[$__rate_interval])) * 3600",
                    "evictions per hour",
                ),
            ],
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
        Panel(
            "Part from peers",
            "Of all bytes of models in the time shown. N nodes with the same model: at best (N - 1) / N.",
            Shape.NUMBER,
            [
                Query(
                    'sum(increase(modelswarm_agent_received_bytes_total{source="peers"}[$__range])) '
                    "/ sum(increase(modelswarm_agent_received_bytes_total[$__range]))"
                )
            ],
            unit="percentunit",
            width=4,
        ),
        Panel(
            "By model, since the agents started",
            "Bytes of each model that is wanted now, and nodes that have or want it.",
            Shape.TABLE,
            [
                Query(f"sum by (model, revision) (ome_p2p_download_bytes_hf_total * {_INFO})", "from the origin"),
                Query(f"sum by (model, revision) (ome_p2p_download_bytes_p2p_total * {_INFO})", "from peers"),
            ],
            unit="bytes",
        ),
        Panel(
            "Sent to peers, by node",
            "Who serves the others.",
            Shape.LINES,
            [
                Query(
                    f"sum by (node, instance) (rate(ome_p2p_bytes_uploaded_total{_AGENTS}[$__rate_interval]))",
                    "{{node}} {{instance}}",
                )
            ],
            unit="Bps",
        ),
        Panel(
            "Complete models offered to peers",
            "By node.",
            Shape.LINES,
            [Query(f"sum by (node, instance) (ome_p2p_seeding_torrents{_AGENTS})", "{{node}} {{instance}}")],
        ),
    ],
)

_PROGRAMS = Row(
    "Operator and agents",
    [
        Panel(
            "Reconciles per second, by result",
            "Errors and time-outs are tried again, with growing distances.",
            Shape.LINES,
            [Query("sum by (result) (rate(modelswarm_reconcile_total[$__rate_interval]))", "{{result}}")],
            stacked=True,
        ),
        Panel(
            "Reconcile time, and time in the queue",
            "99 of 100 were quicker.",
            Shape.LINES,
            [
                Query(
                    "histogram_quantile(0.99, sum by (le, controller) "
                    f"(rate(modelswarm_{name}_seconds_bucket[$__rate_interval])))",
                    f"{{{{controller}}}}, {what}",
                )
                for name, what in (("reconcile_time", "reconcile"), ("workqueue_queue_duration", "in the queue"))
            ],
            unit="s",
        ),
        Panel(
            "Requests to the API server, by answer",
            "Code 0: there was no answer.",
            Shape.LINES,
            [Query("sum by (job, code) (rate(modelswarm_api_requests_total[$__rate_interval]))", "{{job}} {{code}}")],
        ),
        Panel(
            "Leader, and versions",
            "One process of the operator leads; during an update there are two versions for a while.",
            Shape.LINES,
            [
                Query("sum(modelswarm_leader)", "leaders"),
                Query("count by (job, version) (modelswarm_build_info)", "{{job}} {{version}}"),
            ],
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
