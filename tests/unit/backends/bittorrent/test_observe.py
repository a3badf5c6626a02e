"""What the agents' reports mean for a task."""

from dataclasses import replace

import pytest

from modelswarm.api.nodecache import CachedModel, ModelState, NodeCache, NodeCacheStatus
from modelswarm.api.p2ptask import Placement
from modelswarm.backends.bittorrent.nodes import AgentNode, Copy, Nodes, contents_of, copies_of, ready_nodes
from modelswarm.backends.bittorrent.observe import Aim, choose, observe
from modelswarm.backends.bittorrent.presence import Presence
from modelswarm.backends.engine import EngineState
from modelswarm.kube.kinds import NODECACHE
from modelswarm.kube.store import Store
from modelswarm.placement import Place

CONTENT = f"sha256:{'ab' * 32}"
SIZE = 1000
TWO = Aim(CONTENT, SIZE, Placement(copies=2))
ALL = Aim(CONTENT, SIZE, Placement(copies="All"))

CORDONED = "node.kubernetes.io/unschedulable"
READY = Copy(ModelState.READY, SIZE, 600, 400)
HALF = Copy(ModelState.FETCHING, 500, 300, 200)
WAITING = Copy(ModelState.WAITING, 0)
FULL = Copy(ModelState.FAILED, 0, reason="InsufficientCapacity", message="need 65.5Gi, free 40Gi")


def node(name: str, copy: Copy | None = None, *, live: bool = True, awaited: bool = False, **labels: str) -> AgentNode:
    return AgentNode(name, live and not awaited, labels, {} if copy is None else {CONTENT: copy}, awaited)


def closed(name: str, copy: Copy | None = None, **labels: str) -> AgentNode:
    return replace(node(name, copy, **labels), closed_by=CORDONED)


def nodes(**copies: Copy | None) -> list[AgentNode]:
    return [node(name, copy) for name, copy in copies.items()]


@pytest.mark.parametrize(
    ("given", "state", "counts", "message"),
    [
        pytest.param(nodes(a=None, b=None), "Running", (2, 0, 0, 0), "The nodes' agents are fetching", id="at first"),
        pytest.param(nodes(a=HALF, b=HALF), "Running", (2, 0, 0, 1000), "fetching", id="half of both copies"),
        pytest.param(nodes(a=READY, b=HALF), "Ready", (2, 1, 0, 1500), "1 of 2 nodes hold", id="enough of them"),
        pytest.param(nodes(a=READY, b=READY), "Ready", (2, 2, 0, 2000), "2 of 2 nodes hold", id="all of them"),
        pytest.param(nodes(a=FULL, b=HALF), "Running", (2, 0, 1, 500), "fetching", id="one cannot, another can"),
        pytest.param(nodes(a=FULL, b=FULL), "Failed", (2, 0, 2, 0), "a: need 65.5Gi", id="none can"),
        pytest.param(nodes(a=WAITING), "Running", (1, 0, 0, 0), "fetching", id="fewer nodes than copies"),
    ],
)
def test_two_copies(given: list[AgentNode], state: str, counts: tuple[int, int, int, int], message: str) -> None:
    seen = observe(ALL if len(given) == 2 else TWO, given)
    assert (seen.state.value, (seen.desired, seen.ready, seen.failed, seen.done_bytes)) == (state, counts)
    assert message in seen.message
    assert seen.total_bytes == SIZE * seen.desired


def test_bytes_are_split_by_where_they_came_from() -> None:
    seen = observe(ALL, nodes(a=READY, b=HALF))
    assert (seen.origin_bytes, seen.peer_bytes) == (900, 600)


def test_a_failure_names_node_and_numbers() -> None:
    [failure] = observe(ALL, nodes(a=FULL, b=HALF)).failures
    assert (failure.node, failure.reason, failure.message) == ("a", "InsufficientCapacity", FULL.message)


def test_copies_are_where_rendezvous_hashing_puts_them_and_stay_when_another_node_goes() -> None:
    fleet = [node(f"n{number}") for number in range(9)]
    before = [each.name for each in choose(TWO, fleet)]
    assert len(before) == 2
    assert list(observe(TWO, fleet).nodes) == before
    gone = next(each.name for each in fleet if each.name not in before)
    assert [each.name for each in choose(TWO, [each for each in fleet if each.name != gone])] == before
    lost = [replace(each, live=each.name != before[0]) for each in fleet]
    assert before[1] in [each.name for each in choose(TWO, lost)]


def test_copies_are_made_where_ordinary_pods_run() -> None:
    plane = AgentNode("a-plane", True, {"node-role.kubernetes.io/control-plane": ""}, {})
    fleet = [plane, *(node(f"worker-{number}") for number in range(2))]
    assert observe(TWO, fleet).nodes == ("worker-0", "worker-1")
    assert [each.name for each in choose(ALL, fleet)] == ["a-plane", "worker-0", "worker-1"]


def test_every_matching_node_is_chosen_for_all_and_none_is_named() -> None:
    fleet = [node("gpu-1", gpu="yes"), node("gpu-2", gpu="yes"), node("cpu-1")]
    aim = Aim(CONTENT, SIZE, Placement(copies="All", node_selector={"gpu": "yes"}))
    assert [each.name for each in choose(aim, fleet)] == ["gpu-1", "gpu-2"]
    assert observe(aim, fleet).nodes == ()


def test_a_node_with_a_dead_agent_is_not_ready_however_complete_it_was() -> None:
    seen = observe(ALL, [node("a", READY, live=False), node("b", HALF)])
    assert (seen.state, seen.desired, seen.ready) == (EngineState.RUNNING, 1, 0)


def test_a_copy_waits_for_an_agent_that_is_away_and_is_made_elsewhere_when_it_has_been_away_too_long() -> None:
    fleet = [node(f"n{number}", READY) for number in range(9)]
    first, second = (each.name for each in choose(TWO, fleet))
    aim = replace(TWO, before=frozenset({first, second}))
    away = [node(each.name, READY, awaited=each.name == first) for each in fleet]
    assert [each.name for each in choose(aim, away)] == [first, second]
    seen = observe(aim, away)
    assert (seen.state, seen.desired, seen.ready, seen.nodes) == (EngineState.READY, 2, 1, (first, second))
    assert seen.message == f"1 of 2 nodes hold every file, verified; waiting for the agent of {first}"
    lost = [node(each.name, READY, live=each.name != first) for each in fleet]
    assert second in observe(aim, lost).nodes
    assert first not in observe(aim, lost).nodes
    assert observe(aim, lost).ready == 2


def test_nothing_new_is_given_to_a_node_whose_agent_is_away() -> None:
    fleet = [node("a", awaited=True), node("b"), node("c")]
    assert [each.name for each in choose(TWO, fleet)] == ["b", "c"]


def test_a_node_whose_agent_is_away_is_one_of_all() -> None:
    seen = observe(ALL, [node("a", READY, awaited=True), node("b", READY), node("c", READY, live=False)])
    assert (seen.state, seen.desired, seen.ready) == (EngineState.READY, 2, 1)


def test_a_node_whose_labels_no_longer_match_is_not_waited_for() -> None:
    aim = Aim(CONTENT, SIZE, Placement(copies=1, node_selector={"gpu": "yes"}), frozenset({"a"}))
    assert [each.name for each in choose(aim, [node("a", awaited=True), node("b", gpu="yes")])] == ["b"]


@pytest.mark.parametrize(
    ("copy", "before", "stays"),
    [
        pytest.param(READY, True, True, id="a complete copy stays"),
        pytest.param(HALF, True, True, id="so does one that has been begun"),
        pytest.param(Copy(ModelState.VERIFYING), True, True, id="or is being checked"),
        pytest.param(WAITING, True, False, id="what waits goes elsewhere"),
        pytest.param(FULL, True, False, id="what failed goes elsewhere"),
        pytest.param(None, True, False, id="what was not begun goes elsewhere"),
        pytest.param(READY, False, False, id="what is left of another task does not bring a copy here"),
    ],
)
def test_a_node_that_is_closed_keeps_what_it_has_begun(copy: Copy | None, before: bool, stays: bool) -> None:
    fleet = [node(f"n{number}") for number in range(4)]
    first, second = (each.name for each in choose(TWO, fleet))
    aim = replace(TWO, before=frozenset({first, second}) if before else frozenset())
    cordoned = [closed(first, copy), *(each for each in fleet if each.name != first)]
    found = [each.name for each in choose(aim, cordoned)]
    assert (first in found) is stays
    assert second in found, "no other copy moves"
    assert len(found) == 2


def test_a_copy_on_a_closed_node_counts() -> None:
    aim = Aim(CONTENT, SIZE, Placement(copies=2, min_ready=2), frozenset("ab"))
    seen = observe(aim, [closed("a", READY), node("b", READY), node("c")])
    assert (seen.state, seen.desired, seen.ready, seen.nodes) == (EngineState.READY, 2, 2, ("a", "b"))
    assert seen.message == "2 of 2 nodes hold every file, verified"


def test_a_closed_node_that_its_agent_left_for_a_moment_keeps_its_copy_too() -> None:
    aim = replace(TWO, before=frozenset("ab"))
    rebooting = replace(closed("a", READY), live=False, awaited=True)
    assert [each.name for each in choose(aim, [rebooting, node("b", READY), node("c")])] == ["a", "b"]


def test_nodes_that_take_no_pods_are_named_where_they_are_missed() -> None:
    assert [each.name for each in choose(TWO, [closed("a"), node("b"), node("c")])] == ["b", "c"]
    assert observe(TWO, [closed("a"), node("b"), node("c")]).message == "The nodes' agents are fetching"
    fewer = observe(TWO, [closed("a"), closed("b"), node("c", READY), closed("d", gpu="yes")])
    assert (fewer.state, fewer.desired) == (EngineState.READY, 1)
    assert fewer.message == (f"1 of 1 nodes hold every file, verified; no pods are taken by a ({CORDONED}) and 2 more")


def test_where_all_nodes_that_match_are_closed_the_engine_cannot_place_it() -> None:
    aim = Aim(CONTENT, SIZE, Placement(copies=2, node_selector={"gpu": "yes"}))
    seen = observe(aim, [closed("a", gpu="yes"), node("b")])
    assert (seen.state, seen.reason) == (EngineState.UNREACHABLE, "NoMatchingNode")
    assert seen.message == f"no node with a ready agent that matches takes pods: a ({CORDONED})"


def test_closed_nodes_are_among_all() -> None:
    assert [each.name for each in choose(ALL, [closed("a"), node("b")])] == ["a", "b"]


def test_several_that_are_away_are_counted() -> None:
    aim = replace(ALL, placement=Placement(copies="All", min_ready=2))
    seen = observe(aim, [node("a", READY), node("b", HALF, awaited=True), node("c", awaited=True)])
    assert (seen.state, seen.desired, seen.ready, seen.done_bytes) == (EngineState.RUNNING, 3, 1, 1500)
    assert seen.message == "The nodes' agents are fetching; waiting for the agent of b and 1 more"


def test_when_all_agents_are_away_the_engine_cannot_be_asked() -> None:
    seen = observe(replace(TWO, before=frozenset({"a"})), [node("a", READY, awaited=True)])
    assert (seen.state, seen.reason) == (EngineState.UNREACHABLE, "NoAgent")


def test_a_copy_on_a_node_that_was_not_chosen_counts_for_readiness() -> None:
    fleet = [node(f"n{number}") for number in range(4)]
    chosen = {each.name for each in choose(Aim(CONTENT, SIZE, Placement(copies=1)), fleet)}
    fleet = [node(each.name, None if each.name in chosen else READY) for each in fleet]
    seen = observe(Aim(CONTENT, SIZE, Placement(copies=1)), fleet)
    assert (seen.state, seen.desired, seen.ready) == (EngineState.READY, 1, 0)


@pytest.mark.parametrize(
    ("fleet", "selector", "reason", "words"),
    [
        pytest.param([], {}, "NoAgent", "no node has a ready agent", id="no agents"),
        pytest.param([node("a", READY, live=False)], {}, "NoAgent", "no node has a ready agent", id="all are dead"),
        pytest.param([node("a")], {"gpu": "h100"}, "NoMatchingNode", "gpu=h100", id="nothing matches"),
    ],
)
def test_without_a_node_the_engine_cannot_be_asked(
    fleet: list[AgentNode], selector: dict[str, str], reason: str, words: str
) -> None:
    seen = observe(Aim(CONTENT, SIZE, Placement(copies=2, node_selector=selector)), fleet)
    assert (seen.state, seen.reason) == (EngineState.UNREACHABLE, reason)
    assert words in seen.message


def test_min_ready_is_how_many_complete_nodes_make_it_ready() -> None:
    aim = Aim(CONTENT, SIZE, Placement(copies="All", min_ready=2))
    assert observe(aim, nodes(a=READY, b=HALF)).state is EngineState.RUNNING
    assert observe(aim, nodes(a=READY, b=READY)).state is EngineState.READY
    assert observe(aim, nodes(a=READY)).state is EngineState.READY, "there are no more nodes than that"


def cache(name: str, version: int, *models: CachedModel, **labels: str) -> dict[str, object]:
    status = NodeCacheStatus(models=models, labels=labels)
    return {
        "apiVersion": NodeCache.api_version_of_kind(),
        "kind": "NodeCache",
        "metadata": {"name": name, "resourceVersion": str(version)},
        "status": status.to_json(),
    }


def test_node_caches_are_read_once_per_version_and_forgotten_with_their_node() -> None:
    store = Store()
    nodes = Nodes(store)
    model = CachedModel(content=CONTENT, name="org/model", state=ModelState.FETCHING, bytes=SIZE, done_bytes=10)
    store.put(NODECACHE, cache("a", 1, model, gpu="yes"))  # type: ignore[arg-type]
    nodes.presence = Presence(frozenset({"a"}))
    assert nodes.places() == {"a": Place({"gpu": "yes"})}
    [first] = nodes.all()
    assert (first.live, first.labels, first.copies[CONTENT].done_bytes) == (True, {"gpu": "yes"}, 10)
    assert nodes.all()[0].copies is first.copies
    store.put(NODECACHE, cache("a", 2, model.model_copy(update={"done_bytes": 20})))  # type: ignore[arg-type]
    assert nodes.all()[0].copies[CONTENT].done_bytes == 20
    store.replace_all(NODECACHE, [], "3")
    assert nodes.all() == ()


def test_contents_whose_digest_is_not_known_yet_are_left_out() -> None:
    unresolved = CachedModel(content=f"model:{'cd' * 32}", name="org/model", state=ModelState.WAITING)
    status = NodeCacheStatus(models=(unresolved,))
    found = NodeCache.model_validate({**cache("a", 1), "status": status.to_json()})
    assert copies_of(found) == {}
    assert contents_of(cache("a", 1, unresolved)) == [unresolved.content]  # type: ignore[arg-type]


def test_a_node_is_live_while_its_endpoint_is_ready() -> None:
    slices = [
        {"endpoints": [{"nodeName": "a", "conditions": {"ready": True}}, {"nodeName": "b", "conditions": {}}]},
        {"endpoints": [{"nodeName": "c", "conditions": {"ready": False}}, {"addresses": ["10.0.0.1"]}]},
        {"endpoints": None},
    ]
    assert ready_nodes(slices) == {"a", "b"}  # type: ignore[arg-type]
