import pytest

from modelswarm.agent.swarm import Peer, neighbours


def peers(count: int) -> list[Peer]:
    return [Peer(f"n{index:03}", f"10.0.{index // 250}.{index % 250}", 6881) for index in range(count)]


def reached(graph: dict[str, set[str]], hops: int) -> set[str]:
    seen = {"n000"}
    for _ in range(hops):
        seen |= {other for node in seen for other in graph[node]}
    return seen


@pytest.mark.parametrize("count", [1, 2, 5])
def test_few_nodes_are_a_full_mesh(count: int) -> None:
    everybody = peers(count)
    assert neighbours("t", "n000", everybody, [], degree=4) == everybody[1:]


@pytest.mark.parametrize("count", [6, 8, 50, 500])
def test_many_nodes_have_few_neighbours_and_reach_everybody_in_few_hops(count: int) -> None:
    everybody = peers(count)
    graph = {peer.node: {other.node for other in neighbours("t", peer.node, everybody, [], 4)} for peer in everybody}
    assert max(map(len, graph.values())) <= 4
    assert all(node in graph[other] for node, others in graph.items() for other in others)
    assert len(reached(graph, hops=9)) == count


def test_every_torrent_has_an_order_of_its_own() -> None:
    everybody = peers(50)
    chosen = {tuple(neighbours(f"t{index}", "n000", everybody, [], 4)) for index in range(20)}
    assert len(chosen) > 15


def test_who_had_it_first_is_a_neighbour_of_everybody() -> None:
    everybody = peers(50)
    assert all(
        "n007" in {other.node for other in neighbours("t", peer.node, everybody, ["n007"], 4)}
        for peer in everybody
        if peer.node != "n007"
    )


def test_a_node_is_not_its_own_neighbour_and_nobody_is_named_twice() -> None:
    twice = [*peers(3), *peers(3)]
    assert [peer.node for peer in neighbours("t", "n001", twice, ["n001"], 4)] == ["n000", "n002"]
