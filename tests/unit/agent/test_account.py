"""What is said of a content while it comes, and that nothing of it stays behind."""

import asyncio
import threading
from dataclasses import dataclass
from pathlib import Path
from typing import cast

import pytest

from modelswarm.agent import account
from modelswarm.agent.account import Account
from modelswarm.agent.metrics import AgentMetrics
from modelswarm.agent.progress import Ledger, Sources, write_progress
from modelswarm.agent.signals import Signals
from modelswarm.agent.store import Filling, Store
from modelswarm.agent.wanted import Wanted
from modelswarm.api.openmodel import HubName
from modelswarm.content.source import HubSource

WANTED = Wanted("sha256:ab", "sha256:ab", "ab" * 32, "org/m", "c1", HubSource(HubName.HUGGINGFACE, "org/m"), ())


@dataclass
class Filled:
    """As much of a filling as an account looks at."""

    directory: Path
    is_complete: bool = False

    def present_bytes(self) -> int:
        return 0


async def test_no_sign_of_life_stays_in_a_complete_model(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Also if one is just being written when the model is complete, by a thread that the machine has left waiting."""
    writing, go_on = threading.Event(), threading.Event()

    def slow(directory: Path, *, state: str, done: int, total: int, message: str) -> None:
        writing.set()
        assert go_on.wait(30)
        write_progress(directory, state=state, done=done, total=total, message=message)

    monkeypatch.setattr(account, "write_progress", slow)
    told = Account(WANTED, cast(Store, None), AgentMetrics(), Signals(0.8))
    filled = Filled(tmp_path / "model")
    async with told.following(cast(Filling, filled)):
        assert await asyncio.to_thread(writing.wait, 30)
        filled.is_complete = True
        complete = asyncio.create_task(told.complete(cast(Filling, filled)))
        await asyncio.sleep(0)
        go_on.set()
        await complete
    assert told.is_ready
    assert not list(filled.directory.glob(".progress*"))


def test_bytes_are_told_once_also_if_they_are_counted_anew(tmp_path: Path) -> None:
    """A counter that falls and rises again brings nothing new until it is higher than ever."""
    news: list[Sources] = []
    ledger = Ledger(news.append)
    ledger.open(tmp_path / "counts.json")
    for current in (Sources(5, 0), Sources(0, 0), Sources(5, 2), Sources(7, 2)):
        ledger.tell(current)
    assert news == [Sources(5, 0), Sources(0, 0), Sources(0, 2), Sources(2, 0)]
    ledger.close_attempt(Sources(7, 2))
    ledger.tell(Sources(1, 0))
    assert news[-1] == Sources(1, 0)
    assert ledger.total(Sources(1, 0)) == Sources(8, 2)
