"""From what the agents report to one observation of a task. Pure."""

from collections.abc import Sequence
from collections.abc import Set as AbstractSet
from dataclasses import dataclass

from modelswarm.api.conditions import TaskReason
from modelswarm.api.nodecache import ModelState
from modelswarm.api.p2ptask import NodeFailure, Placement
from modelswarm.backends.bittorrent.nodes import AgentNode, Copy
from modelswarm.backends.engine import EngineState, Observation
from modelswarm.placement import Place, eligible, holders, matches

MOST_NAMED = 20
"""Failures in a status."""
_BEGUN = (ModelState.FETCHING, ModelState.VERIFYING, ModelState.READY)


@dataclass(frozen=True, slots=True)
class Aim:
    """What a task wants: which content, how large, where."""

    content: str
    """The manifest's digest, ``sha256:<hex>``."""
    bytes: int
    placement: Placement
    before: AbstractSet[str] = frozenset()
    """The nodes that were chosen the last time, where a number of them is."""


def choose(aim: Aim, nodes: Sequence[AgentNode]) -> tuple[AgentNode, ...]:
    """The nodes that should hold the content, by name: of those with an agent that match, ``copies`` (or all).

    Rendezvous hashing: when a node comes or goes, no other copy moves. A node whose agent is awaited stays chosen, but
    nothing new is given to it. Nor is it to one that is closed to pods: that keeps what it has begun.
    """
    by_name = {node.name: node for node in nodes if node.live or (node.awaited and _is_wanted_back(aim, node))}
    places = {name: Place(node.labels, None if _keeps(aim, node) else node.closed_by) for name, node in by_name.items()}
    matching = eligible(places, aim.placement.node_selector, aim.placement.copies)
    return tuple(by_name[name] for name in sorted(holders(aim.content, matching, aim.placement.copies)))


def _is_wanted_back(aim: Aim, node: AgentNode) -> bool:
    return aim.placement.copies == "All" or node.name in aim.before


def _keeps(aim: Aim, node: AgentNode) -> bool:
    """Whether the node was given the content and has begun: as its pods do, that stays when the node is closed."""
    copy = node.copies.get(aim.content)
    return node.name in aim.before and copy is not None and copy.state in _BEGUN


def observe(aim: Aim, nodes: Sequence[AgentNode]) -> Observation:
    """How far the task is. A node that was not chosen and holds the content (a pod landed there) makes it Ready too."""
    if not any(node.live for node in nodes):
        return Observation(
            EngineState.UNREACHABLE,
            TaskReason.NO_AGENT,
            "no node has a ready agent; see: kubectl get pods -A -l app.kubernetes.io/name=ome-model-agent",
        )
    chosen = choose(aim, nodes)
    closed = _closed(aim, nodes, chosen)
    if not chosen:
        return Observation(EngineState.UNREACHABLE, TaskReason.NO_MATCHING_NODE, _nowhere(aim, closed))
    wanted = {node.name for node in chosen}
    holding = [node.name for node in nodes if node.live and _is(node.copies.get(aim.content), ModelState.READY)]
    ready = [name for name in holding if name in wanted]
    failures = _failures(aim, chosen)
    copies = [copy for node in nodes if (copy := node.copies.get(aim.content)) is not None]
    chosen_copies = [node.copies.get(aim.content) for node in chosen]
    enough = len(holding) >= min(aim.placement.min_ready, len(chosen))
    state, reason, message = _verdict(enough, failures, len(chosen))
    awaited = [node.name for node in chosen if not node.live]
    fewer = aim.placement.copies != "All" and len(chosen) < aim.placement.copies
    notes = _waiting(awaited) + (_left_out(closed) if fewer else "")
    return Observation(
        state,
        reason,
        (f"{len(ready)} of {len(chosen)} nodes hold every file, verified" if enough else message) + notes,
        desired=len(chosen),
        ready=len(ready),
        failed=len(failures),
        done_bytes=sum(_done(copy, aim.bytes) for copy in chosen_copies),
        total_bytes=aim.bytes * len(chosen),
        origin_bytes=sum(copy.origin_bytes for copy in copies),
        peer_bytes=sum(copy.peer_bytes for copy in copies),
        failures=failures[:MOST_NAMED],
        attempts=1 if state is EngineState.FAILED else 0,  # agents try again by themselves, so time decides
        nodes=() if aim.placement.copies == "All" else tuple(node.name for node in chosen),
    )


def _verdict(enough: bool, failures: Sequence[NodeFailure], chosen: int) -> tuple[EngineState, str, str]:
    if enough:
        return EngineState.READY, TaskReason.DISTRIBUTED, ""
    if len(failures) == chosen:
        first = failures[0]
        more = f" (and {chosen - 1} more nodes)" if chosen > 1 else ""
        return EngineState.FAILED, first.reason, f"{first.node}: {first.message}{more}"
    return EngineState.RUNNING, TaskReason.RUNNING, "The nodes' agents are fetching"


def _waiting(awaited: Sequence[str]) -> str:
    if not awaited:
        return ""
    more = f" and {len(awaited) - 1} more" if len(awaited) > 1 else ""
    return f"; waiting for the agent of {awaited[0]}{more}"


def _closed(aim: Aim, nodes: Sequence[AgentNode], chosen: Sequence[AgentNode]) -> list[AgentNode]:
    """The nodes that would do, if pods could come to them."""
    return [
        node
        for node in nodes
        if node.live and node.closed_by and node not in chosen and matches(aim.placement.node_selector, node.labels)
    ]


def _nowhere(aim: Aim, closed: Sequence[AgentNode]) -> str:
    if closed:
        return f"no node with a ready agent that matches takes pods: {_named(closed)}"
    selector = ", ".join(f"{key}={value}" for key, value in sorted(aim.placement.node_selector.items()))
    return f"no node with a ready agent matches the node selector {selector}"


def _left_out(closed: Sequence[AgentNode]) -> str:
    return f"; no pods are taken by {_named(closed)}" if closed else ""


def _named(closed: Sequence[AgentNode]) -> str:
    more = f" and {len(closed) - 1} more" if len(closed) > 1 else ""
    return f"{closed[0].name} ({closed[0].closed_by}){more}"


def _failures(aim: Aim, chosen: Sequence[AgentNode]) -> tuple[NodeFailure, ...]:
    return tuple(
        NodeFailure(node=node.name, reason=copy.reason or "Failed", message=copy.message)
        for node in chosen
        if (copy := node.copies.get(aim.content)) is not None and _is(copy, ModelState.FAILED)
    )


def _is(copy: Copy | None, state: ModelState) -> bool:
    return copy is not None and copy.state is state


def _done(copy: Copy | None, total: int) -> int:
    if copy is None:
        return 0
    return total if copy.state is ModelState.READY else min(copy.done_bytes, total)
