"""What the origin says instead of bytes, and what follows for one node, or for all."""

from collections import Counter
from collections.abc import Set as AbstractSet

from modelswarm.agent.members import Member, Roster
from modelswarm.agent.messages import Failure
from modelswarm.agent.rereading import ROUNDS

DENIALS = 3
"""So many nodes to which the origin refuses a content speak for all of them."""
WRONG_BYTES = Failure(
    reason="DigestMismatch", message="the origin delivers bytes that do not have the digest", retryable=False
)
"""Once the nodes agree about a file."""
MAX_PAUSE = 3600.0
MAX_BAR = 60.0
_RATE_LIMITED = "RateLimited"
_UNAVAILABLE = "SourceUnavailable"
_DEFAULT_PAUSE = 30.0


class Refusals:
    def __init__(self, now: float) -> None:
        self.paused_until = now
        """Nobody reads the origin before this: it asked us to wait."""
        self.final: Failure | None = None
        """What ends the attempt, for all."""
        self.latest: Failure | None = None
        """What went wrong last; goes away when it is over."""
        self._mismatches: dict[int, Counter[str]] = {}
        """How often wrong bytes came for a bundle, by node. They are not kept, so nobody can complain of the file."""

    def pause(self, now: float) -> float:
        return max(0.0, self.paused_until - now)

    def note(self, member: Member, segment: int, failure: Failure, now: float) -> None:
        """A member gives a segment back."""
        self.latest = failure if failure.retryable else self.latest
        if not failure.retryable:
            member.denied = failure
        elif failure.reason == _RATE_LIMITED:
            pause = _DEFAULT_PAUSE if failure.retry_after is None else failure.retry_after
            self.paused_until = max(self.paused_until, now + min(pause, MAX_PAUSE))
        else:
            if failure.reason == WRONG_BYTES.reason:
                self._mismatches.setdefault(segment, Counter())[member.node] += 1
            member.failures += 1
            member.barred_until = now + min(MAX_BAR, 2.0 ** min(member.failures, 10) / 2)

    def note_silence(self) -> None:
        """A member reads nothing for long, and says nothing of it."""
        self.latest = self.latest or Failure(reason=_UNAVAILABLE, message="the origin sends nothing")

    def judge(self, roster: Roster) -> None:
        """Whether what the origin refuses to some is refused to all, and what is wrong for some is wrong for all."""
        denied = [member for member in roster.live() if member.denied is not None and not member.report.complete]
        spoken = len(denied) >= DENIALS or not any(member.helps for member in roster.live())
        if denied and spoken and self.final is None and roster.lacking:
            self.final = denied[0].denied
        helpers = {member.node for member in roster if member.helps}
        # Whoever has the bundle has found it right.
        lacking = (reads for bundle, reads in self._mismatches.items() if roster.lacking >> bundle & 1)
        if self.final is None and any(_is_agreed(reads, helpers) for reads in lacking):
            self.final = WRONG_BYTES
        if not roster.lacking:
            self.latest = None


def _is_agreed(reads: Counter[str], helpers: AbstractSet[str]) -> bool:
    """Whether two nodes were given wrong bytes; where there is only one, often enough: others may be about to come."""
    nodes = helpers & reads.keys()
    return len(nodes) > 1 or (nodes == helpers and sum(reads[node] for node in nodes) >= ROUNDS)
