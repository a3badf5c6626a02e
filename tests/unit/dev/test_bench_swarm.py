"""What the swarm's benchmark makes of its figures."""

from dataclasses import replace

import pytest

from dev.bench.swarm_plan import Program
from dev.bench.swarm_report import Run, table, verdicts

GB = 1_000_000_000
RUN = Run(
    program=Program.AGENTS,
    model="270MB",
    total=250_000_000,
    nodes=8,
    rate=50_000_000,
    origin_rate=50_000_000,
    first=44.0,
    last=52.0,
    origin_bytes=250_000_000,
    upload=275_000_000,
    cpu=50.0,
    loop_cpu=12.5,
    origin_cpu=None,
    busy=0.6,
    memory=120,
    windows=40,
    troubles=0,
)


def test_figures_are_ratios_to_what_the_links_allow() -> None:
    assert (RUN.limit, RUN.ratio, RUN.origin_share, RUN.cpu_per_gb) == (40.0, 1.3, 1.0, 25.0)
    assert RUN.sending_per_gb is None
    split = replace(RUN, origin_rate=200_000_000)
    assert split.limit == 40.0, "a node's own link is the limit now"
    plain = replace(RUN, program=Program.HTTP, origin_bytes=2 * GB, origin_cpu=8.0)
    assert plain.sending_per_gb == 4.0


@pytest.mark.parametrize(
    ("run", "words"),
    [
        (RUN, ["met", "met", "MISSED"]),
        (replace(RUN, busy=0.75), []),
        (replace(RUN, nodes=4), []),
        (replace(RUN, rate=None), []),
        (replace(RUN, program=Program.HTTP), []),
    ],
)
def test_goals_are_for_eight_nodes_whose_links_are_the_limit(run: Run, words: list[str]) -> None:
    assert [line.rpartition(" ")[2] for line in verdicts([run])] == words


def test_the_table_has_a_row_for_each_run_and_a_cell_for_each_column() -> None:
    plain = replace(RUN, program=Program.HTTP, origin_bytes=2 * GB, origin_cpu=8.0)
    head, agents, http = table([RUN, plain]).splitlines()
    assert head.split("  ")[0] == "model"
    cells = ["270MB", "8", "50", "agents", "44.0", "52.0", "1.30", "1.000", "1.10", "25.0", "25%", "-"]
    assert agents.split() == [*cells, "0.60", "120", "40"]
    assert http.split()[11] == "4.0"
