"""What the demo refuses to call a success, and what it says of one."""

import pytest

from dev.demo_engine import Expected
from dev.demo_load import Loaded
from dev.demo_steps import DemoFailed
from dev.demo_summary import check_tasks, origin_rows

DRAGONFLY = Expected(copies=1.02, engine="Dragonfly", image_engine="Dragonfly")
SWARM = Expected(copies=1.02, engine="BitTorrent", image_engine="Direct")


def loaded(node: str, **sources: int) -> Loaded:
    return Loaded(node, "", files=3, bytes=1000, by_source=sources, seconds=1.0)


def task(engine: str, *, kind: str = "model", degraded: bool = False) -> dict[str, object]:
    condition = {"type": "Degraded", "status": "True" if degraded else "False", "reason": "Why", "message": "so"}
    return {"metadata": {"name": "t"}, "spec": {kind: {}}, "status": {"engine": engine, "conditions": [condition]}}


def test_one_node_is_told_in_one_line() -> None:
    rows = dict(origin_rows(1000, [loaded("node-1", origin=1000)], Expected()))
    assert rows["bytes from the origin"] == "1,000 for a model of 1,000"
    assert rows["files verified"].startswith("3 ")


def test_each_of_several_nodes_says_where_it_had_its_bytes_from() -> None:
    rows = dict(origin_rows(1010, [loaded("a", origin=5, dfdaemon=995), loaded("b", dfdaemon=1000)], DRAGONFLY))
    assert rows["bytes from the origin"] == "1,010 for a model of 1,000 on 2 nodes: 1.010 x"
    assert rows["  a had its bytes from"] == "dfdaemon 995, origin 5"
    assert rows["files verified"].startswith("6 ")


@pytest.mark.parametrize(
    "origin", [pytest.param(999, id="not the whole model"), pytest.param(1021, id="more than the engine may take")]
)
def test_wrong_number_of_bytes_from_the_origin_fails(origin: int) -> None:
    with pytest.raises(DemoFailed, match="left the origin"):
        origin_rows(origin, [loaded("a", origin=1000)], DRAGONFLY)


@pytest.mark.parametrize(
    ("tasks", "reason"),
    [
        pytest.param([task("Dragonfly"), task("Direct")], "given to engine Direct", id="a task of another engine"),
        pytest.param([task("Dragonfly", degraded=True)], "degraded: Why, so", id="a task that fell back"),
    ],
)
def test_task_that_the_engine_did_not_do_fails(tasks: list[dict[str, object]], reason: str) -> None:
    check_tasks([task("Dragonfly")], DRAGONFLY)
    with pytest.raises(DemoFailed, match=reason):
        check_tasks(tasks, DRAGONFLY)


def test_images_may_have_another_engine() -> None:
    check_tasks([task("BitTorrent"), task("Direct", kind="image")], SWARM)
    with pytest.raises(DemoFailed, match="given to engine Direct"):
        check_tasks([task("Direct"), task("Direct", kind="image")], SWARM)
