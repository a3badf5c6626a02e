"""What the kubelet asks of an agent, also when it asks two things at once."""

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path

import aiohttp
import pytest

from modelswarm.agent import probes
from modelswarm.agent.metrics import AgentMetrics
from modelswarm.agent.probes import Probes


class Asked:
    """The probes' port, asked over HTTP."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self.missing = ""
        self.probes = Probes(root, AgentMetrics(), lambda: self.missing)

    async def start(self) -> None:
        self._url = f"http://127.0.0.1:{await self.probes.start(0, '127.0.0.1')}"
        self._client = aiohttp.ClientSession()

    async def stop(self) -> None:
        await self._client.close()
        await self.probes.stop()

    async def ask(self, route: str) -> tuple[int, str]:
        async with self._client.get(f"{self._url}{route}") as answer:
            return answer.status, (await answer.text()).strip()


@pytest.fixture
async def asked(tmp_path: Path) -> AsyncIterator[Asked]:
    root = tmp_path / "models"
    root.mkdir()
    asked = Asked(root)
    await asked.start()
    yield asked
    await asked.stop()


async def test_ready_is_who_has_all_parts_and_a_directory(asked: Asked) -> None:
    asked.missing = "waiting for the API server"
    assert await asked.ask("/readyz") == (503, "waiting for the API server")
    assert await asked.ask("/healthz") == (200, "ok")
    asked.missing = ""
    assert await asked.ask("/readyz") == (200, "ok")
    asked.root.rmdir()
    for route in ("/healthz", "/readyz"):
        assert await asked.ask(route) == (503, f"{asked.root} is not a directory")
    assert await asked.ask("/livez") == (200, "ok")


@pytest.mark.parametrize("turns", range(8))
async def test_who_asks_just_when_a_look_ends_keeps_no_answer_from_others(
    asked: Asked, monkeypatch: pytest.MonkeyPatch, turns: int
) -> None:
    answers = ["first", "second"]
    ended = asyncio.Event()

    async def look(*_: object) -> str:
        await ended.wait()
        return answers.pop(0)

    monkeypatch.setattr(probes.asyncio, "to_thread", look)
    first = asyncio.create_task(asked.probes._disk_problem())
    await asyncio.sleep(0.001)
    ended.set()
    for _ in range(turns):
        await asyncio.sleep(0)
    second = asyncio.create_task(asked.probes._disk_problem())
    assert await first == "first"
    assert await second in ("first", "second")


async def test_a_file_system_that_hangs_costs_one_thread(asked: Asked, monkeypatch: pytest.MonkeyPatch) -> None:
    looks = []
    answers = asyncio.Event()

    async def hang(*_: object) -> str:
        looks.append(_)
        await answers.wait()
        return ""

    monkeypatch.setattr(probes.asyncio, "to_thread", hang)
    monkeypatch.setattr(probes, "DISK_SECONDS", 0.05)
    for route in ("/healthz", "/readyz", "/healthz"):
        assert await asked.ask(route) == (503, f"{asked.root} does not answer")
    assert await asked.ask("/livez") == (200, "ok")
    assert len(looks) == 1
    answers.set()
    await asyncio.sleep(0.01)
    assert await asked.ask("/healthz") == (200, "ok")
    assert len(looks) == 2
