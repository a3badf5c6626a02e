"""Status, tree and cache: from objects to rows."""

import json
from typing import Any

import pytest
import yaml

from modelswarm.api.remedies import Grade
from modelswarm.plugin.show import views
from modelswarm.plugin.show.documents import to_json, to_yaml
from modelswarm.plugin.show.tables import Cell, Column, console, table
from modelswarm.plugin.views.cache import contents_of
from modelswarm.plugin.views.status import TaskRow, status_of
from modelswarm.plugin.views.tree import tree_of
from tests.unit.plugin.objects import MI, cache, cached, condition, model, playground, snapshot, task, task_of

RUNS = condition("Ready", "False", "Running", "The nodes' agents are fetching")
DONE = condition("Ready", "True", "Distributed")
OTHER = "sha256:" + "b" * 64


def row(*conditions: dict[str, Any], caches: tuple[Any, ...] = (), **status: Any) -> TaskRow:
    [found] = status_of(snapshot(task("t", *conditions, **status), *caches)).tasks
    return found


def test_nodes_tell_speed_and_bytes_before_the_tasks_own_numbers_move() -> None:
    fetching = cached("Fetching", doneBytes=40 * MI, bytesPerSecond=4 * MI)
    stranger = cached("Fetching", doneBytes=99 * MI, bytesPerSecond=1 * MI)
    found = row(
        RUNS,
        phase="Running",
        desired=2,
        nodes=["a", "b"],
        progress={"doneBytes": 50 * MI, "totalBytes": 200 * MI},
        caches=(cache("a", cached("Ready")), cache("b", fetching), cache("c", stranger)),
    )
    # c was not chosen: its bytes are no part of what is wanted, but they are moving.
    assert (found.done_bytes, found.percent, found.bytes_per_second) == (140 * MI, 70, 5 * MI)
    assert found.eta_seconds == 12


@pytest.mark.parametrize(
    ("conditions", "status", "wanted"),
    [
        pytest.param((), {"engine": None, "resolved": None}, ("Pending", None, Grade.WAIT), id="not looked at"),
        pytest.param((DONE,), {"phase": "Succeeded"}, ("Succeeded", None, Grade.FINE), id="done"),
        pytest.param(
            (condition("Ready", "True", "NothingToDistribute"),),
            {"phase": "Succeeded", "engine": "Direct"},
            ("Succeeded", None, Grade.FINE),
            id="direct has no percent",
        ),
        pytest.param(
            (condition("Ready", "True", "FellBackToOrigin"), condition("Degraded", "True", "Stalled")),
            {"phase": "FellBack", "progress": {"totalBytes": 10}},
            ("FellBack", 0, Grade.ACT),
            id="fell back needs somebody",
        ),
        pytest.param(
            (condition("Accepted", "False", "InvalidReference"), condition("Ready", "False", "InvalidReference")),
            {"phase": "Failed"},
            ("Failed", None, Grade.ACT),
            id="failed",
        ),
    ],
)
def test_how_a_task_stands(conditions: Any, status: Any, wanted: tuple[str, int | None, Grade]) -> None:
    found = row(*conditions, **status)
    assert (found.phase, found.percent, found.grade) == wanted


def test_nodes_and_totals() -> None:
    of = task("t", DONE, phase="Succeeded", progress={"originBytes": 5, "peerBytes": 7})
    failed = cached("Failed", OTHER, reason="StorageFailed")
    found = status_of(snapshot(of, cache("a", cached("Ready"), failed), cache("b"), live={"a"}))
    assert [(each.node, each.ready, each.complete, each.failed) for each in found.nodes] == [
        ("a", True, 1, 1),
        ("b", False, 0, 0),
    ]
    assert (found.totals.origin_bytes, found.totals.peer_bytes, found.totals.problems) == (5, 7, 0)


def test_only_the_tasks_of_a_namespace() -> None:
    assert status_of(snapshot(task("t", DONE)), "elsewhere").tasks == ()
    assert len(status_of(snapshot(task("t", DONE)), "llmaz-system").tasks) == 1


def test_a_tree_has_models_images_tasks_and_nodes() -> None:
    chat, llama = playground("chat", condition("Available", "False", "WaitingForModel", "model llama: 50%")), model()
    of = task_of(llama, RUNS, phase="Running", desired=2, ready=1, nodes=["a", "b"])
    image = task("i", DONE, owner="uid-chat", image="org/engine:v1", phase="Succeeded", engine="Direct")
    failed = cached("Failed", reason="StorageFailed", message="the disk says no")
    root = tree_of(chat, snapshot(chat, llama, of, image, cache("a", cached("Ready")), cache("b", failed)))
    assert (root.name, root.state, root.reason, root.grade) == (
        "default/chat",
        "NotAvailable",
        "WaitingForModel",
        Grade.WAIT,
    )
    assert [(each.kind, each.name, each.state) for each in root.children] == [
        ("OpenModel", "llama", "NotReady"),
        ("Image", "org/engine:v1", "Ready"),
    ]
    [below] = root.children[0].children
    assert [(each.name, each.state, each.reason) for each in below.children] == [
        ("a", "Ready", ""),
        ("b", "Failed", "StorageFailed"),
    ]


def test_a_model_that_does_not_exist_stands_in_the_tree() -> None:
    chat = playground("chat", condition("Available", "False", "ModelNotFound", "OpenModel llama does not exist"))
    [missing] = tree_of(chat, snapshot(chat)).children
    assert (missing.name, missing.state, missing.grade) == ("llama", "Missing", Grade.ACT)
    unread = tree_of(chat, snapshot(chat, unread={"openmodels": "forbidden"}))
    assert unread.children[0].state == "Unknown"


def test_what_a_node_has_and_who_wants_it() -> None:
    of = task("t", DONE, phase="Succeeded", spec={"pin": True})
    found = contents_of(cache("a", cached("Ready"), cached("Ready", OTHER, doneBytes=30)), snapshot(of))
    wanted, unwanted = sorted(found.models, key=lambda each: each.content)
    assert (wanted.wanted_by, wanted.pinned) == (("llmaz-system/t",), True)
    assert (unwanted.wanted_by, found.evictable_bytes) == ((), 30)


def test_documents_are_for_programs() -> None:
    view = status_of(snapshot(task("t", DONE, phase="Succeeded"), cache("a")))
    found = json.loads(to_json(view))
    assert found["tasks"][0]["bytesPerSecond"] == 0
    assert found["tasks"][0]["etaSeconds"] is None
    assert found["tasks"][0]["grade"] == "fine"
    assert yaml.safe_load(to_yaml(view)) == found


def printed(renderable: object, width: int | None, capsys: pytest.CaptureFixture[str]) -> list[str]:
    console(width=width).print(renderable)
    return capsys.readouterr().out.splitlines()


def test_nothing_is_cut_or_coloured_where_the_output_is_no_terminal(capsys: pytest.CaptureFixture[str]) -> None:
    long = "x" * 300
    view = status_of(snapshot(task(long, DONE, phase="Succeeded")))
    lines = printed(views.status(view), None, capsys)
    assert any(long in line for line in lines)
    assert "\x1b" not in "".join(lines)


def test_a_narrow_terminal_shows_fewer_columns_and_whole_names(capsys: pytest.CaptureFixture[str]) -> None:
    name = "prefetch-qwen2-0-5b-instruct-5ac5c61a"
    view = status_of(snapshot(task(name, DONE, phase="Succeeded")))
    narrow = printed(views.status(view), 100, capsys)
    assert name in narrow[1]
    assert "ENGINE" not in narrow[0]
    assert all(len(line) <= 100 for line in narrow)
    assert "ENGINE" in printed(views.status(view), 200, capsys)[0]


def test_text_of_the_cluster_cannot_speak_to_the_terminal(capsys: pytest.CaptureFixture[str]) -> None:
    rows = [[Cell("\x1b[31mred[/red]\nnext", "green")]]
    lines = printed(table([Column("WHAT")], rows), 80, capsys)
    assert [line.strip() for line in lines] == ["WHAT", "[31mred[/red] next"]
