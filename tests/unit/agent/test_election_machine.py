"""The election against an API server that loses requests and answers, is slow, and whose Leases somebody deletes.

Whatever happens: two nodes never coordinate at once for longer than one lease duration (never at all, unless somebody
deletes the Lease), and when the trouble ends, the content is complete everywhere after a while.
"""

import asyncio
import random
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta

from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, rule

from modelswarm.agent.election import DURATION, Fetch, Join
from modelswarm.agent.leases import ModelLease, Plan, Situation
from modelswarm.errors import Conflict, KubeError, NotFound, Unavailable
from tests.unit.kube.fake import FakeKube, FakeServer

NODES = 4
WORK = 2000.0
"""Seconds that a coordinator needs until its node has the content: the troubles come meanwhile."""
QUICK_WORK = 100.0
"""And when they are over."""
nodes = st.integers(0, NODES - 1)


class Server(FakeServer):
    """Its clients share a clock, and the troubles of each node are its own."""

    def __init__(self) -> None:
        super().__init__()
        self.now = 1000.0


class Line(FakeKube):
    """One node's way to the server. It does not wait: a request is looked at, or lost, at once."""

    def __init__(self, server: FakeServer) -> None:
        super().__init__(server, lambda verb: None)
        self.down = False
        self.losing = 0

    async def _enter(self, verb: str, name: str = "") -> None:
        if self.down:
            raise Unavailable("no answer")

    def _leave(self, verb: str, name: str) -> None:
        if self.losing:
            self.losing -= 1
            raise Unavailable("the answer got lost")


@dataclass
class Node:
    """What a session does around the Lease: it works as coordinator, or gets the content from one that is complete."""

    name: str
    server: Server
    skew: float
    line: Line
    have: bool = False
    frozen: bool = False
    next_step: float = 0.0
    coordinates_since: float | None = None
    unseeded_since: float | None = None
    lease: ModelLease = field(init=False)

    def __post_init__(self) -> None:
        self.start()

    def start(self) -> None:
        """A new process: it knows nothing."""
        self.frozen = False
        self.next_step = self.server.now
        self.unseeded_since = None
        self.coordinates_since = None
        self.lease = ModelLease(
            self.line,
            namespace="ome",
            model_hash="ab" * 32,
            me=self.name,
            plan=Plan(f"http://{self.name}:8081"),
            clock=lambda: self.server.now + self.skew,  # monotonic, from a start of its own
            now=lambda: datetime(2026, 1, 1, tzinfo=UTC) + timedelta(seconds=self.server.now - 60 * self.skew),
            rng=random.Random(self.name),
        )

    @property
    def coordinates(self) -> bool:
        return self.lease.holds and not self.frozen


class Election(RuleBasedStateMachine):
    def __init__(self) -> None:
        super().__init__()
        self.loop = asyncio.new_event_loop()
        self.server = Server()
        self.nodes = [Node(f"n{number}", self.server, 7.0 * number, Line(self.server)) for number in range(NODES)]
        self.alive = [True] * NODES
        self.work = WORK
        self.both_since: float | None = None
        self.deleted_at = -1e9

    def teardown(self) -> None:
        try:
            self.calm_down()
        finally:
            self.loop.close()

    # What happens

    @rule(seconds=st.sampled_from([3.0, 31.0, 70.0, 130.0]))
    def time_passes(self, seconds: float) -> None:
        self.advance(seconds)

    @rule(number=nodes)
    def line_goes_down(self, number: int) -> None:
        self.nodes[number].line.down = True

    @rule(number=nodes)
    def line_comes_up(self, number: int) -> None:
        self.nodes[number].line.down = False

    @rule(number=nodes, count=st.integers(1, 3))
    def answers_get_lost(self, number: int, count: int) -> None:
        self.nodes[number].line.losing = count

    @rule(number=nodes)
    def crash(self, number: int) -> None:
        self.alive[number] = False
        self.nodes[number].lease.term = None

    @rule(number=nodes, wiped=st.booleans())
    def restart(self, number: int, wiped: bool) -> None:
        self.alive[number] = True
        node = self.nodes[number]
        node.have = node.have and not wiped
        node.start()

    @rule(number=nodes)
    def freeze(self, number: int) -> None:
        self.nodes[number].frozen = True

    @rule(number=nodes)
    def thaw(self, number: int) -> None:
        self.nodes[number].frozen = False

    @rule()
    def somebody_deletes_the_lease(self) -> None:
        self.server.objects.clear()
        self.deleted_at = self.server.now

    # What must hold

    @invariant()
    def never_two_for_long(self) -> None:
        coordinating = [
            node.name for node, alive in zip(self.nodes, self.alive, strict=True) if alive and node.lease.holds
        ]
        if len(coordinating) < 2:
            self.both_since = None
            return
        if self.both_since is None:
            self.both_since = self.server.now
        assert self.server.now - self.deleted_at <= DURATION, f"{coordinating} at once, and nobody deleted the Lease"
        assert self.server.now - self.both_since <= DURATION, f"{coordinating} at once for too long"

    def calm_down(self) -> None:
        """Without trouble everybody has the content after a while."""
        self.work = QUICK_WORK
        for number, node in enumerate(self.nodes):
            node.line.down, node.line.losing, node.frozen = False, 0, False
            if not self.alive[number]:
                self.restart(number, wiped=True)
        for _ in range(200):
            self.advance(10.0)
            self.never_two_for_long()
            if all(node.have for node in self.nodes):
                return
        raise AssertionError(f"stuck: {[(node.name, node.have, node.lease.record) for node in self.nodes]}")

    # The world

    def advance(self, seconds: float) -> None:
        until = self.server.now + seconds
        while self.server.now < until:
            self.server.now += 1.0
            for number, node in enumerate(self.nodes):
                if self.alive[number] and not node.frozen:
                    self.loop.run_until_complete(self.live(node))
            self.never_two_for_long()

    async def live(self, node: Node) -> None:
        now = self.server.now
        if node.coordinates:
            node.coordinates_since = node.coordinates_since or now
            if now - node.coordinates_since >= self.work:
                node.have = True
        else:
            node.coordinates_since = None
        if now < node.next_step:
            return
        others = [
            other for number, other in enumerate(self.nodes)
            if other is not node and self.alive[number] and not other.frozen
        ]  # fmt: skip
        seeders = sum(other.have for other in others)
        node.unseeded_since = None if seeders else node.unseeded_since or now + node.skew
        situation = Situation(
            have=node.have,
            seeders=seeders,
            unseeded_since=node.unseeded_since,
            finished=node.have and all(other.have for other in others),
            joined=any(other.coordinates for other in others),
        )
        try:
            decision = await node.lease.step(situation)
        except (Unavailable, Conflict, NotFound, KubeError):
            node.next_step = now + 1.0
            return
        node.next_step = now + node.lease.pause(decision)
        if isinstance(decision, Fetch):
            node.have = True
        if isinstance(decision, Join):
            assert decision.holder != node.name


TestElection = Election.TestCase
TestElection.settings = settings(
    max_examples=60, stateful_step_count=30, deadline=None, suppress_health_check=list(HealthCheck)
)
