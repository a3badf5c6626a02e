"""The network of namespaces as data: names, addresses, commands, and what is read back."""

import json
import os
from collections.abc import Mapping
from pathlib import Path

import pytest

from dev import netns_commands as commands
from dev.netns import NetnsUnavailable, Network
from dev.netns_commands import Names, Traffic

NAMES = Names(pid=41, started=700, serial=1)


@pytest.mark.parametrize(
    ("nodes", "rates", "complaint"),
    [
        pytest.param(["a", "a"], {}, "same name", id="two nodes of one name"),
        pytest.param(["much-too-long-name"], {}, "not the name", id="longer than an interface's name may be"),
        pytest.param(["a b"], {}, "not the name", id="a space"),
        pytest.param(["../a"], {}, "not the name", id="a path"),
        pytest.param(["br0"], {}, "not the name", id="the bridge's own name"),
        pytest.param(["a"], {"b": 1}, "no such node: b", id="a rate of a node that does not exist"),
        pytest.param(["a"], {"a": 0}, "positive", id="a rate of nothing"),
        pytest.param([f"n{index}" for index in range(300)], {}, "at most", id="more nodes than addresses"),
    ],
)
def test_impossible_networks_are_refused(nodes: list[str], rates: Mapping[str, int | None], complaint: str) -> None:
    with pytest.raises(ValueError, match=complaint):
        commands.check_nodes(nodes, rates)


def test_every_node_that_fits_has_an_address() -> None:
    indices = range(commands.MOST_NODES)
    addresses = [commands.address(index) for index in indices]
    assert (addresses[0], addresses[-1]) == ("198.18.0.11", "198.18.0.253")
    assert commands.address6(0) == "2001:2::11"
    assert len({*addresses, *(commands.address6(index) for index in indices)}) == 2 * len(addresses)


def test_node_is_made_inside_namespaces_only() -> None:
    made = commands.create_bridge(NAMES) + commands.create_node(NAMES, "n1", 0, ipv6=True)
    outside = [command for command in made if command[:2] != ("ip", "-netns")]
    assert outside == [("ip", "netns", "add", NAMES.bridge), ("ip", "netns", "add", NAMES.of("n1"))]
    assert not any("default" in command for command in made)


def test_both_directions_of_a_link_are_shaped() -> None:
    shaped = commands.shape(NAMES, "n1", 200_000_000, shaped_before=False)
    bucket = ("root", "tbf", "rate", "200000000bit", "burst", "256kb", "latency", "50ms")
    assert shaped == [
        ("tc", "-netns", NAMES.of("n1"), "qdisc", "replace", "dev", "eth0", *bucket),
        ("tc", "-netns", NAMES.bridge, "qdisc", "replace", "dev", "n1", *bucket),
    ]
    assert [command[4] for command in commands.shape(NAMES, "n1", None, shaped_before=True)] == ["delete", "delete"]
    assert commands.shape(NAMES, "n1", None, shaped_before=False) == []


def test_what_the_bridge_sends_is_what_the_node_receives() -> None:
    link = {"ifname": "n1", "stats64": {"rx": {"bytes": 3}, "tx": {"bytes": 10}}}
    found = commands.parse_traffic(json.dumps([link]))
    assert found == {"n1": Traffic(received=10, sent=3)}
    assert found["n1"] - Traffic(received=4, sent=1) == Traffic(received=6, sent=2)


def test_only_namespaces_of_processes_that_are_gone_are_abandoned() -> None:
    gone, later = Names(42, 700, 1), Names(43, 700, 1)
    ours = [NAMES.bridge, NAMES.of("n1"), gone.bridge, gone.of("n1"), later.of("n1")]
    strangers = ["modelswarm-42-x", "cni-42-700-1-bridge", "modelswarm"]
    # The number 43 now belongs to a process that started later.
    found = commands.abandoned([*ours, *strangers], alive={41: 700, 43: 900})
    assert found == sorted([gone.bridge, gone.of("n1"), later.of("n1")])


def test_start_time_is_found_behind_any_program_name(tmp_path: Path) -> None:
    fields = " ".join(str(number) for number in range(3, 50))
    (tmp_path / "7").mkdir()
    (tmp_path / "7" / "stat").write_text(f"7 (a) b (c)) {fields}\n")
    (tmp_path / "meminfo").write_text("")
    assert commands.start_times(tmp_path) == {7: 22}
    assert commands.start_time(8, tmp_path) is None
    assert commands.start_time() == commands.start_times()[os.getpid()]


def test_user_without_root_is_told_what_is_needed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "geteuid", lambda: 1000)
    with pytest.raises(NetnsUnavailable) as raised, Network(["n1"]):
        pass
    assert str(raised.value) == "network namespaces need root and iproute2 (apt-get install iproute2)"
