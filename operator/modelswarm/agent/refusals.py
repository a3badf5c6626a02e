"""What the origin says instead of bytes, and what follows for one node, or for all."""

from modelswarm.agent.members import Member, Roster
from modelswarm.agent.messages import Failure

DENIALS = 3
"""So many nodes to which the origin refuses a content speak for all of them."""
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

    def pause(self, now: float) -> float:
        return max(0.0, self.paused_until - now)

    def note(self, member: Member, failure: Failure, now: float) -> None:
        """A member gives a segment back."""
        self.latest = failure if failure.retryable else self.latest
        if not failure.retryable:
            member.denied = failure
        elif failure.reason == _RATE_LIMITED:
            pause = _DEFAULT_PAUSE if failure.retry_after is None else failure.retry_after
            self.paused_until = max(self.paused_until, now + min(pause, MAX_PAUSE))
        else:
            member.failures += 1
            member.barred_until = now + min(MAX_BAR, 2.0 ** min(member.failures, 10) / 2)

    def note_silence(self) -> None:
        """A member reads nothing for long, and says nothing of it."""
        self.latest = self.latest or Failure(reason=_UNAVAILABLE, message="the origin sends nothing")

    def judge(self, roster: Roster) -> None:
        """Whether what the origin refuses to some is refused to all."""
        denied = [member for member in roster.live() if member.denied is not None and not member.report.complete]
        spoken = len(denied) >= DENIALS or not any(member.helps for member in roster.live())
        if denied and spoken and self.final is None and roster.lacking:
            self.final = denied[0].denied
        if not roster.lacking:
            self.latest = None
