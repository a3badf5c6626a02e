"""The members of a content and what each of them has, kept so that a report costs what changed in it."""

from array import array
from collections.abc import Iterator
from dataclasses import dataclass, field

from modelswarm.agent import bits
from modelswarm.agent.messages import Failure, PeerInfo, Report

HOLDERS = 4
GONE_SECONDS = 45.0
"""Silence after which a member's bytes do not count any more (a report may be held for 20 s before it is answered)."""


@dataclass(frozen=True, slots=True)
class Orders:
    """What a member has to know at once, as opposed to news."""

    assign: tuple[int, ...] = ()
    revoke: tuple[int, ...] = ()
    asked: tuple[int, ...] = ()
    failure: Failure | None = None
    open: bool = True

    def are_followed(self, report: Report) -> bool:
        """Whether the member's report shows that there is nothing more to tell it."""
        return self.open and self.failure is None and not self.asked and report.working.keys() == set(self.assign)


@dataclass(slots=True)
class Member:
    """One node. Times are the coordinator's own, in seconds."""

    report: Report
    seen: float
    have: int = 0
    verified: int = 0
    live: bool = True
    held: dict[int, int] = field(default_factory=dict)
    """Assigned segments, with the bytes of them that were read when last heard of."""
    moved: float = 0.0
    """When something of ``held`` was last seen to grow, or was handed out."""
    barred_until: float = 0.0
    failures: int = 0
    denied: Failure | None = None
    """What the origin refused to this node for good."""
    asked: int = 0
    """The segments that it is asked to publish, as bits."""
    owes: dict[int, float] = field(default_factory=dict)
    """Segments that it was asked for and has not told, and since when it could have told anything,"""
    unproven: int = 0
    """and those that it is not believed to have: nobody knows their hashes, and it does not tell them. As bits."""
    orders: "Orders | None" = None
    """What it was told last,"""
    told: float = 0.0
    """and when."""

    @property
    def node(self) -> str:
        return self.report.node

    @property
    def helps(self) -> bool:
        return self.live and self.report.wants > 0 and self.denied is None

    @property
    def takes(self) -> bool:
        """Whether it fetches what others have; one with a full disk does not."""
        return self.live and self.report.wants > 0

    def info(self) -> PeerInfo:
        report = self.report
        return PeerInfo(
            node=report.node,
            url=report.url,
            host=report.host,
            port=report.port,
            complete=report.complete,
            gone=not self.live,
        )


class Roster:
    """All members, and of every segment how many live ones have it."""

    def __init__(self, segments: int, files: int) -> None:
        self._all = bits.full(segments)
        self._files = bits.full(files)
        self._counts = array("L", bytes(array("L").itemsize * segments))
        self._members: dict[str, Member] = {}
        self.lacking = self._all
        """The segments that no live member has."""

    def __len__(self) -> int:
        return len(self._members)

    def __iter__(self) -> Iterator[Member]:
        return iter(self._members.values())

    def get(self, node: str) -> Member | None:
        return self._members.get(node)

    def live(self) -> Iterator[Member]:
        return (member for member in self._members.values() if member.live)

    def count(self, segment: int) -> int:
        """How many live members have it."""
        return self._counts[segment]

    def enter(self, report: Report, now: float) -> Member:
        member = self._members[report.node] = Member(report=report, seen=now, moved=now)
        return member

    def forget_one(self) -> bool:
        """Make room by leaving one out that is gone; False if all are here."""
        for member in self._members.values():
            if not member.live:
                del self._members[member.node]
                return True
        return False

    def set_have(self, member: Member, have: int) -> None:
        have = have & self._all if member.live else 0
        gained, lost = have & ~member.have, member.have & ~have
        member.have = have
        for segment in bits.members(gained):
            self._counts[segment] += 1
        for segment in bits.members(lost):
            self._counts[segment] -= 1
            if not self._counts[segment]:
                self.lacking |= 1 << segment
        self.lacking &= ~gained

    def set_verified(self, member: Member, files: int) -> None:
        member.verified = files & self._files

    def is_verified(self, file: int, other_than: Member) -> bool:
        """Whether another live member found the file's digest right."""
        return any(member.verified >> file & 1 for member in self.live() if member is not other_than)

    def holders(self, segment: int) -> Iterator[Member]:
        return (member for member in self.live() if member.have >> segment & 1)

    def urls_of_holders(self, segment: int, asking: Member) -> tuple[str, ...]:
        """Metainfo servers of some who have it: others for every member, who would else all ask the same."""
        found = sorted((other.node, other.report.url) for other in self.holders(segment) if other is not asking)
        if len(found) > HOLDERS:
            start = hash((asking.node, segment)) % len(found)
            found = (found + found)[start : start + HOLDERS]
        return tuple(url for _, url in found)
