"""An agent that dies anywhere: at every point where its session waits for something, it is killed and started again."""

import asyncio
import itertools
from collections.abc import Awaitable, Callable, Generator
from pathlib import Path
from typing import Any

import pytest

from modelswarm.agent.session import Session
from tests.unit.agent.company import Agent, company_of, hash_of
from tests.unit.agent.store.conftest import MIB, content, noise, tree

pytestmark = pytest.mark.looptime

FILES = {"model.bin": noise("model", 5 * MIB + 77), "config.json": b"{}", "empty": b""}
MODEL = content(FILES)
PIECE = MIB // 2
"""What the origin gives at a time: so much of each connection may not have reached the disk."""
CONNECTIONS = 8
STRIDE = 5
"""Every so many points are tried by one test; together they try all."""


class Counted:
    """Awaits ``work``, and calls ``reached`` when it has come to wait for the ``steps``-th time."""

    def __init__(self, work: Awaitable[None], steps: int, reached: Callable[[], None]) -> None:
        self._work = work
        self._steps = steps
        self._reached = reached

    def __await__(self) -> Generator[Any, Any, None]:
        inner, answer = self._work.__await__(), None
        error: BaseException | None = None
        for number in itertools.count(1):
            try:
                waits_for = inner.throw(error) if error is not None else inner.send(answer)  # type: ignore[attr-defined]
            except StopIteration:
                return
            if number == self._steps:
                self._reached()
            error, answer = None, None
            try:
                answer = yield waits_for
            except BaseException as raised:  # noqa: BLE001  (it is for whoever waits inside)
                error = raised


class Trap:
    """Kills an agent when its next session has come to wait so many times."""

    def __init__(self, agent: Agent, monkeypatch: pytest.MonkeyPatch) -> None:
        self.agent = agent
        self.sprung = asyncio.Event()
        self._run = Session.run
        self._monkeypatch = monkeypatch

    def set(self, steps: int) -> None:
        trap, run = self, self._run
        self.sprung.clear()
        armed = [True]

        def reached() -> None:
            trap.agent.died.set()
            trap.sprung.set()

        async def counted(session: Session) -> None:
            if session._parts.address.node == trap.agent.name and armed:
                armed.clear()
                await Counted(run(session), steps, reached)
            else:
                await run(session)

        self._monkeypatch.setattr(Session, "run", counted)


def whole(agent: Agent) -> bool:
    return tree(agent.parts.store.directory(hash_of(MODEL))) == FILES


@pytest.mark.parametrize("company_size", [1, 2])
@pytest.mark.parametrize("first", range(1, STRIDE + 1))
async def test_killed_at_any_point_it_converges_and_reads_nothing_twice_but_what_was_in_flight(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, first: int, company_size: int
) -> None:
    for steps in range(first, 1000, STRIDE):
        async with company_of(tmp_path / str(steps), FILES, MODEL, seed=steps) as company:
            victim, *others = company.add(*"abc"[:company_size])
            trap = Trap(victim, monkeypatch)
            trap.set(steps)
            for agent in (victim, *others):
                agent.leg.pause = 0.05
                await agent.start(MODEL)
            await company.until(_sprung_or_at_rest(trap))
            if not trap.sprung.is_set():
                assert steps > 20, "it waits for more than that"
                return
            await victim.kill()
            await victim.start()
            await company.until_ready(MODEL)
            assert all(map(whole, company.agents.values()))
            assert company.origin.total - MODEL.bytes <= CONNECTIONS * PIECE, f"killed at point {steps}"
    pytest.fail("a session that never comes to rest")


def _sprung_or_at_rest(trap: Trap) -> Callable[[], bool]:
    """Killed; or ready and seeding, so that nothing more will happen by itself."""
    agent = trap.agent
    return lambda: trap.sprung.is_set() or (agent.is_ready(MODEL) and hash_of(MODEL) in agent.parts.seeding.hashes)


async def test_killed_again_and_again_it_gets_there(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    async with company_of(tmp_path, FILES, MODEL) as company:
        victim, other = company.add("a", "b")
        trap = Trap(victim, monkeypatch)
        other.leg.pause = victim.leg.pause = 0.5
        await other.start(MODEL)
        for steps in range(2, 40, 3):
            trap.set(steps)
            await victim.start(MODEL)
            await company.until(lambda: trap.sprung.is_set() or victim.is_ready(MODEL))
            await victim.kill()
        await victim.start(MODEL)
        await company.until_ready(MODEL)
        assert whole(victim)
        assert whole(other)
