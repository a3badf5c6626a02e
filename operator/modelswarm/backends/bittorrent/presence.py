"""Which nodes have a live agent, and which had one until a moment ago. Pure; times are seconds of any one clock.

An agent that restarts (a roll-out of the DaemonSet does that to every node) is away for seconds. If its copies were
made elsewhere at once, a roll-out would move all of them.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field, replace


@dataclass(frozen=True, slots=True)
class Presence:
    """What one look at the agents' endpoints says, together with the looks before it."""

    live: frozenset[str] = frozenset()
    away: Mapping[str, float] = field(default_factory=dict)
    """Nodes that were live, and since when they are not. Those whose grace is over are left out."""
    since: float | None = None
    """When the first look was. A node that was not live then may have gone just before, while nobody looked. None when
    the grace of those is over, too."""
    looked: bool = False

    def is_awaited(self, node: str) -> bool:
        """Whether the node is not live, but for so short a time that its agent may only be restarting."""
        return node not in self.live and (node in self.away or self.since is not None)

    def after(self, live: frozenset[str], now: float, grace: float) -> "Presence":
        """What the next look makes of it. Equal to what it was if nothing changed."""
        gone = {node: self.away.get(node, now) for node in self.live | self.away.keys() if node not in live}
        since = self.since if self.looked else now
        return replace(
            self,
            live=live,
            away={node: left for node, left in gone.items() if now - left < grace},
            since=since if since is not None and now - since < grace else None,
            looked=True,
        )
