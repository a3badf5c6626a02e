"""Plans: from what the origins list and the nodes say to bytes, nodes and time."""

from datetime import timedelta
from typing import Any

import pytest

from modelswarm.api.nodecache import NodeCache
from modelswarm.api.p2ptask import Engine
from modelswarm.content.manifest import Manifest, ManifestFile, Origin, OriginKind
from modelswarm.plugin.views.asks import Ask, Trouble, Wanted, asks_of
from modelswarm.plugin.views.forecast import Engines, Known, PlanRow, engine_for, forecast, rate_of
from modelswarm.workload.render import OperatorPart
from tests.unit.plugin.objects import MI, NOW, cache, cached, model, playground, snapshot, task

A, B = "sha256:" + "1" * 64, "sha256:" + "2" * 64
MANIFEST = Manifest(
    Origin(OriginKind.HUGGINGFACE, "org/llama"),
    "c" * 40,
    (ManifestFile("a", 60 * MI, A), ManifestFile("b", 40 * MI, B)),
)
ASK = Ask("OpenModel llama", "model", "org/llama", model().spec.source, copies=2, consumers=3)
SWARM = Engines(bittorrent=True)


def plan(*caches: Any, ask: Ask = ASK, engines: Engines = SWARM, **known: Any) -> PlanRow:
    [found] = forecast([(ask, MANIFEST)], Known(snapshot(*caches), engines, **known))
    return found


def test_with_nothing_there_one_copy_comes_from_the_origin_and_the_rest_from_peers() -> None:
    found = plan(cache("a"), cache("b"), rate=10 * MI)
    assert (found.origin_bytes, found.peer_bytes, found.present_bytes) == (100 * MI, 100 * MI, 0)
    assert (found.seconds, found.reason) == (10, "")
    assert all(node.fits and not node.evicts for node in found.nodes)


def test_what_any_node_has_does_not_come_from_the_origin() -> None:
    there = cached("Ready", MANIFEST.digest)
    assert plan(cache("a", there), cache("b")).origin_bytes == 0
    assert plan(cache("a", there), cache("b")).peer_bytes == 100 * MI
    both = plan(cache("a", there), cache("b", there), rate=1.0)
    assert (both.origin_bytes, both.peer_bytes, both.present_bytes, both.seconds) == (0, 0, 200 * MI, 0)
    begun = cached("Fetching", MANIFEST.digest, doneBytes=30 * MI)
    assert plan(cache("a", begun), cache("b")).origin_bytes == 70 * MI


def test_files_of_another_revision_are_counted() -> None:
    found = plan(cache("a"), cache("b"), held={"a": frozenset({A})})
    assert {node.node: node.have_bytes for node in found.nodes} == {"a": 60 * MI, "b": 0}
    assert (found.origin_bytes, found.peer_bytes) == (40 * MI, 100 * MI)


def test_a_node_that_has_no_room_and_one_that_must_evict() -> None:
    unwanted = cached("Ready", "sha256:" + "d" * 64, doneBytes=80 * MI)
    found = plan(cache("a", free=10 * MI), cache("b", unwanted, free=50 * MI))
    fits = {node.node: (node.fits, node.evicts) for node in found.nodes}
    assert fits == {"a": (False, True), "b": (True, True)}
    assert (found.reason, found.message) == ("InsufficientCapacity", "does not fit on a")


def test_contents_of_one_plan_share_the_room_and_their_files() -> None:
    other = Manifest(Origin(OriginKind.HUGGINGFACE, "org/other"), "d" * 40, (ManifestFile("a", 60 * MI, A),))
    known = Known(snapshot(cache("a", free=100 * MI)), SWARM)
    first, second = forecast([(ASK, MANIFEST), (ASK, other)], known)
    assert (first.origin_bytes, second.origin_bytes) == (100 * MI, 0)
    third = Manifest(Origin(OriginKind.HUGGINGFACE, "org/third"), "e" * 40, (ManifestFile("x", MI, None),))
    assert forecast([(ASK, MANIFEST), (ASK, third)], known)[1].reason == "InsufficientCapacity"


@pytest.mark.parametrize(
    ("ask", "caches", "reason"),
    [
        pytest.param(ASK, (), "NoAgent", id="no agent"),
        pytest.param(
            Ask("x", "model", "y", model().spec.source, selector={"pool": "gpu"}),
            (cache("a"),),
            "NoMatchingNode",
            id="no node has the labels",
        ),
    ],
)
def test_where_nobody_can_hold_it(ask: Ask, caches: Any, reason: str) -> None:
    assert plan(*caches, ask=ask).reason == reason


def cordoned(node: str) -> NodeCache:
    found = cache(node)
    return found.model_copy(update={"status": found.status.model_copy(update={"closed_by": "maintenance"})})


def test_nothing_is_planned_for_nodes_that_take_no_pods() -> None:
    assert [each.node for each in plan(cordoned("a"), cache("b"), cordoned("c")).nodes] == ["b"]
    nowhere = plan(cordoned("a"))
    assert (nowhere.reason, nowhere.message) == (
        "NoMatchingNode",
        "no node that matches takes pods: cordoned, or tainted",
    )


def test_only_nodes_with_the_labels_are_chosen() -> None:
    found = plan(
        cache("cpu"),
        cache("gpu", pool="gpu"),
        ask=Ask("x", "model", "y", model().spec.source, selector={"pool": "gpu"}),
    )
    assert [node.node for node in found.nodes] == ["gpu"]
    assert found.note == "1 nodes for 2 copies"


@pytest.mark.parametrize(
    ("ask", "engines", "wanted"),
    [
        pytest.param(ASK, Engines(), Engine.DIRECT, id="no engine"),
        pytest.param(ASK, SWARM, Engine.BITTORRENT, id="agents"),
        pytest.param(ASK, Engines(True, True), Engine.DRAGONFLY, id="Dragonfly first"),
        pytest.param(ASK, Engines(True, True, Engine.BITTORRENT), Engine.BITTORRENT, id="unless agents are preferred"),
        pytest.param(Ask("x", "image", "i:v1"), SWARM, Engine.DIRECT, id="agents bring no images"),
        pytest.param(Ask("x", "image", "i:v1"), Engines(True), Engine.DRAGONFLY, id="Dragonfly does"),
        pytest.param(Ask("x", "image", "i", engine=Engine.BITTORRENT), SWARM, Engine.BITTORRENT, id="as asked for"),
    ],
)
def test_the_engine(ask: Ask, engines: Engines, wanted: Engine) -> None:
    assert engine_for(ask, engines) is wanted


def test_without_an_engine_every_pod_reads_the_origin() -> None:
    found = plan(ask=ASK, engines=Engines())
    assert (found.origin_bytes, found.note) == (300 * MI, "3 pods, whose loader reads the origin")
    seeded = plan(ask=ASK, engines=Engines(dragonfly=True))
    assert (seeded.origin_bytes, seeded.peer_bytes) == (100 * MI, 300 * MI)


def test_the_speed_is_that_of_tasks_that_read_the_origin() -> None:
    times = {"startTime": NOW, "completionTime": NOW + timedelta(seconds=10)}
    read = task("a", **times, progress={"originBytes": 100 * MI})
    seeded = task("b", **times, progress={"originBytes": 0, "peerBytes": 100 * MI})
    unfinished = task("c", startTime=NOW, progress={"originBytes": 100 * MI})
    assert rate_of([read, seeded, unfinished]) == 10 * MI
    assert rate_of([seeded]) is None


def test_what_files_ask_for() -> None:
    chat, by_hand = playground("chat"), task("t", spec={"placement": {"copies": "All"}})
    wanted = Wanted(models={"llama": model()}, playgrounds=(chat,), runtimes={}, tasks=(by_hand,))
    asks, troubles = asks_of(wanted, OperatorPart("loader"), 2)
    assert [(each.object, each.copies, each.consumers) for each in asks] == [
        ("OpenModel llama", 2, 1),
        ("P2PTask llmaz-system/t", "All", 0),
    ]
    assert troubles == [
        Trouble("Playground default/chat", "BackendRuntimeNotFound",
                "BackendRuntime vllm is neither in the files nor in the cluster")
    ]  # fmt: skip
    _, troubles = asks_of(Wanted({}, (chat,), {}), OperatorPart("loader"), 2)
    assert [each.reason for each in troubles] == ["ModelNotFound", "BackendRuntimeNotFound"]


@pytest.mark.parametrize(("setting", "copies"), [(1, 1), (4, 4)])
def test_a_model_has_as_many_copies_as_the_operators_setting_says(setting: int, copies: int) -> None:
    [ask], _ = asks_of(Wanted({"llama": model()}, (), {}), OperatorPart("loader"), setting)
    assert ask.copies == copies


def test_the_nodes_are_those_that_the_operator_would_choose() -> None:
    control = cache("cp", **{"node-role.kubernetes.io/control-plane": ""})
    assert {node.node for node in plan(control, cache("a"), cache("b")).nodes} == {"a", "b"}
