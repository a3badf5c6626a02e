"""Bytes that went through the swarm, by content."""

from collections.abc import Collection
from dataclasses import dataclass, field


@dataclass(slots=True)
class Traffic:
    """Payload in bytes since the start, without repeated or refused pieces' protocol overhead."""

    uploaded: int = 0
    downloaded: int = 0


@dataclass(slots=True)
class Counters:
    """``connections`` and ``torrents`` are of now. The others only grow, a content's until it is forgotten."""

    total: Traffic = field(default_factory=Traffic)
    contents: dict[str, Traffic] = field(default_factory=dict)
    connections: int = 0
    torrents: int = 0
    seeding: int = 0
    """Complete models that are offered."""

    def add(self, content: str, *, uploaded: int, downloaded: int) -> None:
        for traffic in (self.total, self.contents.setdefault(content, Traffic())):
            traffic.uploaded += uploaded
            traffic.downloaded += downloaded

    def keep(self, contents: Collection[str]) -> None:
        """Forget what was counted for all others."""
        for content in self.contents.keys() - set(contents):
            del self.contents[content]
