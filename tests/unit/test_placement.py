"""Which nodes hold a content: the same answer for everybody, and little that moves when nodes come and go."""

from collections import Counter

import pytest
from hypothesis import given
from hypothesis import strategies as st

from modelswarm.placement import CONTROL_PLANE, HOST, Copies, Place, eligible, holders, lets_in, matches

CONTENT = "sha256:" + "ab" * 32
CORDONED = "node.kubernetes.io/unschedulable"
NODES = [f"gpu-{number}" for number in range(8)]

node_sets = st.sets(st.from_regex(r"[a-z][a-z0-9-]{0,20}", fullmatch=True), max_size=20)
contents = st.from_regex(r"[0-9a-f]{64}", fullmatch=True)
copies_wanted = st.one_of(st.integers(1, 25), st.just("All"))


@pytest.mark.parametrize(
    ("selector", "labels", "expected"),
    [
        pytest.param({}, {}, True, id="an empty selector matches a node without labels"),
        pytest.param({}, {"a": "1"}, True, id="an empty selector matches any node"),
        pytest.param({"a": "1"}, {"a": "1", "b": "2"}, True, id="more labels do no harm"),
        pytest.param({"a": "1"}, {"a": "2"}, False, id="another value"),
        pytest.param({"a": "1"}, {}, False, id="no such label"),
        pytest.param({"a": "1", "b": "2"}, {"a": "1"}, False, id="all of them have to match"),
        pytest.param({"a": ""}, {"a": ""}, True, id="an empty value is a value"),
        pytest.param({"a": ""}, {}, False, id="an empty value is not a missing label"),
    ],
)
def test_matches(selector: dict[str, str], labels: dict[str, str], expected: bool) -> None:
    assert matches(selector, labels) is expected


def places(nodes: dict[str, dict[str, str]], *closed: str) -> dict[str, Place]:
    return {name: Place(labels, CORDONED if name in closed else None) for name, labels in nodes.items()}


def test_eligible_nodes_are_in_order() -> None:
    nodes = places({"b": {"gpu": "a100"}, "a": {"gpu": "a100"}, "c": {"gpu": "t4"}, "d": {}})
    assert eligible(nodes, {"gpu": "a100"}) == ("a", "b")
    assert eligible(nodes, {}) == ("a", "b", "c", "d")


WORKER, PLANE, OLD_PLANE = {"zone": "a"}, {"zone": "a", CONTROL_PLANE[0]: ""}, {CONTROL_PLANE[1]: "true"}


@pytest.mark.parametrize(
    ("nodes", "selector", "copies", "expected"),
    [
        pytest.param({"w": WORKER, "c": PLANE, "m": OLD_PLANE}, {}, 2, ("w",), id="no copy is spent on it"),
        pytest.param({"w": WORKER, "c": PLANE}, {"zone": "a"}, 2, ("w",), id="a selector that does not speak of it"),
        pytest.param({"w": WORKER, "c": PLANE}, {CONTROL_PLANE[0]: ""}, 2, ("c",), id="its role is named"),
        pytest.param({"w": {}, "c": {**PLANE, HOST: "c"}}, {HOST: "c"}, 1, ("c",), id="the host is named"),
        pytest.param({"c": PLANE}, {}, 2, ("c",), id="a cluster of one node"),
        pytest.param({"w": WORKER, "c": PLANE}, {}, "All", ("c", "w"), id="all are all"),
    ],
)
def test_the_control_plane_is_spared(
    nodes: dict[str, dict[str, str]], selector: dict[str, str], copies: Copies, expected: tuple[str, ...]
) -> None:
    assert eligible(places(nodes), selector, copies) == expected


@pytest.mark.parametrize(
    ("closed", "selector", "copies", "expected"),
    [
        pytest.param("", {}, 2, "abc", id="all are open"),
        pytest.param("b", {}, 2, "ac", id="nothing is placed on one that takes no pods"),
        pytest.param("abc", {}, 2, "", id="not even where there is no other"),
        pytest.param("ab", {"gpu": "yes"}, 2, "", id="nor where no other one matches"),
        pytest.param("b", {}, "All", "abc", id="all are all: it has them when it is opened"),
        pytest.param("b", {HOST: "b"}, 1, "b", id="the host is named: somebody means this one"),
        pytest.param("b", {HOST: "c"}, 1, "", id="another host is named, which there is not"),
    ],
)
def test_a_closed_node_is_given_no_number_of_copies(
    closed: str, selector: dict[str, str], copies: Copies, expected: str
) -> None:
    nodes = places({"a": {"gpu": "yes"}, "b": {"gpu": "yes", HOST: "b"}, "c": {}}, *closed)
    assert eligible(nodes, selector, copies) == tuple(expected)
    assert {name for name, place in nodes.items() if lets_in(place, selector, copies)} == set(expected)


def test_the_control_plane_serves_where_all_others_are_closed() -> None:
    assert eligible(places({"w": WORKER, "c": PLANE}, "w"), {}, 2) == ("c",)


@pytest.mark.parametrize(
    ("nodes", "copies", "count"),
    [
        pytest.param(NODES, 2, 2, id="two of eight"),
        pytest.param(NODES, 8, 8, id="as many as there are"),
        pytest.param(NODES, 9, 8, id="more than there are"),
        pytest.param(NODES, "All", 8, id="all"),
        pytest.param([], 2, 0, id="no nodes"),
        pytest.param([], "All", 0, id="all of none"),
        pytest.param([*NODES, *NODES], "All", 8, id="a node that is named twice is one node"),
    ],
)
def test_how_many_hold_it(nodes: list[str], copies: Copies, count: int) -> None:
    found = holders(CONTENT, nodes, copies)
    assert len(found) == count
    assert len(set(found)) == count


def test_the_choice_is_a_fixed_one() -> None:
    """Agents of different versions must agree: whoever changes this moves every model of every cluster."""
    assert holders(CONTENT, NODES, 3) == ("gpu-7", "gpu-2", "gpu-6")


def test_the_digest_may_have_its_prefix_or_not() -> None:
    assert holders(CONTENT, NODES, 3) == holders("ab" * 32, NODES, 3)


def test_contents_spread_over_the_nodes() -> None:
    counts = Counter(node for number in range(4000) for node in holders(f"{number:064x}", NODES, 2))
    assert set(counts) == set(NODES)
    assert max(counts.values()) < 1.2 * min(counts.values())


@given(contents, node_sets, copies_wanted)
def test_order_does_not_matter(content: str, nodes: set[str], copies: Copies) -> None:
    assert holders(content, sorted(nodes), copies) == holders(content, sorted(nodes, reverse=True), copies)


@given(contents, node_sets.filter(bool), copies_wanted, st.data())
def test_removing_a_node_moves_only_what_it_held(
    content: str, nodes: set[str], copies: Copies, data: st.DataObject
) -> None:
    gone = data.draw(st.sampled_from(sorted(nodes)))
    before, after = holders(content, nodes, copies), holders(content, nodes - {gone}, copies)
    if gone in before:
        assert set(before) - {gone} <= set(after)
        assert len(set(after) - set(before)) <= 1
    else:
        assert after == before


@given(contents, node_sets, st.integers(1, 25))
def test_more_copies_keep_those_that_are_there(content: str, nodes: set[str], copies: int) -> None:
    assert holders(content, nodes, copies + 1)[:copies] == holders(content, nodes, copies)
